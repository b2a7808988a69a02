"""The runner of ablations: what it does, skips and survives; the table over what there is."""

import io
import json

import pytest
from rich.console import Console

from configs import ablation
from eval import ablations
from eval.ablations import Runner, chosen_cells
from eval.reports import ablations as ablation_report
from eval.reports.headlines import HEADLINES
from medtok_jax.config import field_names, get_field, validate
from preprocessing.common.errors import InputError


@pytest.mark.parametrize("cell", ablation.cells())
def test_a_cell_changes_what_it_says_and_nothing_else(cell):
    config, default = ablation.get_config(cell), ablation.get_config()
    validate(config, 1)
    changed = {name: get_field(config, name) for name in field_names(config)}
    changed = {name: value for name, value in changed.items() if value != get_field(default, name)}
    assert changed == ablation.cells()[cell]


def test_cells_by_name():
    assert chosen_cells([]) == list(ablation.cells())
    assert chosen_cells(["no_kl", "default"]) == ["default", "no_kl"]
    with pytest.raises(InputError, match="names 'nonsense', which is not a cell"):
        chosen_cells(["no_kl", "nonsense"])


def finished(runner: Runner, cell: str, seed: int, value: float, **settings) -> None:
    """A result as the runner writes it."""
    figures = [
        dict(zip(("family", "metric", "view", "scope"), one.name, strict=True))
        | {"value": value, "given": "the code tree" if one.family == "tree" else ""}
        for one in HEADLINES
    ]
    metrics = {f"codebook_utilization_{region}": 0.9 for region in ("text", "graph", "shared")} | {"cosine": 0.8}
    result = {
        "cell": cell,
        "seed": seed,
        "settings": runner.settings(cell, seed) | settings,
        "machine": "2 cores",
        "date": "2026-01-01",
        "summary": {"all_codes": metrics},
        "quality": {"codes": 20000, "split": "validation", "labels": {"data_set": "x"}, "figures": figures},
        "seconds": 100.0,
    }
    (runner.output / "cells" / f"{cell}-{seed}.json").write_text(json.dumps(result))


def do(runner: Runner, cells: list[str], seeds: int) -> tuple[list[str], str]:
    shown = io.StringIO()
    failed = ablations.run(runner, cells, seeds, Console(file=shown, width=200))
    return failed, shown.getvalue()


def test_what_is_finished_is_skipped(tmp_path):
    runner = Runner(tmp_path)
    for seed in (0, 1):
        finished(runner, "default", seed, 0.5 + 0.1 * seed)
        finished(runner, "no_kl", seed, 0.4)
    failed, shown = do(Runner(tmp_path), ["default", "no_kl"], 2)
    assert failed == []
    assert shown.count("already done") == 4
    table = (tmp_path / "ablations.md").read_text()
    assert "| `default` | 2 | 0.550 ± 0.071 |" in table
    assert "| `no_kl` | 2 | 0.400 ± 0.000 |" in table
    assert "- `no_kl`: `loss.kl_weight=0.0`" in table
    assert "same-category 1-NN, vectors * |" in table
    assert "R@1, vectors * |" not in table
    assert table.index("`default`") < table.index("*losses*") < table.index("`no_kl`")
    assert (tmp_path / "ablations.png").stat().st_size > 10_000


def test_results_of_other_settings_do_not_count(tmp_path):
    runner = Runner(tmp_path)
    finished(runner, "default", 0, 0.5)
    assert runner.is_done("default", 0)
    assert not runner.is_done("default", 1)
    assert not Runner(tmp_path, split="test").is_done("default", 0)
    assert not Runner(tmp_path, overrides={"train.steps": "7"}).is_done("default", 0)
    other = runner.settings("default", 0)["config"]
    other["train"]["lr"] = 7.0
    finished(runner, "default", 0, 0.5, config=other)
    assert not runner.is_done("default", 0)


def test_a_cell_that_fails_does_not_stop_the_others(tmp_path):
    """A real training that is refused at its start, in front of a cell that is done."""
    runner = Runner(tmp_path, overrides={"train.batch_size": "0"})
    finished(runner, "no_kl", 0, 0.4)
    failed, shown = do(runner, ["default", "no_kl"], 1)
    assert len(failed) == 1
    assert "train.batch_size is 0; it must be more than 0" in failed[0]
    assert "train.batch_size is 0" in (tmp_path / "logs" / "default-0.log").read_text()
    assert shown.count("already done") == 1
    assert not runner.is_done("default", 0)
    assert "`no_kl`" in (tmp_path / "ablations.md").read_text()


def test_one_seed_has_no_spread(tmp_path):
    runner = Runner(tmp_path)
    finished(runner, "default", 0, 0.5)
    assert "| `default` | 1 | 0.500 |" in ablation_report.markdown(runner.results())
