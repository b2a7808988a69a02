"""Lay out the tokens of codes as sequences for a model: special tokens, truncation, padding.

A code has 4K tokens, known or not, so that a model may pool each 4K positions to one code. A patient's history is
`[CLS] visit [SEP] visit [SEP] ...`, where a visit is the tokens of its codes; visits without codes are left out.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from medtok_jax.lookup.code_names import shown
from preprocessing.common.errors import InputError

PADDINGS = (False, True, "longest", "max_length")
SIDES = ("left", "right")
TENSORS = (None, "np", "jax", "pt")
CODE, CODES, HISTORY, HISTORIES = range(4)
_KINDS = "a code, a list of codes, a history (visits of codes) or a list of histories"


class BatchEncoding(dict):
    """Hold `input_ids`, `attention_mask`, `weights` and, for histories, `visit_ids` as items and as attributes."""

    def __getattr__(self, name: str):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


@dataclasses.dataclass(frozen=True)
class Layout:
    """Hold the options of sequences; see `MedTokTokenizer.__call__` for the fields.

    Raises:
        InputError: a value is not allowed, or a length is missing.
    """

    padding: bool | str = False
    truncation: bool = False
    max_length: int | None = None
    padding_side: str = "right"
    truncation_side: str = "right"
    add_special_tokens: bool | None = None
    return_tensors: str | None = None

    def __post_init__(self):
        allowed = {
            "padding": PADDINGS,
            "truncation": (False, True),
            "padding_side": SIDES,
            "truncation_side": SIDES,
            "add_special_tokens": (None, False, True),
            "return_tensors": TENSORS,
        }
        for name, values in allowed.items():
            value = getattr(self, name)
            if not any(type(value) is type(known) and value == known for known in values):
                raise InputError(f"{name} is {value!r}; it must be one of {', '.join(map(repr, values))}.")
        length = self.max_length
        if length is not None and (isinstance(length, bool) or not isinstance(length, (int, np.integer))):
            raise InputError(f"max_length is {length!r}; it must be a number of tokens.")
        if length is None and (self.truncation or self.padding == "max_length"):
            raise InputError("Truncating and padding to max_length need max_length.")


def flatten(codes: object) -> tuple[int, list, np.ndarray, np.ndarray]:
    """Return the kind of an input, and its codes as a flat list.

    Returns:
        `CODE`, `CODES`, `HISTORY` or `HISTORIES`; the codes; `[visits]` number of codes of each visit; `[sequences]`
        number of visits of each sequence. Codes outside of histories are visits of their own.

    Raises:
        InputError: the input is nested otherwise.
    """
    kind = _depth(codes)
    if kind == CODE:
        return kind, [codes], np.ones(1, np.int64), np.ones(1, np.int64)
    if kind == CODES:
        flat = _as_list(codes)
        return kind, flat, np.ones(len(flat), np.int64), np.ones(len(flat), np.int64)
    patients = [_as_list(codes)] if kind == HISTORY else [_as_list(patient) for patient in _as_list(codes)]
    visits = [_as_list(visit) for patient in patients for visit in patient]
    sizes = np.array([len(visit) for visit in visits], np.int64)
    return kind, [code for visit in visits for code in visit], sizes, np.array([len(p) for p in patients], np.int64)


def _depth(value: object) -> int:
    """Return the depth of nesting by the first code of each list; the others are checked when they are looked up."""
    depth = 0
    items = [value]
    while lists := [_as_list(item) for item in items if is_list(item)]:
        if depth == HISTORIES:
            raise InputError(f"Codes are nested more than {HISTORIES} levels deep; give {_KINDS}.")
        depth += 1
        items = [item for part in lists for item in (part if part and is_list(part[0]) else part[:1])]
    return depth


def is_list(value: object) -> bool:
    """Return True for a list, a tuple or an array, and False for text."""
    return isinstance(value, (list, tuple)) or (hasattr(value, "tolist") and getattr(value, "ndim", 1) > 0)


def _as_list(value: object) -> list:
    if isinstance(value, list):
        return value
    if not is_list(value):
        raise InputError(f"A list is missing around {shown(value)}; give {_KINDS}.")
    return value.tolist() if hasattr(value, "tolist") else list(value)


def lay_out(
    ids: np.ndarray,
    weights: np.ndarray,
    visit_sizes: np.ndarray,
    patient_sizes: np.ndarray,
    *,
    kind: int,
    layout: Layout,
    special: dict[str, int],
) -> BatchEncoding:
    """Make sequences of codes with their special tokens, truncated and padded.

    Args:
        ids, weights: `[codes, 4K]` int32 and float32, codes of all sequences one after another.
        visit_sizes: `[visits]` number of codes of each visit.
        patient_sizes: `[sequences]` number of visits of each sequence.
        kind: the kind that `flatten` returned.
        layout: options of the sequences.
        special: ids of the special tokens.

    Raises:
        InputError: `max_length` is too small for one code, or sequences of different lengths cannot be one tensor.
    """
    width = ids.shape[1]
    marked = layout.add_special_tokens if layout.add_special_tokens is not None else kind >= HISTORY
    if layout.truncation and layout.max_length < (least := width + (2 if marked else 0)):
        raise InputError(f"max_length is {layout.max_length}; it must be at least {least}, the tokens of one code.")
    if kind < HISTORY and not marked:
        flat = {"input_ids": ids.reshape(-1), "weights": weights.reshape(-1)}
        return _pad(flat, np.full(len(ids), width), width, kind=kind, layout=layout, padding_id=special["[PAD]"])
    patient_of_visit = np.repeat(np.arange(len(patient_sizes)), patient_sizes)
    visit = np.repeat(np.arange(len(visit_sizes)), visit_sizes)
    if layout.truncation:
        keep = _kept(visit, patient_of_visit, width, marked, layout)
        ids = ids[keep]
        weights = weights[keep]
        visit = visit[keep]
    flat, lengths = _join(ids, weights, visit, patient_of_visit[visit], len(patient_sizes), special if marked else None)
    if kind < HISTORY:
        del flat["visit_ids"]
    return _pad(flat, lengths, width, kind=kind, layout=layout, padding_id=special["[PAD]"])


def _join(
    ids: np.ndarray,
    weights: np.ndarray,
    visit: np.ndarray,
    patient: np.ndarray,
    num_patients: int,
    special: dict[str, int] | None,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return all sequences one after another, with special tokens unless `special` is None, and their lengths."""
    width = ids.shape[1]
    first_of_visit = _begins(visit)
    code_rank = _rank(patient, np.ones(len(patient), np.int64))
    visit_rank = _rank(patient, first_of_visit.astype(np.int64))
    num_visits = np.bincount(patient[first_of_visit], minlength=num_patients)
    lengths = np.bincount(patient, minlength=num_patients) * width + (num_visits + 1 if special else 0)
    starts = np.cumsum(lengths) - lengths
    first_position = starts[patient] + (code_rank - 1) * width + (visit_rank if special else 0)
    positions = first_position[:, None] + np.arange(width)
    joined_ids = np.empty(lengths.sum(), np.int32)
    joined_weights = np.ones(lengths.sum(), np.float32)
    visit_ids = np.zeros(lengths.sum(), np.int32)
    joined_ids[positions] = ids
    joined_weights[positions] = weights
    visit_ids[positions] = visit_rank[:, None]
    if special:
        joined_ids[starts] = special["[CLS]"]
        last_of_visit = np.concatenate([first_of_visit[1:], [True]])[: len(visit)]
        ends = first_position[last_of_visit] + width
        joined_ids[ends] = special["[SEP]"]
        visit_ids[ends] = visit_rank[last_of_visit]
    return {"input_ids": joined_ids, "weights": joined_weights, "visit_ids": visit_ids}, lengths


def _begins(group: np.ndarray) -> np.ndarray:
    """Return a bool mask of the positions where a run of equal numbers begins."""
    return np.concatenate([[True], group[1:] != group[:-1]])[: len(group)]


def _rank(group: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Return the cumulative sum of `counted` within each run of equal `group`, each position included."""
    total = np.cumsum(counted)
    before = np.where(_begins(group), total - counted, 0)
    return total - np.maximum.accumulate(before) if len(group) else total


def _kept(visit: np.ndarray, patient_of_visit: np.ndarray, width: int, marked: bool, layout: Layout) -> np.ndarray:
    """Return a bool mask of the codes that truncation keeps: as many as fit, the first or the last ones."""
    if layout.truncation_side == "left":
        flipped = dataclasses.replace(layout, truncation_side="right")
        last = len(patient_of_visit) - 1
        return _kept(last - visit[::-1], patient_of_visit[::-1], width, marked, flipped)[::-1]
    patient = patient_of_visit[visit]
    needed = _rank(patient, np.ones(len(visit), np.int64)) * width
    if marked:
        needed = needed + 1 + _rank(patient, _begins(visit).astype(np.int64))
    return needed <= layout.max_length


def _pad(
    flat: dict[str, np.ndarray], lengths: np.ndarray, width: int, *, kind: int, layout: Layout, padding_id: int
) -> BatchEncoding:
    # An empty list of codes still gives rows of 4K tokens.
    longest = int(lengths.max(initial=0 if kind >= HISTORY else width))
    single = kind in (CODE, HISTORY)
    if layout.padding == "max_length":
        longest = max(longest, int(layout.max_length))
    elif not layout.padding and kind >= HISTORY and (layout.return_tensors is None or (lengths != longest).any()):
        if layout.return_tensors is not None:
            raise InputError(
                "Sequences of different lengths cannot be one tensor; set padding=True, or truncation too."
            )
        ends = np.cumsum(lengths)[:-1]
        parts = {name: np.split(array, ends) if len(lengths) else [] for name, array in flat.items()}
        parts["attention_mask"] = [np.ones(length, np.int32) for length in lengths]
        return BatchEncoding({name: part[0] if single else part for name, part in parts.items()})
    mask = np.arange(longest) < lengths[:, None]
    if layout.padding_side == "left":
        mask = mask[:, ::-1]
    filled = {"input_ids": padding_id, "weights": 0.0, "visit_ids": 0}
    if (lengths == longest).all():
        padded = {name: array.reshape(mask.shape) for name, array in flat.items()}
    else:
        padded = {name: np.full(mask.shape, filled[name], array.dtype) for name, array in flat.items()}
        for name, array in flat.items():
            padded[name][mask] = array
    padded["attention_mask"] = mask.astype(np.int32)
    if single and layout.return_tensors is None:
        return BatchEncoding({name: array[0] for name, array in padded.items()})
    return BatchEncoding(padded)


def groups_of(
    ids: Sequence[int], weights: Sequence[float] | None, width: int, special: dict[str, int]
) -> list[tuple[np.ndarray, np.ndarray | None]]:
    """Return the token ids and weights of each code of a sequence, leaving out special tokens.

    Each `width` tokens are a code, where `[UNK]` is counted.

    Args:
        ids: flat token ids.
        weights: equally many weights, or None.
        width: 4K.
        special: ids of the special tokens.

    Raises:
        InputError: the ids or weights cannot be used, or there are more than `width` tokens but not a multiple of it.
    """
    array = _numbers(ids, "iu", "Token ids must be a flat list of integers")
    shares = np.ones(len(array), np.float32) if weights is None else _numbers(weights, "f", "Weights must be numbers")
    most = max(special.values())
    if len(array) != len(shares) or (len(array) and not 0 <= array.min() <= array.max() <= most):
        raise InputError(f"Token ids must lie between 0 and {most}, and there must be as many weights as ids.")
    kept = ~np.isin(array, [number for name, number in special.items() if name != "[UNK]"])
    array = array[kept].astype(np.int64)
    shares = shares[kept].astype(np.float32)
    if len(array) > width and len(array) % width:
        raise InputError(
            f"{len(array)} tokens were given; their number must be a multiple of {width}, those of a code."
        )
    starts = range(0, len(array), width)
    known = array != special["[UNK]"]
    groups = [s + np.flatnonzero(known[s : s + width]) for s in starts]
    return [(array[group], None if weights is None else shares[group]) for group in groups]


def _numbers(values: object, kinds: str, sentence: str) -> np.ndarray:
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InputError(f"{sentence}, not {shown(values)}.") from error
    if array.ndim != 1 or (array.size and array.dtype.kind not in kinds):
        raise InputError(f"{sentence}, not {shown(values)}.")
    return array
