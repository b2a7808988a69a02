"""Run the pipeline from downloads to a verified data set.

    python -m preprocessing.pipeline --output=DIR               medtok_codes/icd, from Python packages; needs no network
    python -m preprocessing.pipeline --output=DIR --full        medtok_codes/primekg: all code systems over PrimeKG
    python -m preprocessing.pipeline --output=DIR --release     medtok_codes/release: the authors' published codes

Stages of `--full`, each also a command of its own:

| stage | writes below DIR | command |
|---|---|---|
| codes | `medical_codes/` | `python -m preprocessing.download codes` |
| primekg | `primekg/` | `python -m preprocessing.download primekg` |
| crossreferences | `crossreferences/` | `python -m preprocessing.download crossreferences` |
| process_codes | `processed_codes/` | `python -m preprocessing.process_codes` |
| descriptions | `processed_descriptions.csv` | `python -m preprocessing.descriptions` |
| graph | `graph/` | `python -m preprocessing.primekg` |
| linking | `links/` | `python -m preprocessing.linking` |
| dataset | `dataset/` | `python -m preprocessing.medtok_codes` |
| export | `json/` | `python -m preprocessing.json_export`; only with `--export_json` |
| verify | `verification.json` | `python -m preprocessing.stats` |

The same command continues an interrupted run: a finished stage is recognized by the checksums of the files that it read
and wrote. Train on the result with `--config.data.data_dir=DIR/dataset`.
"""

from pathlib import Path

from absl import flags

from preprocessing.common import command_line
from preprocessing.common.errors import InputError
from preprocessing.dataset.name import ICD, NAME, PRIMEKG, RELEASE, parse_name
from preprocessing.pipeline.plans import PipelineOptions
from preprocessing.pipeline.run import run_pipeline


def _name(values: flags.FlagValues) -> str:
    """Return the name of the data set that the flags ask for.

    Raises:
        InputError: flags contradict each other.
    """
    flag_of = {PRIMEKG: "full", RELEASE: "release", ICD: "embedded"}
    asked = [source for source, flag in flag_of.items() if values[flag].value]
    if len(asked) > 1:
        raise InputError("--full, --release and --embedded exclude one another; give one of them.")
    name = values.codes or f"{NAME}/{asked[0] if asked else ICD}"
    source = parse_name(name).source
    if asked and source != asked[0]:
        raise InputError(f"--codes={name} contradicts --{flag_of[asked[0]]}; leave one of them out.")
    return name


def _absolute(text: str | None) -> Path | None:
    return None if text is None else Path(text).expanduser().resolve()


def main(argv: list[str]) -> None:
    """Run the pipeline that the flags ask for."""
    command_line.expect_arguments(argv, 0, "python -m preprocessing.pipeline --output=DIR --full")
    values = flags.FLAGS
    if values.output is None:
        raise InputError("--output is missing; give the directory of the pipeline, for example --output=data.")
    output = _absolute(values.output)
    asked = PipelineOptions(
        from_dir=_absolute(values.from_dir),
        offline=values.offline,
        descriptions=_absolute(values.descriptions),
        export_json=values.export_json,
        per_code=values.per_code,
        strict=values.strict,
    )
    console = command_line.table_console()
    name = _name(values)
    run_pipeline(output, name, asked, console, values.only)
    if not values.only:
        print(f"{name} is in {output / 'dataset'}")


if __name__ == "__main__":
    flags.DEFINE_string("output", None, "directory of the pipeline; everything is written below it")
    flags.DEFINE_bool("full", False, "download all code systems and PrimeKG, and build medtok_codes/primekg")
    flags.DEFINE_bool("release", False, "download the authors' release, and build medtok_codes/release")
    flags.DEFINE_bool("embedded", False, "build medtok_codes/icd from Python packages, without network; the default")
    flags.DEFINE_string("codes", None, "data set with options, such as medtok_codes/primekg-nodes_32-sample_10000")
    flags.DEFINE_string("from_dir", None, "folder of files fetched by hand, unpacked or as archives; searched first")
    flags.DEFINE_bool("offline", False, "fetch nothing: use only the files in --from_dir and the output")
    flags.DEFINE_string("descriptions", None, "your own texts of codes: CSV with code and description")
    flags.DEFINE_bool("export_json", False, "also write the data set as node-link JSON")
    flags.DEFINE_bool("per_code", False, "with --export_json: one file for each code instead of one line")
    flags.DEFINE_list("only", [], "run these stages only, such as graph,linking")
    flags.DEFINE_bool("strict", False, "exit with status 1 when rows were rejected or a check is off")
    command_line.run(main)
