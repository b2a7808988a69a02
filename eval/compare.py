"""Compare tokenizers and other representations on the same codes and items, or on the same patients.

    python -m eval.compare --tokenizers=runs/default,baselines/text_vq,kmeans=baselines/kmeans --output=DIR
    python -m eval.compare --tokenizers=runs/default --baseline=bert,vqgraph --output=DIR
    python -m eval.compare --tokenizers=runs/default --baseline=bert --dataset=mimic3 --dataset_dir=D \\
        --task=mortality --output=DIR

The command writes `comparison.md`, `comparison.json` and `comparison.png`: every figure of `eval.tokenization` for each
tokenizer, and the difference of the first from each other one with a paired bootstrap. A tokenizer is a tokenizer
directory, a work directory, a name on the hub, or a folder that `eval.baselines` wrote; NAME=PATH gives it another
name. `--baseline` makes a baseline for the data set of the first tokenizer and keeps it in `OUTPUT/baselines`: `bert`
is the bag of wordpieces, other names are kinds of `eval.baselines`. It is as large as the first tokenizer; `NAME:8`
gives it 8 tokens for each code. With `--other_seeds` figures of the first tokenizer are means over its seeds.

With `--dataset`, tokenizers are compared on prediction tasks of patient records, by `eval.ehr.benchmark` with its
defaults, which writes `report.md`, `report.json` and `report.html`: `--task` names a task, or a group such as
`operational_outcomes`. That command has more options.
"""

import functools
from pathlib import Path

from absl import flags

from eval.baselines.make import BASELINES, make_once, sizes_like
from preprocessing.common import command_line
from preprocessing.common.errors import InputError

EXAMPLE = "python -m eval.compare --tokenizers=runs/default --baseline=bert --output=DIR"


def open_named(given: str):
    """Return the representation that `PATH` or `NAME=PATH` names."""
    from eval.common.representation import load

    name, separator, path = given.partition("=")
    return load(path, name) if separator and name and "/" not in name else load(given)


def name_and_tokens(given: str) -> tuple[str, int]:
    """Return the baseline that `NAME` or `NAME:TOKENS` names, and its number of tokens, 0 for that of the first.

    Raises:
        InputError: there is no such baseline, or the number is none.
    """
    name, separator, tokens = given.partition(":")
    if name not in BASELINES:
        raise InputError(f"--baseline={given} is not a baseline; choose from: {', '.join(BASELINES)}.")
    if separator and not (tokens.isdecimal() and int(tokens)):
        raise InputError(f"--baseline={given} must give a number of tokens behind the colon, such as {name}:8.")
    return name, int(tokens or 0)


def main(argv: list[str]) -> None:
    """Compare the tokenizers and baselines that the flags name."""
    command_line.expect_arguments(argv, 0, EXAMPLE)
    given = flags.FLAGS
    baselines = [name_and_tokens(name) for name in given.baseline]
    if len(given.tokenizers) + len(given.baseline) < 2:
        raise InputError(
            f"there is nothing to compare {', '.join(given.tokenizers)} with; name a second one, such as: {EXAMPLE}"
        )
    if (given.dataset is None) != (given.task is None):
        raise InputError("--dataset and --task belong together; give both to compare on patients, or neither.")
    if given.dataset and given.other_seeds:
        raise InputError("--other_seeds compares on codes; on patients name each seed in --tokenizers.")
    if given.dataset and any(tokens for _, tokens in baselines):
        raise InputError("--baseline=NAME:TOKENS compares on codes; on patients leave out the number of tokens.")
    output = command_line.output_folder(given.output)
    if given.dataset is None:
        run(given, baselines, output)
    else:
        run_on_patients(given, output)


def run_on_patients(given: flags.FlagValues, output: Path) -> None:
    """Compare the tokenizers on the tasks of a data set of patient records, and write the report."""
    from eval.ehr.publish import publish
    from eval.ehr.run import run as run_benchmark
    from eval.ehr.settings import Settings

    settings = Settings(
        dataset=given.dataset,
        dataset_dir=Path(given.dataset_dir).expanduser() if given.dataset_dir else None,
        output=output,
        data_dir=given.data_dir or "",
        tokenizers=(*given.tokenizers, *(BASELINES[name] for name in given.baseline)),
        tasks=(given.task,),
    )
    publish(run_benchmark(settings))


def run(given: flags.FlagValues, baselines: list[tuple[str, int]], output: Path) -> None:
    """Open and measure the tokenizers, write the report, and print the headline figures.

    Args:
        given: flags of the command.
        baselines: names and numbers of tokens, see `name_and_tokens`.
        output: folder for the report.
    """
    from rich.console import Console

    from eval import tokenization
    from eval.common.representation import load
    from eval.quality.comparison import compare
    from eval.quality.label_building import open_labels
    from eval.reports import comparison as comparison_report

    first = open_named(given.tokenizers[0])
    data_set = given.codes or (first.about.get("data_set") or {}).get("name")
    if not data_set:
        raise InputError(f"{first.name} does not name its data set; give --codes=medtok_codes/icd-...")
    labels = open_labels(data_set, given.data_dir)
    sizes = [sizes_like(first) | ({"tokens": tokens} if tokens else {}) for name, tokens in baselines]
    del first
    openers = [functools.partial(open_named, name) for name in given.tokenizers]
    for title, (name, _), size in zip(given.baseline, baselines, sizes, strict=True):
        path = make_once(name, data_set, given.data_dir or "", output / "baselines", size)
        openers.append(functools.partial(load, path, title))
    measured = functools.partial(
        tokenization.measure,
        split=given.split,
        quick=given.quick,
        seed=given.seed,
        metrics=given.metrics or tuple(tokenization.FAMILIES),
    )
    further = [functools.partial(open_named, name) for name in given.other_seeds]
    comparison = compare(openers, labels, measured, other_seeds=further, seed=given.seed, progress=True)
    about = {"data_set": data_set, "split": given.split, "quick": given.quick, "seed": given.seed}
    about |= {"tokenizers": comparison.about}
    comparison_report.write(comparison, about, output)
    Console().print(comparison_report.console_table(comparison, about))
    print(f"wrote {', '.join(str(output / name) for name in comparison_report.FILES)}")


if __name__ == "__main__":
    flags.DEFINE_list(
        "tokenizers", None, "tokenizers to compare, the first with the others: PATH or NAME=PATH", required=True
    )
    flags.DEFINE_list("baseline", [], f"baselines to make and add, NAME or NAME:TOKENS: {', '.join(BASELINES)}")
    flags.DEFINE_list("other_seeds", [], "the first tokenizer as trained with other seeds: PATH or NAME=PATH")
    flags.DEFINE_string("output", None, "folder for the comparison", required=True)
    flags.DEFINE_string("codes", None, "data set of the labels, if not that of the first tokenizer")
    flags.DEFINE_string("data_dir", None, "directory of the data sets; the default of TFDS if not given")
    flags.DEFINE_enum(
        "split", "test", ["validation", "test"], "split whose items count: validation to choose, test to report"
    )
    flags.DEFINE_list("metrics", [], "families of metrics to measure, all if not given")
    flags.DEFINE_bool("quick", False, "measure fewer items, for a first look")
    flags.DEFINE_integer("seed", 0, "seed of all random draws")
    flags.DEFINE_string("dataset", None, "patient records to compare on: mimic3, mimic4, ehrshot, eicu_demo, ...")
    flags.DEFINE_string("dataset_dir", None, "their files, or a MEDS data set of them")
    flags.DEFINE_string("task", None, "task of the patient records, or a group such as operational_outcomes")
    command_line.run(main)
