"""Look up or make the tokens of one row of a file of codes after another, or say why it is rejected."""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from medtok_jax.lookup.code_index import AmbiguousCodeError, UnknownCodeError
from medtok_jax.lookup.code_names import shown
from medtok_jax.lookup.code_tokens import CodeTokens
from medtok_jax.tokenize.evidence import Scope, systems_knowing
from medtok_jax.tokenize.numbers import is_digits, is_short, is_small_number, lacks_ndc_zeros
from medtok_jax.tokenize.rows import NO_CODE, CodeRow
from medtok_jax.tokenize.survey import Survey
from medtok_jax.tokenize.systems import ContradictionError, named_systems
from medtok_jax.tokenizer import MedTokTokenizer
from preprocessing.codes import ICD9CM, ICD9PROC, NDC
from preprocessing.common.errors import InputError
from preprocessing.linking.ndc_map import NdcMap

REJECTED, MODEL = "rejected", "model"
# Number of distinct codes whose outcome is cached; the cache is cleared when there are more.
CACHED = 100_000
# What stands between codes that share a cell.
_SEPARATORS = re.compile(r"[,;|/\s]+")
# Kinds of rejected rows, as the summary names them.
REASONS = {
    "no code": "no code (0, NaN, null or empty)",
    "unreadable": "a row or cell that cannot be read",
    "contradiction": "system, edition and code contradict one another",
    "several systems": "a code of several systems",
    "several codes": "several codes in one cell",
    "unknown": "a code that this tokenizer does not know",
    "lost zeros": "a code that probably lost leading zeros",
    "unusable": "a name of no code system, or inputs that the model cannot use",
}
# The remark on a code that is looked up, but may have lost leading zeros.
SUSPECT = "suspect"


class Outcome(NamedTuple):
    """Hold what becomes of a row.

    Attributes:
        result: the written form of the code's tokens, or the reason for rejecting it.
        origin: the source of the tokens (`table`, `model`, `ancestor`), or `rejected`.
        remark: a key of `REASONS` for a rejected row; `SUSPECT` or nothing otherwise.
    """

    result: object
    origin: str
    remark: str = ""


def rejected(reason: str, remark: str) -> Outcome:
    """Return the outcome of a row without tokens."""
    return Outcome(reason, REJECTED, remark)


class RowTokens:
    """Find the tokens of the rows of one file.

    Args:
        tokenizer: the tokenizer.
        survey: what the file says of its rows as a whole.
        prepare: returns the written form of tokens.
        system: name of the system of rows without a system.
        fallback: see `MedTokTokenizer.look_up`.
        ndc_map: codes that stand for NDCs without tokens, or None.
    """

    def __init__(
        self,
        tokenizer: MedTokTokenizer,
        survey: Survey,
        *,
        prepare: Callable[[CodeTokens], object],
        system: str | None,
        fallback: str | None,
        ndc_map: NdcMap | None = None,
    ):
        self._ndc_map = ndc_map
        self._tokenizer, self._survey, self._prepare = tokenizer, survey, prepare
        self._system, self._fallback = system, fallback
        self._outcomes: dict[tuple, Outcome] = {}

    def __call__(self, rows: Sequence[CodeRow]) -> list[Outcome]:
        """Return the outcome of each row; new codes of them are encoded at once."""
        if len(self._outcomes) > CACHED:
            self._outcomes.clear()
        outcomes = [self._outcome(row) for row in rows]
        new = [position for position, outcome in enumerate(outcomes) if outcome.origin == MODEL]
        encoded = self._encode([(rows[position], outcomes[position].result) for position in new])
        for position, outcome in zip(new, encoded, strict=True):
            outcomes[position] = outcome
        return outcomes

    def _outcome(self, row: CodeRow) -> Outcome:
        if row.problem:
            return rejected(row.problem, "no code" if row.problem == NO_CODE else "unreadable")
        is_new = row.description is not None or row.graph is not None
        name = (row.code, row.was_number, row.system, row.edition, row.header, is_new)
        outcome = self._outcomes.get(name)
        if outcome is None:
            outcome = self._outcomes[name] = self._look_up(row)
        return outcome

    def _look_up(self, row: CodeRow) -> Outcome:
        """Return the outcome of a row; for a new code, which is to be encoded, it holds the system to encode it in."""
        try:
            named = named_systems(self._tokenizer, row, self._system)
        except InputError as error:
            return rejected(str(error), "contradiction" if isinstance(error, ContradictionError) else "unusable")
        systems = self._survey.systems(named)
        products = self._survey.has_products(named)
        if systems == {NDC} and lacks_ndc_zeros(row.code, products=products):
            return _without_zeros(row.code)
        new = self._tokenizer.has_model and (row.description is not None or row.graph is not None)
        parents = self._ndc_map.codes_of(row.code) if self._ndc_map and systems in (None, {NDC}) else ()
        # A bare NDC is taken for one only where nothing else knows it.
        system = frozenset({NDC}) if parents and not systems_knowing(self._tokenizer, row.code) else systems
        fallback = None if new else self._fallback
        try:
            tokens = self._tokenizer.look_up(row.code, system, fallback=fallback, parents=parents)
        except UnknownCodeError as error:
            return Outcome(system, MODEL) if new else self._unknown(row, systems, error)
        except AmbiguousCodeError as error:
            return rejected(str(error), "several systems")
        except InputError as error:
            return rejected(str(error), "unusable")
        found = tokens.key.partition("/")[0]
        if found == NDC and lacks_ndc_zeros(row.code, products=products):
            return _without_zeros(row.code)
        if found == ICD9PROC and systems != {ICD9PROC} and is_short(row.code):
            return _short_number(row.code)
        remark = SUSPECT if self._is_suspect(row, found, systems) else ""
        return Outcome(self._prepare(tokens), tokens.source.split()[0], remark)

    def _unknown(self, row: CodeRow, systems: Scope, error: UnknownCodeError) -> Outcome:
        """Return the rejection of an unknown code, which may be known to systems that the row excludes."""
        bare = self._tokenizer.index.names.split(row.code)[1]
        parts = [part for part in _SEPARATORS.split(bare) if part]
        if len(parts) > 1 and all(systems_knowing(self._tokenizer, part) for part in parts):
            return rejected(f"{shown(bare)} is {len(parts)} codes in one cell; give each a row", "several codes")
        elsewhere = systems_knowing(self._tokenizer, bare) if systems is not None else frozenset()
        if not elsewhere or elsewhere & systems:
            return rejected(str(error), "unknown")
        if ICD9CM in systems and is_short(bare):
            return _short_number(bare)
        return rejected(
            f"{shown(bare)} is a code of {' and '.join(sorted(elsewhere))}, but its row or column is of"
            f" {' or '.join(sorted(systems))}",
            "contradiction",
        )

    def _is_suspect(self, row: CodeRow, found: str, systems: Scope) -> bool:
        """Return whether a code of the system `found` may be another code that lost its leading zeros."""
        numbers = self._survey.numbers
        if (row.was_number or numbers.may_lack_zeros) and self._may_lack_zeros(row.code, found, systems):
            return True
        # Beside 4280.0, 401.0 may be the number 401; and 04.0 the diagnosis 004.0, where procedures are not asked for.
        if numbers.is_large and found in (ICD9CM, ICD9PROC) and is_small_number(row.code):
            return True
        may_be_diagnosis = found == ICD9PROC and systems != {ICD9PROC} and "." in row.code and "/" not in row.code
        return may_be_diagnosis and ICD9CM in systems_knowing(self._tokenizer, f"0{row.code.strip()}")

    def _may_lack_zeros(self, code: str, found: str, systems: Scope) -> bool:
        """Return whether one or two zeros in front of digits make another code of ICD-9 that the row may mean."""
        if found not in (ICD9CM, ICD9PROC) or not is_digits(code):
            return False
        meant = {found} if systems == {found} else {ICD9CM, ICD9PROC}
        return any(meant & systems_knowing(self._tokenizer, f"{zeros}{code}") for zeros in ("0", "00"))

    def _encode(self, rows: Sequence[tuple[CodeRow, Scope]]) -> list[Outcome]:
        """Encode new codes at once, or one by one if that fails, to find the codes that cannot be encoded."""
        ready = []
        outcomes = []
        for row, system in rows:
            try:
                ready.append(self._tokenizer.new_code(row.code, system, row.description, row.graph))
                outcomes.append(None)
            except InputError as error:
                outcomes.append(rejected(str(error), "unusable"))
        if not ready:
            return outcomes
        try:
            encoded = iter([Outcome(self._prepare(tokens), MODEL) for tokens in self._tokenizer.encode_new(ready)])
        except InputError:
            encoded = iter([self._encode_alone(code) for code in ready])
        return [outcome or next(encoded) for outcome in outcomes]

    def _encode_alone(self, code: "NewCode") -> Outcome:  # noqa: F821
        try:
            return Outcome(self._prepare(self._tokenizer.encode_new([code])[0]), MODEL)
        except InputError as error:
            return rejected(str(error), "unusable")


def _short_number(code: str) -> Outcome:
    return rejected(
        f"{shown(code)} is a category of procedures as it stands, and may be the diagnosis {code.strip():0>3} that lost"
        " its zeros; name its system, or write the zeros",
        "lost zeros",
    )


def _without_zeros(code: str) -> Outcome:
    return rejected(
        f"{shown(code)} is probably an NDC that lost leading zeros; write the 11 digits of its package as text",
        "lost zeros",
    )
