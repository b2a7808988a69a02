"""Tokenize a file of codes as a stream, keeping the order of rows, and write rejected rows to a file of their own."""

import collections
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path

from medtok_jax.tokenize import readers, writers
from medtok_jax.tokenize.columns import has_description
from medtok_jax.tokenize.kept import KeptColumn, choose_columns
from medtok_jax.tokenize.outcomes import REASONS, REJECTED, SUSPECT, RowTokens
from medtok_jax.tokenize.rows import checked
from medtok_jax.tokenize.survey import survey
from medtok_jax.tokenize.writers import HEADER, Written
from medtok_jax.tokenizer import MedTokTokenizer
from preprocessing.common.atomic import private, whole_file
from preprocessing.common.errors import InputError
from preprocessing.linking.ndc_map import NdcMap


@private()
def tokenize_file(
    tokenizer: MedTokTokenizer,
    source: Path,
    output: Path,
    *,
    columns: Mapping[str, str | None],
    system: str | None = None,
    fallback: str | None = None,
    ndc_map: Path | None = None,
    keep_columns: bool = True,
    batch_size: int = 1024,
    progress: bool = True,
    tell: Callable[[str], None] = print,
) -> collections.Counter:
    """Write the tokens of every code of a file, in its order, and rows without tokens to `OUTPUT.rejects.csv`.

    The file is read twice: first to learn how its codes are written and which system they belong to. Its rows may be of
    patients, so that nobody else can read what is written.

    Args:
        tokenizer: the tokenizer.
        source: see `readers.read_codes`.
        output: file to write, which ends in .json, .jsonl, .csv or .parquet.
        columns: see `readers.read_codes`.
        system: code system of rows that name none.
        fallback: see `MedTokTokenizer.look_up`.
        ndc_map: file of codes that stand for NDCs without tokens, see `ndc_map.NdcMap`.
        keep_columns: whether the output has all other columns of the file too.
        batch_size: number of rows that are written, and of new codes that are encoded, at once.
        progress: whether to show a progress bar.
        tell: gets one sentence for each thing that was found in the file as a whole.

    Returns:
        Number of rows by source (`table`, `model`, `ancestor`) and of those `rejected`; together they are all rows.

    Raises:
        InputError: a file cannot be read or written.
    """
    if output.resolve() == source.resolve():
        raise InputError(f"The output {output} is the input file; give another output.")
    kind = writers.format_of(output)
    standing = None if ndc_map is None else NdcMap(ndc_map)
    if system is not None:
        tokenizer.index.names.systems_named(system)
    found = survey(tokenizer, source, columns=columns, system=system, keep=keep_columns, progress=progress)
    kept = choose_columns(found.fields, HEADER)
    whole = found.numbers.are_whole
    raw_rows = readers.read_raw(source, columns, keep=keep_columns, numbers=whole, progress=progress)
    rows = (checked(raw, whole_numbers=whole) for raw in raw_rows)
    tokens_of = RowTokens(tokenizer, found, prepare=kind.prepare, system=system, fallback=fallback, ndc_map=standing)
    counts: collections.Counter = collections.Counter()
    remarks: collections.Counter = collections.Counter()
    rejects = output.with_name(f"{output.name}.rejects.csv")
    with (
        whole_file(output) as partial,
        kind.opened(partial, tokenizer.tokens_per_code, kept) as write,
        writers.rejects_file(rejects) as reject,
    ):
        while batch := list(itertools.islice(rows, batch_size)):
            done = []
            for row, (result, origin, remark) in zip(batch, tokens_of(batch), strict=True):
                counts[origin] += 1
                remarks[remark] += 1
                if origin == REJECTED:
                    reject((row.number, row.code, row.system, result))
                else:
                    done.append(Written(row.number, row.code, result, [row.others.get(one.name) for one in kept]))
            write(done)
        if counts.total() != found.rows:
            raise InputError(
                f"{source} had {found.rows:,} rows when it was read first and {counts.total():,} the second time; run"
                " the command again when nothing writes to it."
            )
    if not counts[REJECTED]:
        rejects.unlink()
    if standing and standing.rejected:
        tell(f"{ndc_map}: {standing.rejected:,} rows name no NDC or no code, and were not used.")
    others = [field.name for field in found.fields]
    if remarks["unknown"] and tokenizer.has_model and others and not has_description(others, columns):
        tell(
            "No column is read as descriptions, from which the model encodes codes that this tokenizer does not know;"
            f" if one of {', '.join(map(repr, others))} has them, name it by --description_column."
        )
    for sentence in (*found.notes, *_notes(kept, remarks, numbers_are_whole=whole and bool(found.numbers.floats))):
        tell(sentence)
    return counts


def _notes(kept: list[KeptColumn], remarks: collections.Counter, *, numbers_are_whole: bool) -> list[str]:
    notes = [
        f"The column {column.name!r} of the input is called {column.written!r} in the output."
        for column in kept
        if column.name != column.written
    ]
    if numbers_are_whole:
        notes.append("All codes were written as numbers, such as 4280.0; they were read as digits.")
    if remarks[SUSPECT]:
        notes.append(
            f"Codes that may have lost leading zeros, and be other codes with them: {remarks[SUSPECT]:,}; they were"
            " looked up as they are."
        )
    reasons = [f"{said}: {remarks[name]:,}" for name, said in REASONS.items() if remarks[name]]
    if reasons:
        notes.append(f"Rejected rows by reason: {'; '.join(reasons)}.")
    return notes
