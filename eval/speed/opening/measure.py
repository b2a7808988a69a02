"""Measure opening a finished run anew: its data with their caches, its last checkpoint, its tokenizer; and the digests.

Each part is opened in a process of its own, which knows no digest yet. The time of digests is counted where they are
computed, within the same opening, so that the ratio does not depend on how busy the machine is. All times are those of
the processor.
"""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from ml_collections import ConfigDict

from eval.speed.isolation import in_child
from eval.speed.setup import Setting
from eval.speed.timing import Timing, peak_memory
from preprocessing.common.errors import InputError


def _data(config: ConfigDict, _: Path) -> None:
    from medtok_jax.data.dataset import load_data
    from medtok_jax.text.encoder_files import resolve_text_encoder

    load_data(config, encoder_dir=resolve_text_encoder(config.model.text_encoder_model), progress=False)


def _checkpoint(_: ConfigDict, workdir: Path) -> None:
    from medtok_jax.training import checkpoints

    found = checkpoints.find(workdir)
    found.metadata()
    found.restore_variables()


def _tokenizer(_: ConfigDict, workdir: Path) -> None:
    from medtok_jax import MedTokTokenizer

    MedTokTokenizer.from_pretrained(workdir).encode("ICD10CM/E11.9")


PARTS: dict[str, Callable[[ConfigDict, Path], None]] = {
    "data and caches": _data,
    "checkpoint": _checkpoint,
    "tokenizer": _tokenizer,
}


def run(setting: Setting, workdir: str | None) -> dict:
    """Measure each part, with the data set of the configuration, and return facts and rows.

    Raises:
        InputError: no work directory is given, or a part cannot be opened.
    """
    if not workdir:
        raise InputError("opening needs a finished run; give its work directory as --workdir=DIR.")
    rows = [in_child(measure, part, setting.config, workdir) for part in PARTS]
    added = {f"added to {row['name']} by digests": f"{row['digests_per_rest']:.1%}" for row in rows}
    return {"facts": {"name": setting.config.data.name} | added, "rows": rows}


def measure(part: str, config: ConfigDict, workdir: str) -> dict:
    """Return the row of one part; `digests_per_rest` is the time of digests per time of everything else."""
    digests = []
    digest = hashlib.file_digest

    def counted(*arguments):
        begin = time.process_time()
        try:
            return digest(*arguments)
        finally:
            digests.append(time.process_time() - begin)

    begin = time.process_time()
    with mock.patch.object(hashlib, "file_digest", counted):
        PARTS[part](config, Path(workdir).expanduser())
    seconds = time.process_time() - begin
    more = {
        "peak_bytes": peak_memory(),
        "digests": len(digests),
        "digest_seconds": sum(digests),
        "digests_per_rest": sum(digests) / (seconds - sum(digests)),
    }
    return Timing(part, (seconds,), 0, more=more).report()
