"""Keep compiled programs on disk, so that a later process loads them instead of compiling them anew.

Variables of JAX come first: JAX_COMPILATION_CACHE_DIR names another folder, and JAX_ENABLE_COMPILATION_CACHE=false
turns this off.
"""

import hashlib
import platform
import shutil
import tempfile
import warnings
from pathlib import Path

import jax

# Programs are kept only where so many bytes are free, and the oldest ones go where all take more.
LEAST_FREE, MOST_KEPT = 2**29, 2**32
# Processor flags follow these words on a line of /proc/cpuinfo.
_FLAGS = ("flags", "Features")


def keep_compiled(caches: Path) -> str | None:
    """Keep programs that take a second to compile in a folder beside other caches.

    The folder belongs to one kind of processor, for which the programs are compiled, and to one user, because loading a
    program runs it.

    Args:
        caches: directory of caches.

    Returns:
        None, or one sentence on why nothing is kept although it should be.
    """
    if not jax.config.jax_enable_compilation_cache or jax.config.jax_compilation_cache_dir:
        return None
    folder = caches / f"compiled-{_processor()}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
        if (free := shutil.disk_usage(folder).free) < LEAST_FREE:
            return _not_kept(folder, f"only {free / 2**20:.0f} MiB of {LEAST_FREE / 2**20:.0f} MiB are free")
        _drop_oldest(folder)
    except OSError as error:
        return _not_kept(folder, error.strerror or str(error))
    # XLA's own cache of GPU kernels ends a compilation that cannot write it, while JAX goes on. A disk that fills up
    # later is told where a checkpoint is written.
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    warnings.filterwarnings("ignore", message="Error writing persistent compilation cache")
    jax.config.update("jax_compilation_cache_dir", str(folder))
    return None


def _not_kept(folder: Path, reason: str) -> str:
    return f"Compiled programs cannot be kept in {folder} ({reason}), so that the next start compiles them again."


def _processor() -> str:
    """Return a name of the processor that says for which instructions a program may be compiled."""
    kind = platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    flags = next((line for line in lines if line.startswith(_FLAGS)), "")
    return f"{kind}-{hashlib.sha256(flags.encode()).hexdigest()[:8]}"


def _drop_oldest(folder: Path) -> None:
    files = sorted((path for path in folder.iterdir() if path.is_file()), key=lambda path: path.stat().st_mtime)
    total = sum(path.stat().st_size for path in files)
    for path in files:
        if total <= MOST_KEPT:
            break
        total -= path.stat().st_size
        path.unlink(missing_ok=True)
