"""Train by the paper's recipe: 617,490 codes, 3,000 steps of 1,024 codes, N = 12,000 or 21,000 codebook rows."""

from ml_collections import ConfigDict

from configs import default

CODEBOOK_SIZES = ("12000", "21000")


def get_config(variant: str = "12000") -> ConfigDict:
    """Return the paper's values (appendix B); `variant` is the codebook size."""
    variant = variant or CODEBOOK_SIZES[0]
    if variant not in CODEBOOK_SIZES:
        raise ValueError(f"configs/paper.py has no variant {variant!r}; there are {' and '.join(CODEBOOK_SIZES)}")
    config = default.get_config().copy_and_resolve_references()
    config.unlock()
    config.data.name = "medtok_codes/release"  # The authors' 617,490 codes over PrimeKG.
    config.data.max_length = 128  # Wordpieces; composed descriptions of drugs are long.
    config.model.text_encoder_model = "bert-base-uncased"  # The text encoder, which stays frozen.
    config.model.codebook_size = int(variant)  # N, number of codebook rows.
    config.model.embedding_dim = 64  # d, width of the embeddings.
    config.model.num_top_k_tokens = 4  # K, tokens of each embedding.
    config.model.text_token_share = 0.25  # All four embeddings have K tokens.
    config.model.graph_token_share = 0.25  # Likewise.
    config.model.text_specific_ratio = 0.3  # Fraction of codebook rows in the text-specific region.
    config.model.graph_specific_ratio = 0.3  # Fraction of codebook rows in the graph-specific region.
    config.model.shared_ratio = 0.4  # Fraction of codebook rows in the shared region.
    config.model.weight_temperature = 1.0  # The paper uses no temperature.
    config.model.kmeans_init = False  # The paper initializes rows at random.
    config.loss.alpha = 0.25  # Weight of the codebook term in the quantization loss.
    config.loss.beta = 0.1  # Weight of the alignment loss; the paper sets beta = lambda.
    config.loss.lambda_val = 0.1  # Weight of the orthogonality loss.
    config.loss.infonce_temperature = 1.0  # The paper uses no temperature.
    config.loss.kl_temperature = 1.0  # The paper uses no temperature.
    leave_additions_out(config)
    config.train.batch_size = 1024  # Codes in each step, over all devices.
    config.train.epochs = 0  # The length is given in steps.
    config.train.steps = 3000  # Number of steps.
    return config.lock()


def leave_additions_out(config: ConfigDict) -> None:
    """Disable everything that `configs/default.py` adds to the paper's model and objective."""
    config.model.quantizer_kind = "top_k"  # An embedding's tokens are its K nearest rows.
    config.model.shared_embedding = "two"  # Both cross-modal embeddings are quantized.
    config.model.kmeans_refit = False  # The trained rows are used without a further fit.
    config.loss.quantization_weight = 1.0  # The paper adds the quantization loss without a weight.
    config.loss.contrasted = "quantized"  # The paper contrasts quantized embeddings.
    config.loss.positive_relations = ()  # Crosswalks are no positives in the paper.
    config.loss.joint_weight = 0.0  # The paper has no joint contrast.
    config.loss.distillation_weight = 0.0  # The paper has no distillation.
    config.loss.shared_joint_weight = 0.0  # Nor does it contrast the shared part by itself.
    config.loss.shared_distillation_weight = 0.0  # Nor distill into it.
    config.loss.text_joint_weight = 0.0  # Nor the text-specific part.
    config.loss.text_distillation_weight = 0.0  # Likewise.
    config.augment.mask_positives = 0.0  # The paper masks no edges.
    config.augment.modality_dropout = 0.0  # The paper drops no modality.
