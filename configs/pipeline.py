"""The values of the published training pipeline: bert-base-uncased, d = 768, N = 12,000, batches of 32."""

from ml_collections import ConfigDict

from configs import default


def get_config(variant: str = "") -> ConfigDict:
    """The default configuration with the pipeline's values; it has no variant."""
    if variant:
        raise ValueError(f"configs/pipeline.py has no variant, but {variant!r} was asked for")
    config = default.get_config().copy_and_resolve_references()
    config.unlock()
    config.model.text_encoder_model = "bert-base-uncased"  # A hub name; a local directory works too.
    config.model.embedding_dim = 768  # d.
    config.model.graph_width = 768  # Node states as wide as the embeddings.
    config.model.cross_width = 768  # Likewise.
    config.model.codebook_size = 12000  # N; 21000 for larger data sets.
    config.model.text_encoder_type = "weighted_pooling"  # Pooling of the text.
    config.model.graph_encoder_type = "hierarchical"  # Graph encoder.
    config.model.num_top_k_tokens = 4  # K.
    config.model.text_specific_ratio = 0.3  # Share of text-specific tokens.
    config.model.graph_specific_ratio = 0.3  # Share of graph-specific tokens.
    config.model.shared_ratio = 0.4  # Share of tokens of both.
    config.loss.alpha = 0.25  # Quantization.
    config.loss.beta = 0.2  # Alignment.
    config.loss.lambda_val = 0.1  # Orthogonality.
    config.train.batch_size = 32  # Codes a step.
    config.train.lr = 1e-4  # Peak learning rate.
    config.train.epochs = 50  # Passes.
    config.train.eval_every = 2000  # Steps are small here.
    config.train.checkpoint_every = 2000  # Likewise.
    config.train.log_every = 100  # Likewise.
    return config.lock()
