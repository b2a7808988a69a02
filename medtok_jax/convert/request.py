"""Check the inputs and the output of a conversion before any work."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from medtok_jax.lookup.config import CONFIG
from medtok_jax.records.choices import UNMAPPED
from preprocessing.common.errors import InputError


@dataclasses.dataclass(frozen=True)
class Request:
    """Describe a conversion to one target.

    Attributes:
        workdir: work directory of the training run, or None if only a tokenizer directory was given.
        tokenizer: the tokenizer directory.
        events: MEDS data set or MIMIC directory, or None.
        output: directory to write: empty, absent, or to be replaced as a whole. Whoever converts writes it through
            `preprocessing.common.atomic.whole_folder`, so that it appears only when it is whole.
        unmapped: one of `UNMAPPED`, the treatment of codes that the tokenizer does not hold.
        options: values of the flags that only this target takes, by name, as far as they were given.
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
    """Return a checked request; the arguments are the flags of `python -m medtok_jax.convert`.

    Raises:
        InputError: neither work directory nor tokenizer is given, there is no tokenizer, or the output cannot be used.
    """
    if unmapped not in UNMAPPED:
        raise InputError(f"unmapped is {unmapped!r}; it must be one of {', '.join(UNMAPPED)}.")
    run = existing(workdir, "work directory") if workdir else None
    if tokenizer:
        folder = existing(tokenizer, "tokenizer directory")
        # The work directory of a run is accepted for the tokenizer in it.
        folder = folder if (folder / CONFIG).is_file() or not (folder / "tokenizer").is_dir() else folder / "tokenizer"
    elif run:
        folder = run / "tokenizer"
    else:
        raise InputError("Give the tokenizer to convert, by --workdir=DIR (of a training run) or --tokenizer=TOK.")
    if not (folder / CONFIG).is_file():
        raise InputError(
            f"{folder} is not a tokenizer directory; training writes WORKDIR/tokenizer, and"
            " `python -m medtok_jax.tokenize vocabulary --workdir=DIR --output=TOK` writes one again."
        )
    records = existing(events, "directory of events") if events else None
    inputs = [path for path in (run, folder, records) if path]
    checked = check_output(output, overwrite, inputs)
    return Request(run, folder, records, checked, unmapped, dict(options or {}))


def existing(path: str | Path, kind: str) -> Path:
    """Return `path` as a directory that exists; `kind` names it in the message otherwise.

    Raises:
        InputError: there is no such directory.
    """
    found = Path(path).expanduser()
    if not found.is_dir():
        raise InputError(f"The {kind} {path} does not exist; correct the path.")
    return found


def check_output(output: str | Path, overwrite: bool, inputs: Iterable[Path]) -> Path:
    """Return the directory to write, after checking that it may be replaced.

    Args:
        output: path of the directory.
        overwrite: whether a directory that is not empty may be replaced, with all files in it.
        inputs: paths that the conversion reads and must not remove.

    Raises:
        InputError: the path is taken, or replacing it would remove an input or the current directory.
    """
    # A link is resolved, so that the directory it leads to is replaced and not the link.
    path = Path(output).expanduser().resolve()
    if path.exists() and not path.is_dir():
        raise InputError(f"{output} exists and is not a directory; choose another --output.")
    for other in (*inputs, Path.cwd(), Path.home()):
        if other.resolve().is_relative_to(path):
            raise InputError(f"--output={output} holds {other}, which must not be removed; choose another directory.")
    if path.is_dir() and any(path.iterdir()) and not overwrite:
        raise InputError(f"{output} is not empty; choose another --output, or give --overwrite to replace all of it.")
    return path
