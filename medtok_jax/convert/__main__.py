"""Converts a trained tokenizer for other libraries and for models of patient records.

    python -m medtok_jax.convert --workdir=DIR --to=pytorch --output=OUT
    python -m medtok_jax.convert --workdir=DIR --to=huggingface --output=OUT
    python -m medtok_jax.convert --workdir=DIR --to=ethos --events=MEDS --output=OUT [--unmapped=keep|drop|unk]
    python -m medtok_jax.convert --workdir=DIR --to=gt_behrt|behrt|transformehr|mult_ehr --events=MEDS --output=OUT
    python -m medtok_jax.convert --from=pytorch --input=DIR --output=WORKDIR

--tokenizer=TOK stands for --workdir where only a tokenizer directory is at hand. docs/integration_guide.md goes from
there to each model.
"""

import importlib

from absl import flags

from medtok_jax.convert import request
from medtok_jax.records.event_codes import UNMAPPED
from preprocessing.common import command_line
from preprocessing.common.errors import InputError

# Modules with `convert(request: Request) -> None`, imported when they are asked for.
TARGETS = {
    "pytorch": "medtok_jax.convert.pytorch.convert",
    "huggingface": "medtok_jax.convert.huggingface.convert",
    "ethos": "medtok_jax.convert.ethos.convert",
    "gt_behrt": "medtok_jax.convert.ehr_models.gt_behrt",
    "behrt": "medtok_jax.convert.ehr_models.behrt",
    "transformehr": "medtok_jax.convert.ehr_models.transformehr",
    "mult_ehr": "medtok_jax.convert.ehr_models.mult_ehr",
}
# Modules with `restore(input: Path, output: Path) -> None`.
SOURCES = {"pytorch": "medtok_jax.convert.pytorch.restore"}
# Flags that only some targets take; given to another one they are refused.
OPTIONS: dict[str, tuple[str, ...]] = {
    "gt_behrt": ("nodes", "tokens_per_code", "width", "task", "labels"),
    "behrt": ("tokens_per_code", "width", "max_len"),
    "transformehr": ("tokens_per_code", "width"),
    "mult_ehr": ("width",),
    "ethos": ("width", "n_layer", "n_head", "n_positions", "paper_vocabulary"),
}


def main(arguments: list[str]) -> None:
    """Runs one conversion."""
    if arguments[1:]:
        raise InputError(f"{arguments[1]!r} is no flag; see --help for an example.")
    if bool(flags.FLAGS.to) == bool(flags.FLAGS["from"].value):
        raise InputError(f"Say what to do, by --to={'|'.join(TARGETS)} or --from={'|'.join(SOURCES)}.")
    if not flags.FLAGS.output:
        raise InputError("--output is missing: say which directory to write.")
    if flags.FLAGS.to:
        asked = request.make_request(
            output=flags.FLAGS.output,
            workdir=flags.FLAGS.workdir,
            tokenizer=flags.FLAGS.tokenizer,
            events=flags.FLAGS.events,
            unmapped=flags.FLAGS.unmapped,
            overwrite=flags.FLAGS.overwrite,
            options=_options(),
        )
        importlib.import_module(TARGETS[flags.FLAGS.to]).convert(asked)
        return
    if not flags.FLAGS.input:
        raise InputError(f"--input is missing: say which directory --from={flags.FLAGS['from'].value} reads.")
    source = request.existing(flags.FLAGS.input, "directory")
    output = request.check_output(flags.FLAGS.output, flags.FLAGS.overwrite, [source])
    importlib.import_module(SOURCES[flags.FLAGS["from"].value]).restore(source, output)


def _options() -> dict:
    """The flags that this target takes, by name, without those that have no value.

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
            raise InputError(f"--{name} is of --to={'|'.join(takers)}; --to={flags.FLAGS.to} does not take it.")
    return given


def define_flags() -> None:
    """All flags of the command line."""
    flags.DEFINE_enum("to", None, list(TARGETS), "What to convert to.")
    flags.DEFINE_enum("from", None, list(SOURCES), "What --input is, to turn it back into a work directory.")
    flags.DEFINE_string("input", None, "With --from: the directory to read.")
    flags.DEFINE_string("workdir", None, "Work directory of a finished training run.")
    flags.DEFINE_string("tokenizer", None, "Tokenizer directory, if not the one in the work directory.")
    flags.DEFINE_string("events", None, "Patient records: a MEDS data set, or a MIMIC-III or MIMIC-IV directory.")
    flags.DEFINE_string("output", None, "Directory to write; it must be absent or empty.")
    flags.DEFINE_bool("overwrite", False, "Whether an --output that is not empty is replaced, as a whole.")
    flags.DEFINE_enum(
        "unmapped",
        "keep",
        list(UNMAPPED),
        "What becomes of codes in --events that the tokenizer does not hold.",
    )
    flags.DEFINE_enum("nodes", None, ["tokens", "codes"], "Nodes of a visit graph: tokens by default.")
    flags.DEFINE_integer("tokens_per_code", None, "Tokens that stand for a code at most; 0 for all.", lower_bound=0)
    flags.DEFINE_integer("width", None, "Hidden size of the model; its own by default.", lower_bound=1)
    flags.DEFINE_enum("task", None, ["mortality", "readmission"], "Label of a history, from the visit behind it.")
    flags.DEFINE_string("labels", None, "Labels of histories instead: a parquet file in MEDS form.")
    flags.DEFINE_integer("n_layer", None, "ETHOS: layers of the model; 6 by default.", lower_bound=1)
    flags.DEFINE_integer("n_head", None, "ETHOS: attention heads; 12 by default.", lower_bound=1)
    flags.DEFINE_integer("n_positions", None, "ETHOS: tokens of a timeline; 2048 by default.", lower_bound=8)
    flags.DEFINE_string(
        "paper_vocabulary", None, "ETHOS: vocabulary of its first release (.pkl) to put MedTok tokens behind."
    )
    flags.DEFINE_integer("max_len", None, "Tokens of a history at most.", lower_bound=16)


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
