"""Train with one change at a time: `configs/ablation.py:CELL` is the default on a fixed sample, with that change.

    python -m medtok_jax.main --config=configs/ablation.py:graph_off --workdir=runs/graph_off

`python -m eval.ablations` trains and evaluates all cells. A cell takes up to 4 minutes on 2 CPU cores, so what is
compared are short runs: a difference is a reason to try the change at full length, and no more.
"""

from ml_collections import ConfigDict

from configs import default, paper, published

HELD_OUT = "medtok_codes/icd-holdout_gem_30_eval-holdout_note_30_eval"

# Chapters of diseases in both ICD revisions, so that a sample of 20,000 codes contains two thousand held-out pairs with
# the same meaning; drawn at random over all codes it would contain forty.
SAMPLE = (
    *(f"ICD10CM/{letter}" for letter in "ABCDEFGIJKLNQR"),
    *(f"ICD9CM/{digit}" for digit in "0123457"),
)

# Fields that all cells share although the recipes differ in them.
COMMON = ("model.codebook_size", "model.text_encoder_model")


# As in the paper: its regions, and K tokens of each of the four embeddings.
_K_EACH = {
    "model.text_token_share": 0.25,
    "model.graph_token_share": 0.25,
    "model.text_specific_ratio": 0.3,
    "model.graph_specific_ratio": 0.3,
    "model.shared_ratio": 0.4,
}
_NO_MEANING = {"loss.shared_joint_weight": 0.0, "loss.shared_distillation_weight": 0.0}
_TWO = {"model.shared_embedding": "two", **_K_EACH, **_NO_MEANING}


def _text_rows(share: float) -> dict:
    """Return the fields that give the text this share of the rows, and the shared region what it had less or more."""
    return {"model.text_specific_ratio": share, "model.shared_ratio": round(0.8 - share, 2)}


def _recipe(config: ConfigDict) -> dict:
    """Return the fields of model, loss and augmentation that differ from the default, except those in `COMMON`."""
    plain = default.get_config()
    return {
        f"{section}.{name}": value
        for section in ("model", "loss", "augment")
        for name, value in config[section].items()
        if value != plain[section][name] and f"{section}.{name}" not in COMMON
    }


# Changes of each cell against `default`, by group, in the order of the table.
CELLS: dict[str, dict[str, dict]] = {
    "reference": {"default": {}},
    "recipes": {
        "paper": _recipe(paper.get_config()),
        "published": _recipe(published.get_config()),
    },
    "modalities": {
        "text_off": {"data.modalities": "graph"},
        "graph_off": {"data.modalities": "text"},
    },
    "losses": {
        "no_quantization": {"loss.quantization_weight": 0.0},
        "no_codebook_term": {"loss.alpha": 0.0},
        "no_commitment": {"loss.commitment_weight": 0.0},
        "no_kl": {"loss.kl_weight": 0.0},
        "no_packing": {"loss.packing_weight": 0.0},
        "no_shared_contrast": {"loss.shared_weight": 0.0},
        "less_shared_contrast": {"loss.shared_weight": 0.2},
        "no_alignment": {"loss.beta": 0.0},
        "no_specific_contrast": {"loss.specific_weight": 0.0},
        "no_orthogonality": {"loss.lambda_val": 0.0},
        "cross_covariance": {"loss.lambda_val": 0.0, "loss.cross_covariance_weight": 1.0},
        "link_prediction": {"loss.link_weight": 1.0},
        "quantized_contrast": {"loss.contrasted": "quantized", **_TWO},
        "no_joint_contrast": {
            "loss.joint_weight": 0.0,
            "loss.shared_joint_weight": 0.0,
            "loss.text_joint_weight": 0.0,
        },
        "no_distillation": {
            "loss.distillation_weight": 0.0,
            "loss.shared_distillation_weight": 0.0,
            "loss.text_distillation_weight": 0.0,
        },
        "more_distillation": {"loss.distillation_weight": 3.0},
        "shared_without_meaning": _NO_MEANING,
        "text_without_meaning": {"loss.text_joint_weight": 0.0, "loss.text_distillation_weight": 0.0},
        "no_positives": {"loss.positive_relations": ()},
    },
    "negatives": {
        "hard_negatives": {"data.hard_negatives": 0.3},
    },
    "masking": {
        "positives_shown": {"augment.mask_positives": 0.0},
        "modalities_shown": {"augment.modality_dropout": 0.0},
    },
    "codebook size": {
        "codebook_6000": {"model.codebook_size": 6000},
        "codebook_12000": {"model.codebook_size": 12000},
        "codebook_24000": {"model.codebook_size": 24000},
    },
    "tokens an embedding": {
        "k_1": {"model.num_top_k_tokens": 1},
        "k_4": {"model.num_top_k_tokens": 4},
        "k_8": {"model.num_top_k_tokens": 8},
    },
    "tokens of each kind": {
        "tokens_2_2_4": _K_EACH,
        "tokens_3_1_4": {"model.text_token_share": 0.375, **_text_rows(0.4)},
        "tokens_4_1_3": {"model.text_token_share": 0.5, **_text_rows(0.45)},
        "tokens_6_1_1": {"model.text_token_share": 0.75, **_text_rows(0.55)},
    },
    "shared embedding": {
        "two_shared": _TWO,
        "two_shared_k_8": {**_TWO, "model.num_top_k_tokens": 8},
    },
    "augmented subgraphs": {
        "facts_kept": {"augment.fact_dropout": 0.0},
        "more_facts_dropped": {"augment.fact_dropout": 0.3},
        "nodes_dropped": {"augment.node_dropout": 0.2},
    },
    "width": {
        "d_16": {"model.embedding_dim": 16},
        "d_32": {"model.embedding_dim": 32},
        "d_64": {"model.embedding_dim": 64},
        "d_128": {"model.embedding_dim": 128},
    },
    "codebook health": {
        "random_init": {"model.kmeans_init": False, "model.kmeans_refit": False},
        "no_refit": {"model.kmeans_refit": False},
        "no_joint_fit": {"model.joint_fit_rounds": 0},
        "kmeans_at_start": {"model.kmeans_step": 0},
        "rotation_trick": {"model.gradient_estimator": "rotation"},
        "simvq": {"model.simvq": True},
        "ema": {"model.ema_decay": 0.99},
        "not_normalized": {"model.normalize": False},
        "weight_temperature_1": {"model.weight_temperature": 1.0},
        "top_k": {"model.quantizer_kind": "top_k"},
        "residual": {"model.quantizer_kind": "residual"},
        "tokens_may_coincide": {"model.distinct_tokens": False},
        "all_nearest": {"model.num_nearest_tokens": 2},
        "top_k_of_the_book": {"model.quantizer_kind": "top_k", "model.shared_search": "book"},
    },
    "encoders": {
        "gat": {"model.graph_encoder_type": "gat"},
        "gcn": {"model.graph_encoder_type": "default"},
        "no_messages": {"model.graph_encoder_type": "default", "model.graph_layers": 0},
        "cls_pooling": {"model.text_encoder_type": "default"},
        "cross_layers_2": {"model.cross_layers": 2},
        "names_off": {"model.node_name_features": False},
        "names_off_ids_on": {"model.node_name_features": False, "model.node_id_features": True},
    },
}


def cells() -> dict[str, dict]:
    """Return every cell with its changes, in order."""
    return {name: changes for group in CELLS.values() for name, changes in group.items()}


def get_config(variant: str = "default") -> ConfigDict:
    """Return the configuration of one cell."""
    variant = variant or "default"
    known = cells()
    if variant not in known:
        raise ValueError(f"configs/ablation.py has no variant {variant!r}; there are {', '.join(known)}")
    config = default.get_config().copy_and_resolve_references()
    config.unlock()
    config.data.name = HELD_OUT  # Crosswalks of 30 % of ICD-9-CM and 30 % of notes are held out.
    config.data.sample_size = 20000  # Number of codes; every cell has the same.
    config.data.include = SAMPLE  # Prefixes of the sampled codes.
    config.data.length_buckets = (64,)  # One length, because compiling more shapes costs more than it saves.
    config.model.codebook_size = 3000  # One row for 7 codes; the default has one row for 14 codes.
    config.train.batch_size = 256  # Codes in each step; smaller batches give more steps in the same time.
    config.train.epochs = 0  # The length is given in steps.
    config.train.steps = 120  # Number of steps: two passes over the sample.
    config.train.warmup_steps = 12  # A tenth of the steps.
    config.train.eval_every = 120  # Validate only at the end.
    config.train.checkpoint_every = 120  # Save only at the end.
    config.train.gradient_norms_every = 0  # Gradient norms take long to compile.
    for name, value in known[variant].items():
        section, field = name.split(".")
        config[section][field] = value
    return config.lock()
