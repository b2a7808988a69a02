"""Save and read checkpoints by Orbax: the last and the best of a run, each with all that is needed to go on from it.

`WORKDIR/checkpoints/{last,best}/STEP/` holds `state` (parameters, fixed variables, optimizer state, step; all by name)
and `metadata` (configuration, data set fingerprint, text encoder identity, names of node types and relations, the steps
of the run, its best loss, the number of entries of its log). `files.json` beside them lists all files: what is not as
it says is never used.
"""

import contextlib
import dataclasses
import logging
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import absl.logging
import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx

from medtok_jax.devices.processes import wait_for_others
from medtok_jax.training.state import TrainState
from preprocessing.common.atomic import PARTIAL, put_in_place
from preprocessing.common.errors import InputError
from preprocessing.common.listing import LISTING, Damage, check_listing, write_listing

KINDS = ("last", "best")
STATE, METADATA = "state", "metadata"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Point at a checkpoint on disk: the folder that holds its steps, and its step."""

    folder: Path
    step: int

    def metadata(self) -> dict:
        """Return the checkpoint's metadata.

        Raises:
            InputError: where it cannot be read.
        """
        return self._read(METADATA, ocp.args.JsonRestore())

    def restore(self, like: TrainState) -> TrainState:
        """Return the saved state, laid out on devices as `like` is.

        Raises:
            InputError: where it cannot be read.
        """
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, _to_tree(like))
        return _from_tree(self._read(STATE, ocp.args.StandardRestore(abstract)), like)

    def restore_variables(self) -> dict[str, dict]:
        """Return the saved `params` and `fixed` variables as nested dictionaries of host arrays, whatever their shapes.

        The devices and processes that saved them need not be there.

        Raises:
            InputError: where they cannot be read.
        """
        tree = self._read(STATE)
        return {"params": tree["params"], "fixed": tree["fixed"]}

    def check_origin(self, fingerprint: str, encoder: str) -> None:
        """Refuse a data set or a text encoder that this checkpoint was not trained with.

        Args:
            fingerprint: of the data set.
            encoder: identity of the text encoder.

        Raises:
            InputError: naming which of the two differs.
        """
        metadata = self.metadata()
        for name, found, what in (("fingerprint", fingerprint, "data set"), ("encoder", encoder, "text encoder")):
            if metadata[name] != found:
                raise InputError(
                    f"The checkpoint {self.path} was trained on another {what}"
                    f" ({metadata[name][:12]} instead of {found[:12]}); use that one, or --config.init_from."
                )

    @property
    def path(self) -> Path:
        """Return the folder of its files."""
        return self.folder / str(self.step)

    def _read(self, item: str, arguments: ocp.args.CheckpointArgs | None = None) -> dict:
        """Return an item; the state as host arrays if there are no arguments."""
        advice = "delete it to start anew, or go on from another one with --config.resume_from"
        try:
            check_listing(self.path, part=f"{item}/")
        except Damage as error:
            raise InputError(f"The checkpoint {self.path} is damaged ({error}); {advice}.") from error
        try:
            with _checkpointer() as checkpointer:
                arguments = arguments or ocp.args.StandardRestore(_host_arrays(self.path / item))
                return checkpointer.restore(self.path.resolve(), args=ocp.args.Composite(**{item: arguments}))[item]
        except Exception as error:  # Orbax and the libraries below it raise errors of many kinds.
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise InputError(f"The checkpoint {self.path} cannot be restored ({reason}); {advice}.") from error


def _host_arrays(path: Path) -> dict:
    """Return empty host arrays like those of a saved tree, into which Orbax reads it."""
    metadata = ocp.StandardCheckpointHandler().metadata(path.resolve())
    return jax.tree.map(lambda saved: np.empty(saved.shape, saved.dtype), metadata.tree)


@contextlib.contextmanager
def _checkpointer() -> Iterator[ocp.Checkpointer]:
    """Yield Orbax's reader and writer, whose errors are raised, and not logged with tracebacks of its threads too."""
    verbosity, hook = absl.logging.get_verbosity(), sys.unraisablehook

    def without_late_results(told: "sys.UnraisableHookArgs") -> None:
        if str(told.exc_value) != "Event loop is closed":
            hook(told)

    absl.logging.set_verbosity(absl.logging.FATAL)
    sys.unraisablehook = without_late_results
    try:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
            yield checkpointer
        sys.unraisablehook = hook
    except BaseException:
        # After a failure its threads and tasks go on telling of errors, some when they are collected.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        raise
    finally:
        absl.logging.set_verbosity(verbosity)


def _to_tree(state: TrainState) -> dict:
    return {
        "step": state.step,
        "params": nnx.to_pure_dict(state.params),
        "fixed": nnx.to_pure_dict(state.fixed),
        "opt_state": _by_name(state.opt_state),
    }


def _from_tree(tree: dict, like: TrainState) -> TrainState:
    params, fixed = jax.tree.map(lambda x: x, (like.params, like.fixed))
    nnx.replace_by_pure_dict(params, tree["params"])
    nnx.replace_by_pure_dict(fixed, tree["fixed"])
    opt_state = jax.tree_util.tree_map_with_path(lambda path, _: _look_up(tree["opt_state"], path), like.opt_state)
    return TrainState(step=tree["step"], params=params, fixed=fixed, opt_state=opt_state)


def _names(path: tuple) -> list[str]:
    return [jax.tree_util.keystr((part,), simple=True) for part in path]


def _by_name(tree) -> dict:
    """Return the leaves of a tree in nested dictionaries, by the names of fields, keys and positions."""
    nested = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        *parents, last = _names(path)
        inner = nested
        for name in parents:
            inner = inner.setdefault(name, {})
        inner[last] = leaf
    return nested


def _look_up(nested: dict, path: tuple):
    for name in _names(path):
        nested = nested[name]
    return nested


def latest(folder: Path) -> Checkpoint | None:
    """Return the newest finished checkpoint under a folder of steps, or None."""
    steps = [int(path.name) for path in folder.glob("[0-9]*") if path.name.isdigit() and path.is_dir()]
    return Checkpoint(folder, max(steps)) if steps else None


def find(path: str | Path, prefer: str = "last") -> Checkpoint:
    """Return the checkpoint that a path means: a work directory, its `checkpoints`, `.../last`, `.../best`, or a step.

    Args:
        path: where to look.
        prefer: `last` or `best`, for paths that hold both.

    Raises:
        InputError: where there is none.
    """
    path = Path(path).expanduser()
    if path.name.isdigit() and any((path / name).exists() for name in (LISTING, STATE, METADATA)):
        return Checkpoint(path.parent, int(path.name))
    other = KINDS[1 - KINDS.index(prefer)]
    for folder in (path / "checkpoints" / prefer, path / prefer, path, path / "checkpoints" / other):
        if found := latest(folder):
            return found
    raise InputError(f"There is no checkpoint under {path}; give a run's work directory or one of its checkpoints.")


class CheckpointWriter:
    """Write the checkpoints of a run.

    Args:
        workdir: they go to `WORKDIR/checkpoints`.
        metadata: of all of them, but for the step; holds the best loss so far.
    """

    def __init__(self, workdir: Path, metadata: dict):
        self.workdir, self._metadata = workdir, dict(metadata)

    @property
    def best_total_loss(self) -> float | None:
        """Return the validation loss of the best checkpoint, None before there is one."""
        return self._metadata["best_total_loss"]

    def save_last(self, state: TrainState, *, logged: int = 0) -> None:
        """Write the checkpoint that a run goes on from, and how many entries its log has."""
        self._save("last", state, logged)

    def save_best(self, state: TrainState, total_loss: float, *, logged: int = 0) -> None:
        """Write the checkpoint that a run is used by, and remember its validation loss."""
        self._metadata["best_total_loss"] = total_loss
        self._save("best", state, logged)

    def _save(self, kind: str, state: TrainState, logged: int) -> None:
        save(self.workdir, kind, state, self._metadata | {"step": int(state.step), "logged": logged})


def save(workdir: Path, kind: str, state: TrainState, metadata: dict) -> None:
    """Write one checkpoint, `last` or `best`; the one before it is removed only when this one is complete.

    Raises:
        InputError: the disk refuses; the checkpoint before stays.
    """
    folder, step = Path(workdir) / "checkpoints" / kind, int(state.step)
    whole, partial, is_first = folder / str(step), folder / f"{PARTIAL}{step}", jax.process_index() == 0
    if whole.exists():
        return
    try:
        if is_first:
            folder.mkdir(parents=True, exist_ok=True)
            _remove(path for path in folder.iterdir() if path.name.startswith(PARTIAL))
        arguments = {STATE: ocp.args.StandardSave(_to_tree(state)), METADATA: ocp.args.JsonSave(metadata)}
        with _checkpointer() as checkpointer:
            checkpointer.save(partial.resolve(), args=ocp.args.Composite(**arguments))
        if is_first:
            write_listing(partial)
            put_in_place(partial, whole)
            _remove(path for path in folder.iterdir() if path != whole)
    except (OSError, ValueError) as error:
        if is_first:
            _remove([partial])
        if isinstance(error, InputError):
            raise
        # The library below Orbax tells an error of the system by its number, in words.
        number = re.search(r"os_error_code='(\d+)'", str(error))
        if number is None and not isinstance(error, OSError):
            raise
        reason = os.strerror(int(number[1])) if number else error.strerror or error
        raise InputError(
            f"A checkpoint cannot be written to {folder} ({reason}); make room there, and run the same command again"
            " to go on from the checkpoint before."
        ) from error
    wait_for_others("checkpoint in place")


def _remove(folders: Iterable[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
