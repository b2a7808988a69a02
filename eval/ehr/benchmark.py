"""Compare tokenizers on patients: prediction tasks on electronic health records, with intervals.

    python -m eval.ehr.benchmark --dataset=eicu_demo --dataset_dir=DIR --tokenizers=runs/default,codes,words --output=O
    python -m eval.ehr.benchmark --dataset=planted --tokenizers=runs/default,codes,words,shuffled --output=O
    python -m eval.ehr.benchmark --dataset=mimic4 --dataset_dir=DIR --tasks=mortality,readmission \\
        --tokenizers=runs/default,codes,words,text_pursuit --regime=full,few_shot --seeds=3 --output=O

`--output` receives `report.md`, `report.json` and `report.html`, the labels of every task in the form of MEDS
(`labels/`), and a folder for each cell with its predictions. A stopped run goes on where it was when the same command
is given again; more tasks, tokenizers, models, regimes and seeds may be added in the same folder.

A tokenizer is a run, a tokenizer directory or the name of a baseline; NAME=PATH gives it another name. The first that
is no baseline is judged. Records in another form than MEDS are converted first. docs/ehr_benchmarks.md describes tasks,
regimes and statistics.
"""

from pathlib import Path

from absl import flags

from preprocessing.common import command_line
from preprocessing.common.errors import InputError

EXAMPLE = "python -m eval.ehr.benchmark --dataset=planted --tokenizers=codes,words --output=DIR"

with command_line.importing(__name__):
    from eval.ehr.arms import FOLDS
    from eval.ehr.records import DATASETS
    from eval.ehr.regimes import REGIMES
    from eval.ehr.settings import Settings
    from eval.ehr.tasks.definition import GROUPS, PROTOCOLS, load_tasks
    from eval.ehr.tokenizers.make import NAMES


def main(argv: list[str]) -> None:
    """Run the benchmark that the flags describe, and write its report."""
    from eval.ehr.publish import publish
    from eval.ehr.run import run

    command_line.expect_arguments(argv, 0, EXAMPLE)
    given = flags.FLAGS
    if not given.dataset or not given.output:
        raise InputError(f"--dataset or --output is missing; for example: {EXAMPLE}")
    settings = Settings(
        dataset=given.dataset,
        dataset_dir=Path(given.dataset_dir).expanduser() if given.dataset_dir else None,
        output=Path(given.output).expanduser(),
        data_dir=given.data_dir,
        tokenizers=tuple(given.tokenizers),
        tasks=tuple(given.tasks),
        models=tuple(given.models),
        regimes=tuple(given.regime),
        protocol=given.protocol,
        seeds=given.seeds,
        trials=given.trials,
        folds=given.folds,
        pretrain_steps=given.pretrain_steps,
        smoke=given.smoke,
        show_small_counts=given.show_small_counts,
        predictions=tuple(given.predictions),
        check_leaks=given.check_leaks,
        cells=tuple(given.cells),
    )
    publish(run(settings))


if __name__ == "__main__":
    flags.DEFINE_string("dataset", None, f"patient records: {', '.join(DATASETS)}")
    flags.DEFINE_string("dataset_dir", None, "their files as published, or a MEDS data set of them")
    flags.DEFINE_string("output", None, "folder for labels, cells and report")
    flags.DEFINE_list("tokenizers", ["codes", "words"], f"tokenizers: PATH, NAME=PATH, or {', '.join(NAMES)}")
    flags.DEFINE_string("data_dir", "", "directory of the data sets of codes; the default of TFDS if not given")
    flags.DEFINE_list(
        "tasks", [], f"tasks, all that fit if not given: {', '.join(load_tasks())}; groups: {', '.join(GROUPS)}"
    )
    flags.DEFINE_list("models", ["logistic"], "models: logistic, lightgbm, transformer, behrt, gt_behrt")
    flags.DEFINE_list("regime", ["full"], f"training and test samples: {', '.join(REGIMES)}")
    flags.DEFINE_string(
        "protocol", "clinical", f"{' or '.join(PROTOCOLS)}: the cohorts of the paper select on the future"
    )
    flags.DEFINE_integer(
        "seeds", 1, "number of seeds: 1 for a first look, else 3 or more, as intervals over 2 are huge", lower_bound=1
    )
    flags.DEFINE_integer("trials", 6, "settings that each model tries, for every tokenizer alike", lower_bound=1)
    flags.DEFINE_integer(
        "folds",
        -1,
        f"folds of cross-fitting by person; 0: splits of the data set; -1: {FOLDS} where these hold too few outcomes",
        lower_bound=-1,
    )
    flags.DEFINE_integer("pretrain_steps", 0, "steps of masked codes before sequence models are trained", lower_bound=0)
    flags.DEFINE_bool("smoke", False, "fit as little as shows that everything runs; the figures say nothing")
    flags.DEFINE_bool("show_small_counts", False, "print counts below 11, which only open data allow")
    flags.DEFINE_list("predictions", [], "TASK=NAME=PATH: predictions of another program for the same samples")
    flags.DEFINE_bool("check_leaks", False, "test first that no sample sees its future; if one does, fit nothing")
    flags.DEFINE_multi_string("cells", [], "fit only cells whose title contains this text; may be given several times")
    command_line.run(main)
