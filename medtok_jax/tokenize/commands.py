"""Tokens of medical codes from the command line.

    python -m medtok_jax.tokenize code E11.9 [CODE ...] --workdir=DIR [--verbose]
    python -m medtok_jax.tokenize code E11.9X --tokenizer=TOK --description="Type 2 diabetes, not seen before"
    python -m medtok_jax.tokenize file --input=codes.csv --output=tokens.json --tokenizer=TOK
    python -m medtok_jax.tokenize vocabulary --workdir=DIR --output=TOK [--embeddings] [--with_model]
    python -m medtok_jax.tokenize verify --tokenizer=TOK

A tokenizer is a directory, a name on the Hugging Face hub, or the one that training left in its work directory. `code`
and `file` need neither JAX nor an accelerator for codes that the tokenizer holds.
"""

import json
from pathlib import Path

from absl import flags
from rich.console import Console

from preprocessing.common import command_line
from preprocessing.common.errors import InputError

TOKENIZER = flags.DEFINE_string("tokenizer", None, "Tokenizer directory, or its name on the Hugging Face hub.")
WORKDIR = flags.DEFINE_string("workdir", None, "Work directory of a finished training run; its tokenizer is used.")
OUTPUT = flags.DEFINE_string("output", None, "file: .json, .jsonl, .csv or .parquet; vocabulary: the directory.")
SYSTEM = flags.DEFINE_string("system", None, "code, file: code system of codes that name none, such as ICD10CM.")
PREFER = flags.DEFINE_list(
    "prefer", None, "code, file: systems in the order in which a bare code of several is looked up, or `paper`."
)
FALLBACK = flags.DEFINE_enum(
    "fallback", "none", ["none", "ancestors"], "code, file: whether unknown codes get the tokens of a code above them."
)
DESCRIPTION = flags.DEFINE_string("description", None, "code: what it means, to encode it where it is unknown.")
GRAPH = flags.DEFINE_string("graph", None, "code: JSON file with its subgraph (node-link) or a list of neighbors.")
VERBOSE = flags.DEFINE_bool("verbose", False, "code: a line for each token, with other codes that share it.")
NEIGHBORS = flags.DEFINE_integer("neighbors", 10, "code: codes to list that share most tokens.", lower_bound=0)
INPUT = flags.DEFINE_string("input", None, "file: codes as .csv, .json, .jsonl or .parquet.")
CODE_COLUMN = flags.DEFINE_string("code_column", None, "file: column of the codes, where it is not told by its name.")
SYSTEM_COLUMN = flags.DEFINE_string("system_column", None, "file: column of the code systems, likewise.")
DESCRIPTION_COLUMN = flags.DEFINE_string("description_column", None, "file: column of the descriptions, likewise.")
BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 0, "file: rows at once (1,024); vocabulary: codes a batch (that of training).", lower_bound=0
)
DATA_DIR = flags.DEFINE_string("data_dir", "", "vocabulary: where the data set lies, if not where training found it.")
EMBEDDINGS = flags.DEFINE_bool("embeddings", False, "vocabulary: keep the embeddings before quantization too.")
WITH_MODEL = flags.DEFINE_bool("with_model", False, "vocabulary: add the model, which encodes codes never seen.")

USAGE = "python -m medtok_jax.tokenize code CODE [CODE ...] --workdir=DIR"


def open_tokenizer():
    """The tokenizer that the flags name.

    Raises:
        InputError: none is named, or both are.
    """
    from medtok_jax.tokenizer import MedTokTokenizer

    if bool(TOKENIZER.value) == bool(WORKDIR.value):
        raise InputError("Say which tokenizer, by one of --tokenizer=TOK and --workdir=DIR.")
    prefer = PREFER.value[0] if PREFER.value and len(PREFER.value) == 1 else PREFER.value
    place = TOKENIZER.value or Path(WORKDIR.value).expanduser() / "tokenizer"
    return MedTokTokenizer.from_pretrained(place, prefer=prefer)


def show_codes(codes: list[str]) -> None:
    """`code`: tables of the tokens of some codes, and of the first one's neighbors."""
    from medtok_jax.tokenize.display import show_code

    if not codes:
        raise InputError(f"Say which codes: {USAGE}.")
    if len(codes) > 1 and (DESCRIPTION.value or GRAPH.value):
        raise InputError("--description and --graph are of one code; give them one by one.")
    tokenizer, console = open_tokenizer(), Console()
    options = {"description": DESCRIPTION.value, "graph": _read_graph(), "fallback": _fallback()}
    for place, tokens in enumerate([tokenizer.look_up(code, SYSTEM.value, **options) for code in codes]):
        show_code(tokenizer, tokens, console, neighbors=0 if place else NEIGHBORS.value, verbose=VERBOSE.value)


def tokenize_file() -> None:
    """`file`: tokens of a file of codes."""
    from medtok_jax.tokenize import files

    source, output = Path(_needed(INPUT)).expanduser(), Path(_needed(OUTPUT)).expanduser()
    columns = {"code": CODE_COLUMN.value, "system": SYSTEM_COLUMN.value, "description": DESCRIPTION_COLUMN.value}
    counts = files.tokenize_file(
        open_tokenizer(),
        source,
        output,
        columns=columns,
        system=SYSTEM.value,
        fallback=_fallback(),
        batch_size=BATCH_SIZE.value or 1024,
    )
    origins = {
        "table": "from the table",
        "model": "by the model",
        "ancestor": "from a code above",
        "rejected": "rejected",
    }
    told = ", ".join(
        f"{counts[origin]:,} {what}" for origin, what in origins.items() if counts[origin] or origin == "table"
    )
    print(f"{output}: {counts.total():,} rows, {told}")
    if counts["rejected"]:
        print(f"{output}.rejects.csv says why.")


def write_vocabulary() -> None:
    """`vocabulary`: a tokenizer directory for all codes of the data set that a run was trained on."""
    from medtok_jax.inference import vocabulary
    from medtok_jax.lookup import directory
    from medtok_jax.training import setup

    workdir, output = Path(_needed(WORKDIR)).expanduser(), Path(_needed(OUTPUT)).expanduser()
    directory.check_replaceable(output)
    opened = setup.open_trained(workdir, data_dir=DATA_DIR.value, whole=True, batch_size=BATCH_SIZE.value)
    metrics = vocabulary.write_tokenizer(opened, output, embeddings=EMBEDDINGS.value, with_model=WITH_MODEL.value)
    used = ", ".join(f"{name} {metrics[f'codebook_utilization_{name}']:.1%}" for name in ("text", "graph", "shared"))
    print(f"{output}: {len(opened.data.selected):,} codes; codebook in use: {used}; cosine {metrics['cosine']:.3f}")


def verify() -> None:
    """`verify`: reads every file of a tokenizer and compares its sha256."""
    from medtok_jax.lookup import hub
    from medtok_jax.lookup.directory import TokenizerDirectory

    path = hub.resolve_tokenizer(_needed(TOKENIZER))
    config = TokenizerDirectory.read(path, verify=True).config
    print(f"{path}: {config.codes:,} codes, {len(config.files)} files, all as written")


COMMANDS = {"file": tokenize_file, "vocabulary": write_vocabulary, "verify": verify}


def main(arguments: list[str]) -> None:
    """Runs one of the commands."""
    _, command, *rest = [*arguments, ""] if len(arguments) < 2 else arguments
    if command == "code":
        show_codes(rest)
    elif command in COMMANDS and not rest:
        COMMANDS[command]()
    else:
        raise InputError(f"Say what to do, for example: {USAGE}; or one of {', '.join(COMMANDS)} and flags (--help).")


def _needed(flag: flags.FlagHolder) -> str:
    if not flag.value:
        raise InputError(f"--{flag.name} is missing; see --help for an example.")
    return flag.value


def _fallback() -> str | None:
    return None if FALLBACK.value == "none" else FALLBACK.value


def _read_graph() -> dict | list | None:
    if GRAPH.value is None:
        return None
    try:
        return json.loads(Path(GRAPH.value).expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"--graph={GRAPH.value} is no readable JSON file ({error}).") from error


if __name__ == "__main__":
    command_line.run(main)
