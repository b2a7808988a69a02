"""Check what the project promises of every step on every device, on the parsed program.

It fits; no graphs and no token states cross devices; what decides tokens and losses is float32; top-k is no full sort.
"""

import math
from collections.abc import Iterable, Sequence

from eval.speed.accelerators.counting import GATHERING, Collective, Counts, Matmul, Sort
from eval.speed.accelerators.hlo import Frame
from eval.speed.accelerators.targets import TPU, Target

# What is promised to be computed in float32: its name, the file where it is traced, and functions in it, none for all.
# A place belongs to the first that it fits.
EXACT_PARTS = (
    ("least squares", "medtok_jax/models/search.py", ("mixing_weights",)),
    ("least squares", "medtok_jax/models/exact.py", ("solve_positive",)),
    ("least squares", "medtok_jax/models/dictionary.py", ()),
    ("k-means", "medtok_jax/models/kmeans.py", ()),
    ("search", "medtok_jax/models/search.py", ()),
    ("search", "medtok_jax/models/codebook.py", ()),
    ("logits", "medtok_jax/training/losses.py", ("info_nce", "similarity_distillation")),
    ("logits", "medtok_jax/models/link_head.py", ()),
    ("losses", "medtok_jax/training/losses.py", ()),
)
# XLA chooses a sort for rows shorter than this, where it is as fast.
SHORT_ROWS = 1024


def part_of(frames: Sequence[Frame]) -> str:
    """Return which of `EXACT_PARTS` a matmul belongs to by the innermost place that names one, empty for none."""
    for frame in frames:
        for name, file, functions in EXACT_PARTS:
            if frame.file.endswith(file) and (not functions or frame.function.split(".")[0] in functions):
                return name
    return ""


def promised(matmuls: Iterable[Matmul]) -> dict[str, list[Matmul]]:
    """Return the matmuls that are promised to be float32, by the name of their part."""
    found: dict[str, list[Matmul]] = {}
    for one in matmuls:
        if name := part_of(one.frames):
            found.setdefault(name, []).append(one)
    return found


def arithmetic(matmul: Matmul, target: Target) -> str:
    """Return what a device multiplies in."""
    if matmul.precision == "default":
        return "bfloat16" if target.platform == TPU else "TF32"
    return matmul.precision


def broken(
    step: str,
    counts: Counts,
    target: Target,
    *,
    memory: int,
    graph_sizes: frozenset[int] = frozenset(),
    text_sizes: frozenset[int] = frozenset(),
    codes: int = 0,
    parts: frozenset[str] = frozenset(),
) -> list[str]:
    """Return a sentence for each promise that a step breaks.

    Args:
        step: its name.
        counts: of its program.
        target: the device.
        memory: bytes that it needs on a device, 0 where that is not known.
        graph_sizes: dimensions that only arrays of graphs have.
        text_sizes: dimensions that arrays of token states have behind that of the codes.
        codes: number of codes of the whole batch, 0 where there are none.
        parts: those of `EXACT_PARTS` that the program must have, as a promise on what is not found would be kept.
    """
    found = []
    exact = promised(counts.matmuls)
    if memory > target.memory:
        found.append(does_not_fit(step, target, f"it needs {memory / 1e9:.1f} GB"))
    for one in counts.collectives:
        if what := gathered(one, graph_sizes, text_sizes, codes):
            found.append(f"{step}: {what} cross devices, in an {one.kind} of {', '.join(map(str, one.results))}.")
    for name in sorted(parts - exact.keys()):
        found.append(f"{step}: no matmul of the {name} was found, so that nothing is known of its precision.")
    for name, matmuls in exact.items():
        wrong = [one for one in matmuls if one.precision != "float32"]
        if wrong:
            kinds = " and ".join(sorted({arithmetic(one, target) for one in wrong}))
            first = f"{wrong[0].operands[0]} x {wrong[0].operands[1]} at {place(wrong[0].frames)}"
            found.append(f"{step}: {len(wrong)} of {len(matmuls)} matmuls of the {name} are in {kinds}, first {first}.")
    for sort in counts.sorts:
        if replaces_top_k(sort):
            found.append(f"{step}: a top-k is a full sort of {sort.length:,} values ({sort.op_name}).")
    return found


def does_not_fit(step: str, target: Target, reason: str) -> str:
    """Return the sentence for a step that needs more memory than a device has."""
    return f"{step}: does not fit the {target.memory / 1e9:.0f} GB of a device of {target.name}: {reason}."


def gathered(collective: Collective, graph_sizes: frozenset[int], text_sizes: frozenset[int], codes: int = 0) -> str:
    """Return what a collective brings from other devices, `graphs` or `token states`; empty for what is allowed.

    Gradients are reduced, which is no gathering. Embeddings of codes `[batch, width]` may be gathered: a contrast needs
    those of the whole batch.
    """
    if collective.kind not in GATHERING:
        return ""
    shapes = [tuple(size for size in one.shape if size > 1) for one in collective.results]
    if any(graph_sizes & set(shape) for shape in shapes):
        return "graphs"
    # Codes come first, by device where they were just gathered, and features last.
    shapes = [_without_devices(shape, codes) for shape in shapes]
    return "token states" if any(text_sizes & set(shape[1:-1]) for shape in shapes) else ""


def _without_devices(shape: tuple[int, ...], codes: int) -> tuple[int, ...]:
    """Return a shape without the devices, where the codes of all stand as `[devices, codes of each]`."""
    return shape[1:] if codes and codes not in shape[:1] and math.prod(shape[:2]) == codes else shape


def replaces_top_k(sort: Sort) -> bool:
    """Return whether a sort of long rows stands for a top-k."""
    return sort.op_name.rpartition("/")[2].startswith(("top_k", "approx_top_k")) and sort.length >= SHORT_ROWS


def place(frames: Sequence[Frame]) -> str:
    """Return the innermost place of the project, as file:line."""
    known = [one for one in frames if part_of((one,))] or list(frames)
    return f"{known[0].file.rpartition('/')[2]}:{known[0].line}" if known else "an unknown place"
