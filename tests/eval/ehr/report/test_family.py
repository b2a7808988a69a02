"""The primary comparisons follow from the settings of a run alone."""

from pathlib import Path

from eval.ehr.regimes import CROSS_VOCABULARY, FULL, UNSEEN
from eval.ehr.report.family import declared
from eval.ehr.settings import Settings
from eval.ehr.tasks import definition


def family(tasks: tuple[str, ...], regimes: tuple[str, ...]):
    settings = Settings("mimic4", None, Path("out"), ("run", "codes"), tasks=tasks, regimes=regimes)
    return declared(settings, definition.choose(tasks, "mimic4"), "run")


def test_across_vocabularies_the_codes_of_the_stay_are_seen():
    found = family(("readmission", "mortality", "phenotype"), (FULL, UNSEEN, CROSS_VOCABULARY))
    inputs = {(one.task, one.regime): one.input for one in found.setups}
    assert inputs["readmission", FULL] == "bedside"
    assert inputs["readmission", CROSS_VOCABULARY] == "coded"
    assert inputs["mortality", FULL] == inputs["mortality", CROSS_VOCABULARY] == "bedside"
    assert inputs["phenotype", CROSS_VOCABULARY] == "before"
    assert {regime for _, regime in inputs} == {FULL, CROSS_VOCABULARY}


def test_the_judged_tokenizer_is_compared_with_the_opponents_that_are_there():
    found = family(("mortality",), (FULL,))
    assert (found.tokenizer, found.others) == ("run", ("codes",))
