"""Convert a PyTorch directory back to a work directory with a Flax checkpoint, bit for bit. No torch here.

The checkpoint holds the current weights, fine-tuned or not, and the metadata of the original checkpoint. The optimizer
state starts anew, as the PyTorch directory does not hold it.
"""

import json
import shlex
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from configs import default
from medtok_jax.batch import InputSizes
from medtok_jax.convert.pytorch import convert
from medtok_jax.convert.pytorch import weights as pytorch_weights
from medtok_jax.inference import model_reader
from medtok_jax.inference.model_reader import Neighborhood, SavedModel
from medtok_jax.inference.model_writer import flatten
from medtok_jax.text.encoder_files import encoder_identity
from medtok_jax.training import checkpoints
from medtok_jax.training.state import TrainState, create_optimizer, learning_rate
from preprocessing.common.atomic import whole_folder
from preprocessing.common.errors import InputError, UserError
from preprocessing.common.foreign_files import reading


def restore(source: Path, output: Path) -> None:
    """Write the work directory, and read it back to compare every array.

    Args:
        source: directory that `--to=pytorch` or `MedTok.save_pretrained` wrote.
        output: the work directory to write.

    Raises:
        InputError: `source` is not such a directory, is damaged, or has a configuration that is not supported.
        UserError: an array of the written checkpoint differs.
    """
    saved, metadata = read_model(read_config(source / "config.json"), source)
    state = to_state(saved, metadata, source)
    with whole_folder(output) as folder:
        checkpoints.save(folder, "best", state, metadata)
        written = flatten(checkpoints.find(folder, prefer="best").restore_variables())
        for name, array in saved.variables.items():
            if not np.array_equal(written[name], array, equal_nan=True):
                raise UserError(f"{name} differs in the checkpoint that was written; the work directory was not kept.")
    print(f"Wrote a checkpoint of step {metadata['step']} with {len(saved.variables)} equal arrays to {output}.")
    print("To make its tokens:")
    quoted = shlex.quote(str(output))
    print(f"  python -m medtok_jax.tokenize vocabulary --workdir={quoted} --output={quoted}/tokenizer --with_model")


def read_config(path: Path) -> dict:
    """Read `config.json`.

    Raises:
        InputError: the file is not a configuration of a PyTorch MedTok, or is of another version.
    """
    with reading(path, "the configuration of a PyTorch MedTok", "convert the model again"):
        content = json.loads(path.read_text(encoding="utf-8"))
        kind = content["model_type"]
        version = content["format_version"]
    if (kind, version) != ("medtok", convert.FORMAT_VERSION):
        raise InputError(
            f"{path} has model_type {kind!r} and format version {version!r}; they must be 'medtok' and"
            f" {convert.FORMAT_VERSION}."
        )
    return content


def read_model(content: dict, source: Path) -> tuple[SavedModel, dict]:
    """Return the model, without its variables, and the metadata of its checkpoint.

    Raises:
        InputError: the configuration is damaged or not supported, or the text encoder differs.
    """
    try:
        metadata = dict(content["checkpoint"])
        metadata["config"] = _complete_config(metadata["config"], content["model"])
        neighborhood = {n: tuple(v) if isinstance(v, list) else v for n, v in content["neighborhood"].items()}
        saved = SavedModel(
            config=ConfigDict({name: metadata["config"][name] for name in model_reader.SECTIONS}),
            sizes=InputSizes(**content["sizes"]),
            node_types=tuple(content["node_types"]),
            relation_names=tuple(content["relation_names"]),
            reverse=tuple(content["reverse"]),
            neighborhood=Neighborhood(**neighborhood),
            learned_missing_graph=content["learned_missing_graph"],
            encoder=metadata["encoder"],
            fingerprint=metadata["fingerprint"],
            variables={},
            graph=None,
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{source / 'config.json'} is damaged ({error!r}); convert the model again.") from error
    convert.check_known(saved)
    encoder_dir = source / convert.ENCODER
    if encoder_identity(encoder_dir) != saved.encoder:
        raise InputError(
            f"{encoder_dir} differs from the text encoder of the converted model. To train the text encoder, open the"
            " model with train_text_encoder=True, so that its weights are saved with the model."
        )
    return saved, {"first_step": 0, "last_step": metadata["step"], "best_total_loss": None} | metadata


def _complete_config(config: dict, model: dict) -> dict:
    """Return the training configuration, with fields of configs/default.py that a tokenizer directory does not keep."""
    complete = default.get_config().to_dict() | config
    complete["data"] = {"data_dir": "", "cache_dir": ""} | config["data"]
    # The PyTorch model may train its text encoder although the original model did not.
    return complete | {"model": model}


def to_state(saved: SavedModel, metadata: dict, source: Path) -> TrainState:
    """Return the training state at the step of the checkpoint, with a fresh optimizer; fill the variables of `saved`.

    Raises:
        InputError: the weights do not match the configuration.
    """
    _, params, fixed = model_reader.structure(saved, saved.sizes, source / convert.ENCODER)
    names = flatten({"params": nnx.to_pure_dict(params), "fixed": nnx.to_pure_dict(fixed)})
    weights = pytorch_weights.read_weights(source / "model.safetensors")
    saved.variables.update(pytorch_weights.to_flax(weights, names))
    params = model_reader.fill(params, saved.variables, "params")
    config = ConfigDict(metadata["config"])
    schedule = learning_rate(config, first_step=metadata["first_step"], last_step=metadata["last_step"])
    return TrainState(
        step=jnp.asarray(metadata["step"], jnp.int32),
        params=params,
        fixed=model_reader.fill(fixed, saved.variables, "fixed"),
        opt_state=create_optimizer(config, schedule).init(params),
    )
