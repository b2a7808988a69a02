"""Write the stages with which ETHOS itself writes MedTok tokens, and a command that lets it predict given samples.

    ethos_stage/tokenize/medtok/     stages (copy into `src/ethos/tokenize/`)
    ethos_stage/configs/dataset/     `medtok_mimic.yaml`, `medtok_meds.yaml` (found by `--config-dir`)
    ethos_stage/medtok_codes.parquet tokens of each code, with their source: see `code_tokens`
    ethos_stage/medtok_tokens.txt    tokens that the vocabulary must hold
    ethos_stage/infer_samples.py     `ethos_infer` at the prediction times of given labels

The files work without this project.
"""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from medtok_jax.convert.ehr_models.spelling import TokenLists
from medtok_jax.convert.ethos import vocabulary
from medtok_jax.convert.record_codes import RecordCodes
from medtok_jax.lookup.directory import TokenizerDirectory
from preprocessing.common.ragged import offsets_of, take

FOLDER = "ethos_stage"
CODES = "medtok_codes.parquet"
TOKENS = "medtok_tokens.txt"
CONFIGS = ("medtok_mimic", "medtok_meds")
INFER = "infer_samples.py"
_FILES = Path(__file__).with_name("files")


def write(folder: Path, directory: TokenizerDirectory, mapped: RecordCodes, tokens: TokenLists, final: Path) -> None:
    """Write `folder/ethos_stage`.

    Args:
        folder: directory to write into.
        directory: the tokenizer.
        mapped: the rows that codes are mapped to, and the treatment of codes without one.
        tokens: of each row.
        final: path that `folder` will be renamed to; the configurations name it.
    """
    stage = folder / FOLDER
    module = stage / "tokenize" / "medtok"
    configs = stage / "configs" / "dataset"
    module.mkdir(parents=True)
    configs.mkdir(parents=True)
    shutil.copyfile(_FILES / "stages.py", module / "__init__.py")
    for name in ("code_tokens.py", "events.py"):
        shutil.copyfile(_FILES / name, module / name)
    shutil.copyfile(_FILES / INFER, stage / INFER)
    names = {
        "@CODES@": _quoted(final / FOLDER / CODES),
        "@TOKENS@": _quoted(final / FOLDER / TOKENS),
        "@UNMAPPED@": mapped.mapper.unmapped,
    }
    for name in CONFIGS:
        text = (_FILES / f"{name}.yaml").read_text(encoding="utf-8")
        for mark, value in names.items():
            text = text.replace(mark, value)
        (configs / f"{name}.yaml").write_text(text, encoding="utf-8")
    pq.write_table(_codes(directory, mapped, tokens), stage / CODES, compression="zstd")
    required = vocabulary.required(directory.config.codebook_size)
    (stage / TOKENS).write_text("".join(f"{token}\n" for token in required), encoding="utf-8")


def _codes(directory: TokenizerDirectory, mapped: RecordCodes, tokens: TokenLists) -> pa.Table:
    """Return `code`, `tokens` and `in_table` of all codes of the tokenizer, then of the records' codes without a row.

    The latter are those that have the tokens of a parent code or of the model. The stage finds codes above by itself.
    """
    stand_ins = mapped.mapper.stand_ins()
    keys = directory.table["key"].to_pylist()
    rows = np.array([*range(len(keys)), *stand_ins.values()], np.int64)
    ids, counts = take(tokens.ids, tokens.offsets, rows)
    lists = pa.ListArray.from_arrays(pa.array(offsets_of(counts), pa.int32()), pa.array(ids, pa.int32()))
    in_table = pa.array(np.arange(len(rows)) < len(keys))
    return pa.table({"code": [*keys, *stand_ins], "tokens": lists, "in_table": in_table})


def _quoted(path: Path) -> str:
    """Quote a path as a YAML string that OmegaConf does not interpolate."""
    return "'" + str(path).replace("'", "''").replace("${", "\\${") + "'"
