"""A PyTorch directory back as a work directory with a Flax checkpoint, bit for bit, fine-tuned or not. No torch here.

The checkpoint holds the weights as they are now and the metadata of the one they came from. The optimizer begins anew:
its moments never left the first checkpoint.
"""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from configs import default
from medtok_jax.batch import InputSizes
from medtok_jax.config import with_later_fields
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


def restore(source: Path, output: Path) -> None:
    """Writes the work directory and reads it back to compare every array.

    Args:
        source: what `--to=pytorch` or `MedTok.save_pretrained` wrote.
        output: the work directory.

    Raises:
        InputError: `source` is no such directory, damaged, or of a configuration not known here.
    """
    saved, about = read_model(read_config(source / "config.json"), source)
    state = to_state(saved, about, source)
    with whole_folder(output) as folder:
        checkpoints.save(folder, "best", state, about)
        written = flatten(checkpoints.find(folder, prefer="best").restore_variables())
        for name, array in saved.variables.items():
            if not np.array_equal(written[name], array, equal_nan=True):
                raise UserError(f"{name} came back from the checkpoint as something else; nothing was written.")
    print(f"{output}: checkpoint of step {about['step']}, {len(saved.variables)} arrays bit for bit. Its tokens:")
    print(f"  python -m medtok_jax.tokenize vocabulary --workdir={output} --output={output}/tokenizer --with_model")


def read_config(path: Path) -> dict:
    """What `config.json` says.

    Raises:
        InputError: it is no such file, or of another version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        kind, version = content["model_type"], content["format_version"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is no configuration of a PyTorch MedTok ({error!r}).") from error
    if (kind, version) != ("medtok", convert.FORMAT_VERSION):
        raise InputError(
            f"{path} is of {kind!r}, format version {version!r}, not of 'medtok', version {convert.FORMAT_VERSION}."
        )
    return content


def read_model(content: dict, source: Path) -> tuple[SavedModel, dict]:
    """The model, whose variables are still to be filled in, and the metadata of its checkpoint.

    Raises:
        InputError: the configuration is damaged or not known, or the text encoder is another one.
    """
    try:
        about = dict(content["checkpoint"])
        about["config"] = _whole_config(about["config"], content["model"])
        neighborhood = {n: tuple(v) if isinstance(v, list) else v for n, v in content["neighborhood"].items()}
        saved = SavedModel(
            config=ConfigDict({name: about["config"][name] for name in model_reader.SECTIONS}),
            sizes=InputSizes(**content["sizes"]),
            node_types=tuple(content["node_types"]),
            relation_names=tuple(content["relation_names"]),
            reverse=tuple(content["reverse"]),
            neighborhood=Neighborhood(**neighborhood),
            learned_missing_graph=content["learned_missing_graph"],
            encoder=about["encoder"],
            fingerprint=about["fingerprint"],
            variables={},
            graph=None,
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{source / 'config.json'} is damaged ({error!r}); convert the model again.") from error
    convert.check_known(saved)
    encoder_dir = source / convert.ENCODER
    if encoder_identity(encoder_dir) != saved.encoder:
        raise InputError(
            f"{encoder_dir} is not the text encoder that the model came with. To train it, open the model with"
            " train_text_encoder=True: its weights are then saved with the model."
        )
    return saved, {"first_step": 0, "last_step": about["step"], "best_total_loss": None} | about


def _whole_config(config: dict, model: dict) -> dict:
    """The training configuration; what a tokenizer directory does not keep of it is as in configs/default.py."""
    whole = default.get_config().to_dict() | config
    whole["data"] = {"data_dir": "", "cache_dir": ""} | config["data"]
    # The model may have come to train its text encoder too.
    return with_later_fields(whole | {"model": model}).to_dict()


def to_state(saved: SavedModel, about: dict, source: Path) -> TrainState:
    """The state of a run that stands where the checkpoint stood, its optimizer fresh; `saved` gets its variables.

    Raises:
        InputError: the weights are not those that the configuration calls for.
    """
    _, params, fixed = model_reader.structure(saved, saved.sizes, source / convert.ENCODER)
    names = flatten({"params": nnx.to_pure_dict(params), "fixed": nnx.to_pure_dict(fixed)})
    weights = pytorch_weights.read_weights(source / "model.safetensors")
    saved.variables.update(pytorch_weights.to_flax(weights, names))
    params = model_reader.fill(params, saved.variables, "params")
    config = ConfigDict(about["config"])
    schedule = learning_rate(config, first_step=about["first_step"], last_step=about["last_step"])
    return TrainState(
        step=jnp.asarray(about["step"], jnp.int32),
        params=params,
        fixed=model_reader.fill(fixed, saved.variables, "fixed"),
        opt_state=create_optimizer(config, schedule).init(params),
    )
