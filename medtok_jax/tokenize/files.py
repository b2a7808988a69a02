"""Tokenizes a file of codes: rows stream through, the output keeps their order, what cannot be used is told apart."""

import collections
import itertools
from collections.abc import Callable
from pathlib import Path

from medtok_jax.lookup.code_index import UnknownCodeError
from medtok_jax.tokenize import readers, writers
from medtok_jax.tokenize.readers import CodeRow
from medtok_jax.tokenize.writers import Format
from medtok_jax.tokenizer import MedTokTokenizer
from preprocessing.common.errors import InputError

# Distinct codes whose written form is kept at once; when there are more, all are forgotten.
REMEMBERED = 100_000


def tokenize_file(
    tokenizer: MedTokTokenizer,
    source: Path,
    output: Path,
    *,
    columns: dict[str, str | None],
    system: str | None = None,
    fallback: str | None = None,
    batch_size: int = 1024,
    progress: bool = True,
) -> collections.Counter:
    """Writes the tokens of every code of a file, in its order, and those that have none to `OUTPUT.rejects.csv`.

    Args:
        tokenizer: what to tokenize with.
        source: see `code_files.read_codes`.
        output: ends in .json, .jsonl, .csv or .parquet.
        columns: see `code_files.read_codes`.
        system: code system of rows that name none.
        fallback: see `MedTokTokenizer.look_up`.
        batch_size: rows written, and new codes encoded, at once.
        progress: whether to show a bar.

    Returns:
        Number of rows by source (`table`, `model`, `ancestor`) and of those `rejected`.

    Raises:
        InputError: a file cannot be read or written.
    """
    if output.resolve() == source.resolve():
        raise InputError(f"The output {output} is the input; give another.")
    kind, counts = writers.format_of(output), collections.Counter()
    rejects = output.with_name(f"{output.name}.rejects.csv")
    with (
        writers.whole_or_nothing(output) as partial,
        kind.opened(partial, tokenizer.tokens_per_code) as write,
        writers.rejects_file(rejects) as reject,
    ):
        pass_on = _Pass(tokenizer, kind, system, fallback)
        rows = readers.read_codes(source, columns, progress=progress)
        while batch := list(itertools.islice(rows, batch_size)):
            pass_on(batch, write, reject, counts)
    if not counts["rejected"]:
        rejects.unlink()
    return counts


class _Pass:
    """One pass over a file; see `tokenize_file`."""

    def __init__(self, tokenizer: MedTokTokenizer, kind: Format, system: str | None, fallback: str | None):
        self.tokenizer, self.kind, self.system, self.fallback = tokenizer, kind, system, fallback
        # What became of a code: how it is written, or why it is refused; and its origin.
        self.known: dict[tuple, tuple[object, str]] = {}

    def __call__(self, batch: list[CodeRow], write: Callable, reject: Callable, counts: collections.Counter) -> None:
        if len(self.known) > REMEMBERED:
            self.known.clear()
        outcomes = [self._outcome(row) for row in batch]
        new = [place for place, (_, origin) in enumerate(outcomes) if origin == "model"]
        for place, outcome in zip(new, self._encode([batch[place] for place in new]), strict=True):
            outcomes[place] = outcome
        done = []
        for row, (result, origin) in zip(batch, outcomes, strict=True):
            counts[origin] += 1
            if origin == "rejected":
                reject((row.number, row.code, row.system, result))
            else:
                done.append((row.number, row.code, result))
        write(done)

    def _outcome(self, row: CodeRow) -> tuple[object, str]:
        if row.problem:
            return row.problem, "rejected"
        name = (row.code, row.system, row.description is None and row.graph is None)
        outcome = self.known.get(name)
        if outcome is None:
            outcome = self.known[name] = self._look_up(row)
        return outcome

    def _look_up(self, row: CodeRow) -> tuple[object, str]:
        new = self.tokenizer.has_model and (row.description is not None or row.graph is not None)
        try:
            tokens = self.tokenizer.look_up(
                row.code, row.system or self.system, fallback=None if new else self.fallback
            )
        except UnknownCodeError as error:
            return (None, "model") if new else (str(error), "rejected")
        except InputError as error:
            return str(error), "rejected"
        return self.kind.prepare(tokens), tokens.source.split()[0]

    def _encode(self, rows: list[CodeRow]) -> list[tuple[object, str]]:
        """New codes, all at once where that goes well, else one by one to tell which do not."""
        ready, outcomes = [], []
        for row in rows:
            try:
                ready.append(self.tokenizer.new_code(row.code, row.system or self.system, row.description, row.graph))
                outcomes.append(None)
            except InputError as error:
                outcomes.append((str(error), "rejected"))
        if not ready:
            return outcomes
        try:
            encoded = iter([(self.kind.prepare(tokens), "model") for tokens in self.tokenizer.encode_new(ready)])
        except InputError:
            encoded = iter([self._encode_alone(code) for code in ready])
        return [outcome or next(encoded) for outcome in outcomes]

    def _encode_alone(self, code) -> tuple[object, str]:
        try:
            return self.kind.prepare(self.tokenizer.encode_new([code])[0]), "model"
        except InputError as error:
            return str(error), "rejected"
