"""Stop a training at any moment, and start it again until it ends: it leaves what a run leaves that nobody stopped."""

import functools
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from medtok_jax.inference import vocabulary
from preprocessing.common.listing import COMPARED
from tests.helpers import stopped_runs
from tests.helpers.stopped_runs import differences, kinds_of, result_of

pytestmark = pytest.mark.integration
# Statuses of a command that a signal has stopped. SIGTERM is handled a moment after the start; before, it kills as it
# does any other program.
STOPPED = {signal.SIGKILL: (-signal.SIGKILL,), signal.SIGTERM: (128 + signal.SIGTERM, -signal.SIGTERM)}


def stop_and_check(root: Path, workdir: Path, number: int, is_time: Callable[[], bool]) -> bool:
    """Start a run, stop it when it is time, and return whether it had ended before.

    Raises:
        AssertionError: it ended with another status than the documented ones, or with a traceback.
    """
    with stopped_runs.started(root, workdir) as running:
        status, errors = stopped_runs.stop(running, number, is_time)
    assert status in (0, *STOPPED[number]), errors
    assert "Traceback" not in errors
    return status == 0


def test_a_run_killed_while_it_writes_ends_as_one_that_was_not(ended_run, tmp_path, tell):
    """Once in the first checkpoint, and once in the tokenizer."""
    workdir, kills = tmp_path / "work", 0
    for begin in ("work/checkpoints/last/", f"work/.partial-#-{vocabulary.DIRECTORY}"):

        def appears(begin: str = begin) -> bool:
            return any(kind.startswith(begin) for kind in kinds_of(workdir))

        kills += not stop_and_check(ended_run, workdir, signal.SIGKILL, appears)
    assert kills, "The run ended before it was seen to write."
    # A run that has ended already does nothing more.
    assert stop_and_check(ended_run, workdir, signal.SIGKILL, lambda: False)
    wrong = differences(result_of(workdir), result_of(ended_run / "work"))
    tell("kills while files appear", tried=kills, held=0 if wrong else kills)
    assert wrong == []


class Place:
    """A folder in which the same run is started over and over, from prepared data and no cache.

    Attributes:
        whole: result of the run that nobody stopped.
        seconds: the time that this run took.
    """

    def __init__(self, ended_run: Path, root: Path):
        self.root, self.workdir, self.cache = root, root / "work", root / "data" / "medtok_cache"
        shutil.copytree(ended_run / "data", root / "data", ignore=shutil.ignore_patterns(self.cache.name))
        (root / "encoders").symlink_to(ended_run / "encoders")
        self.run(signal.SIGKILL, lambda: False)
        # The second time all programs are compiled, as they are after a kill.
        self.clear()
        begin = time.monotonic()
        self.run(signal.SIGKILL, lambda: False)
        self.seconds = time.monotonic() - begin
        self.whole = self.result()

    def clear(self) -> None:
        """Remove all that runs have made."""
        for folder in (self.workdir, self.cache):
            shutil.rmtree(folder, ignore_errors=True)

    def kinds(self) -> set[str]:
        """Return the kinds of files of the work directory and the caches."""
        return kinds_of(self.workdir, self.cache)

    def result(self) -> dict[str, object]:
        """Return what a run has left, with the kinds of files in the caches.

        Whoever opens a cache that is there already notes that its digests were compared; only stopped runs do. The file
        of a lock whose holder was killed stays until somebody takes it again: nobody does where the cache is whole.
        """
        kinds = (kind for kind in kinds_of(self.cache) if not kind.endswith((COMPARED, ".lock")))
        return result_of(self.workdir) | {"kinds of caches": sorted(kinds)}

    def run(self, number: int, is_time: Callable[[], bool]) -> bool:
        """Start the run, stop it when it is time, and return whether it had ended before."""
        return stop_and_check(self.root, self.workdir, number, is_time)


@pytest.fixture(scope="module")
def place(ended_run, tmp_path_factory) -> Place:
    return Place(ended_run, tmp_path_factory.mktemp("place"))


@pytest.mark.thorough
@pytest.mark.parametrize(("number", "count"), [(signal.SIGKILL, 20), (signal.SIGTERM, 10)], ids=["SIGKILL", "SIGTERM"])
def test_stopped_at_random_moments(place, number, count, tell):
    rng = random.Random(f"moments of {number.name}")
    stops, wrong = 0, []
    while stops < count:
        place.clear()
        of_this, has_ended = 0, False
        while not has_ended:
            left = rng.random() * place.seconds if stops + of_this < count else float("inf")
            end = time.monotonic() + left
            has_ended = place.run(number, functools.partial(_is_past, end))
            of_this += not has_ended
        stops += of_this
        if found := differences(place.result(), place.whole):
            wrong.append((of_this, found))
        tell(f"{number.name} at random moments", tried=stops, held=stops - sum(count for count, _ in wrong))
    assert wrong == []


def _is_past(moment: float) -> bool:
    return time.monotonic() >= moment


@pytest.mark.thorough
def test_killed_as_each_kind_of_file_appears(place, tell):
    place.clear()
    seen, kills, has_ended = place.kinds(), 0, False

    def is_new() -> bool:
        found = place.kinds() - seen
        seen.update(found)
        return bool(found)

    while not has_ended:
        has_ended = place.run(signal.SIGKILL, is_new)
        kills += not has_ended
    wrong = differences(place.result(), place.whole)
    tell("kills as a new kind of file appears", tried=kills, held=0 if wrong else kills)
    assert kills > 10
    assert wrong == []
