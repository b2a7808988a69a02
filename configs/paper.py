"""The paper's recipe: 617,490 codes, 3,000 steps x 1,024, N = 12,000 (`configs/paper.py:21000` for long histories)."""

from ml_collections import ConfigDict

from configs import default

CODEBOOK_SIZES = ("12000", "21000")


def get_config(variant: str = "12000") -> ConfigDict:
    """The paper's values (appendix B); `variant` is the codebook size."""
    variant = variant or CODEBOOK_SIZES[0]
    if variant not in CODEBOOK_SIZES:
        raise ValueError(f"configs/paper.py has no variant {variant!r}; there are {' and '.join(CODEBOOK_SIZES)}")
    config = default.get_config().copy_and_resolve_references()
    config.unlock()
    config.data.name = "medtok_codes/release"  # The authors' 617,490 codes over PrimeKG.
    config.data.max_length = 128  # Drug descriptions are composed and long.
    config.model.text_encoder_model = "bert-base-uncased"  # Frozen.
    config.model.codebook_size = int(variant)  # N.
    config.model.embedding_dim = 64  # d.
    config.model.num_top_k_tokens = 4  # K.
    config.model.weight_temperature = 1.0  # The paper has no temperatures.
    config.model.kmeans_init = False  # The paper starts from random rows.
    config.loss.alpha = 0.25  # Quantization.
    config.loss.beta = 0.1  # The paper sets beta = lambda.
    config.loss.lambda_val = 0.1  # Likewise.
    config.loss.infonce_temperature = 1.0  # The paper has no temperatures.
    config.loss.kl_temperature = 1.0  # Likewise.
    leave_additions_out(config)
    config.train.batch_size = 1024  # Codes a step over all devices.
    config.train.epochs = 0  # Steps count.
    config.train.steps = 3000  # Steps.
    return config.lock()


def leave_additions_out(config: ConfigDict) -> None:
    """Sets the fields of what `configs/default.py` adds to the paper's objective to what leaves it out."""
    config.model.quantizer_kind = "top_k"  # The K nearest rows.
    config.model.kmeans_refit = False  # Rows stay as they were trained.
    config.loss.quantization_weight = 1.0  # As printed.
    config.loss.contrasted = "quantized"  # As printed.
    config.loss.positive_relations = ()  # None.
    config.loss.joint_weight = 0.0  # None.
    config.loss.distillation_weight = 0.0  # None.
    config.augment.mask_positives = 0.0  # Nothing.
    config.augment.modality_dropout = 0.0  # Nothing.
