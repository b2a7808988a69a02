"""Convert a trained tokenizer for other libraries and for models of patient records.

    python -m medtok_jax.convert --workdir=DIR --to=pytorch --output=OUT
    python -m medtok_jax.convert --workdir=DIR --to=huggingface --output=OUT
    python -m medtok_jax.convert --workdir=DIR --to=medtok --output=OUT
    python -m medtok_jax.convert --workdir=DIR --to=ethos --events=MEDS --output=OUT [--unmapped=keep|drop|unk|nearest]
    python -m medtok_jax.convert --workdir=DIR --to=gt_behrt|behrt|transformehr|mult_ehr --events=MEDS --output=OUT
    python -m medtok_jax.convert --from=pytorch --input=DIR --output=WORKDIR

Give --tokenizer=TOK in place of --workdir if you have only a tokenizer directory. docs/integration_guide.md continues
from the converted files to each model.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path

from absl import flags

from medtok_jax.convert import request
from medtok_jax.records.choices import INPUTS, TASKS, UNMAPPED
from preprocessing.common import command_line
from preprocessing.common.atomic import private
from preprocessing.common.errors import InputError, without_values


# Each conversion is imported when it is asked for, so that one does not need the packages of another.
def _pytorch(conversion: request.Request) -> None:
    from medtok_jax.convert.pytorch.convert import convert

    convert(conversion)


def _huggingface(conversion: request.Request) -> None:
    from medtok_jax.convert.huggingface.convert import convert

    convert(conversion)


def _medtok(conversion: request.Request) -> None:
    from medtok_jax.convert.medtok_json import convert

    convert(conversion)


def _ethos(conversion: request.Request) -> None:
    from medtok_jax.convert.ethos.convert import convert

    convert(conversion)


def _gt_behrt(conversion: request.Request) -> None:
    from medtok_jax.convert.ehr_models.gt_behrt import convert

    convert(conversion)


def _behrt(conversion: request.Request) -> None:
    from medtok_jax.convert.ehr_models.behrt import convert

    convert(conversion)


def _transformehr(conversion: request.Request) -> None:
    from medtok_jax.convert.ehr_models.transformehr import convert

    convert(conversion)


def _mult_ehr(conversion: request.Request) -> None:
    from medtok_jax.convert.ehr_models.mult_ehr import convert

    convert(conversion)


def _from_pytorch(source: Path, output: Path) -> None:
    from medtok_jax.convert.pytorch.restore import restore

    restore(source, output)


# Value of --to -> function that makes the conversion.
CONVERTERS: dict[str, Callable[[request.Request], None]] = {
    "pytorch": _pytorch,
    "huggingface": _huggingface,
    "medtok": _medtok,
    "ethos": _ethos,
    "gt_behrt": _gt_behrt,
    "behrt": _behrt,
    "transformehr": _transformehr,
    "mult_ehr": _mult_ehr,
}
# Value of --from -> function that turns a directory back into a work directory.
RESTORERS: dict[str, Callable[[Path, Path], None]] = {"pytorch": _from_pytorch}
# Flags that only some targets take; other targets refuse them.
OPTIONS: dict[str, tuple[str, ...]] = {
    "gt_behrt": ("nodes", "tokens_per_code", "width", "task", "labels", "inputs"),
    "behrt": ("tokens_per_code", "width", "max_len", "task", "labels", "inputs"),
    "transformehr": ("tokens_per_code", "width"),
    "mult_ehr": ("width",),
    "ethos": ("tokens_per_code", "width", "n_layer", "n_head", "n_positions", "paper_vocabulary"),
}


def main(arguments: list[str]) -> None:
    """Run one conversion."""
    if arguments[1:]:
        raise InputError(f"{arguments[1]!r} is not a flag; see --help for an example.")
    if bool(flags.FLAGS.to) == bool(flags.FLAGS["from"].value):
        raise InputError(f"Give either --to={'|'.join(CONVERTERS)} or --from={'|'.join(RESTORERS)}.")
    if not flags.FLAGS.output:
        raise InputError("--output is missing; give the directory to write.")
    if flags.FLAGS.to:
        conversion = request.make_request(
            output=flags.FLAGS.output,
            workdir=flags.FLAGS.workdir,
            tokenizer=flags.FLAGS.tokenizer,
            events=flags.FLAGS.events,
            unmapped=flags.FLAGS.unmapped,
            overwrite=flags.FLAGS.overwrite,
            options=_options(),
        )
        convert(flags.FLAGS.to, conversion)
        return
    if not flags.FLAGS.input:
        raise InputError(f"--input is missing; give the directory that --from={flags.FLAGS['from'].value} reads.")
    source = request.existing(flags.FLAGS.input, "directory")
    output = request.check_output(flags.FLAGS.output, flags.FLAGS.overwrite, [source])
    RESTORERS[flags.FLAGS["from"].value](source, output)


def convert(target: str, conversion: request.Request) -> None:
    """Convert to a target, a key of `CONVERTERS`.

    No error shows a value of the records, and nobody else can read what is made of them.

    Raises:
        UserError: the conversion fails.
    """
    with contextlib.ExitStack() as stack:
        if conversion.events:
            stack.enter_context(without_values())
            stack.enter_context(private())
        CONVERTERS[target](conversion)


def _options() -> dict:
    """Return the flags of the requested target that have a value, by name.

    Raises:
        InputError: a flag was given that only other targets take.
    """
    given = {}
    for name in sorted({name for names in OPTIONS.values() for name in names}):
        flag = flags.FLAGS[name]
        if name in OPTIONS.get(flags.FLAGS.to, ()):
            given |= {name: flag.value} if flag.value is not None else {}
        elif flag.present:
            takers = [target for target, names in OPTIONS.items() if name in names]
            raise InputError(f"--to={flags.FLAGS.to} does not take --{name}; it belongs to --to={'|'.join(takers)}.")
    return given


def define_flags() -> None:
    """Define all flags of the command line."""
    flags.DEFINE_enum("to", None, list(CONVERTERS), "Library or model to convert to.")
    flags.DEFINE_enum("from", None, list(RESTORERS), "Format of --input, which is converted back to a work directory.")
    flags.DEFINE_string("input", None, "With --from: the directory to read.")
    flags.DEFINE_string("workdir", None, "Work directory of a finished training run.")
    flags.DEFINE_string("tokenizer", None, "Tokenizer directory, if not the one in the work directory.")
    flags.DEFINE_string(
        "events", None, "Patient records: a MEDS data set, or a directory of MIMIC, eICU-CRD, Diabetes-130, EHRSHOT."
    )
    flags.DEFINE_string("output", None, "Directory to write; it must be absent or empty.")
    flags.DEFINE_bool("overwrite", False, "Replace an --output that is not empty, with all files in it.")
    flags.DEFINE_enum(
        "unmapped",
        "keep",
        list(UNMAPPED),
        "Treatment of codes in --events that the tokenizer does not hold; nearest: the tokens of the nearest code"
        " above, else of the first of the parent_codes in the records that has some, else of the model, else keep.",
    )
    flags.DEFINE_enum("nodes", None, ["tokens", "codes"], "Nodes of a visit graph; tokens by default.")
    flags.DEFINE_integer("tokens_per_code", None, "Number of tokens of a code at most; 0 for all.", lower_bound=0)
    flags.DEFINE_integer("width", None, "Hidden size of the model; by default the published one.", lower_bound=1)
    flags.DEFINE_enum(
        "task", None, list(TASKS), "Label of each visit that another one follows, taken from the next visit."
    )
    flags.DEFINE_string(
        "labels", None, "Labels in place of --task: a parquet file, or a folder of them, in the form of MEDS."
    )
    flags.DEFINE_enum(
        "inputs",
        None,
        list(INPUTS),
        "coded: diagnoses and procedures at a discharge are seen at the time of that discharge, the default without"
        " --labels; bedside: only a day later, the default with --labels.",
    )
    flags.DEFINE_integer("n_layer", None, "ETHOS: number of layers; 6 by default.", lower_bound=1)
    flags.DEFINE_integer("n_head", None, "ETHOS: number of attention heads; 12 by default.", lower_bound=1)
    flags.DEFINE_integer("n_positions", None, "ETHOS: tokens of a timeline; 2048 by default.", lower_bound=8)
    flags.DEFINE_string(
        "paper_vocabulary", None, "ETHOS: vocabulary of its first release (.pkl), to which MedTok tokens are appended."
    )
    flags.DEFINE_integer("max_len", None, "Number of tokens of a history at most.", lower_bound=16)


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
