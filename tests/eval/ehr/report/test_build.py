import base64
import dataclasses
import itertools
import json
import re

import numpy as np
import pytest

from eval.ehr import metrics
from eval.ehr.report import build, names
from eval.ehr.report.family import PrimaryFamily
from eval.ehr.report.licenses import DATA_LICENSES
from eval.ehr.report.published import PUBLISHED_RESULTS
from eval.reports import writer
from preprocessing.common.errors import InputError
from tests.helpers.ehr_cells import FAMILY, FIRST_PERSON, SKILLS, cell, described, run

FLOWS = {"mortality": [("stays", 2174), ("of minors", 4), ("kept", 2170)]}
FILES = ("report.md", "report.json", "report.html")


def all_cells() -> list:
    """A large and a small test set, few-shot curves with a gap, and a task of several classes."""
    cells = [cell(name) for name in SKILLS]
    cells += [
        cell(name, regime="few_shot", setting=f"k={k}", seed=s) for name in SKILLS for k in (1, 8) for s in (0, 1)
    ]
    cells += [cell("codes", regime="few_shot", setting="k=32")]
    cells += [cell(name, task="paper_mortality", samples=100, rate=0.06) for name in ("default", "codes", "words")]
    cells += [cell(name, task="phenotype", classes=3) for name in ("default", "codes")]
    return [*cells, *(cell(name, regime="cross_vocabulary", setting="icd9->icd10") for name in SKILLS)]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The folder and the values of a report."""
    folder = tmp_path_factory.mktemp("report")
    described = run(flows=FLOWS, facts={"Seeds": "2"}, left_out=["No patient has the task lupus."])
    return folder, build.write(all_cells(), described, folder)


@pytest.fixture(scope="module")
def open_report(tmp_path_factory):
    """The same of open data, whose numbers are all shown."""
    folder = tmp_path_factory.mktemp("open_report")
    return folder, build.write(all_cells(), run(show_small_counts=True), folder)


def text_of(report) -> str:
    return (report[0] / "report.md").read_text(encoding="utf-8")


def section(text: str, title: str) -> str:
    return re.search(rf"^#+ {re.escape(title)}$(.*?)(?=^#+ |\Z)", text, re.M | re.S)[1]


def row(text: str, name: str) -> list[str]:
    """The cells of the first row of a table that begins with a name."""
    line = next(line for line in text.splitlines() if line.replace("*", "").startswith(f"| {name} |"))
    return [one.strip() for one in line.strip("|").split("|")]


def test_the_same_files_whatever_the_order_of_cells(report, tmp_path):
    described = run(flows=FLOWS, facts={"Seeds": "2"}, left_out=["No patient has the task lupus."])
    build.write(all_cells()[::-1], described, tmp_path)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (report[0] / name).read_bytes()


def test_values_are_those_of_the_metrics(open_report):
    folder, values = open_report
    assert json.loads((folder / "report.json").read_text()) == json.loads(json.dumps(values))
    setup = next(one for one in values["setups"] if one["regime"] == "full" and one["task"] == "mortality")
    for name in ("default", "codes", "default+words"):
        one = cell(name)
        scores = metrics.evaluate(one.y, one.p, one.kind, one.p_threshold)
        found = next(tokenizer for tokenizer in setup["tokenizers"] if tokenizer["tokenizer"] == name)
        assert found["auprc"]["value"] == pytest.approx(scores.auprc, abs=1e-7)
        assert found["auroc"]["value"] == pytest.approx(scores.auroc, abs=1e-7)
        assert found["brier"]["value"] == pytest.approx(scores.brier, abs=1e-7)
        assert found["calibration_slope"] == pytest.approx(scores.slope)
        assert found["joined"] == (name == "default+words")
    assert setup["samples"] == 400
    assert setup["prevalence"] == pytest.approx(cell().y.mean())


def test_bins_of_calibration_do_not_tell_numbers_that_are_masked(report, open_report):
    def observed(values):
        return [
            one["observed"] for setup in values["setups"] for two in setup["tokenizers"] for one in two["calibration"]
        ]

    masked, exact = observed(report[1]), observed(open_report[1])
    assert masked
    assert all(one == round(one, 2) for one in masked)
    assert any(one != round(one, 2) for one in exact)


def test_the_table_of_a_setup(open_report):
    text = section(text_of(open_report), "full, logistic, coded")
    one = cell("codes")
    cells = row(text, "codes")
    assert cells[1].startswith(writer.number(metrics.average_precision(one.y, one.p)) + " [")
    assert cells[2].startswith(writer.number(metrics.auroc(one.y, one.p)) + " [")
    assert cells[3] == writer.number(float(np.mean((one.p - one.y) ** 2)))
    assert cells[7] == "4"
    assert cells[8].endswith(", better")
    assert row(text, "MedTok (default)")[0] == "**MedTok (default)**"
    assert row(text, "words")[8].endswith(", within noise")
    assert row(text, "default+words")[7] == ""
    assert "**" not in "".join(row(text, "default+words"))
    assert f"400 test samples of {len(np.unique(one.person))} persons, {one.y.sum()} positive samples" in text


def test_the_primary_family_comes_first(report):
    text = text_of(report)
    found = section(text, "What this run found")
    assert (
        "Of the 2 comparisons by AUPRC that were declared before the run, MedTok (default) is better in 1, worse"
        in found
    )
    assert "MedTok (default) is better than codes, +0." in found
    assert "MedTok (default) is within noise of words" in found
    assert "could be detected" in found
    assert text.index("declared before the run") < text.index("Exploratory, not corrected")
    assert row(section(text, "Primary family"), "In-hospital mortality")[-1] == "**better**"
    exploratory = section(text, "Exploratory, not corrected for the number of comparisons")
    assert "cross_vocabulary, icd9->icd10" in exploratory
    assert "against codes: better at k = 1 and 8" in exploratory
    assert "default+words together" in exploratory
    assert "its own tokens dealt to the wrong codes" in exploratory
    assert "**" not in exploratory + section(text, "Where MedTok differs from text_pursuit")


def test_cohorts_with_a_small_step_do_not_stand_exactly_elsewhere(tmp_path):
    cells = [cell(name) for name in ("default", "codes")]
    values = build.write(cells, run(flows={"mortality": [("stays", 404), ("of minors", 4), ("kept", 400)]}), tmp_path)
    assert values["setups"][0]["samples"] == "about 400"
    assert "400 test samples" not in (tmp_path / "report.md").read_text().replace("about 400 test samples", "")


def test_markdown_has_no_heading_of_figures_alone(report):
    lines = [line for line in text_of(report).splitlines() if line]
    headings = [(line, after) for line, after in itertools.pairwise(lines) if line.startswith("#")]
    levels = [(len(line.split()[0]), len(after.split()[0])) for line, after in headings if after.startswith("#")]
    assert all(later > earlier for earlier, later in levels)
    assert "Calibration" in (report[0] / "report.html").read_text()
    assert "### Calibration" not in text_of(report)


def test_text_pursuit_has_a_table_of_its_own_where_it_was_asked_for(report, tmp_path):
    build.write([cell("default"), cell("codes")], run(), tmp_path)
    assert "text_pursuit" not in (tmp_path / "report.md").read_text()
    text = section(text_of(report), "Where MedTok differs from text_pursuit")
    lines = [line for line in text.splitlines() if "logistic" in line]
    assert len(lines) == 4
    assert all("[" in line for line in lines)


def test_a_small_test_set_is_shown_without_ranks_and_bold(report):
    _, values = report
    setup = next(one for one in values["setups"] if one["task"] == "paper_mortality")
    assert setup["too_small_to_rank"]
    assert {one["rank"] for one in setup["tokenizers"]} == {None}
    text = text_of(report)
    text = text[text.index("## Mortality in the next visit") :]
    text = text[: text.index("\n## ", 5)]
    assert "selects on the future" in text
    assert "no tokenizer is ranked" in text
    assert row(text, "codes")[7] == ""
    assert row(text, "codes")[8].endswith(", not judged")
    assert not any(line.count("**") for line in text.splitlines() if line.startswith("|"))
    assert "Too few events to rank tokenizers" in section(text_of(report), "What this run found")


def test_no_tokenizer_is_called_better_or_worse_on_a_small_test_set(open_report):
    text = text_of(open_report)
    small = [line for line in text.splitlines() if "too few events to rank it" in line]
    assert small
    for line in small:
        assert re.search(r"its differences, which are not judged: .*codes \([+-]", line)
        assert not re.search("better|worse|noise", line)
    assert any("it is better than" in line or "it is within noise of" in line for line in text.splitlines())


def test_two_tasks_do_not_tell_a_small_group_by_their_difference(tmp_path):
    tasks = {name: described(name.title()) for name in ("kept", "left_out")}
    cells = [
        cell(name, task=task, samples=size)
        for name in ("default", "codes")
        for task, size in (("kept", 409), ("left_out", 400))
    ]
    family = dataclasses.replace(FAMILY, setups=())
    flows = {"kept": [("stays", 500), ("kept", 409)], "left_out": [("stays", 500), ("kept", 400)]}
    values = build.write(cells, run(tasks=tasks, flows=flows, family=family), tmp_path / "masked")
    assert [one["samples"] for one in values["setups"]] == ["about 410", "about 400"]
    assert [one["numbers"] for one in values["cohorts"].values()] == [
        ["about 500", "about 410"],
        ["about 500", "about 400"],
    ]
    for setup in values["setups"]:
        assert str(setup["persons"]).startswith("about ")
        assert round(setup["prevalence"], 2) == setup["prevalence"]
        assert all(
            str(part["samples"]).startswith("about ") for one in setup["tokenizers"] for part in one["calibration"]
        )
    everything = "".join(
        (tmp_path / "masked" / name).read_text(encoding="utf-8") for name in ("report.md", "report.json")
    )
    assert "409" not in everything
    shown = build.write(cells, run(tasks=tasks, flows=flows, family=family, show_small_counts=True), tmp_path / "shown")
    assert [one["samples"] for one in shown["setups"]] == [409, 400]


def test_small_counts_are_masked(tmp_path):
    cells = [one for one in all_cells() if one.task == "paper_mortality"]
    values = build.write(cells, run(flows=FLOWS), tmp_path / "masked")
    positives = cell(task="paper_mortality", samples=100, rate=0.06).y.sum()
    assert 0 < positives < 11
    setup = next(one for one in values["setups"] if one["task"] == "paper_mortality")
    assert (setup["positives"], setup["prevalence"]) == ("< 11", None)
    assert all(one["calibration"] == [] for one in setup["tokenizers"])
    assert values["cohorts"]["mortality"]["numbers"] == ["about 2,170", "< 11", "about 2,170"]
    text = (tmp_path / "masked" / "report.md").read_text(encoding="utf-8")
    assert "one of the outcomes is too rare for its number to be shown" in text
    assert "| of minors | < 11 |" in text
    assert "2,174" not in text
    shown = build.write(cells, run(flows=FLOWS, show_small_counts=True), tmp_path)
    assert shown["setups"][0]["positives"] == positives
    assert shown["setups"][0]["prevalence"] == pytest.approx(positives / 100)
    assert "| of minors | 4 |" in (tmp_path / "report.md").read_text()
    assert f"{positives} positive samples" in (tmp_path / "report.md").read_text()


def test_nothing_of_single_patients(report):
    """Neither numbers of persons, nor arrays of samples, nor facts that are not asked for."""
    folder, values = report
    page = (folder / "report.html").read_text(encoding="utf-8")
    pictures = [base64.b64decode(one).decode() for one in re.findall(r"data:image/svg\+xml;base64,([^\"]+)", page)]
    assert len(pictures) == 6
    for text in (text_of(report), (folder / "report.json").read_text(), page, *pictures):
        assert "subject_id" not in text
        assert str(FIRST_PERSON)[:5] not in text
        assert "<dc:date>" not in text

    def longest(value) -> int:
        if isinstance(value, dict):
            return max(map(longest, value.values()), default=0)
        return max([len(value), *map(longest, value)]) if isinstance(value, list) else 0

    assert longest(values) < 50


def test_costs_license_published_numbers_and_gaps(report):
    text = text_of(report)
    assert row(section(text, "Cost"), "codes")[2:] == ["9", "2.222", "31.500", "4,321", ""]
    license_section = section(text, "Data set, license and citation")
    assert DATA_LICENSES["mimic4"].license in license_section
    assert "10.1038/s41597-022-01899-x" in license_section
    published = section(text, "Other cohort, not comparable")
    assert published.count("\n| ") == 2 + len(PUBLISHED_RESULTS)
    assert "| MIMIC-IV | mortality | ETHOS | 0.282 | 0.412 |" in published
    assert "No patient has the task lupus." in text
    # The class that lacks k = 32 training patients leaves a gap.
    curves = section(text, "logistic, coded")
    assert row(curves, "codes")[3] != ""
    assert row(curves, "MedTok (default)")[3] == ""


def test_a_run_without_the_primary_tokenizer(tmp_path):
    described = run(family=PrimaryFamily("default", (), ()))
    values = build.write([cell("codes"), cell("words")], described, tmp_path)
    assert values["setups"][0]["differences"] == []
    assert "No primary family was declared" in (tmp_path / "report.md").read_text()


def test_results_of_a_task_that_is_not_described(tmp_path):
    with pytest.raises(InputError, match="the task unknown"):
        build.write([cell(task="unknown")], run(), tmp_path)


@pytest.mark.parametrize("dataset", [*DATA_LICENSES, "MEDS"])
def test_every_data_set_has_a_title(dataset, tmp_path):
    values = build.write([cell()], run(dataset=dataset), tmp_path)
    assert values["data_set"]["license"]
    assert bool(values["data_set"]["citations"]) == (dataset != "planted")


def test_titles_and_names_cannot_break_the_page(tmp_path):
    evil = "<script>1</script>|a&b"
    cells = [
        dataclasses.replace(cell(name), tokenizer=evil if name == "codes" else name) for name in ("default", "codes")
    ]
    family = dataclasses.replace(FAMILY, others=(evil,))
    build.write(cells, run(family=family, facts={evil: evil}), tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert names.title(evil, "default") == evil
    line = next(line for line in (tmp_path / "report.md").read_text().splitlines() if line.startswith("| <script>"))
    assert line.count(r"\|") == 1


def test_a_hidden_prevalence_is_in_no_curve(tmp_path):
    """The same curves with and without the right to show small counts differ by the line of chance."""
    pictures = []
    for show in (False, True):
        cells = [cell(name, regime="few_shot", setting="k=1", samples=100, rate=0.06) for name in ("default", "codes")]
        assert 0 < cells[0].y.sum() < 11
        build.write(cells, run(show_small_counts=show), tmp_path)
        (picture,) = re.findall(r"data:image/svg\+xml;base64,([^\"]+)", (tmp_path / "report.html").read_text())
        pictures.append(base64.b64decode(picture).decode())
    hidden, shown = (len(re.findall(r"stroke: #808080", picture)) for picture in pictures)
    assert shown == hidden + 1


def test_a_baseline_that_is_judged_is_not_set_against_itself(tmp_path):
    family = dataclasses.replace(FAMILY, tokenizer="codes", others=("words",))
    build.write([cell("codes"), cell("words")], run(family=family), tmp_path)
    told = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["exploratory"]
    assert any(one.startswith("Over all setups with words") for one in told)
    assert not any(one.startswith("Over all setups with codes") for one in told)


def test_two_seeds_come_with_the_advice_to_take_three(report, tmp_path):
    assert "give --seeds=3 or more" in section(text_of(report), "What this run found")
    one = build.write([cell(name) for name in SKILLS], run(), tmp_path)
    assert "--seeds=3" not in text_of((tmp_path, one))


def test_settings_of_all_training_samples_are_told_by_the_first_model(tmp_path):
    cells = [cell(name, setting=setting) for name in SKILLS for setting in ("", "mapped codes only")]
    cells += [cell(name, model="lightgbm", setting="mapped codes only") for name in SKILLS]
    text = text_of((tmp_path, build.write(cells, run(), tmp_path)))
    text = section(text, "Exploratory, not corrected for the number of comparisons")
    told = re.findall(r"\(full[^)]*\), AU\w+", text)
    assert told == [
        "(full, logistic, coded), AUROC",
        "(full, mapped codes only, logistic, coded), AUPRC",
        "(full, mapped codes only, logistic, coded), AUROC",
    ]
