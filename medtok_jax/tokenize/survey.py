"""Read a file of codes a first time: count its rows, and learn from all of them how each is to be read."""

import collections
import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from medtok_jax.tokenize import evidence, readers
from medtok_jax.tokenize.columns import other_code_columns, systems_of_header
from medtok_jax.tokenize.evidence import Decision, Scope
from medtok_jax.tokenize.kept import JsonTypes
from medtok_jax.tokenize.numbers import WrittenNumbers, is_digits, is_short, lacks_ndc_zeros
from medtok_jax.tokenize.rows import RawRow, checked
from medtok_jax.tokenize.systems import named_systems
from medtok_jax.tokenizer import MedTokTokenizer
from preprocessing.codes import NDC
from preprocessing.common.errors import InputError

# Number of distinct rows that are remembered as counted.
_SEEN = 200_000


@dataclasses.dataclass
class Survey:
    """Hold what a file says of its rows as a whole.

    Attributes:
        rows: number of rows.
        fields: the columns beside the code.
        numbers: how the codes are written.
        decisions: systems that codes may belong to, by the systems that they name (None for none).
        ndc_lengths: numbers of digits of codes without hyphens, by the systems that they name.
        notes: sentences for the user.
    """

    rows: int = 0
    fields: list[pa.Field] = dataclasses.field(default_factory=list)
    numbers: WrittenNumbers = dataclasses.field(default_factory=WrittenNumbers)
    decisions: dict[Scope, Decision] = dataclasses.field(default_factory=dict)
    ndc_lengths: dict[Scope, set[int]] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)

    def systems(self, named: Scope) -> Scope:
        """Return the systems that a code may belong to which names the systems `named`; None for any."""
        decision = self.decisions.get(named)
        return named if decision is None else decision.systems

    def has_products(self, named: Scope) -> bool:
        """Return whether NDCs of 9 digits are products, not packages whose leading zeros were lost."""
        return self.ndc_lengths.get(named, set()) <= {9} and not self.numbers.are_whole


def survey(
    tokenizer: MedTokTokenizer,
    path: Path,
    *,
    columns: Mapping[str, str | None],
    system: str | None = None,
    keep: bool = True,
    progress: bool = True,
) -> Survey:
    """Read a file of codes, and return what it says of its rows as a whole.

    Args:
        tokenizer: the tokenizer that codes are looked up with.
        path, columns, progress: see `readers.read_codes`.
        system: name of the system of rows without a system.
        keep: whether the columns beside the code are wanted.

    Raises:
        InputError: see `readers.read_codes`.
    """
    found = Survey()
    fields = readers.other_fields(path, columns) if path.is_file() else None
    types = JsonTypes()
    # Whether texts such as 4280.0 are numbers is known in the end: until then both readings are counted.
    readings = {whole: _Counts(tokenizer, system, whole) for whole in (False, True)}
    seen = _Seen()
    header = None
    for raw in readers.read_raw(path, columns, keep=keep and fields is None, progress=progress):
        found.rows = raw.number
        types.add(raw.others)
        header = header or raw.header
        if raw.problem is None and not seen.holds(raw):
            found.numbers.add(raw.cells.get("code"))
            for whole, counts in readings.items():
                if not whole or found.numbers.may_be_whole:
                    counts.add(raw)
    counts = readings[found.numbers.are_whole]
    found.ndc_lengths = counts.lengths
    found.fields = (types.fields() if fields is None else fields) if keep else []
    hint = evidence.hint_of(path, header)
    for scope, known in counts.known.items():
        decision = evidence.decide(scope, known, hint)
        found.decisions[scope] = decision
        if decision.why:
            found.notes.append(decision.why)
    others = other_code_columns([field.name for field in found.fields], header) if header else []
    if others and not columns.get("code"):
        found.notes.append(
            f"Codes are read from the column {header!r}; {', '.join(map(repr, others))} may hold codes too: name one by"
            " --code_column to read it."
        )
    return found


class _Seen:
    """Remember rows whose code, system, edition and header are alike, of which only one is to be counted."""

    def __init__(self):
        self._cells: set[tuple] = set()

    def holds(self, raw: RawRow) -> bool:
        """Return whether a row was seen before, and remember it; the memory ends when it is full."""
        get = raw.cells.get
        code = get("code")
        cells = (code, type(code), get("system"), get("edition"), raw.header)
        try:
            if cells in self._cells:
                return True
        except TypeError:
            # A list or an object in place of a text is never a code.
            return False
        if len(self._cells) >= _SEEN:
            self._cells.clear()
        self._cells.add(cells)
        return False


class _Counts:
    """Count the distinct codes of a file that do not name one system, by the systems that know them.

    Args:
        tokenizer: knows the codes.
        system: name of the system of rows without a system.
        whole_numbers: see `checked`.
    """

    def __init__(self, tokenizer: MedTokTokenizer, system: str | None, whole_numbers: bool):
        self.known: dict[Scope, collections.Counter] = collections.defaultdict(collections.Counter)
        self.lengths: dict[Scope, set[int]] = collections.defaultdict(set)
        self._tokenizer, self._system, self._whole_numbers = tokenizer, system, whole_numbers
        # Known codes are few, however long the file is; others are not remembered.
        self._counted: dict[Scope, set[str]] = collections.defaultdict(set)

    def add(self, raw: RawRow) -> None:
        """Count the code of one row."""
        row = checked(raw, whole_numbers=self._whole_numbers)
        if row.problem is not None:
            return
        try:
            scope = named_systems(self._tokenizer, row, self._system)
        except InputError:
            return
        code = self._tokenizer.index.names.split(row.code)[1].upper()
        if is_digits(code):
            self.lengths[scope].add(len(code))
        if (scope is not None and len(scope) == 1) or code in self._counted[scope]:
            return
        # A code that may have lost its zeros says nothing of the others.
        if is_short(code) or (NDC in (systems_of_header(raw.header) or ()) and lacks_ndc_zeros(code, products=False)):
            return
        knowing = evidence.systems_knowing(self._tokenizer, code)
        knowing = knowing if scope is None else knowing & scope
        if knowing:
            self._counted[scope].add(code)
        # A code that no system knows says nothing, but its names are believed.
        self.known[scope][knowing] += 1
