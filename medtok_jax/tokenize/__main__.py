"""Look up or make the tokens of medical codes.

    python -m medtok_jax.tokenize code E11.9 [CODE ...] --workdir=DIR [--verbose]
    python -m medtok_jax.tokenize code E11.9X --tokenizer=TOK --description="Type 2 diabetes, not seen before"
    python -m medtok_jax.tokenize file --input=codes.csv --output=tokens.json --tokenizer=TOK
    python -m medtok_jax.tokenize vocabulary --workdir=DIR --output=TOK [--embeddings] [--with_model]
    python -m medtok_jax.tokenize verify --tokenizer=TOK
    python -m medtok_jax.tokenize search "kidney failure" --workdir=DIR [--within=ICD10CM]
    python -m medtok_jax.tokenize diff OLD NEW [--output=changes.csv]

A tokenizer is a directory, a name on the Hugging Face hub, or the one that training wrote in its work directory. `code`
and `file` need neither JAX nor an accelerator for codes that the tokenizer holds.
"""

import functools
import json
from pathlib import Path

from absl import flags

from medtok_jax.tokenize import commands
from medtok_jax.tokenizer import MedTokTokenizer
from preprocessing.common import command_line
from preprocessing.common.errors import InputError
from preprocessing.common.foreign_files import reading

COMMANDS = ("code", "file", "search", "vocabulary", "verify", "diff")
USAGE = "python -m medtok_jax.tokenize code CODE [CODE ...] --workdir=DIR"


def define_flags(given: flags.FlagValues = flags.FLAGS) -> None:
    """Define all flags of the command line in `given`."""
    text = functools.partial(flags.DEFINE_string, default=None, flag_values=given)
    number = functools.partial(flags.DEFINE_integer, lower_bound=0, flag_values=given)
    switch = functools.partial(flags.DEFINE_bool, default=False, flag_values=given)
    text("tokenizer", help="Tokenizer directory, or its name on the Hugging Face hub.")
    text("workdir", help="Work directory of a finished training run; its tokenizer is used.")
    text("output", help="file: .json, .jsonl, .csv or .parquet to write; vocabulary: directory; diff: CSV of changes.")
    text("system", help="code, file: code system of codes that name none, such as ICD10CM.")
    flags.DEFINE_list(
        "prefer",
        None,
        "code, file: code systems in the order in which a bare code of several systems is looked up, or `paper`.",
        flag_values=given,
    )
    flags.DEFINE_enum(
        "fallback",
        "none",
        ["none", "ancestors"],
        "code, file: `ancestors` gives unknown codes the tokens of their nearest ancestor.",
        flag_values=given,
    )
    text("description", help="code: description to encode an unknown code by.")
    text("graph", help="code: JSON file with the subgraph (node-link) or a list of neighbors of an unknown code.")
    switch("verbose", help="code: print a line for each token, with other codes that share it.")
    number("neighbors", 10, "code: number of codes to list that share most tokens; search: number of codes to list.")
    text("within", help="search: code system of the codes to list, such as ICD10CM.")
    text("input", help="file: codes as .csv, .tsv, .txt, .json, .jsonl (all of these also .gz) or .parquet.")
    text(
        "ndc_map",
        help="file: CSV of `ndc` and `rxnorm`, `atc` or `key`, whose tokens an NDC without tokens gets.",
    )
    text("code_column", help="file: column of the codes, if it does not have a common name.")
    text("system_column", help="file: column of the code systems, if it does not have a common name.")
    text("edition_column", help="file: column of the edition of ICD, 9 or 10, if it does not have a common name.")
    text("description_column", help="file: column of the descriptions, if it does not have a common name.")
    flags.DEFINE_bool(
        "keep_columns", True, "file: keep all other columns of the input in the output.", flag_values=given
    )
    number(
        "batch_size", 0, "file: rows at once, 1,024 by default; vocabulary: codes a batch, as in training by default."
    )
    text("data_dir", default="", help="vocabulary: directory of the data set, if not the one that training read.")
    switch("embeddings", help="vocabulary: keep the embeddings before quantization too.")
    switch("with_model", help="vocabulary: add the model, which encodes new codes.")


def main(arguments: list[str], given: flags.FlagValues = flags.FLAGS) -> None:
    """Run the command that the first argument names, with the flags in `given`."""
    command, *codes = arguments[1:] or [""]
    if command == "code":
        _code(codes, given)
    elif command == "file" and not codes:
        _file(given)
    elif command == "vocabulary" and not codes:
        _vocabulary(given)
    elif command == "verify" and not codes:
        commands.verify(_required("tokenizer", given))
    elif command == "search":
        if len(codes) != 1:
            raise InputError('Give one text: python -m medtok_jax.tokenize search "kidney failure" --workdir=DIR.')
        commands.show_found(_open_tokenizer(given), codes[0], count=given.neighbors, within=given.within)
    elif command == "diff":
        if len(codes) != 2:
            raise InputError("Give two tokenizers: python -m medtok_jax.tokenize diff OLD NEW.")
        commands.show_difference(*codes, Path(given.output).expanduser() if given.output else None)
    else:
        raise InputError(f"Give a command ({', '.join(COMMANDS)}; see --help), for example: {USAGE}.")


def _code(codes: list[str], given: flags.FlagValues) -> None:
    if not codes:
        raise InputError(f"No code is given; run: {USAGE}.")
    if len(codes) > 1 and (given.description or given.graph):
        raise InputError("--description and --graph are for one code; run the command once for each code.")
    commands.show_codes(
        _open_tokenizer(given),
        codes,
        system=given.system,
        description=given.description,
        graph=_read_graph(given.graph),
        fallback=_fallback(given),
        neighbors=given.neighbors,
        verbose=given.verbose,
    )


def _file(given: flags.FlagValues) -> None:
    source = Path(_required("input", given)).expanduser()
    output = Path(_required("output", given)).expanduser()
    commands.tokenize_file(
        _open_tokenizer(given),
        source,
        output,
        columns={
            "code": given.code_column,
            "system": given.system_column,
            "edition": given.edition_column,
            "description": given.description_column,
        },
        system=given.system,
        fallback=_fallback(given),
        ndc_map=Path(given.ndc_map).expanduser() if given.ndc_map else None,
        keep_columns=given.keep_columns,
        batch_size=given.batch_size or 1024,
    )


def _vocabulary(given: flags.FlagValues) -> None:
    commands.write_vocabulary(
        Path(_required("workdir", given)).expanduser(),
        Path(_required("output", given)).expanduser(),
        data_dir=given.data_dir,
        batch_size=given.batch_size,
        embeddings=given.embeddings,
        with_model=given.with_model,
    )


def _open_tokenizer(given: flags.FlagValues) -> MedTokTokenizer:
    if bool(given.tokenizer) == bool(given.workdir):
        raise InputError("Give the tokenizer, by either --tokenizer=TOK or --workdir=DIR.")
    prefer = given.prefer[0] if given.prefer and len(given.prefer) == 1 else given.prefer
    path = given.tokenizer or Path(given.workdir).expanduser() / "tokenizer"
    return MedTokTokenizer.from_pretrained(path, prefer=prefer)


def _required(name: str, given: flags.FlagValues) -> str:
    value = given[name].value
    if not value:
        raise InputError(f"--{name} is missing; see --help for an example.")
    return value


def _fallback(given: flags.FlagValues) -> str | None:
    return None if given.fallback == "none" else given.fallback


def _read_graph(path: str | None) -> dict | list | None:
    if path is None:
        return None
    with reading(Path(path).expanduser(), "JSON", "give --graph=FILE.json"):
        return json.loads(Path(path).expanduser().read_text(encoding="utf-8"))


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
