"""Checkpoints by Orbax: the last and the best of a run, each with all that is needed to go on or to be used.

`WORKDIR/checkpoints/{last,best}/STEP/` holds `state` (parameters, fixed variables, optimizer state, step) and `about`
(configuration, data set fingerprint, text encoder identity, names of node types and relations, where the run began).
"""

import dataclasses
from pathlib import Path

import jax
import orbax.checkpoint as ocp
from flax import nnx

from medtok_jax.training.state import TrainState
from preprocessing.common.errors import InputError

KINDS = ("last", "best")


@dataclasses.dataclass(frozen=True)
class Found:
    """A checkpoint on disk: the folder that holds its steps, and its step."""

    folder: Path
    step: int

    def about(self) -> dict:
        """The checkpoint's metadata.

        Raises:
            InputError: where it cannot be read.
        """
        return self._read("about", ocp.args.JsonRestore())

    def restore(self, like: TrainState) -> TrainState:
        """The saved state, laid out on devices as `like` is.

        Raises:
            InputError: where it cannot be read.
        """
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, _to_tree(like))
        return _from_tree(self._read("state", ocp.args.StandardRestore(abstract)), like)

    def restore_variables(self) -> dict[str, dict]:
        """The saved `params` and `fixed` variables as nested dictionaries of host arrays, whatever their shapes.

        Raises:
            InputError: where they cannot be read.
        """
        tree = self._read("state", ocp.args.StandardRestore())
        return {"params": tree["params"], "fixed": tree["fixed"]}

    def _read(self, item: str, arguments: ocp.args.CheckpointArgs) -> dict:
        with _manager(self.folder) as manager:
            try:
                return manager.restore(self.step, args=ocp.args.Composite(**{item: arguments}))[item]
            except (OSError, ValueError, KeyError) as error:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise InputError(
                    f"The checkpoint {self.folder / str(self.step)} is damaged ({reason[:200]}); delete it to start"
                    " anew, or go on from another one with --config.resume_from."
                ) from error


def _manager(folder: Path, max_to_keep: int | None = None) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(
        max_to_keep=max_to_keep, create=max_to_keep is not None, enable_async_checkpointing=False
    )
    return ocp.CheckpointManager(folder.resolve(), options=options, item_names=("state", "about"))


def _to_tree(state: TrainState) -> dict:
    return {
        "step": state.step,
        "params": nnx.to_pure_dict(state.params),
        "fixed": nnx.to_pure_dict(state.fixed),
        "opt_state": jax.tree.leaves(state.opt_state),
    }


def _from_tree(tree: dict, like: TrainState) -> TrainState:
    params, fixed = jax.tree.map(lambda x: x, (like.params, like.fixed))
    nnx.replace_by_pure_dict(params, tree["params"])
    nnx.replace_by_pure_dict(fixed, tree["fixed"])
    opt_state = jax.tree.unflatten(jax.tree.structure(like.opt_state), tree["opt_state"])
    return TrainState(step=tree["step"], params=params, fixed=fixed, opt_state=opt_state)


def latest(folder: Path) -> Found | None:
    """The newest finished checkpoint under a folder of steps."""
    steps = [
        int(path.name) for path in folder.glob("*") if path.name.isdigit() and (path / "_CHECKPOINT_METADATA").exists()
    ]
    return Found(folder, max(steps)) if steps else None


def find(path: str | Path, prefer: str = "last") -> Found:
    """The checkpoint meant by a path: a work directory, its `checkpoints`, `.../last` or `.../best`, or one step.

    Args:
        path: where to look.
        prefer: `last` or `best`, for paths that hold both.

    Raises:
        InputError: where there is none.
    """
    path = Path(path).expanduser()
    if path.name.isdigit() and path.is_dir():
        found = latest(path.parent)
        if found and (path / "_CHECKPOINT_METADATA").exists():
            return Found(path.parent, int(path.name))
    other = KINDS[1 - KINDS.index(prefer)]
    for folder in (path / "checkpoints" / prefer, path / prefer, path, path / "checkpoints" / other):
        if found := latest(folder):
            return found
    raise InputError(f"There is no checkpoint under {path}; give a run's work directory or one of its checkpoints.")


def save(workdir: Path, kind: str, state: TrainState, about: dict) -> None:
    """Writes one checkpoint; the one before it is removed only when this one is whole."""
    with _manager(Path(workdir) / "checkpoints" / kind, max_to_keep=1) as manager:
        step = int(state.step)
        if step in manager.all_steps():
            return
        manager.save(
            step, args=ocp.args.Composite(state=ocp.args.StandardSave(_to_tree(state)), about=ocp.args.JsonSave(about))
        )
        manager.wait_until_finished()
