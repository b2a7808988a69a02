"""Implement the commands of `python -m medtok_jax.tokenize` for codes, files and whole tokenizers."""

import sys
import warnings
from pathlib import Path

from rich.console import Console

from medtok_jax.lookup import difference, directory, hub
from medtok_jax.tokenize import files
from medtok_jax.tokenize.display import show_code, table_of_codes
from medtok_jax.tokenizer import MedTokTokenizer
from preprocessing.common.errors import InputError

ORIGINS = {
    "table": "from the table",
    "category": "of categories",
    "retired": "of earlier editions",
    "model": "by the model",
    "ancestor": "from an ancestor",
    "parent": "from a parent code",
    "rejected": "rejected",
}


def show_codes(
    tokenizer: MedTokTokenizer,
    codes: list[str],
    *,
    system: str | None = None,
    description: str | None = None,
    graph: dict | list | None = None,
    fallback: str | None = None,
    neighbors: int = 10,
    verbose: bool = False,
) -> None:
    """Print tables of the tokens of codes, and of the codes that share most tokens with the first one.

    Args:
        tokenizer: the tokenizer to look codes up with.
        codes: codes, each with its system or without.
        system, description, graph, fallback: see `MedTokTokenizer.look_up`.
        neighbors: number of codes to list beside the first one.
        verbose: True prints a line for each token, with other codes that share it.

    Raises:
        InputError: a code is not known, or cannot be encoded.
    """
    options = {"description": description, "graph": graph, "fallback": fallback}
    found = [tokenizer.look_up(code, system, **options) for code in codes]
    for number, tokens in enumerate(found):
        show_code(tokenizer, tokens, Console(), neighbors=0 if number else neighbors, verbose=verbose)


def show_found(tokenizer: MedTokTokenizer, text: str, *, count: int = 10, within: str | None = None) -> None:
    """Print the codes that a text describes best; see `MedTokTokenizer.search`.

    Raises:
        InputError: the tokenizer has no model, the text has no word, or the code system is not known.
    """
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always", UserWarning)
        found = tokenizer.search(text, count, within=within)
    for note in notes:
        print(f"note: {note.message}", file=sys.stderr)
    Console().print(table_of_codes(found, measure="cosine", title="Codes that are described best"))


def tokenize_file(
    tokenizer: MedTokTokenizer,
    source: Path,
    output: Path,
    *,
    columns: dict[str, str | None],
    system: str | None = None,
    fallback: str | None = None,
    ndc_map: Path | None = None,
    keep_columns: bool = True,
    batch_size: int = 1024,
) -> None:
    """Tokenize a file of codes, and print the shares of rows by source of their tokens; see `files.tokenize_file`.

    Raises:
        InputError: a file cannot be read or written, or no row has tokens.
    """
    counts = files.tokenize_file(
        tokenizer,
        source,
        output,
        columns=columns,
        system=system,
        fallback=fallback,
        ndc_map=ndc_map,
        keep_columns=keep_columns,
        batch_size=batch_size,
    )
    total = counts.total()
    parts = [
        f"{counts[key]:,} {words} ({counts[key] / max(total, 1):.1%})"
        for key, words in ORIGINS.items()
        if counts[key] or key == "table"
    ]
    with_tokens = total - counts["rejected"]
    print(f"Wrote {output}: {total:,} rows, {', '.join(parts)}.")
    print(f"{with_tokens:,} rows with tokens + {counts['rejected']:,} rejected = {total:,} rows of {source}.")
    if counts["rejected"]:
        print(f"{output}.rejects.csv lists the rejected rows with reasons.")
    if total and not with_tokens:
        raise InputError(
            f"No row of {source} has tokens; see the reasons, and name the system of the codes by --system."
        )


def write_vocabulary(
    workdir: Path,
    output: Path,
    *,
    data_dir: str = "",
    batch_size: int = 0,
    embeddings: bool = False,
    with_model: bool = False,
) -> None:
    """Write a tokenizer directory for all codes of the data set that a run was trained on.

    Args:
        workdir: work directory of the finished run.
        output: the directory to write.
        data_dir: directory of the data set, if not the one that training read.
        batch_size: codes a batch; 0 for the batch size of training.
        embeddings: True keeps the embeddings before quantization too.
        with_model: True adds the model, which encodes codes that the data set does not hold.

    Raises:
        InputError: the run cannot be opened, or the output cannot be replaced.
    """
    # JAX is imported only here, as the other commands do not need it.
    from medtok_jax.inference import vocabulary
    from medtok_jax.inference.trained import open_trained

    directory.check_replaceable(output)
    trained = open_trained(workdir, data_dir=data_dir, all_codes=True, batch_size=batch_size)
    metrics = vocabulary.write_tokenizer(trained, output, embeddings=embeddings, with_model=with_model)
    used = ", ".join(f"{name} {metrics[f'codebook_utilization_{name}']:.1%}" for name in ("text", "graph", "shared"))
    codes = len(trained.inputs.data.selected)
    print(f"{output}: {codes:,} codes; codebook in use: {used}; cosine {metrics['cosine']:.3f}")
    if metrics.get("separated"):
        print(f"{metrics['separated']:,} codes changed one token, as codes of other descriptions had the same tokens.")


def verify(tokenizer: str) -> None:
    """Read every file of a tokenizer, a directory or a name on the hub, and compare its sha256.

    Raises:
        InputError: a file is missing or differs from what was written.
    """
    path = hub.resolve_tokenizer(tokenizer)
    config = directory.TokenizerDirectory.read(path, verify=True).config
    print(f"Verified {path}: {config.rows:,} codes in {len(config.files)} files, all as they were written.")


def show_difference(before: str, after: str, output: Path | None = None) -> None:
    """Print how two tokenizers differ, directories, work directories or names on the hub.

    Args:
        before, after: the earlier and the later one.
        output: CSV file to write the codes to that changed; None for none.

    Raises:
        InputError: one of them cannot be opened, or the file cannot be written.
    """
    opened = [directory.TokenizerDirectory.read(hub.resolve_tokenizer(path)) for path in (before, after)]
    found = difference.compare(*opened)
    for sentence in found.sentences():
        print(sentence)
    if output is not None:
        print(f"Wrote {output}: {found.write(output):,} codes that changed.")
