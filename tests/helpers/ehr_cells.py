"""Results of cells of the EHR benchmark, made up: scores that know the outcome more or less well."""

import types

import numpy as np

from eval.ehr.report.description import RunDescription
from eval.ehr.report.family import PrimaryFamily
from eval.ehr.report.study import Setup
from eval.ehr.results import CellResult

# A number of persons that occurs nowhere else, so that it can be looked for in reports.
FIRST_PERSON = 7_654_321
# Tokenizer -> how much its scores know.
SKILLS = {"default": 1.5, "codes": 0.0, "words": 1.5, "text_pursuit": 1.4, "shuffled": 0.1, "default+words": 1.6}


def cell(
    tokenizer: str = "default",
    *,
    task: str = "mortality",
    regime: str = "full",
    setting: str = "",
    rule: str = "coded",
    model: str = "logistic",
    seed: int = 0,
    samples: int = 400,
    persons: int = 300,
    rate: float = 0.25,
    classes: int = 0,
    skill: float | None = None,
) -> CellResult:
    """A cell; those of one task and regime have the same samples."""
    rng = np.random.default_rng([samples, persons, *task.encode(), *regime.encode()])
    person = FIRST_PERSON + rng.integers(persons, size=samples)
    labels = rng.random((samples, max(classes, 1))) < rate
    noise = np.random.default_rng([seed, *tokenizer.encode(), *setting.encode()]).normal(size=labels.shape)
    logit = (SKILLS[tokenizer] if skill is None else skill) * (labels - 0.5) + noise - 1
    p = 1 / (1 + np.exp(-logit))
    y, p = (labels, p) if classes else (labels[:, 0], p[:, 0])
    about = {"seconds": 2.0 + seed, "positions": 31.5, "parameters": 4321, "subject_id": FIRST_PERSON}
    return CellResult(task, tokenizer, model, regime, setting, rule, seed, y, p, person, 0.3, about)


def described(title: str, protocol: str = "clinical") -> types.SimpleNamespace:
    """A task as reports describe it."""
    sentences = {name: f"{name} of {title}." for name in ("source", "cohort", "prediction_time", "label")}
    return types.SimpleNamespace(title=title, protocol=protocol, inputs=("coded",), **sentences)


TASKS = {
    "mortality": described("In-hospital mortality"),
    "phenotype": described("Phenotypes"),
    "paper_mortality": described("Mortality in the next visit", "paper"),
}
FAMILY = PrimaryFamily("default", ("codes", "words"), (Setup("mortality", "coded", "logistic", "full", ""),))


def run(**fields) -> RunDescription:
    """The description of a run of these cells."""
    return RunDescription(**({"dataset": "mimic4", "tasks": TASKS, "family": FAMILY} | fields))
