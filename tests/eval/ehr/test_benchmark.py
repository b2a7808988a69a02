"""The whole benchmark on a small planted world: cells, restarts, report, and what is refused in one sentence."""

import dataclasses
import json
import re
import shutil
import stat

import numpy as np
import polars as pl
import pytest

from eval.common.representation import Representation
from eval.ehr import statistics
from eval.ehr.publish import describe, publish
from eval.ehr.records import open_records
from eval.ehr.report.study import analyze
from eval.ehr.run import run
from eval.ehr.settings import Settings
from eval.ehr.statistics import AUROC
from eval.ehr.variants import MAPPED
from preprocessing.common.errors import InputError, UserError
from preprocessing.common.locks import exclusive
from preprocessing.meds.planted.write import PlantedRequest, write
from tests.helpers import mimic_copies
from tests.helpers.forked import run_module

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    path = tmp_path_factory.mktemp("world") / "meds"
    write(PlantedRequest(path, "group", patients=480, progress=False))
    return path


@pytest.fixture(scope="module")
def settings(world, tmp_path_factory):
    return Settings(
        dataset="planted",
        dataset_dir=world,
        output=tmp_path_factory.mktemp("benchmark"),
        tokenizers=("codes", "words"),
        tasks=("planted",),
        regimes=("full", "few_shot", "cross_vocabulary"),
        folds=0,
        smoke=True,
    )


@pytest.fixture(scope="module")
def found(settings):
    benchmark = run(settings, progress=False)
    publish(benchmark)
    return benchmark


def test_an_unforeseen_error_shows_no_value_of_the_records(settings, monkeypatch):
    def fails(*_, **__):
        raise ValueError("the value 70000011 of 2160-01-10")

    monkeypatch.setattr("eval.ehr.run.open_records", fails)
    with pytest.raises(UserError, match=r"ValueError in .*run\.py") as told:
        run(settings, progress=False)
    assert "70000011" not in str(told.value)


def cells_of(settings):
    return {path: path.stat().st_mtime_ns for path in sorted((settings.output / "cells").rglob("cell.json"))}


def test_every_cell_is_fitted_once(settings, found):
    wanted = {("full", ""), ("few_shot", "k=1"), ("few_shot", "k=8"), ("cross_vocabulary", "icd9->icd10")}
    wanted.add(("cross_vocabulary", "icd9->icd9"))
    assert {(cell.regime, cell.setting) for cell in found.results} == wanted
    assert {cell.tokenizer for cell in found.results} == {"codes", "words"}
    assert not found.skipped
    before = cells_of(settings)
    assert len(before) == 2 * len(wanted) == len(found.results)
    again = run(settings, progress=False)
    assert cells_of(settings) == before
    for one, other in zip(found.results, again.results, strict=True):
        assert (one.p == other.p).all()


def test_more_is_added_in_the_same_folder(settings, found):
    before = cells_of(settings)
    more = dataclasses.replace(settings, tokenizers=("rollup",), regimes=("full",), cells=("planted",))
    added = run(more, progress=False)
    assert [cell.tokenizer for cell in added.results] == ["rollup"]
    after = cells_of(settings)
    assert len(after) == len(before) + 1
    assert {path: after[path] for path in before} == before


def test_the_report_names_no_person_and_no_date(settings, found):
    texts = [(settings.output / name).read_text() for name in ("report.md", "report.html", "report.json")]
    parquet = next((settings.dataset_dir / "data").rglob("*.parquet"))
    times = pl.read_parquet(parquet)["time"].drop_nulls().dt.date().unique().cast(pl.String).to_list()
    for text in texts:
        assert not set(re.findall(r"\d{4}-\d{2}-\d{2}", text)) & set(times)
    values = json.loads(texts[2])
    assert values
    assert "Smoke run" in texts[0]
    assert "subject_id" not in "".join(texts)


def test_labels_lie_there_for_other_programs(settings, found):
    labels = pl.read_parquet(settings.output / "labels" / "planted" / "labels.parquet")
    assert len(labels) == 480
    assert {"subject_id", "prediction_time", "boolean_value"} <= set(labels.columns)
    flow = json.loads((settings.output / "labels" / "planted" / "cohort.json").read_text())["flow"]
    assert ["positive", int(labels["boolean_value"].sum())] in flow


def test_predictions_of_another_program_stand_beside_them(settings, found, tmp_path):
    about = {path.parent: json.loads(path.read_text())["cell"] for path in cells_of(settings)}
    cell = next(path for path, one in about.items() if (one["regime"], one["tokenizer"]) == ("full", "words"))
    path = tmp_path / "other.parquet"
    pl.read_parquet(cell / "predictions.parquet").write_parquet(path)
    given = dataclasses.replace(settings, regimes=("full",), predictions=(f"planted=ETHOS={path}",))
    found = run(given, progress=False)
    result = found.results[-1]
    assert (result.tokenizer, result.model) == ("ETHOS", found.settings.models[-1])
    # The same predictions as those of a tokenizer: their difference is none.
    [setup] = [one for one in analyze(found.results, found.judged) if one.setup.model == settings.models[0]]
    assert setup.difference("ETHOS", "words", AUROC).value == pytest.approx(0, abs=1e-9)
    assert setup.difference("ETHOS", "codes", AUROC).value != 0
    pl.read_parquet(path)[1:].write_parquet(path)
    with pytest.raises(InputError, match="lacks < 11 of the test samples of planted; predict"):
        run(given, progress=False)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"dataset": "eicu_demo", "tasks": ()},
            r"holds Planted world, not eICU-CRD; give --dataset=planted, or another folder",
        ),
        (
            {"dataset_dir": None, "dataset": "mimic3", "tasks": ()},
            "--dataset_dir is missing; give the folder with the files of mimic3",
        ),
        ({"tasks": ("plantd",)}, r"'plantd' is no task; did you mean 'planted'"),
        ({"tasks": ("new_lupus",)}, "The task new_lupus does not fit planted; it fits ehrshot"),
        ({"models": ("logistics",)}, "there is no model 'logistics'; did you mean 'logistic'"),
        ({"tokenizers": ("code",)}, r"'code' is no tokenizer: .*did you mean 'codes'"),
        ({"tokenizers": ("words", "runs/a", "other/a")}, "runs/a and other/a are both called a; write NAME=other/a"),
        ({"tokenizers": ("shuffled",)}, "shuffled needs a run or tokenizer directory"),
        ({"predictions": ("mortality=A=none",)}, "there is no file none"),
        ({"predictions": (f"planted=words={__file__}",)}, "--predictions: words is taken"),
        ({"predictions": (f"planted=a+b={__file__}",)}, "says that two are joined; give another name"),
        ({"predictions": (f"planted=A={__file__}",)}, "cannot be read as parquet"),
        ({"cells": ("nothing",)}, "no title contains --cells=nothing; a title is like"),
    ],
)
def test_what_cannot_be_used_is_refused(settings, tmp_path, change, told):
    with pytest.raises(InputError, match=told):
        run(dataclasses.replace(settings, output=tmp_path / "other", **change), progress=False)


def test_tokenizers_that_know_the_groups_of_a_task_are_refused(settings, tmp_path):
    about = {"data_set": {"name": "medtok_codes/icd-groups", "fingerprint": "0"}}
    tokens = {"tokens": np.array([[0], [1]], np.int32), "codebook": np.eye(2, dtype=np.float32)}
    keys = np.array(["ICD9CM/250.00", "ICD9CM/401.9"])
    path = Representation(name="knows", keys=keys, descriptions=keys, about=about, **tokens).save(tmp_path / "knows")
    given = dataclasses.replace(settings, dataset="mimic4", tasks=("phenotype",), output=tmp_path / "other")
    for tokenizers, name in (((str(path), "codes"), "knows"), (("codes", f"both+words={path}+words"), "both.words")):
        told = f"{name} was trained on medtok_codes/icd-groups, whose graph holds the groups that phenotype asks for"
        with pytest.raises(InputError, match=told):
            run(dataclasses.replace(given, tokenizers=tokenizers), progress=False)
    assert not (tmp_path / "other").exists()


def test_only_the_owner_reads_the_output_folder(settings, tmp_path):
    output = tmp_path / "new" / "output"
    with pytest.raises(InputError, match="no title contains --cells"):
        run(dataclasses.replace(settings, output=output, cells=("nothing",)), progress=False)
    assert (output / "labels").is_dir()
    assert stat.S_IMODE(output.stat().st_mode) == 0o700
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="give another --output"):
        run(dataclasses.replace(settings, output=tmp_path / "file"), progress=False)


def test_a_second_run_and_other_settings_are_refused(settings, found):
    with pytest.raises(InputError, match="holds a benchmark with --smoke=True, not False"):
        run(dataclasses.replace(settings, smoke=False), progress=False)
    with exclusive(settings.output), pytest.raises(InputError, match="give another --output"):
        run(settings, progress=False)


def test_a_task_without_positives_is_told(settings, world, tmp_path):
    path = tmp_path / "meds"
    shutil.copytree(world, path)
    labels = path / "labels" / "planted" / "labels.parquet"
    pl.read_parquet(labels).with_columns(boolean_value=pl.lit(False)).write_parquet(labels)
    with pytest.raises(InputError, match="finds no positive label in this data set"):
        run(dataclasses.replace(settings, dataset_dir=path, output=tmp_path / "out"), progress=False)


@pytest.mark.thorough
def test_the_two_commands(world, tmp_path):
    records = [f"--dataset_dir={world}", "--dataset=planted"]
    compared, output = tmp_path / "compared", tmp_path / "output"
    flags = ["--tokenizers=codes", "--smoke", "--models=logistic,transformer"]
    done = run_module("eval.ehr.benchmark", *records, *flags, f"--output={output}", timeout=900)
    assert done.returncode == 0, done.stderr
    assert "Next: open" in done.stdout
    flags = ["--tokenizers=codes", "--baseline=bert", f"--output={compared}"]
    done = run_module("eval.compare", *records, *flags, "--task=planted", timeout=900)
    assert done.returncode == 0, done.stderr
    assert "wordpieces" in (compared / "report.md").read_text()
    done = run_module("eval.compare", *records, *flags)
    assert done.returncode == 2
    assert done.stderr == "error: --dataset and --task belong together; give both to compare on patients, or neither.\n"


def test_a_leak_is_named_and_nothing_is_fitted(settings, tmp_path):
    write(PlantedRequest(tmp_path / "meds", "leak", patients=480, progress=False))
    changed = dataclasses.replace(
        settings, dataset_dir=tmp_path / "meds", output=tmp_path / "out", check_leaks=True, regimes=("full",)
    )
    truth = json.loads((tmp_path / "meds" / "truth.json").read_text())
    with pytest.raises(InputError, match="nothing was fitted, as leaks were found") as refused:
        run(changed, progress=False)
    assert any(code in str(refused.value) for code in truth["leaks"]["at"])
    assert not (tmp_path / "out" / "cells").exists()


def test_records_without_a_leak_are_fitted(settings, found, tmp_path):
    changed = dataclasses.replace(settings, output=tmp_path, check_leaks=True, regimes=("full",), tokenizers=("codes",))
    checked = run(changed, progress=False)
    assert len(checked.results) == 1
    assert "Leaks" in describe(checked).facts
    assert "Leaks" not in describe(found).facts


def test_other_records_in_the_same_place_are_fitted_anew(world, settings, tmp_path):
    shutil.copytree(world, tmp_path / "meds")
    changed = dataclasses.replace(
        settings, dataset_dir=tmp_path / "meds", output=tmp_path / "out", regimes=("full",), tokenizers=("codes",)
    )
    [before] = run(changed, progress=False).results
    for path in sorted((tmp_path / "meds" / "data").rglob("*.parquet")):
        frame = pl.read_parquet(path)
        is_code = pl.col("code").str.starts_with("ICD")
        swapped = frame.filter(is_code)["code"].reverse()
        frame.filter(is_code).with_columns(code=swapped).vstack(frame.filter(~is_code)).sort(
            "subject_id", "time", nulls_last=False, maintain_order=True
        ).write_parquet(path)
    [after] = run(changed, progress=False).results
    assert (before.y == after.y).all()
    assert (before.p != after.p).any()


def test_asking_for_translations_changes_nothing_of_other_regimes(world, settings, tmp_path):
    shutil.copytree(world, tmp_path / "meds")
    for path in sorted((tmp_path / "meds" / "data").rglob("*.parquet")):
        frame = pl.read_parquet(path)
        frame.filter(~pl.col("code").str.starts_with("ICD10CM")).write_parquet(path)
    alone = dataclasses.replace(
        settings, dataset_dir=tmp_path / "meds", output=tmp_path / "out", regimes=("full",), tokenizers=("words",)
    )
    [before] = run(alone, progress=False).results
    kept = cells_of(alone)
    both = run(dataclasses.replace(alone, regimes=("full", "cross_vocabulary")), progress=False)
    assert kept.items() <= cells_of(alone).items()
    assert [cell.setting for cell in both.results] == ["", "icd9->icd10", "icd9->icd9"]
    assert (both.results[0].p == before.p).all()
    # A few codes are translated from ICD-10-CM alone.
    assert 0.99 < both.translated < 1
    assert "official mapping" in describe(both).facts["Across vocabularies"]


@pytest.mark.parametrize("damage", ["[]", "{}", "{"])
def test_damaged_labels_are_made_anew_and_settings_are_told(settings, found, tmp_path, damage):
    changed = dataclasses.replace(settings, output=tmp_path, regimes=("full",), tokenizers=("codes",))
    run(changed, progress=False)
    (tmp_path / "labels" / "planted" / "cohort.json").write_text(damage)
    assert len(run(changed, progress=False).results) == 1
    (tmp_path / "labels" / "planted" / "labels.parquet").unlink()
    assert len(run(changed, progress=False).results) == 1
    (tmp_path / "settings.json").write_text(damage)
    with pytest.raises(InputError, match=r"settings.json cannot be read; delete it"):
        run(changed, progress=False)


def test_labels_that_were_changed_are_made_anew(settings, tmp_path):
    changed = dataclasses.replace(settings, output=tmp_path, regimes=("full",), tokenizers=("codes",))
    run(changed, progress=False)
    path = tmp_path / "labels" / "planted" / "labels.parquet"
    before = path.read_bytes()
    pl.read_parquet(path).with_columns(~pl.col("boolean_value")).write_parquet(path)
    run(changed, progress=False)
    assert path.read_bytes() == before


def test_cells_of_earlier_runs_stay_in_the_report(settings, tmp_path):
    changed = dataclasses.replace(settings, output=tmp_path, regimes=("full", "few_shot"), tokenizers=("codes",))
    every = {cell.setting for cell in run(changed, progress=False).results}
    again = run(dataclasses.replace(changed, cells=("k=8",)), progress=False)
    assert {cell.setting for cell in again.results} == every
    fresh = run(dataclasses.replace(changed, cells=("k=8",), output=tmp_path / "fresh"), progress=False)
    assert {cell.setting for cell in fresh.results} == {"k=8"}


def test_the_report_tells_the_settings_of_a_smoke_run(found):
    assert describe(found).facts["Settings tried"].startswith("1 a model")


def test_the_report_says_where_patients_are_cross_fitted(settings, found, tmp_path):
    assert "Cross-fitted folds" not in describe(found).facts
    changed = dataclasses.replace(settings, output=tmp_path, regimes=("full",), tokenizers=("codes",), folds=2)
    assert describe(run(changed, progress=False)).facts["Cross-fitted folds"].startswith("planted in 2: every sample")


def test_predictions_for_cross_fitted_patients_are_refused(settings, tmp_path):
    """Nobody knows on whom the other program was trained."""
    (tmp_path / "p.parquet").touch()
    given = (f"planted=ETHOS={tmp_path / 'p.parquet'}",)
    changed = dataclasses.replace(settings, output=tmp_path / "out", regimes=("full",), folds=2, predictions=given)
    with pytest.raises(InputError, match="ETHOS may have been trained on some that it predicts; give --folds=0"):
        run(changed, progress=False)


def test_few_persons_are_cross_fitted_as_few_outcomes_are(settings, tmp_path, monkeypatch):
    """The rule is that of ranking: what would not be judged on the held-out patients is cross-fitted."""
    changed = dataclasses.replace(settings, regimes=("full",), tokenizers=("codes",), folds=-1)
    for name, limits in (("persons", (1, 10_000)), ("positives", (10_000, 1)), ("neither", (1, 1))):
        for limit, value in zip(("FEWEST_POSITIVES", "FEWEST_PERSONS"), limits, strict=True):
            monkeypatch.setattr(statistics, limit, value)
        fitted = run(dataclasses.replace(changed, output=tmp_path / name), progress=False)
        assert ("Cross-fitted folds" in describe(fitted).facts) == (name != "neither")


def test_the_share_of_samples_with_codes_is_told(found):
    assert describe(found).facts["Samples that see a code of a code system"] == "planted 100%"


def test_variants_of_the_headline_are_fitted_with_every_seed(settings, tmp_path):
    changed = dataclasses.replace(settings, output=tmp_path, regimes=("full",), seeds=2, trials=1, smoke=False)
    fitted = run(dataclasses.replace(changed, cells=(MAPPED,)), progress=False).results
    assert {(cell.tokenizer, cell.setting, cell.seed) for cell in fitted} == {
        (name, MAPPED, seed) for name in settings.tokenizers for seed in (0, 1)
    }


def test_tokenizers_that_may_have_seen_crosswalks_are_told(found):
    data_sets = {"free": "medtok_codes/icd-holdout_gem_100_eval", "text_pursuit": "medtok_codes/icd"}
    assert "Crosswalks" not in describe(dataclasses.replace(found, data_sets=data_sets)).facts
    told = describe(dataclasses.replace(found, data_sets=data_sets | {"other": "medtok_codes/icd"})).facts["Crosswalks"]
    assert told.startswith("other may have seen pairs of codes of both editions")


def test_tables_that_were_not_converted_are_told(settings, world, tmp_path):
    path = tmp_path / "meds"
    shutil.copytree(world, path)
    (path / "metadata" / "conversion.json").write_text(json.dumps({"tables_not_read": ["diagnosis"]}))
    labels = path / "labels" / "planted" / "labels.parquet"
    pl.read_parquet(labels).with_columns(boolean_value=pl.lit(False)).write_parquet(labels)
    with pytest.raises(InputError, match=r"finds no positive.*were converted without the tables diagnosis"):
        run(dataclasses.replace(settings, dataset_dir=path, output=tmp_path / "out"), progress=False)


def test_rows_that_were_not_converted_are_told(settings, world, tmp_path):
    path = tmp_path / "meds"
    shutil.copytree(world, path)
    tables = {"admissions": {"rows": 1000, "rejected": 141}, "patients": {"rows": 100, "rejected": 0}}
    (path / "metadata" / "conversion.json").write_text(json.dumps({"tables": tables}))
    changed = dataclasses.replace(settings, dataset_dir=path, output=tmp_path / "out", regimes=("full",))
    [told] = describe(run(changed, progress=False)).left_out
    assert told.startswith("Rows of the source could not be used and are missing: up to 15 % of admissions;")


def test_records_of_few_patients_are_told_in_one_sentence_for_all_tasks(tmp_path):
    mimic_copies.write(tmp_path / "mimic3", "mimic3", capitals=True, gzipped=False)
    settings = Settings("mimic3", tmp_path / "mimic3", tmp_path / "out", tokenizers=("codes",), smoke=True)
    with pytest.raises(
        InputError, match=r"^These records hold too little for the tasks drug, .*, readmission"
    ) as refused:
        run(settings, progress=False)
    assert len(str(refused.value)) < 500


def test_records_that_this_project_converted_are_no_records_in_general(world, tmp_path):
    path = tmp_path / "meds"
    shutil.copytree(world, path)
    assert open_records("MEDS", path, tmp_path / "out").name == "MEDS"
    (path / "metadata" / "conversion.json").write_text("{}")
    with pytest.raises(InputError, match="has cohorts of its own; give --dataset=planted"):
        open_records("MEDS", path, tmp_path / "out")


@pytest.mark.parametrize(
    ("dataset", "told"),
    [("eicu_demo", "holds no patient.csv of eicu"), ("ehrshot", "holds no ehrshot.csv"), ("mimic3", "PATIENTS.csv")],
)
def test_a_folder_without_records_is_told_as_one_of_the_data_set(tmp_path, dataset, told):
    with pytest.raises(InputError, match=told):
        open_records(dataset, tmp_path, tmp_path / "out")
