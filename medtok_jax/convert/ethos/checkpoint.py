"""Write the initial checkpoint of ETHOS: a GPT-2 without biases whose embeddings of MedTok tokens are the codebook.

The format is that of `ethos/model.py`, `ethos/utils.py` and `ethos/train/run_training.py` of
github.com/ipolharvard/ethos-ares. Training reads it with `resume=true`.
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medtok_jax.convert.ehr_models.projection import project
from medtok_jax.convert.ethos.vocabulary import medtok_token
from preprocessing.common import extras
from preprocessing.common.errors import InputError

FILE = "recent_model.pt"
# Initial standard deviation of all weights of ETHOS; its embeddings also set the scale of the logits.
STD = 0.02
# The vocabulary is rounded up to a multiple of this.
MULTIPLE = 64


@dataclasses.dataclass(frozen=True)
class ModelSize:
    """Hold the sizes of the network; the defaults are those of ETHOS's training script."""

    n_positions: int = 2048
    n_layer: int = 6
    n_head: int = 12
    n_embd: int = 768
    dropout: float = 0.3
    activation: str = "gelu"

    def check(self) -> None:
        """Refuse sizes that make no network.

        Raises:
            InputError: a size is not positive, `n_embd` is not a multiple of `n_head`, or `dropout` is not in [0, 1).
        """
        if min(self.n_positions, self.n_layer, self.n_head, self.n_embd) < 1:
            raise InputError(f"The sizes of the ETHOS model must be positive, not {dataclasses.asdict(self)}.")
        if self.n_embd % self.n_head:
            raise InputError(f"n_embd is {self.n_embd}; it must be a multiple of n_head, {self.n_head}.")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout is {self.dropout}; it must be at least 0 and less than 1.")


def padded(vocabulary_size: int) -> int:
    """Return the number of rows of the embedding of a vocabulary, a multiple of 64."""
    return math.ceil(vocabulary_size / MULTIPLE) * MULTIPLE


def shapes(size: ModelSize, vocabulary_size: int) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every weight; matrices are `[out, in]`, as in PyTorch."""
    width = size.n_embd
    found = {
        "transformer.wte.weight": (padded(vocabulary_size), width),
        "transformer.wpe.weight": (size.n_positions, width),
    }
    for layer in range(size.n_layer):
        block = {
            "ln_1.weight": (width,),
            "attn.c_attn.weight": (3 * width, width),
            "attn.c_proj.weight": (width, width),
            "ln_2.weight": (width,),
            "mlp.c_fc.weight": (4 * width, width),
            "mlp.c_proj.weight": (width, 4 * width),
        }
        found |= {f"transformer.h.{layer}.{name}": shape for name, shape in block.items()}
    return found | {"transformer.ln_f.weight": (width,), "lm_head.weight": (padded(vocabulary_size), width)}


def weight_bytes(size: ModelSize, vocabulary_size: int) -> int:
    """Return the bytes of all weights, of which those that are tied count once."""
    found = shapes(size, vocabulary_size)
    return 4 * sum(math.prod(shape) for name, shape in found.items() if name != "lm_head.weight")


def initial_weights(
    vocabulary: Sequence[str], codebook: np.ndarray, size: ModelSize, *, seed: int = 0
) -> dict[str, np.ndarray]:
    """Draw initial weights as ETHOS does, and set the embeddings of MedTok tokens to the projected codebook.

    Args:
        vocabulary: tokens by id; holds all of `MEDTOK//0` to `MEDTOK//{N-1}`.
        codebook: `[N, d]` float32.
        size: sizes of the network.
        seed: of the random weights and of the projection.

    Returns:
        float32 arrays; `lm_head.weight` is the same array as `transformer.wte.weight`, to which ETHOS ties it.

    Raises:
        InputError: the rows of the codebook are all equal, or the sizes make no network.
    """
    size.check()
    rows = project(codebook, size.n_embd, seed=seed, std=STD).vectors
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in shapes(size, len(vocabulary)).items():
        if ".ln_" in name:
            weights[name] = np.ones(shape, np.float32)
        elif name != "lm_head.weight":
            # Residual projections have a smaller standard deviation, as in GPT-2.
            std = STD / math.sqrt(2 * size.n_layer) if name.endswith("c_proj.weight") else STD
            weights[name] = rng.standard_normal(shape, np.float32) * np.float32(std)
    ids = {token: number for number, token in enumerate(vocabulary)}
    weights["transformer.wte.weight"][[ids[medtok_token(number)] for number in range(len(rows))]] = rows
    weights["lm_head.weight"] = weights["transformer.wte.weight"]
    return weights


class _Config:
    """Pickle as a `transformers.GPT2Config` of the release that reads the file.

    A pickled `GPT2Config` has the attributes of the release of transformers that wrote it, but ETHOS pins an older one.
    So the pickle makes the default configuration of the release that reads it, and sets the fields of `state`.
    """

    def __init__(self, state: dict):
        self.state = state

    def __reduce__(self):
        from transformers import GPT2Config

        return GPT2Config, (), self.state


def config_state(size: ModelSize, vocabulary_size: int) -> dict:
    """Return the fields of its configuration that ETHOS's model reads."""
    return {
        "vocab_size": padded(vocabulary_size),
        "n_positions": size.n_positions,
        "n_embd": size.n_embd,
        "n_layer": size.n_layer,
        "n_head": size.n_head,
        "n_inner": None,
        "activation_function": size.activation,
        "resid_pdrop": size.dropout,
        "embd_pdrop": size.dropout,
        "attn_pdrop": size.dropout,
        "bias": False,
        "is_encoder_decoder": False,
    }


def write(folder: Path, vocabulary: Sequence[str], codebook: np.ndarray, size: ModelSize, *, seed: int = 0) -> Path:
    """Write `recent_model.pt`, from which ETHOS trains with `resume=true`; see `initial_weights` for the arguments.

    Raises:
        InputError: torch is not installed, or see `initial_weights`.
    """
    torch = extras.load("torch")
    weights = initial_weights(vocabulary, codebook, size, seed=seed)
    model = {name: torch.from_numpy(array) for name, array in weights.items() if name != "lm_head.weight"}
    # The weights are tied: both names refer to one tensor, which the file holds once.
    model["lm_head.weight"] = model["transformer.wte.weight"]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    torch.save(
        {
            "iter_num": 0,
            "model": model,
            "optimizer": None,
            "best_val_loss": 1e9,
            "best_metric_score": 0,
            "model_config": _Config(config_state(size, len(vocabulary))),
            "vocab": {token: number for number, token in enumerate(vocabulary)},
            "model_type": "decoder",
            # There is no run in Weights & Biases to resume.
            "wandb_path": None,
        },
        path,
    )
    return path
