"""Tokenize a file of codes as a stream, keeping the order of rows, and write rejected rows to a file of their own."""

import collections
import itertools
from collections.abc import Callable
from pathlib import Path

from medtok_jax.lookup.code_index import UnknownCodeError
from medtok_jax.tokenize import readers, writers
from medtok_jax.tokenize.readers import CodeRow
from medtok_jax.tokenize.writers import Format
from medtok_jax.tokenizer import MedTokTokenizer
from preprocessing.common.atomic import whole_file
from preprocessing.common.errors import InputError

# Number of distinct codes whose written form is cached; the cache is cleared when there are more.
CACHED = 100_000


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
    """Write the tokens of every code of a file, in its order, and rows without tokens to `OUTPUT.rejects.csv`.

    Args:
        tokenizer: the tokenizer.
        source: see `readers.read_codes`.
        output: file to write, which ends in .json, .jsonl, .csv or .parquet.
        columns: see `readers.read_codes`.
        system: code system of rows that name none.
        fallback: see `MedTokTokenizer.look_up`.
        batch_size: number of rows that are written, and of new codes that are encoded, at once.
        progress: whether to show a progress bar.

    Returns:
        Number of rows by source (`table`, `model`, `ancestor`) and of those `rejected`.

    Raises:
        InputError: a file cannot be read or written.
    """
    if output.resolve() == source.resolve():
        raise InputError(f"The output {output} is the input file; give another output.")
    kind = writers.format_of(output)
    counts = collections.Counter()
    rejects = output.with_name(f"{output.name}.rejects.csv")
    with (
        whole_file(output) as partial,
        kind.opened(partial, tokenizer.tokens_per_code) as write,
        writers.rejects_file(rejects) as reject,
    ):
        process = _Pass(tokenizer, kind, system, fallback)
        rows = readers.read_codes(source, columns, progress=progress)
        while batch := list(itertools.islice(rows, batch_size)):
            process(batch, write, reject, counts)
    if not counts["rejected"]:
        rejects.unlink()
    return counts


class _Pass:
    """Process the rows of one file, batch by batch; see `tokenize_file`."""

    def __init__(self, tokenizer: MedTokTokenizer, kind: Format, system: str | None, fallback: str | None):
        self.tokenizer = tokenizer
        self.kind = kind
        self.system = system
        self.fallback = fallback
        # The written form of a code, or the reason for rejecting it, and the source of its tokens.
        self.known: dict[tuple, tuple[object, str]] = {}

    def __call__(self, batch: list[CodeRow], write: Callable, reject: Callable, counts: collections.Counter) -> None:
        if len(self.known) > CACHED:
            self.known.clear()
        outcomes = [self._outcome(row) for row in batch]
        new = [position for position, (_, origin) in enumerate(outcomes) if origin == "model"]
        for position, outcome in zip(new, self._encode([batch[position] for position in new]), strict=True):
            outcomes[position] = outcome
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
        """Encode new codes at once, or one by one if that fails, to find the codes that cannot be encoded."""
        ready = []
        outcomes = []
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
