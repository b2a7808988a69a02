"""Make patients whose outcome follows from their codes or from the order of two of them, without files."""

import numpy as np
import scipy.sparse as sp

from eval.ehr.history import Histories
from eval.ehr.inputs import Inputs, make_inputs
from eval.ehr.split import Split
from eval.ehr.tokenizers.matrix import CodeMatrix, from_tokens, from_vectors
from medtok_jax.records.samples import Labels

CODES = 20


def patients(number: int, *, signal: str, seed: int = 0) -> tuple[Inputs, np.ndarray]:
    """Return samples and outcomes: with `order`, code 0 comes before code 1; with `code`, there is a code 0.

    Each patient has two to four visits of three codes, a day apart, and is asked about a day after the last one.
    """
    rng = np.random.default_rng(seed)
    codes, visits, outcome = [], [], rng.random(number) < 0.5
    for positive in outcome:
        visit_codes = rng.integers(2, CODES, size=(rng.integers(2, 5), 3))
        first, last = np.sort(rng.choice(len(visit_codes), 2, replace=False))
        if signal == "order":
            visit_codes[first, 0], visit_codes[last, 0] = (0, 1) if positive else (1, 0)
        elif positive:
            visit_codes[first, 0] = 0
        codes.append(visit_codes.ravel())
        visits.append(np.repeat(np.arange(len(visit_codes)), 3))
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in codes])])
    visit = np.concatenate(visits).astype(np.int32)
    time = np.datetime64("2020-01-01", "us") + visit * np.timedelta64(1, "D")
    histories = Histories(
        subject=np.arange(number),
        offsets=offsets,
        code=np.concatenate(codes).astype(np.int32),
        time=time,
        visit=visit,
        coded=np.zeros(len(time), bool),
        codes=np.array([f"code {number:02d}" for number in range(CODES)]),
        is_drug=np.zeros(CODES, bool),
        birth=np.datetime64("1930-01-01", "us") + rng.integers(0, 20_000, number) * np.timedelta64(1, "D"),
        sex=np.array(["F", "M"])[rng.integers(0, 2, number)],
        person=np.arange(number),
        coding=np.timedelta64(1, "D"),
    )
    asked = time[offsets[1:] - 1] + np.timedelta64(1, "D")
    return make_inputs(histories, Labels(histories.subject, asked, outcome), "coded"), outcome


def split_of(inputs: Inputs, y: np.ndarray, train: np.ndarray, tuning: np.ndarray, test: np.ndarray) -> Split:
    """Return the samples at the places `train`, `tuning` and `test` as a split."""
    return Split(inputs.take(train), y[train], inputs.take(tuning), y[tuning], inputs.take(test), y[test], test)


def single_codes() -> CodeMatrix:
    """Return a tokenizer that gives each code a feature."""
    return from_tokens("codes", sp.identity(CODES, format="csr"), medical=np.ones(CODES, bool))


def some_tokens(*, expanded: bool = False) -> CodeMatrix:
    """Return a tokenizer of one to three weighted tokens a code, with a codebook; one code has none."""
    rng = np.random.default_rng(5)
    weights = np.zeros((CODES, 12))
    for row in weights[:-1]:
        row[rng.choice(12, rng.integers(1, 4), replace=False)] = rng.random() + 0.1
    codebook = rng.normal(size=(12, 5))
    return from_tokens(
        "tokens", sp.csr_matrix(weights), medical=np.ones(CODES, bool), initial=codebook, expanded=expanded
    )


def some_vectors() -> CodeMatrix:
    """Return fixed vectors of all codes but one."""
    mapped = np.arange(CODES) != 7
    return from_vectors(
        "vectors", np.random.default_rng(6).normal(size=(CODES, 6)), mapped, medical=np.ones(CODES, bool)
    )
