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
its own, positive or negative. Weights are centered so that having more diseases does not raise the risk on average.
Scale and intercept give `PREVALENCE`, and `ORACLE_AUROC` to whoever knows the true risk.
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
_REFERENCE, _REFERENCE_STREAM = 32 * 1024, 1
_CENTERINGS, _BISECTIONS, _NEWTON_STEPS = 3, 16, 6
# Largest standard deviation of the logit that is tried to reach `ORACLE_AUROC`.
_STRONGEST = 4.0
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
        return self.risk_of(self._score(patients))

    def risk_of(self, score: np.ndarray) -> np.ndarray:
        """Return the probability of the label for each sum of weights, `[patients]` float64."""
        return _logistic(self.intercept + self.scale * score)

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
    draft = World(signal, seed, conditions, risk_group, weight, 0.0, _logit(PREVALENCE))
    if signal == NONE:
        return draft
    if ordered:
        return _calibrated(draft, draft._score(reference))
    present = presence(reference, risk_group, groups)
    number = diseases_of(reference)
    for _ in range(_CENTERINGS):
        draft = _calibrated(draft, present @ draft.weight)
        slope = _slope(number, draft.risk_of(present @ draft.weight))
        # How fast the risk grows with the number of diseases if all weights grow alike.
        unit = _slope(number, present.sum(1)) * draft.scale * PREVALENCE * (1 - PREVALENCE)
        draft = dataclasses.replace(draft, weight=draft.weight - slope / unit)
    return _calibrated(draft, present @ draft.weight)


def presence(patients: Patients, risk_group: np.ndarray, groups: int) -> np.ndarray:
    """Return whether each patient has a disease of each set, `[patients, groups]` float64 of 0 and 1."""
    found = np.zeros((len(patients.people["person"]), groups))
    row = np.searchsorted(patients.people["person"], patients.diagnoses["person"])
    found[row, risk_group[patients.diagnoses["condition"]]] = 1.0
    return found


def diseases_of(patients: Patients) -> np.ndarray:
    """Return the number of distinct diseases of each patient, `[patients]` int64."""
    people, diagnoses = patients.people["person"], patients.diagnoses
    most = int(diagnoses["condition"].max(initial=0)) + 1
    pairs = np.unique(np.searchsorted(people, diagnoses["person"]) * most + diagnoses["condition"])
    return np.bincount(pairs // most, minlength=len(people))


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


def _slope(x: np.ndarray, y: np.ndarray) -> float:
    centered = x - x.mean()
    return float(centered @ y / (centered @ centered))


def _shuffled_alike(rng: np.random.Generator, conditions: Conditions) -> np.ndarray:
    """Return a random set for each disease: the diseases of a rank in their groups exchange their groups."""
    starts, sets = conditions.starts, conditions.group.copy()
    rank = np.arange(len(sets)) - starts[conditions.group]
    for number in range(rank.max() + 1):
        mine = np.flatnonzero(rank == number)
        sets[mine] = rng.permutation(conditions.group[mine])
    return sets


def _calibrated(world: World, score: np.ndarray) -> World:
    """Return the world with the scale and intercept that give `PREVALENCE` and `ORACLE_AUROC` to these scores."""
    low, high = 0.0, _STRONGEST / score.std()
    for _ in range(_BISECTIONS):
        scale = (low + high) / 2
        world = dataclasses.replace(world, scale=scale, intercept=_intercept(scale * score))
        is_low = expected_auroc(world.risk_of(score)) < ORACLE_AUROC
        low, high = (scale, high) if is_low else (low, scale)
    return world


def _intercept(logit: np.ndarray) -> float:
    """Return what to add to logits so that the mean probability is `PREVALENCE`, by Newton's method."""
    intercept = _logit(PREVALENCE) - float(logit.mean())
    for _ in range(_NEWTON_STEPS):
        risk = _logistic(intercept + logit)
        intercept -= float((risk.mean() - PREVALENCE) / (risk * (1 - risk)).mean())
    return intercept


def _logistic(logit: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(logit, -60, 60)))


def _logit(probability: float) -> float:
    return float(np.log(probability / (1 - probability)))
