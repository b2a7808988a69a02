"""Train with the values of the training pipeline document: bert-base-uncased, d = 768, N = 12,000, batches of 32."""

from ml_collections import ConfigDict

from configs import default, paper


def get_config(variant: str = "") -> ConfigDict:
    """Return the default configuration with the pipeline document's values; it has no variant."""
    if variant:
        raise ValueError(f"configs/pipeline.py has no variant, but {variant!r} was asked for")
    config = default.get_config().copy_and_resolve_references()
    config.unlock()
    config.model.text_encoder_model = "bert-base-uncased"  # A hub name; a local directory works too.
    config.model.embedding_dim = 768  # d, width of the embeddings.
    config.model.graph_width = 768  # Node states are as wide as the embeddings.
    config.model.cross_width = 768  # Cross-attention is as wide too.
    config.model.codebook_size = 12000  # N, number of codebook rows; 21000 for larger data sets.
    config.model.text_encoder_type = "weighted_pooling"  # Text pooling.
    config.model.graph_encoder_type = "hierarchical"  # Graph encoder.
    config.model.num_top_k_tokens = 4  # K, tokens of each embedding.
    config.model.text_token_share = 0.25  # All four embeddings have K tokens.
    config.model.graph_token_share = 0.25  # Likewise.
    config.model.text_specific_ratio = 0.3  # Fraction of codebook rows in the text-specific region.
    config.model.graph_specific_ratio = 0.3  # Fraction of codebook rows in the graph-specific region.
    config.model.shared_ratio = 0.4  # Fraction of codebook rows in the shared region.
    config.loss.alpha = 0.25  # Weight of the codebook term in the quantization loss.
    config.loss.beta = 0.2  # Weight of the alignment loss.
    config.loss.lambda_val = 0.1  # Weight of the orthogonality loss.
    paper.leave_additions_out(config)  # The document's objective is the paper's.
    config.train.batch_size = 32  # Codes in each step.
    config.train.lr = 1e-4  # Peak learning rate.
    config.train.epochs = 50  # Passes over the training codes.
    config.train.eval_every = 2000  # Steps between two validations; steps of 32 codes are short.
    config.train.checkpoint_every = 2000  # Steps between two saves.
    config.train.log_every = 100  # Steps between two logs of metrics.
    return config.lock()
