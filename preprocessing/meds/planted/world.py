"""Plant a signal: decide on what the risk of a patient depends, and how strongly.

| signal | the risk depends on | seen by |
|---|---|---|
| `group` | groups of CCS | tokens of graph or text, words; codes only with many patients |
| `random` | as many sets of as frequent codes, at random | within one vocabulary, only the codes themselves |
| `graph_only` | categories of ICD-9-CM whose codes share no words | tokens of the graph |
| `text_only` | codes with a common word, of different categories | tokens of text, words |
| `none` | nothing | nothing |
| `order` | which of two diseases came first, in the last two stays | sequence models, not counts |
| `leak` | as `group`; beside that, events tell the label | faulty benchmarks |

The risk is a logistic function of the number of planted groups of which the patient has a code, each with a weight of
its own, positive or negative. Weights are centered so that having more diseases does not raise the risk. Scale and
intercept give `PREVALENCE`, and `ORACLE_AUROC` to whoever knows the true risk.
"""

import dataclasses
import functools

import numpy as np

from preprocessing.common.errors import InputError
from preprocessing.meds.planted.conditions import Conditions, ccs_groups, tree_groups, word_groups
from preprocessing.meds.planted.draw import Patients, draw

GROUP, RANDOM, GRAPH_ONLY, TEXT_ONLY, NONE, ORDER, LEAK = SIGNALS = (
    *("group", "random", "graph_only", "text_only", "none", "order", "leak"),
)
PREVALENCE = 0.3
ORACLE_AUROC = 0.778
# Number of patients, not among those that are written, on which weights are centered and scaled; their stream.
_REFERENCE, _REFERENCE_STREAM = 8192, 1
_WORLD_STREAM = 2
_MAKERS = {GRAPH_ONLY: tree_groups, TEXT_ONLY: word_groups}


@dataclasses.dataclass(frozen=True)
class World:
    """Hold the diseases of a world and its risk.

    Attributes:
        signal: one of `SIGNALS`.
        seed: of all random numbers.
        conditions: the diseases.
        risk_group: `[diseases]` int64, the set of codes that a disease belongs to in the risk.
        weight: `[sets]` float64, the centered weight of each set; zeros where there is no signal or an order.
        scale, intercept: logit = intercept + scale x sum of weights; with an order, intercept +- scale.
    """

    signal: str
    seed: int
    conditions: Conditions
    risk_group: np.ndarray
    weight: np.ndarray
    scale: float
    intercept: float

    @property
    def is_ordered(self) -> bool:
        """Return whether each patient has a pair of diseases in one of two orders."""
        return self.signal == ORDER

    def patients(self, first: int, stop: int) -> Patients:
        """Draw the patients with the numbers `first` to `stop` (exclusive)."""
        return draw(self.seed, self.conditions, first, stop, ordered=self.is_ordered)

    def risk(self, patients: Patients) -> np.ndarray:
        """Return the true probability of the label for each patient, `[patients]` float64."""
        return _logistic(self.intercept + self.scale * self._score(patients))

    def _score(self, patients: Patients) -> np.ndarray:
        if self.is_ordered:
            return 1.0 - 2.0 * patients.people["is_reversed"]
        return presence(patients, self.risk_group, len(self.weight)) @ self.weight


@functools.cache
def make_world(signal: str, seed: int) -> World:
    """Return the world of a signal and a seed.

    Raises:
        InputError: there is no such signal, or the packages of code lists are missing.
    """
    if signal not in SIGNALS:
        raise InputError(f"signal is {signal!r}; it must be one of {', '.join(SIGNALS)}.")
    # Worlds that differ only in their risk have the same patients.
    rng = np.random.default_rng([seed, _WORLD_STREAM])
    conditions = _MAKERS.get(signal, ccs_groups)(rng)
    groups = len(conditions.names)
    weight = np.zeros(groups) if signal in (NONE, ORDER) else rng.normal(size=groups)
    risk_group = _shuffled_alike(rng, conditions) if signal == RANDOM else conditions.group
    ordered = signal == ORDER
    reference = draw(seed, conditions, 0, _REFERENCE, ordered=ordered, stream=_REFERENCE_STREAM)
    if weight.any():
        present = presence(reference, risk_group, groups)
        # The weight that is subtracted makes the score independent of the number of groups, to first order.
        count = present.sum(1) - present.sum(1).mean()
        weight = weight - (count @ (present @ weight)) / (count @ present.sum(1))
    draft = World(signal, seed, conditions, risk_group, weight, 1.0, 0.0)
    scale, intercept = _calibrated(draft._score(reference)) if signal != NONE else (0.0, _logit(PREVALENCE))
    return dataclasses.replace(draft, scale=scale, intercept=intercept)


def presence(patients: Patients, risk_group: np.ndarray, groups: int) -> np.ndarray:
    """Return whether each patient has a disease of each set, `[patients, groups]` float64 of 0 and 1."""
    found = np.zeros((len(patients.people["person"]), groups))
    row = np.searchsorted(patients.people["person"], patients.diagnoses["person"])
    found[row, risk_group[patients.diagnoses["condition"]]] = 1.0
    return found


def expected_auroc(risk: np.ndarray) -> float:
    """Return the AUROC to expect of a true risk, `[n]` float64: over all labels that may be drawn from it."""
    return _auroc(risk, risk, 1 - risk)


def observed_auroc(risk: np.ndarray, label: np.ndarray) -> float:
    """Return the AUROC of a risk, `[n]` float64, for labels, `[n]` bool; NaN if they are all the same."""
    return _auroc(risk, label.astype(np.float64), 1.0 - label)


def _auroc(score: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> float:
    """Return the AUROC of scores with the weights of each as a positive and as a negative; equal scores count half."""
    _, place = np.unique(score, return_inverse=True)
    positive, negative = np.bincount(place, positive), np.bincount(place, negative)
    pairs = positive.sum() * negative.sum()
    return float(positive @ (np.cumsum(negative) - negative / 2) / pairs) if pairs else float("nan")


def _shuffled_alike(rng: np.random.Generator, conditions: Conditions) -> np.ndarray:
    """Return a random set for each disease: the diseases of a rank in their groups exchange their groups."""
    starts, sets = conditions.starts, conditions.group.copy()
    rank = np.arange(len(sets)) - starts[conditions.group]
    for number in range(rank.max() + 1):
        mine = np.flatnonzero(rank == number)
        sets[mine] = rng.permutation(conditions.group[mine])
    return sets


def _calibrated(score: np.ndarray) -> tuple[float, float]:
    """Return scale and intercept that give `PREVALENCE` and `ORACLE_AUROC` to patients with these scores."""
    low, high = 0.0, 64.0 / max(score.std(), 1e-9)
    for _ in range(60):
        scale = (low + high) / 2
        intercept = _intercept(scale * score)
        if expected_auroc(_logistic(intercept + scale * score)) < ORACLE_AUROC:
            low = scale
        else:
            high = scale
    return scale, intercept


def _intercept(logit: np.ndarray) -> float:
    low, high = -100.0, 100.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _logistic(middle + logit).mean() < PREVALENCE else (low, middle)
    return middle


def _logistic(logit: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(logit, -60, 60)))


def _logit(probability: float) -> float:
    return float(np.log(probability / (1 - probability)))
