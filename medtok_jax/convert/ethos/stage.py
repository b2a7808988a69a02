"""Write the stages with which ETHOS itself writes MedTok tokens: a module and two data set configurations.

    ethos_stage/tokenize/medtok/     stages (copy into `src/ethos/tokenize/`)
    ethos_stage/configs/dataset/     `medtok_mimic.yaml`, `medtok_meds.yaml` (found by `--config-dir`)
    ethos_stage/medtok_codes.parquet tokens of each code
    ethos_stage/medtok_tokens.txt    tokens that the vocabulary must hold

The files work without this project.
"""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from medtok_jax.convert.ehr_models.spelling import TokenLists
from medtok_jax.convert.ethos import vocabulary
from medtok_jax.lookup.directory import TokenizerDirectory

FOLDER = "ethos_stage"
CODES = "medtok_codes.parquet"
TOKENS = "medtok_tokens.txt"
CONFIGS = ("medtok_mimic", "medtok_meds")
_FILES = Path(__file__).with_name("files")


def write(folder: Path, directory: TokenizerDirectory, tokens: TokenLists, unmapped: str, final: Path) -> None:
    """Write `folder/ethos_stage`.

    Args:
        folder: directory to write into.
        directory: the tokenizer.
        tokens: of each row of its table.
        unmapped: the treatment of codes that the tokenizer does not hold; the stages know no codes above others, so
            they keep codes where the conversion takes the `nearest`.
        final: path that `folder` will be renamed to; the configurations name it.
    """
    stage = folder / FOLDER
    module = stage / "tokenize" / "medtok"
    configs = stage / "configs" / "dataset"
    module.mkdir(parents=True)
    configs.mkdir(parents=True)
    shutil.copyfile(_FILES / "stages.py", module / "__init__.py")
    shutil.copyfile(_FILES / "events.py", module / "events.py")
    names = {
        "@CODES@": _quoted(final / FOLDER / CODES),
        "@TOKENS@": _quoted(final / FOLDER / TOKENS),
        "@UNMAPPED@": "keep" if unmapped == "nearest" else unmapped,
    }
    for name in CONFIGS:
        text = (_FILES / f"{name}.yaml").read_text(encoding="utf-8")
        for mark, value in names.items():
            text = text.replace(mark, value)
        (configs / f"{name}.yaml").write_text(text, encoding="utf-8")
    lists = pa.ListArray.from_arrays(pa.array(tokens.offsets, pa.int32()), pa.array(tokens.ids, pa.int32()))
    pq.write_table(pa.table({"code": directory.table["key"], "tokens": lists}), stage / CODES, compression="zstd")
    required = vocabulary.required(directory.config.codebook_size)
    (stage / TOKENS).write_text("".join(f"{token}\n" for token in required), encoding="utf-8")


def _quoted(path: Path) -> str:
    """Quote a path as a YAML string that OmegaConf does not interpolate."""
    return "'" + str(path).replace("'", "''").replace("${", "\\${") + "'"
