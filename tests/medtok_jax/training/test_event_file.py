import io
import resource
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from medtok_jax.training.event_file import EventFile
from preprocessing.common.errors import InputError

ADVICE = "make room there"


def test_tensorboard_reads_what_is_written(tmp_path):
    figure, png = Figure(figsize=(3, 2)), io.BytesIO()
    figure.savefig(png, dpi=50)
    file = EventFile(tmp_path / "logs", 0, ADVICE)
    file.scalar("train/loss", 2.5, 10)
    file.scalar("train/loss", 1.5, 20)
    file.picture("codebook", png.getvalue(), 20)
    file.close()
    events = EventAccumulator(str(tmp_path / "logs"), size_guidance={"images": 0}).Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(10, 2.5), (20, 1.5)]
    (picture,) = events.Images("codebook")
    assert (picture.step, picture.width, picture.height) == (20, 150, 100)
    assert picture.encoded_image_string == png.getvalue()


def test_a_run_that_goes_on_hides_what_it_repeats(tmp_path):
    for number, step in enumerate((0, 10)):
        file = EventFile(tmp_path / f"{number}", step, ADVICE)
        file.scalar("loss", float(number), 10)
        file.scalar("loss", float(number), 20)
        file.close()
        (written,) = (tmp_path / f"{number}").iterdir()
        (tmp_path / "logs").mkdir(exist_ok=True)
        written.rename(tmp_path / "logs" / f"events.out.tfevents.{number}")
    events = EventAccumulator(str(tmp_path / "logs")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(10, 1.0), (20, 1.0)]


def test_a_full_disk_is_an_error_of_whoever_writes(tmp_path):
    """The writer of tensorboardX itself hangs here for ever, once its queue is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    file = EventFile(tmp_path / "logs", 0, ADVICE)

    def write_many():
        for step in range(10_000):
            file.scalar("loss", 0.0, step)
            file.flush()

    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
        with pytest.raises(InputError, match=r"logs cannot be written \(File too large\); make room there\.$"):
            write_many()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_folder_that_cannot_be_made():
    with pytest.raises(InputError, match=r"/dev/null/x cannot be written \(Not a directory\); make room there\.$"):
        EventFile(Path("/dev/null/x"), 0, ADVICE)
