"""What a conversion is asked for, checked before any work: where things come from and where they go."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from medtok_jax.lookup.config import CONFIG
from medtok_jax.records.event_codes import UNMAPPED
from preprocessing.common.errors import InputError


@dataclasses.dataclass(frozen=True)
class Request:
    """A conversion to one target.

    Attributes:
        workdir: work directory of the training run, or None where only a tokenizer directory was given.
        tokenizer: the tokenizer directory.
        events: MEDS data set or MIMIC directory, or None.
        output: directory to write: empty, absent, or to be replaced as a whole. Whoever converts writes it through
            `preprocessing.common.atomic.whole_folder`, so that it appears only when it is whole.
        unmapped: `keep`, `drop` or `unk`: what becomes of codes that the tokenizer does not hold.
        options: the flags that only this target takes, by name; absent where they were not given.
    """

    workdir: Path | None
    tokenizer: Path
    events: Path | None
    output: Path
    unmapped: str = "keep"
    options: dict = dataclasses.field(default_factory=dict)


def make_request(
    *,
    output: str,
    workdir: str | None = None,
    tokenizer: str | None = None,
    events: str | None = None,
    unmapped: str = "keep",
    overwrite: bool = False,
    options: dict | None = None,
) -> Request:
    """A checked request; arguments as the flags of `python -m medtok_jax.convert`.

    Raises:
        InputError: neither work directory nor tokenizer is given, there is no tokenizer, or the output cannot be used.
    """
    if not workdir and not tokenizer:
        raise InputError("Say what to convert, by --workdir=DIR (of a training run) or --tokenizer=TOK.")
    if unmapped not in UNMAPPED:
        raise InputError(f"unmapped is {unmapped!r}; it must be one of {', '.join(UNMAPPED)}.")
    run = existing(workdir, "work directory") if workdir else None
    if tokenizer:
        place = existing(tokenizer, "tokenizer directory")
        # As everywhere, the work directory of a run stands for the tokenizer in it.
        place = place if (place / CONFIG).is_file() or not (place / "tokenizer").is_dir() else place / "tokenizer"
    else:
        place = run / "tokenizer"
    if not (place / CONFIG).is_file():
        raise InputError(
            f"{place} is no tokenizer directory; training writes WORKDIR/tokenizer, and"
            " `python -m medtok_jax.tokenize vocabulary --workdir=DIR --output=TOK` writes one again."
        )
    records = existing(events, "directory of events") if events else None
    inputs = [path for path in (run, place, records) if path]
    return Request(run, place, records, check_output(output, overwrite, inputs), unmapped, dict(options or {}))


def existing(path: str | Path, what: str) -> Path:
    """The directory at `path`.

    Raises:
        InputError: there is none.
    """
    found = Path(path).expanduser()
    if not found.is_dir():
        raise InputError(f"The {what} {path} does not exist.")
    return found


def check_output(output: str | Path, overwrite: bool, inputs: Iterable[Path]) -> Path:
    """The directory to write.

    Args:
        output: where to.
        overwrite: whether a directory that is not empty may be replaced, as a whole.
        inputs: what is read, and must outlast the conversion.

    Raises:
        InputError: something else lies there, or replacing it would remove an input or the current directory.
    """
    # A link is followed, so that the directory it leads to is replaced and not the link.
    path = Path(output).expanduser().resolve()
    if path.exists() and not path.is_dir():
        raise InputError(f"{output} exists and is no directory; choose another --output.")
    for other in (*inputs, Path.cwd(), Path.home()):
        if other.resolve().is_relative_to(path):
            raise InputError(f"--output={output} holds {other}, which must stay; choose a directory of its own.")
    if path.is_dir() and any(path.iterdir()) and not overwrite:
        raise InputError(f"{output} is not empty; choose another --output, or --overwrite to replace it as a whole.")
    return path
