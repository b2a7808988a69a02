"""Convert a trained model to a stand-alone PyTorch module: `modeling_medtok.py` beside its weights.

OUT/modeling_medtok.py   the module, one file
OUT/config.json          configuration of the model, and metadata of its checkpoint
OUT/model.safetensors    its weights
OUT/tokenizer.json       wordpieces of its text encoder
OUT/text_encoder/        files of the pretrained text encoder
"""

import json
import shlex
import shutil
import tempfile
from pathlib import Path

from safetensors.numpy import save

from medtok_jax.config import CHOICES
from medtok_jax.convert.pytorch import weights
from medtok_jax.convert.request import Request
from medtok_jax.inference import model_reader, model_writer
from medtok_jax.inference.graph_index import GraphIndex
from medtok_jax.inference.model_reader import SavedModel
from medtok_jax.regions import Regions, parts_of
from medtok_jax.text.encoder_files import (
    TOKENIZER_FILES,
    WEIGHTS,
    TextTokenizer,
    encoder_identity,
    resolve_text_encoder,
)
from medtok_jax.training import checkpoints
from preprocessing.common import extras
from preprocessing.common.atomic import whole_folder
from preprocessing.common.errors import InputError

FORMAT_VERSION = 1
MODULE = "modeling_medtok.py"
ENCODER = "text_encoder"
# Fields of the `model` section that the module supports; others are refused, as it would silently ignore them.
KNOWN = (
    *("codebook_size", "embedding_dim", "text_specific_ratio", "graph_specific_ratio", "shared_ratio", "shared_search"),
    *("text_encoder_model", "text_encoder_type", "text_encoder_trainable", "text_encoder_gelu"),
    *("graph_encoder_type", "graph_width", "graph_layers", "graph_heads", "node_name_features", "node_id_features"),
    *("cross_width", "cross_layers", "cross_heads"),
    *(
        "num_top_k_tokens",
        "text_token_share",
        "graph_token_share",
        "shared_embedding",
        "num_nearest_tokens",
        "quantizer_kind",
        "distinct_tokens",
        "normalize",
        "weight_temperature",
        "gradient_estimator",
    ),
    *("simvq", "ema_decay", "kmeans_init", "kmeans_step", "kmeans_refit", "kmeans_samples", "kmeans_iterations"),
    "joint_fit_rounds",
)
# Fields that have no meaning on another machine.
MACHINE_FIELDS = ("data_dir", "cache_dir")


def convert(request: Request) -> None:
    """Write the directory, compare both models on a sample of codes if torch is installed, and print the next steps.

    Raises:
        InputError: there is no model, or the module does not support its configuration.
        UserError: the results of the two models differ.
    """
    saved, metadata = load(request)
    check_known(saved)
    encoder_dir = find_encoder(saved)
    with whole_folder(request.output) as folder:
        write(folder, saved, metadata, encoder_dir)
        if extras.installed("torch"):
            from medtok_jax.convert.pytorch import check

            print(check.compare(folder, saved, encoder_dir, request.tokenizer).describe())
        else:
            print(f"The two models were not compared: {extras.missing('torch')}.")
    print(f"Wrote {MODULE} and its weights to {request.output}. It needs torch, transformers and safetensors:")
    output = shlex.quote(str(request.output))
    print(f"  cd {output} && python -c \"from modeling_medtok import MedTok; MedTok.from_pretrained('.')\"")
    print(f"  python -m medtok_jax.convert --from=pytorch --input={output} --output=WORKDIR    # and back")


def load(request: Request) -> tuple[SavedModel, dict]:
    """Load the model of a request and the metadata of its checkpoint.

    The model of the tokenizer directory is preferred, as the tokens come from it, to that of the work directory.

    Raises:
        InputError: neither holds a model.
    """
    if (request.tokenizer / model_reader.CONFIG).is_file() or request.workdir is None:
        return model_reader.load(request.tokenizer), _metadata(request.tokenizer, request.workdir)
    with tempfile.TemporaryDirectory() as folder:
        model_writer.export(request.workdir, folder)
        return model_reader.load(folder), _metadata(Path(folder), request.workdir)


def _metadata(folder: Path, workdir: Path | None) -> dict:
    """Return the metadata of the checkpoint, or the part that a tokenizer directory keeps if there is no checkpoint."""
    content = json.loads((folder / model_reader.CONFIG).read_text(encoding="utf-8"))
    metadata = {n: content[n] for n in ("config", "step", "fingerprint", "encoder", "node_types", "relation_names")}
    if workdir is not None:
        found = checkpoints.find(workdir, prefer="best")
        if found.step == content["step"]:
            metadata = found.metadata()
    data = {name: value for name, value in metadata["config"]["data"].items() if name not in MACHINE_FIELDS}
    config = {name: value for name, value in metadata["config"].items() if name not in ("init_from", "resume_from")}
    return metadata | {"config": config | {"data": data}}


def check_known(saved: SavedModel) -> None:
    """Refuse a configuration that the module does not support.

    Raises:
        InputError: names the field that is not supported.
    """
    model = saved.config.model
    for name in sorted(set(model.keys()) - set(KNOWN)):
        raise InputError(f"This conversion does not know model.{name}; use the release that trained the model.")
    if (modalities := saved.config.data.get("modalities", "both")) != "both":
        raise InputError(f"data.modalities is {modalities!r}; only models of both modalities can be converted.")
    for name, allowed in CHOICES.items():
        section, field = name.split(".")
        if section == "model" and model[field] not in allowed:
            raise InputError(f"{name} is {model[field]!r}; this conversion supports {', '.join(allowed)}.")


def find_encoder(saved: SavedModel) -> Path:
    """Return the directory of the text encoder that the model was trained with.

    Raises:
        InputError: the text encoder is absent, or differs from that of training.
    """
    name = saved.config.model.text_encoder_model
    directory = resolve_text_encoder(name)
    if (identity := encoder_identity(directory)) != saved.encoder:
        raise InputError(
            f"The text encoder {name} has the identity {identity[:12]}, but the model was trained with"
            f" {saved.encoder[:12]}; install that one."
        )
    return directory


def write(folder: Path, saved: SavedModel, metadata: dict, encoder_dir: Path) -> None:
    """Write all files of the directory.

    Args:
        folder: an empty directory.
        saved: the model.
        metadata: metadata of its checkpoint.
        encoder_dir: directory of its text encoder.
    """
    shutil.copyfile(Path(__file__).with_name(MODULE), folder / MODULE)
    (folder / "model.safetensors").write_bytes(save(weights.to_torch(saved.variables), {"format": "pt"}))
    TextTokenizer(encoder_dir, saved.config.data.max_length).save(folder / "tokenizer.json")
    (folder / ENCODER).mkdir()
    names = {
        "config.json",
        *WEIGHTS,
        *TOKENIZER_FILES,
        *(path.name for path in encoder_dir.glob("model-*.safetensors")),
    }
    for name in sorted(names):
        if (encoder_dir / name).is_file():
            shutil.copyfile(encoder_dir / name, folder / ENCODER / name)
    (folder / "config.json").write_text(json.dumps(describe(saved, metadata), indent=1) + "\n", encoding="utf-8")


def describe(saved: SavedModel, metadata: dict) -> dict:
    """Return the contents of `config.json`."""
    model = saved.config.model.to_dict()
    index = GraphIndex(saved)
    sources = saved.graph.nodes["source"].unique().to_pylist() if saved.graph else []
    sizes = {name: getattr(saved.sizes, name) for name in saved.sizes.__dataclass_fields__}
    neighborhood = {n: getattr(saved.neighborhood, n) for n in saved.neighborhood.__dataclass_fields__}
    return {
        "model_type": "medtok",
        "architectures": ["MedTok"],
        "format_version": FORMAT_VERSION,
        "model": model,
        "sizes": sizes,
        "parts": describe_parts(model),
        "node_types": saved.node_types,
        "relation_names": saved.relation_names,
        "reverse": saved.reverse,
        "type_of_system": {source.upper(): index.type_of_system(source) for source in sources},
        "max_length": saved.config.data.max_length,
        "text_state_dtype": saved.config.data.cache_dtype,
        "neighborhood": neighborhood,
        "learned_missing_graph": saved.learned_missing_graph,
        "checkpoint": metadata,
    }


def describe_parts(model: dict) -> list[dict]:
    """Return how each embedding is quantized: its name, the rows that it searches, and numbers of tokens.

    Args:
        model: the `model` section of the configuration.
    """
    regions = Regions.from_ratios(model["codebook_size"], model["text_specific_ratio"], model["graph_specific_ratio"])
    return [
        {
            "embedding": part.embedding,
            "rows": (0, regions.size) if part.searched == "all" else regions.bounds(part.region),
            "num_tokens": part.num_tokens,
            "num_nearest": part.num_nearest,
        }
        for part in parts_of(model)
    ]
