"""Define BERT (Devlin et al., 2019) in Flax NNX, and read any Hugging Face `BertModel` checkpoint.

transformers 5 ships no Flax models, hence this one. It has no dropout: MedTok keeps its text encoder frozen or
fine-tunes it without.
"""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx
from safetensors import SafetensorError, safe_open

from preprocessing.common.errors import InputError
from preprocessing.common.foreign_files import reading

ACTIVATIONS = {
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_new": lambda x: jax.nn.gelu(x, approximate=True),
    "gelu_pytorch_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """Hold the fields of a Hugging Face BERT `config.json` that decide what the network computes."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    hidden_act: str = "gelu"

    @classmethod
    def from_directory(cls, path: str | Path, *, gelu: str = "exact") -> "BertConfig":
        """Read `config.json`; raise InputError where it is missing or describes something `Bert` cannot compute.

        Args:
            path: directory of the checkpoint.
            gelu: see `with_gelu`.
        """
        file = Path(path) / "config.json"
        with reading(file, "the configuration of a BERT"):
            raw = json.loads(file.read_text(encoding="utf-8"))
            _refuse_foreign(raw, file)
            fields = {field.name: raw[field.name] for field in dataclasses.fields(cls) if field.name in raw}
            required = [field.name for field in dataclasses.fields(cls) if field.default is dataclasses.MISSING]
            missing = [name for name in required if name not in fields]
            if missing:
                raise InputError(f"{file} lacks {', '.join(missing)}, which a BERT configuration must give.")
            config = cls(**fields)
            if config.hidden_size % config.num_attention_heads:
                raise InputError(
                    f"{file}: hidden_size {config.hidden_size} is not divisible by "
                    f"num_attention_heads {config.num_attention_heads}."
                )
        return config.with_gelu(gelu)

    def with_gelu(self, gelu: str) -> "BertConfig":
        """Return the same BERT with its exact GELU, or (`tanh`) an approximation that GPUs compute within the matmul.

        An activation that is no exact GELU stays as it is.
        """
        approximate = gelu == "tanh" and self.hidden_act == "gelu"
        return dataclasses.replace(self, hidden_act="gelu_pytorch_tanh") if approximate else self


def _refuse_foreign(raw: object, file: Path) -> None:
    """Raise InputError if the parsed `config.json` is of another architecture than the one `Bert` computes."""
    kind = raw.get("model_type") if isinstance(raw, dict) else None
    if kind != "bert":
        raise InputError(f"{file} has model_type {kind!r}; only 'bert' checkpoints can be the text encoder.")
    position = raw.get("position_embedding_type", "absolute")
    if position != "absolute":
        raise InputError(f"{file} has position_embedding_type {position!r}; only 'absolute' is supported.")
    if raw.get("is_decoder", False):
        raise InputError(f"{file} has is_decoder true; the text encoder must read in both directions.")
    activation = raw.get("hidden_act", "gelu")
    if activation not in ACTIVATIONS:
        raise InputError(f"{file} has hidden_act {activation!r}; supported are {', '.join(ACTIVATIONS)}.")


def masked_softmax(logits: jax.Array, mask: jax.Array, *, axis: int = -1) -> jax.Array:
    """Return the softmax in float32 over the True entries of `mask` (broadcast to `logits`); zeros where none is."""
    logits = jnp.where(mask, logits.astype(jnp.float32), -1e30)
    return jnp.where(mask, jax.nn.softmax(logits, axis=axis), 0.0)


def attend(query: jax.Array, key: jax.Array, value: jax.Array, *, key_mask: jax.Array) -> jax.Array:
    """Compute scaled dot-product attention of several heads (Vaswani et al., 2017, eq. 1).

    Args:
        query: [batch, queries, heads, head_width].
        key: [batch, keys, heads, head_width].
        value: [batch, keys, heads, head_width].
        key_mask: [batch, keys] bool; a query whose keys are all False gets zeros.

    Returns:
        [batch, queries, heads * head_width], in the dtype of `value`.
    """
    logits = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
    weights = masked_softmax(logits * query.shape[-1] ** -0.5, key_mask[:, None, None, :])
    mixed = jnp.einsum("bhqk,bkhd->bqhd", weights.astype(value.dtype), value)
    return mixed.reshape(*mixed.shape[:2], -1)


class BertLayer(nnx.Module):
    """Compute one transformer block with the norms after the residual sums, query, key and value in one matmul."""

    def __init__(self, config: BertConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        width, inner = config.hidden_size, config.intermediate_size
        self.num_heads = config.num_attention_heads
        self.activation = ACTIVATIONS[config.hidden_act]
        self.qkv = nnx.Linear(width, 3 * width, dtype=dtype, rngs=rngs)
        self.attention_out = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
        self.attention_norm = _layer_norm(config, dtype=dtype, rngs=rngs)
        self.mlp_in = nnx.Linear(width, inner, dtype=dtype, rngs=rngs)
        self.mlp_out = nnx.Linear(inner, width, dtype=dtype, rngs=rngs)
        self.mlp_norm = _layer_norm(config, dtype=dtype, rngs=rngs)

    def __call__(self, states: jax.Array, mask: jax.Array) -> jax.Array:
        """Apply the block: [batch, length, hidden] and [batch, length] bool -> [batch, length, hidden]."""
        batch, length, _ = states.shape
        qkv = self.qkv(states).reshape(batch, length, 3, self.num_heads, -1)
        mixed = attend(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2], key_mask=mask)
        states = self.attention_norm(states + self.attention_out(mixed))
        return self.mlp_norm(states + self.mlp_out(self.activation(self.mlp_in(states))))


def _layer_norm(config: BertConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> nnx.LayerNorm:
    # Two-pass variance: E[x^2] - E[x]^2 cancels where a checkpoint has outlier features.
    return nnx.LayerNorm(
        config.hidden_size, epsilon=config.layer_norm_eps, dtype=dtype, use_fast_variance=False, rngs=rngs
    )


class Bert(nnx.Module):
    """Encode texts, without pooler and heads. Parameters are float32; activations are in `dtype`."""

    def __init__(self, config: BertConfig, *, dtype: jnp.dtype = jnp.float32, rngs: nnx.Rngs):
        width = config.hidden_size
        self.config = config
        self.words = nnx.Embed(config.vocab_size, width, rngs=rngs)
        self.positions = nnx.Embed(config.max_position_embeddings, width, rngs=rngs)
        self.token_types = nnx.Embed(config.type_vocab_size, width, rngs=rngs)
        self.norm = _layer_norm(config, dtype=dtype, rngs=rngs)
        self.layers = nnx.List([BertLayer(config, dtype=dtype, rngs=rngs) for _ in range(config.num_hidden_layers)])

    def __call__(self, input_ids: jax.Array, mask: jax.Array) -> jax.Array:
        """Return the last hidden states of texts of one segment (token type 0).

        Args:
            input_ids: [batch, length] int32.
            mask: [batch, length] bool, False at padding, whose states are finite and meaningless.

        Returns:
            [batch, length, hidden] in `dtype`.

        Raises:
            ValueError: the texts are longer than the position table.
        """
        length, limit = input_ids.shape[1], self.config.max_position_embeddings
        if length > limit:
            raise ValueError(f"texts of {length} tokens do not fit the {limit} positions of this BERT")
        fixed = self.positions.embedding[:length] + self.token_types.embedding[0]
        states = self.norm(self.words(input_ids) + fixed)
        for layer in self.layers:
            states = layer(states, mask)
        return states


def load_bert(directory: str | Path, *, dtype: jnp.dtype = jnp.float32, gelu: str = "exact") -> Bert:
    """Build the encoder of a Hugging Face checkpoint directory (`config.json` + safetensors, in one file or sharded).

    Names may carry the `bert.` prefix of a model with a head, and norms the old names `gamma` and `beta`. Pooler and
    heads are not read. Raises InputError for a file that cannot be read and a tensor that is missing or misshaped.
    """
    config = BertConfig.from_directory(directory, gelu=gelu)
    model = nnx.eval_shape(lambda: Bert(config, dtype=dtype, rngs=nnx.Rngs(0)))
    weights = _Weights(Path(directory))
    for table, name in [
        (model.words, "word_embeddings"),
        (model.positions, "position_embeddings"),
        (model.token_types, "token_type_embeddings"),
    ]:
        _put(table.embedding, weights, [f"embeddings.{name}.weight"])
    _put_norm(model.norm, weights, "embeddings.LayerNorm")
    for index, layer in enumerate(model.layers):
        prefix = f"encoder.layer.{index}"
        _put_linear(layer.qkv, weights, [f"{prefix}.attention.self.{part}" for part in ("query", "key", "value")])
        _put_linear(layer.attention_out, weights, [f"{prefix}.attention.output.dense"])
        _put_norm(layer.attention_norm, weights, f"{prefix}.attention.output.LayerNorm")
        _put_linear(layer.mlp_in, weights, [f"{prefix}.intermediate.dense"])
        _put_linear(layer.mlp_out, weights, [f"{prefix}.output.dense"])
        _put_norm(layer.mlp_norm, weights, f"{prefix}.output.LayerNorm")
    return model


def _put_linear(linear: nnx.Linear, weights: "_Weights", names: list[str]) -> None:
    _put(linear.kernel, weights, [f"{name}.weight" for name in names], transpose=True)
    _put(linear.bias, weights, [f"{name}.bias" for name in names])


def _put_norm(norm: nnx.LayerNorm, weights: "_Weights", name: str) -> None:
    _put(norm.scale, weights, [f"{name}.weight"])
    _put(norm.bias, weights, [f"{name}.bias"])


def _put(param: nnx.Param, weights: "_Weights", names: list[str], *, transpose: bool = False) -> None:
    """Set `param` to the named tensors side by side; PyTorch keeps linear kernels as [out, in]."""
    shape = (*param.shape[:-1], param.shape[-1] // len(names))
    parts = [weights.read(name, shape[::-1] if transpose else shape) for name in names]
    parts = [part.T if transpose else part for part in parts]
    param.set_value(jnp.concatenate([jnp.asarray(part, jnp.float32) for part in parts], axis=-1))


class _Weights:
    """Read the tensors of a checkpoint directory by their names in `BertModel`, one at a time."""

    def __init__(self, directory: Path):
        self._files = _tensor_files(directory)
        self._directory = directory
        plain = "embeddings.word_embeddings.weight" in self._files
        self._prefix = "" if plain else "bert."

    def read(self, name: str, shape: tuple[int, ...]):
        """Return the tensor as a NumPy array; InputError if it is missing or not of `shape`."""
        old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        stored = next((key for key in (self._prefix + name, self._prefix + old) if key in self._files), None)
        if stored is None:
            raise InputError(f"The weights in {self._directory} lack the tensor {name!r}, which config.json calls for.")
        # The head may still name a type or a shape that the bytes do not have.
        with reading(self._files[stored], "safetensors"), _open(self._files[stored]) as file:
            tensor = file.get_tensor(stored)
        if tensor.shape != shape:
            raise InputError(
                f"The tensor {stored!r} in {self._files[stored]} has shape {list(tensor.shape)}, "
                f"but config.json calls for {list(shape)}."
            )
        return tensor


def _tensor_files(directory: Path) -> dict[str, Path]:
    """Return the file that holds each tensor, from `model.safetensors` or the index of a sharded checkpoint."""
    single, index = directory / "model.safetensors", directory / "model.safetensors.index.json"
    if single.is_file() or not index.is_file():
        with _open(single) as file:
            return dict.fromkeys(file.keys(), single)
    with reading(index, "the index of a sharded checkpoint"):
        shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return {name: directory / shard for name, shard in shards.items()}


def _open(path: Path):
    try:
        return safe_open(path, framework="numpy")
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read as safetensors weights: {error}.") from error
