"""Write a TensorBoard event file from the calling thread, where a full disk is an error that ends the run."""

import time
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from preprocessing.common.atomic import writing


class EventFile:
    """Write scalars and pictures to a new event file.

    The `SummaryWriter` of tensorboardX is not used: it writes from a thread of its own, which ends at the first error,
    and whoever adds to its full queue then waits forever.

    Args:
        folder: where the file goes; made where it is absent.
        step: TensorBoard hides what earlier files of the folder hold from this step on.
        advice: what the user can do when the disk refuses, without a full stop.

    Raises:
        InputError: (also from all methods) the file cannot be written.
    """

    def __init__(self, folder: Path, step: int, advice: str):
        self._folder, self._advice = folder, advice
        with writing(folder, advice):
            folder.mkdir(parents=True, exist_ok=True)
            self._file = EventsWriter(str(folder / "events"))
        self._write(Event(step=step, session_log=SessionLog(status=SessionLog.START)))

    def scalar(self, name: str, value: float, step: int) -> None:
        """Write one number."""
        self._write(Event(step=step, summary=Summary(value=[Summary.Value(tag=name, simple_value=value)])))

    def picture(self, name: str, png: bytes, step: int) -> None:
        """Write one picture, given as a PNG file."""
        width, height = (int.from_bytes(png[start : start + 4], "big") for start in (16, 20))
        image = Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=png)
        self._write(Event(step=step, summary=Summary(value=[Summary.Value(tag=name, image=image)])))

    def flush(self) -> None:
        """Write what is buffered."""
        with writing(self._folder, self._advice):
            self._file.flush()

    def close(self) -> None:
        """End the file."""
        with writing(self._folder, self._advice):
            self._file.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        with writing(self._folder, self._advice):
            self._file.write_event(event)
