"""Lay out the tokens of codes as sequences for a model: special tokens, truncation, padding.

A sequence is the tokens of its codes, one code after the other; with special tokens `[CLS] codes [SEP]`. A patient is
`[CLS] visit [SEP] visit [SEP] ...`, where a visit is the tokens of its codes; visits without codes are left out. This
file imports only numpy, as it lies in every tokenizer directory.
"""

import dataclasses
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from medtok_jax.lookup.code_names import shown
from preprocessing.common.errors import InputError

PADDINGS = (False, True, "longest", "max_length", "do_not_pad")
TRUNCATIONS = (False, True, "longest_first", "only_first", "do_not_truncate")
SIDES = ("left", "right")
TENSORS = (None, "np", "pt")
# What a call may be given: how deep codes are nested, and its name.
CODE, CODES, SEQUENCES, PATIENTS = range(4)
_FORMS = "a code, a list of codes or a list of sequences of codes"
_PATIENT_FORMS = "a list of patients, each a list of visits, each a list of codes"


@dataclasses.dataclass(frozen=True)
class Layout:
    """Hold the options of sequences; see `MedTokTokenizer.__call__` for the fields.

    Raises:
        InputError: a value is not allowed, or a length is missing.
    """

    padding: bool | str = False
    truncation: bool | str = False
    max_length: int | None = None
    padding_side: str = "right"
    truncation_side: str = "right"
    pad_to_multiple_of: int | None = None
    return_tensors: str | None = None

    def __post_init__(self) -> None:
        allowed = {
            "padding": PADDINGS,
            "truncation": TRUNCATIONS,
            "padding_side": SIDES,
            "truncation_side": SIDES,
            "return_tensors": TENSORS,
        }
        for name, values in allowed.items():
            value = getattr(self, name)
            if not any(type(value) is type(known) and value == known for known in values):
                raise InputError(f"{name} is {value!r}; it must be one of {', '.join(map(repr, values))}.")
        for name in ("max_length", "pad_to_multiple_of"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1):
                raise InputError(f"{name} is {value!r}; it must be a number of tokens.")
        if self.max_length is None and (self.truncates or self.padding == "max_length"):
            raise InputError("Truncating and padding to max_length need max_length.")

    @property
    def truncates(self) -> bool:
        """Return True if sequences are cut."""
        return self.truncation not in (False, "do_not_truncate")

    @property
    def pads(self) -> bool:
        """Return True if sequences are padded."""
        return self.padding not in (False, "do_not_pad")


@dataclasses.dataclass(frozen=True)
class CodeTokenRun:
    """Hold the tokens of many codes one after the other.

    Attributes:
        ids, weights: `[tokens]` int32 and float32.
        widths: `[codes]` number of tokens of each code: T, or 1 for an added token, or 0 for a code that is left out.
    """

    ids: np.ndarray
    weights: np.ndarray
    widths: np.ndarray

    def take(self, kept: np.ndarray) -> "CodeTokenRun":
        """Return the codes of a `[codes]` bool mask."""
        tokens = np.repeat(kept, self.widths)
        return CodeTokenRun(self.ids[tokens], self.weights[tokens], self.widths[kept])


@dataclasses.dataclass(frozen=True)
class Grouping:
    """Say how a flat list of codes makes up sequences.

    Attributes:
        form: `CODE`, `CODES`, `SEQUENCES` or `PATIENTS`.
        codes: all codes, one sequence after the other.
        visit_sizes: `[visits]` number of codes of each visit; a sequence without visits is one visit.
        sequence_sizes: `[sequences]` number of visits of each sequence.
    """

    form: int
    codes: list[Any]
    visit_sizes: np.ndarray
    sequence_sizes: np.ndarray


def group_codes(codes: object) -> Grouping:
    """Return what `__call__` is given as a flat list: a code, codes (each a sequence of its own), or sequences.

    Raises:
        InputError: the input is nested deeper, or unevenly.
    """
    if not is_list(codes):
        return Grouping(CODE, [codes], np.ones(1, np.int64), np.ones(1, np.int64))
    items = as_list(codes)
    nested = [is_list(item) for item in items]
    if not any(nested):
        return Grouping(CODES, items, np.ones(len(items), np.int64), np.ones(len(items), np.int64))
    if not all(nested):
        raise InputError(f"A list is missing around {shown(items[nested.index(False)])}; give {_FORMS}.")
    sequences = [as_list(item) for item in items]
    for sequence in sequences:
        if any(is_list(code) for code in sequence):
            raise InputError(
                "Codes are nested three levels deep, as visits of patients are; give patients to encode_patients, a"
                f" single patient to encode_patient, and to a call {_FORMS}."
            )
    flat = [code for sequence in sequences for code in sequence]
    sizes = np.array([len(sequence) for sequence in sequences], np.int64)
    return Grouping(SEQUENCES, flat, sizes, np.ones(len(sequences), np.int64))


def group_patients(patients: object) -> Grouping:
    """Return the codes of patients, each a list of visits, each a list of codes.

    Raises:
        InputError: the input is nested otherwise.
    """
    visits_of = []
    for patient in _listed(patients):
        visits_of.append([_listed(visit) for visit in _listed(patient)])
    visits = [visit for patient in visits_of for visit in patient]
    flat = [code for visit in visits for code in visit]
    if any(is_list(code) for code in flat):
        raise InputError(f"Codes are nested more than three levels deep; give {_PATIENT_FORMS}.")
    sizes = np.array([len(visit) for visit in visits], np.int64)
    return Grouping(PATIENTS, flat, sizes, np.array([len(patient) for patient in visits_of], np.int64))


def flat_systems(system: object, codes: Grouping, group: Callable[[object], Grouping]) -> object:
    """Return the system of all codes, or a flat list of one for each where `system` is nested as the codes are.

    Raises:
        InputError: it is nested otherwise.
    """
    if not is_list(system):
        return system
    systems = group(system)
    nested = systems.form > CODES
    if nested and not all(
        np.array_equal(getattr(systems, name), getattr(codes, name)) for name in ("visit_sizes", "sequence_sizes")
    ):
        raise InputError("The systems are nested otherwise than the codes; give one for each code.")
    return systems.codes


def _listed(value: object) -> list[Any]:
    if not is_list(value):
        raise InputError(f"A list is missing around {shown(value)}; give {_PATIENT_FORMS}.")
    return as_list(value)


def is_list(value: object) -> bool:
    """Return True for a list, a tuple, an array or a column of a data frame, and False for text."""
    if isinstance(value, (list, tuple)):
        return True
    return any(hasattr(value, name) for name in ("tolist", "to_list", "to_pylist")) and getattr(value, "ndim", 1) > 0


def as_list(value: object) -> list[Any]:
    """Return a list, a tuple, an array or a column (of pandas, polars, Arrow; categorical or not) as a list."""
    if isinstance(value, (list, tuple)):
        return list(value)
    for name in ("tolist", "to_list", "to_pylist"):
        if hasattr(value, name):
            return list(getattr(value, name)())
    raise InputError(f"Codes must be a list or an array, not {shown(value)}.")


def as_token_ids(value: object) -> list[int]:
    """Return the token ids of a sequence, or a single one, as a list of int.

    Raises:
        InputError: they are not whole numbers.
    """
    numbers: list[Any] = as_list(value) if is_list(value) else [value]
    for number in numbers:
        if isinstance(number, bool) or not hasattr(number, "__index__"):
            raise InputError(f"A token id must be a whole number, not {shown(number)}.")
    try:
        return [operator.index(number) for number in numbers]
    except TypeError as error:
        raise InputError(f"Token ids must be whole numbers ({error}).") from error


def lay_out(
    run: CodeTokenRun, grouping: Grouping, layout: Layout, *, special: dict[str, int] | None, least: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Make sequences of codes with their special tokens, truncated, one after the other.

    Args:
        run: tokens of all codes, in the order of `grouping`.
        grouping: which codes make up a sequence.
        layout: options of the sequences.
        special: ids of `[CLS]` and `[SEP]`, or None for sequences without them.
        least: tokens of one code, for the message.

    Returns:
        `input_ids`, `weights` and `visit_ids` of all sequences end to end, and the `[sequences]` lengths.

    Raises:
        InputError: `max_length` is too small for one code.
    """
    least += 2 if special else 0
    if layout.truncates and layout.max_length is not None and layout.max_length < least:
        raise InputError(f"max_length is {layout.max_length}; it must be at least {least}, the tokens of one code.")
    sequence_of_visit = np.repeat(np.arange(len(grouping.sequence_sizes)), grouping.sequence_sizes)
    visit = np.repeat(np.arange(len(grouping.visit_sizes)), grouping.visit_sizes)
    # Codes that are left out count for nothing, so that a visit of none but them is empty.
    kept = run.widths > 0
    run, visit = run.take(kept), visit[kept]
    if layout.truncates:
        kept = _fitting(run.widths, visit, sequence_of_visit, bool(special), layout)
        run, visit = run.take(kept), visit[kept]
    return _join(run, visit, sequence_of_visit[visit], len(grouping.sequence_sizes), special)


def _join(
    run: CodeTokenRun, visit: np.ndarray, sequence: np.ndarray, num_sequences: int, special: dict[str, int] | None
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    first_of_visit = _begins(visit)
    visit_rank = _rank(sequence, first_of_visit.astype(np.int64))
    num_visits = np.bincount(sequence[first_of_visit], minlength=num_sequences)
    tokens = np.bincount(sequence, weights=run.widths, minlength=num_sequences).astype(np.int64)
    lengths = tokens + (num_visits + 1 if special else 0)
    starts = np.cumsum(lengths) - lengths
    before = _rank(sequence, run.widths) - run.widths
    first_position = starts[sequence] + before + (visit_rank if special else 0)
    code_starts = np.cumsum(run.widths) - run.widths
    within = np.arange(len(run.ids)) - np.repeat(code_starts, run.widths)
    positions = np.repeat(first_position, run.widths) + within
    total = int(lengths.sum())
    joined = {
        "input_ids": np.empty(total, np.int32),
        "weights": np.ones(total, np.float32),
        "visit_ids": np.zeros(total, np.int32),
    }
    joined["input_ids"][positions] = run.ids
    joined["weights"][positions] = run.weights
    joined["visit_ids"][positions] = np.repeat(visit_rank, run.widths)
    if special:
        joined["input_ids"][starts] = special["[CLS]"]
        last_of_visit = np.concatenate([first_of_visit[1:], [True]])[: len(visit)]
        ends = (first_position + run.widths)[last_of_visit]
        joined["input_ids"][ends] = special["[SEP]"]
        joined["visit_ids"][ends] = visit_rank[last_of_visit]
    return joined, lengths


def _begins(group: np.ndarray) -> np.ndarray:
    """Return a bool mask of the positions where a run of equal numbers begins."""
    return np.concatenate([[True], group[1:] != group[:-1]])[: len(group)]


def _rank(group: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Return the cumulative sum of `counted` within each run of equal `group`, each position included."""
    total = np.cumsum(counted)
    before = np.where(_begins(group), total - counted, 0)
    return total - np.maximum.accumulate(before) if len(group) else total


def _fitting(
    widths: np.ndarray, visit: np.ndarray, sequence_of_visit: np.ndarray, marked: bool, layout: Layout
) -> np.ndarray:
    """Return a bool mask of the codes that truncation keeps: as many as fit, the first or the last ones."""
    if layout.truncation_side == "left":
        flipped = dataclasses.replace(layout, truncation_side="right")
        last = len(sequence_of_visit) - 1
        return _fitting(widths[::-1], last - visit[::-1], sequence_of_visit[::-1], marked, flipped)[::-1]
    sequence = sequence_of_visit[visit]
    needed = _rank(sequence, widths)
    if marked:
        needed = needed + 1 + _rank(sequence, _begins(visit).astype(np.int64))
    return needed <= layout.max_length


def pad(
    flat: dict[str, np.ndarray], lengths: np.ndarray, layout: Layout, padding_id: int
) -> dict[str, np.ndarray] | dict[str, list[np.ndarray]]:
    """Return sequences as `[sequences, length]` arrays where they are padded or made tensors, else as lists of arrays.

    Args:
        flat: `input_ids`, `weights`, ... of all sequences end to end.
        lengths: `[sequences]`.
        layout: options of the sequences.
        padding_id: id of `[PAD]`.

    Raises:
        InputError: sequences of different lengths cannot be one tensor.
    """
    longest = int(lengths.max(initial=0))
    if layout.padding == "max_length" and layout.max_length is not None:
        longest = max(longest, int(layout.max_length))
    elif not layout.pads:
        if layout.return_tensors is not None and (lengths != longest).any():
            raise InputError(
                "Sequences of different lengths cannot be one tensor; set padding=True, or truncation too."
            )
        if layout.return_tensors is None:
            ends = np.cumsum(lengths)[:-1]
            parts = {name: np.split(array, ends) if len(lengths) else [] for name, array in flat.items()}
            return parts | {"attention_mask": [np.ones(length, np.int32) for length in lengths]}
    if layout.pads and layout.pad_to_multiple_of:
        longest = -(-longest // layout.pad_to_multiple_of) * layout.pad_to_multiple_of
    mask = np.arange(longest) < lengths[:, None]
    if layout.padding_side == "left":
        mask = mask[:, ::-1]
    filled = {"input_ids": padding_id, "weights": 0.0, "visit_ids": 0}
    padded = {name: np.full(mask.shape, filled[name], array.dtype) for name, array in flat.items()}
    for name, array in flat.items():
        padded[name][mask] = array
    return padded | {"attention_mask": mask.astype(np.int32)}


def groups_of(ids: Sequence[int], width: int, special: dict[str, int]) -> list[np.ndarray]:
    """Return the token ids of each code of a sequence; `[UNK]` and ids outside of the codebook are left out of them.

    Args:
        ids: `[tokens]` of one sequence, in which each `width` tokens between special tokens are a code.
        width: T.
        special: ids of the special tokens; ids beyond them are added tokens or padding of an embedding matrix.
    """
    unknown, codebook = special["[UNK]"], special["[PAD]"]
    groups, group = [], []
    for number in [*ids, None]:
        is_token = number is not None and (0 <= number < codebook or number == unknown)
        if is_token:
            group.append(number)
        if group and (len(group) == width or not is_token):
            groups.append(np.array([token for token in group if token != unknown], np.int64))
            group = []
    return groups
