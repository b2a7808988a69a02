"""Write everything to disks that are soon full: one sentence says so, and with room the same call succeeds."""

from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from flax import nnx

from medtok_jax import MedTokTokenizer
from medtok_jax.data.dataset import load_data
from medtok_jax.inference.vocabulary import Parts
from medtok_jax.regions import Regions
from medtok_jax.report import build
from medtok_jax.tokenize import files
from medtok_jax.training import checkpoints, reporting
from medtok_jax.training.inputs import make_sampler
from medtok_jax.training.state import TrainState
from preprocessing.common.errors import UserError
from tests.helpers import small_tokenizer, tiny_run
from tests.helpers.small_disk import small_disk

pytestmark = pytest.mark.integration
SIZES = (4096, 16_384, 65_536, 262_144)


def write_caches(root: Path, disk: Path) -> None:
    config = tiny_run.get_config(str(root)).copy_and_resolve_references().unlock()
    config.data.cache_dir = str(disk)
    make_sampler(config, load_data(config, encoder_dir=root / "encoders/tiny", progress=False))


def write_checkpoint(_: Path, disk: Path) -> None:
    params = nnx.state(nnx.Linear(150, 150, rngs=nnx.Rngs(0)), nnx.Param)
    state = TrainState(step=jnp.int32(7), params=params, fixed=nnx.State({}), opt_state=(jnp.ones(3),))
    checkpoints.save(disk, "last", state, {})
    checkpoints.find(disk).restore(state)


def write_logs(_: Path, disk: Path) -> None:
    log = reporting.Log(disk, step=0, regions=Regions(20, 8, 12))
    try:
        for step in range(400):
            log.scalars(step, {f"scalar {number}": 1.5 for number in range(4)})
            log._keep(log.history, {"kind": "train", "step": step, "text": "a line"})
        log.close()
    finally:
        kept = reporting._read_history(disk / reporting.HISTORY)
        assert kept == log.history[: len(kept)]


def write_tokenizer(_: Path, disk: Path) -> None:
    small_tokenizer.write(disk / "tokenizer", small_tokenizer.make_tokens(embeddings=True))
    MedTokTokenizer.from_pretrained(disk / "tokenizer", verify=True)


def write_pieces(_: Path, disk: Path) -> None:
    parts = Parts(disk / "tokenizer", {"run": "this"})
    for number in range(parts.begin(), 3):
        parts.save(number, {"ids": jnp.full(10_000, number)})
    assert parts.read()["ids"].tolist() == [number for number in range(3) for _ in range(10_000)]


def write_tokens(suffix: str) -> Callable[[Path, Path], None]:
    def write(root: Path, disk: Path) -> None:
        keys = small_tokenizer.KEYS * 50
        pq.write_table(pa.table({"code": list(keys)}), root / "codes.parquet")
        tokenizer = MedTokTokenizer.from_pretrained(small_tokenizer.write(root / "small"))
        columns = {"code": None, "system": None, "description": None}
        files.tokenize_file(tokenizer, root / "codes.parquet", disk / f"tokens.{suffix}", columns=columns)

    return write


def write_report(root: Path, disk: Path) -> None:
    build.write(root / "work/tokenizer", disk, codes=None, method="pca", max_codes=60, progress=False)


WRITERS = {
    "caches": write_caches,
    "checkpoint": write_checkpoint,
    "logs": write_logs,
    "tokenizer": write_tokenizer,
    "pieces of tokens": write_pieces,
    **{f"tokens in {suffix}": write_tokens(suffix) for suffix in ("csv", "jsonl", "parquet")},
    "report": write_report,
}


@pytest.mark.parametrize("what", WRITERS)
def test_a_full_disk_is_one_sentence(what, root, tmp_path, tell):
    sentences = []
    for number, size in enumerate(SIZES):
        disk = tmp_path / f"disk-{number}"
        with small_disk(disk, size):
            try:
                WRITERS[what](root, disk)
            except UserError as error:
                sentences.append(str(error))
    bad = [text for text in sentences if "\n" in text or not text.endswith(".")]
    tell("full disks", tried=len(sentences), held=len(sentences) - len(bad))
    assert sentences
    assert bad == []
    (tmp_path / "disk").mkdir()
    WRITERS[what](root, tmp_path / "disk")
