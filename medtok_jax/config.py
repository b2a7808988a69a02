"""Check a configuration before any long work, and derive paths and steps from it. Messages name field and value."""

import dataclasses
import difflib
import importlib.util
import itertools
import os
from pathlib import Path

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from medtok_jax.regions import Regions, parts_of, token_counts
from preprocessing.common.errors import InputError, nearest

CHOICES = {
    "model.text_encoder_type": ("weighted_pooling", "default"),
    "model.text_encoder_gelu": ("exact", "tanh"),
    "model.graph_encoder_type": ("hierarchical", "gat", "default"),
    "model.quantizer_kind": ("top_k", "residual", "pursuit"),
    "model.gradient_estimator": ("straight_through", "rotation"),
    "model.shared_search": ("region", "book"),
    "model.shared_embedding": ("two", "one"),
    "loss.contrasted": ("unquantized", "quantized"),
    "data.cache_dtype": ("bfloat16", "float32"),
    "data.modalities": ("both", "text", "graph"),
    "data.states_on_device": ("auto", "yes", "no"),
}

POSITIVE = (
    "data.max_length",
    "model.codebook_size",
    "model.embedding_dim",
    "model.graph_width",
    "model.graph_heads",
    "model.cross_width",
    "model.cross_layers",
    "model.cross_heads",
    "model.num_top_k_tokens",
    "model.text_token_share",
    "model.graph_token_share",
    "model.weight_temperature",
    "model.kmeans_samples",
    "model.kmeans_iterations",
    "loss.infonce_temperature",
    "loss.kl_temperature",
    "loss.distillation_temperature",
    "train.batch_size",
    "train.lr",
    "train.text_encoder_lr",
    "train.clip_norm",
    "train.grad_accum_steps",
    "train.model_parallel",
    "train.log_every",
    "train.eval_every",
    "train.checkpoint_every",
)

NOT_NEGATIVE = (
    "model.graph_layers",
    "data.sample_size",
    "model.kmeans_step",
    "model.num_nearest_tokens",
    "model.joint_fit_rounds",
    "loss.alpha",
    "loss.commitment_weight",
    "loss.beta",
    "loss.lambda_val",
    "loss.quantization_weight",
    "loss.kl_weight",
    "loss.packing_weight",
    "loss.shared_weight",
    "loss.specific_weight",
    "loss.joint_weight",
    "loss.distillation_weight",
    "loss.shared_joint_weight",
    "loss.shared_distillation_weight",
    "loss.text_joint_weight",
    "loss.text_distillation_weight",
    "loss.cross_covariance_weight",
    "loss.link_weight",
    "train.epochs",
    "train.steps",
    "train.warmup_steps",
    "train.weight_decay",
    "train.num_devices",
    "train.eval_codes",
    "train.gradient_norms_every",
)

RATES = (
    "augment.token_dropout",
    "augment.feature_dropout",
    "augment.fact_dropout",
    "augment.node_dropout",
    "augment.modality_dropout",
    "model.ema_decay",
)

SHARES = ("augment.mask_positives", "data.hard_negatives")

# Names of the training pipeline document and of other projects whose field is not found by its spelling, and the flag
# that is meant.
HINTS = {
    "output_dir": "--workdir",
    "num_gpus": "--config.train.num_devices",
    "learning_rate": "--config.train.lr",
    "gradient_accumulation_steps": "--config.train.grad_accum_steps",
}

# Fields that must agree for a checkpoint to be trained on; the rest (training length, logging) may change.
FIXED_SECTIONS = ("data", "model", "loss", "augment")
# Fields of these sections that say where data lie, and may change too.
FREE_FIELDS = ("data.data_dir", "data.cache_dir", "data.states_on_device")
FIXED_FIELDS = ("seed", "train.batch_size", "train.grad_accum_steps")


def field_names(config: ConfigDict, prefix: str = "") -> list[str]:
    """Return the dotted names of all leaves."""
    names = []
    for name, value in config.items():
        names += field_names(value, f"{prefix}{name}.") if isinstance(value, ConfigDict) else [prefix + name]
    return names


def get_field(config: ConfigDict, name: str):
    """Return the value of a dotted field name.

    Raises:
        InputError: the configuration has no such field, as one that another version of the library wrote.
    """
    for part in name.split("."):
        if part not in config:
            raise InputError(
                f"The configuration has no field {name}: another version of medtok_jax wrote it; start from"
                " configs/default.py, and train again if it is that of a run."
            )
        config = config[part]
    return config


def check_overrides(arguments: list[str], config: ConfigDict) -> None:
    """Refuse `--config.x.y=...` arguments that name no field, and fields given as flags (`--lr`).

    Args:
        arguments: raw command-line arguments, without the program's name.
        config: the configuration that they override.

    Raises:
        InputError: naming the first such argument and the flag that is nearest.
    """
    known = field_names(config)
    sections = {name.rsplit(".", depth)[0] for name in known for depth in range(1, name.count(".") + 1)}
    for argument in arguments:
        flag = argument.split("=", 1)[0]
        name = flag.lstrip("-").removeprefix("no")
        if not argument.startswith("-"):
            continue
        if not name.startswith("config."):
            meant = HINTS.get(flag.lstrip("-")) or _field_of_leaf(flag.lstrip("-"), known)
            if meant and flag.lstrip("-") not in flags.FLAGS:
                raise InputError(f"{flag} is not a flag; use {meant}.")
            continue
        name = name.removeprefix("config.")
        if name in sections:
            raise InputError(f"--config.{name} is a section, not a field; give one of its fields a value.")
        if name not in known:
            nearest = _nearest(name, known)
            raise InputError(f"--config.{name} is not a field of the configuration; the nearest is {nearest}.")


def _field_of_leaf(leaf: str, known: list[str]) -> str | None:
    """Return the flag of the field that ends in this very name, or None."""
    return next((f"--config.{name}" for name in known if name.rsplit(".", 1)[-1] == leaf), None)


def _nearest(name: str, known: list[str]) -> str:
    """Return the flag that a wrong field name most likely means: by hint, by last part, by spelling."""
    leaf = name.rsplit(".", 1)[-1]
    if leaf in HINTS:
        return HINTS[leaf]
    field_of_leaf = {field.rsplit(".", 1)[-1]: field for field in known}
    if near_leaf := difflib.get_close_matches(leaf, field_of_leaf, 1, 0.75):
        return f"--config.{field_of_leaf[near_leaf[0]]}"
    return f"--config.{nearest(name, known)}"


def validate(config: ConfigDict, num_devices: int) -> None:
    """Refuse impossible values and combinations.

    Args:
        config: the whole configuration.
        num_devices: devices that will be used.

    Raises:
        InputError: one sentence naming the field, its value and what is allowed.
    """
    for name, allowed in CHOICES.items():
        if get_field(config, name) not in allowed:
            raise InputError(f"{name} is {get_field(config, name)!r}; it must be one of {', '.join(allowed)}.")
    for name in POSITIVE:
        if not get_field(config, name) > 0:
            raise InputError(f"{name} is {get_field(config, name)}; it must be more than 0.")
    for name in NOT_NEGATIVE:
        if not get_field(config, name) >= 0:
            raise InputError(f"{name} is {get_field(config, name)}; it must be 0 or more.")
    for name in RATES:
        if not 0.0 <= get_field(config, name) < 1.0:
            raise InputError(f"{name} is {get_field(config, name)}; it must be at least 0 and less than 1.")
    for name in SHARES:
        if not 0.0 <= get_field(config, name) <= 1.0:
            raise InputError(f"{name} is {get_field(config, name)}; it must be between 0 and 1.")
    if config.augment.modality_dropout > 0.5:
        raise InputError(
            f"augment.modality_dropout is {config.augment.modality_dropout}; it must be at most 0.5, as this share of"
            " codes loses the graph, and another equal share the text."
        )
    _validate_codebook(config.model)
    _validate_modalities(config)
    _validate_widths(config.model)
    _validate_training(config, num_devices)


def _validate_codebook(model: ConfigDict) -> None:
    ratios = {name: model[f"{name}_ratio"] for name in ("text_specific", "graph_specific", "shared")}
    if not (min(ratios.values()) > 0 and abs(sum(ratios.values()) - 1.0) <= 1e-6):
        shown = ", ".join(f"model.{name}_ratio={value}" for name, value in ratios.items())
        raise InputError(f"{shown} add up to {sum(ratios.values()):g}; they must be positive and add up to 1.")
    regions = Regions.from_ratios(model.codebook_size, model.text_specific_ratio, model.graph_specific_ratio)
    _validate_shares(model)
    most = {part.region: part.num_tokens for part in parts_of(model)}
    for (name, ratio), rows in zip(ratios.items(), dataclasses.astuple(regions), strict=True):
        if most[name.removesuffix("_specific")] > rows:
            raise InputError(
                f"model.num_top_k_tokens is {model.num_top_k_tokens}, so that an embedding of the {name} region has"
                f" {most[name.removesuffix('_specific')]} tokens, but the region has only {rows} rows"
                f" (model.codebook_size={model.codebook_size} x {ratio:g}); use fewer tokens or a larger region."
            )
    if model.quantizer_kind == "pursuit" and model.shared_search == "book":
        raise InputError(
            "model.shared_search='book' does not work with model.quantizer_kind='pursuit', whose nearest and refining"
            " tokens need a part of one region each; set model.shared_search=region, or another kind."
        )
    if model.num_nearest_tokens > model.num_top_k_tokens:
        raise InputError(
            f"model.num_nearest_tokens is {model.num_nearest_tokens}; it must be at most"
            f" model.num_top_k_tokens={model.num_top_k_tokens}."
        )
    if model.simvq and model.ema_decay:
        raise InputError(
            f"model.simvq=True trains a map of frozen rows, but model.ema_decay={model.ema_decay} moves the rows; use"
            " only one of the two."
        )


def _validate_shares(model: ConfigDict) -> None:
    counts = token_counts(model)
    shares = ", ".join(f"model.{name}_token_share={model[f'{name}_token_share']}" for name in ("text", "graph"))
    embeddings = 2 if model.shared_embedding == "two" else 1
    if counts["shared"] < embeddings:
        raise InputError(
            f"{shares} leave {max(0, counts['shared'])} of {4 * model.num_top_k_tokens} tokens to the shared region,"
            f" which needs {embeddings}; make them smaller."
        )
    if counts["shared"] % embeddings:
        raise InputError(
            f"{shares} leave {counts['shared']} tokens to the two embeddings of model.shared_embedding='two', which"
            " have equally many; set both to 0.25, which gives K to each."
        )


def _validate_modalities(config: ConfigDict) -> None:
    if config.data.modalities == "graph" and config.data.hard_negatives:
        raise InputError(
            f"data.modalities='graph' leaves no text that data.hard_negatives={config.data.hard_negatives} could be"
            " near to; change one of the two."
        )
    if config.data.modalities == "graph" and config.model.text_encoder_trainable:
        raise InputError(
            "data.modalities='graph' leaves no text to train the encoder of model.text_encoder_trainable=True on;"
            " change one of the two."
        )
    if config.model.shared_embedding == "one" and config.loss.contrasted == "quantized":
        raise InputError(
            "model.shared_embedding='one' quantizes the two cross-modal embeddings as one, so that"
            " loss.contrasted='quantized' has nothing to contrast between them; change one of the two."
        )
    for name in ("shared_joint_weight", "shared_distillation_weight"):
        if config.loss[name] and config.model.shared_embedding != "one":
            raise InputError(
                f"loss.{name}={config.loss[name]} is of the one shared embedding, but"
                f" model.shared_embedding={config.model.shared_embedding!r}; change one of the two."
            )


def _validate_widths(model: ConfigDict) -> None:
    for width, heads in (("graph_width", "graph_heads"), ("cross_width", "cross_heads")):
        if model[width] % model[heads]:
            raise InputError(f"model.{width}={model[width]} is not divisible by model.{heads}={model[heads]}.")


def _validate_training(config: ConfigDict, num_devices: int) -> None:
    train, buckets = config.train, tuple(config.data.length_buckets)
    _validate_model_parallel(config, num_devices)
    stacks = num_devices // train.model_parallel
    if train.batch_size % stacks:
        over = f" in groups of train.model_parallel={train.model_parallel}" if train.model_parallel > 1 else ""
        raise InputError(
            f"train.batch_size={train.batch_size} is not divisible by the {num_devices} devices in use{over};"
            f" use a multiple of {stacks}, or set train.num_devices to fewer devices."
        )
    if pairs_codes(config) and train.batch_size % 2:
        raise InputError(
            f"train.batch_size={train.batch_size} must be even, as loss.positive_relations="
            f"{tuple(config.loss.positive_relations)} and data.hard_negatives={config.data.hard_negatives} make half of"
            " a batch positives and hard negatives of the other half."
        )
    if not train.steps and not train.epochs:
        raise InputError("train.steps and train.epochs are both 0; one of them must be more than 0.")
    if not buckets or list(buckets) != sorted(set(buckets)) or buckets[0] < 2:
        raise InputError(f"data.length_buckets={buckets} must be ascending lengths of 2 or more.")
    if config.data.max_length > buckets[-1]:
        raise InputError(
            f"data.max_length={config.data.max_length} is larger than the largest of data.length_buckets={buckets};"
            " lower it, or add a bucket."
        )


def _validate_model_parallel(config: ConfigDict, num_devices: int) -> None:
    parts = config.train.model_parallel
    if num_devices % parts:
        raise InputError(f"train.model_parallel={parts} does not divide the {num_devices} devices in use.")
    if config.model.codebook_size % parts:
        raise InputError(
            f"model.codebook_size={config.model.codebook_size} cannot be divided into train.model_parallel={parts}"
            f" equal parts; use a multiple of {parts}."
        )


def differences(saved: dict, config: ConfigDict) -> list[str]:
    """Return the fields in which a checkpoint's configuration and this one disagree so that training cannot go on.

    Args:
        saved: the configuration saved with a checkpoint, as nested dictionaries.
        config: the configuration of this run.

    Returns:
        `field: saved -> now` for each.
    """
    now = config.to_dict()
    fixed = [name for name in field_names(config) if name.split(".")[0] in FIXED_SECTIONS and name not in FREE_FIELDS]
    found = []
    for name in (*FIXED_FIELDS, *fixed):
        before, after = _look_up(saved, name), _look_up(now, name)
        if before != after:
            found.append(f"{name}: {before} -> {after}")
    return found


def _look_up(tree: dict, name: str):
    for part in name.split("."):
        tree = tree.get(part) if isinstance(tree, dict) else None
    return list(tree) if isinstance(tree, tuple) else tree


def data_dir(config: ConfigDict) -> Path:
    """Return where data sets lie: `data.data_dir`, $TFDS_DATA_DIR, or TFDS's default."""
    given = config.data.data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return Path(given).expanduser()


def cache_dir(config: ConfigDict) -> Path:
    """Return where text states and packed examples lie."""
    return Path(config.data.cache_dir).expanduser() if config.data.cache_dir else data_dir(config) / "medtok_cache"


def pairs_codes(config: ConfigDict) -> bool:
    """Return whether every other code of a training batch is drawn for the anchors."""
    return bool(len(config.loss.positive_relations) or config.data.hard_negatives)


def total_steps(config: ConfigDict, num_train_codes: int) -> int:
    """Return the steps of a run: `train.steps`, or `train.epochs` passes over the training codes as anchors.

    With positives or hard negatives every other code of a batch is no anchor. The last step is full.
    """
    if config.train.steps:
        return config.train.steps
    anchors = config.train.batch_size // (2 if pairs_codes(config) else 1)
    return int(np.ceil(config.train.epochs * num_train_codes / anchors))


DEFAULT = "configs/default.py"
HELP = ("--help", "-h", "--helpfull", "--helpshort")


def check_arguments(argv: list[str]) -> None:
    """Refuse a `--config` file that is not there and overrides that name no field of it, see `check_overrides`.

    Without `--config` the default is put in front of the arguments: a default of the flag itself would be read, and its
    overrides applied, before they could be checked.

    Raises:
        InputError: naming the nearest field.
    """
    if any(argument in HELP for argument in argv):
        return
    given = [argument.split("=", 1)[1] for argument in argv[1:] if argument.startswith(("--config=", "-config="))]
    given += [value for name, value in itertools.pairwise(argv) if name in ("--config", "-config")]
    if not given:
        argv.insert(1, f"--config={DEFAULT}")
    check_overrides(argv[1:], load(given[-1] if given else DEFAULT))


def load(path: str) -> ConfigDict:
    """Return the configuration of `FILE` or `FILE:VARIANT`.

    Raises:
        InputError: where there is no such file or variant.
    """
    file, _, variant = path.partition(":")
    if not Path(file).is_file():
        raise InputError(f"There is no configuration file {Path(file).absolute()}; give another one by --config=FILE.")
    spec = importlib.util.spec_from_file_location("medtok_config", file)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        return module.get_config(variant) if variant else module.get_config()
    except (ValueError, AttributeError) as error:
        raise InputError(f"The configuration {path} cannot be used: {error}.") from error
