"""Measure how long it takes to build the data set, to pack it and to open it, once each in an empty folder.

The scales `primekg` and `release` first write generated source files of the published size (see `generated_source`).
"""

import shutil
import tempfile
from pathlib import Path

from eval.speed.generated_source import SOURCES, write_source
from eval.speed.isolation import in_child
from eval.speed.setup import Setting
from eval.speed.timing import Timing, folder_size, peak_memory, repeat


def run(setting: Setting) -> dict:
    """Measure each part in a separate process, so that its peak memory is its own."""
    setting.folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="dataset-", dir=setting.folder))
    try:
        rows, arguments = [], (setting.scale, setting.codes, str(folder))
        if setting.scale in SOURCES:
            rows.append(in_child(write, *arguments))
        name = setting.config.data.name if setting.scale not in SOURCES else f"medtok_codes/{setting.scale}"
        if setting.codes and setting.scale not in SOURCES:
            name += f"-sample_{setting.codes}"
        for part in (build, pack, open_again):
            rows.append(in_child(part, name, str(folder)))
        sizes = {part.name: folder_size(part) for part in sorted(folder.iterdir()) if part.is_dir()}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    bytes_of = {f"bytes of {name}": size for name, size in sizes.items()}
    return {"facts": {"scale": setting.scale, "name": name, "codes": rows[-1]["items"]} | bytes_of, "rows": rows}


def write(scale: str, codes: int, folder: str) -> dict:
    """Generate the source files."""
    path = Path(folder) / "source"
    return _once("generate the source files", lambda: write_source(scale, path, codes=codes or None), codes)


def build(name: str, folder: str) -> dict:
    """Build the TFDS data set."""
    from preprocessing import medtok_codes

    path = Path(folder)
    source = path / "source" if (path / "source").is_dir() else None
    return _once("build", lambda: _count(medtok_codes.prepare(name, path / "data", source_dir=source)), None)


def pack(name: str, folder: str) -> dict:
    """Read every example and pack it for training."""
    return _once("read and pack", lambda: _load(name, folder), None)


def open_again(name: str, folder: str) -> dict:
    """Open the packed data set."""
    return _once("open", lambda: _load(name, folder), None)


def _load(name: str, folder: str) -> int:
    from medtok_jax.data import code_table
    from preprocessing import medtok_codes

    return len(code_table.load(medtok_codes.open_prepared(name, Path(folder) / "data"), Path(folder) / "packed"))


def _count(builder) -> int:
    return sum(split.num_examples for split in builder.info.splits.values())


def _once(name: str, function, items: int | None) -> dict:
    done = []
    seconds = repeat(lambda: done.append(function()), 1, warm_up=0)
    return Timing(name, seconds, done[0] if items is None else items, more={"peak_bytes": peak_memory()}).report()
