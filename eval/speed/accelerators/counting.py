"""Count what a parsed program does on one device: kernels, bytes of main memory, matmuls, collectives and sorts.

Loops count as often as they run, where XLA knows how often that is, and once otherwise.
"""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterator

from eval.speed.accelerators.hlo import Array, Frame, Instruction, Program

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
# Collectives that bring a device what others hold, element for element.
GATHERING = ("all-gather", "all-to-all", "collective-permute", "collective-broadcast")
# Instructions that start no kernel.
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "add-dependency", "domain"}
_FREE |= {"partition-id", "replica-id", "opt-barrier", "token"}
_CONTROL = {"while", "call", "conditional", "async-start"}
# Calls that are parts of a collective which runs beside other work, or that only annotate.
_ANNOTATIONS = ("AsyncCollective", "AssumeGatherIndices", "GatherScatterIndices", "ConcatBitcast", "Sharding")
_EXACT_ALGORITHMS = ("dot_f32_f32_f32", "dot_bf16_bf16_f32_x6", "dot_bf16_bf16_f32_x9")


@dataclasses.dataclass(frozen=True)
class Matmul:
    """Hold one matmul.

    Attributes:
        operands: types of both operands.
        result: type of the result.
        precision: `float32`, `bfloat16` (also for float16), `three passes` where float32 is split in two, or
            `default`, which is what the device does with float32 unless it is told otherwise.
        flops: floating-point operations of one run.
        times: how often a step runs it.
        frames: where it was traced, the innermost place first.
    """

    operands: tuple[Array, Array]
    result: Array
    precision: str
    flops: int
    times: int
    frames: tuple[Frame, ...]


@dataclasses.dataclass(frozen=True)
class Collective:
    """Hold one exchange between devices: its kind, the types of its results, and how often a step makes it."""

    kind: str
    results: tuple[Array, ...]
    times: int

    @property
    def bytes(self) -> int:
        """Return the bytes of the results of one run on one device."""
        return sum(one.bytes for one in self.results)


@dataclasses.dataclass(frozen=True)
class Sort:
    """Hold one full sort: the length of what is sorted, and the operation in the traced program it stands for."""

    length: int
    op_name: str


@dataclasses.dataclass(frozen=True)
class Counts:
    """Hold what one step does on one device.

    Attributes:
        kernels: number of kernels by kind: fusion, copy, library, collective, other.
        bytes: read from and written to main memory.
        matmuls: all of them.
        collectives: all of them.
        sorts: all of them.
    """

    kernels: dict[str, int]
    bytes: int
    matmuls: list[Matmul]
    collectives: list[Collective]
    sorts: list[Sort]

    @property
    def launches(self) -> int:
        """Return the number of kernels."""
        return sum(self.kernels.values())

    @property
    def flops(self) -> int:
        """Return the floating-point operations of all matmuls."""
        return sum(one.flops * one.times for one in self.matmuls)


def count(program: Program) -> Counts:
    """Return what a program does when it runs once."""
    kernels, moved, matmuls, sorts = Counter(), 0, [], []
    collectives: dict[str, Collective] = {}
    for computation, one, times in _executed(program, program.entry, 1):
        kind = _kind(one)
        if kind:
            kernels[kind] += times
            moved += times * _traffic(program, computation, one)
        for inside, part in _within(program, computation, one):
            if _is_matmul(part):
                matmuls.append(_matmul(program, inside, part, times))
            elif part.opcode == "sort":
                sorts.append(_sort(part))
            elif part.opcode.removesuffix("-start") in COLLECTIVES:
                # A collective that runs beside other work is written down once for each of its parts.
                channel = re.search(r"channel_id=(\d+)", part.attributes)
                collectives.setdefault(channel.group(1) if channel else part.name, _collective(part, times))
    return Counts(dict(kernels), moved, matmuls, list(collectives.values()), sorts)


def _executed(program: Program, computation: str, times: int) -> Iterator[tuple[str, Instruction, int]]:
    """Yield (computation, instruction, how often) of what runs by itself: not what is within a fusion."""
    for one in program.computations[computation].values():
        if one.opcode not in _CONTROL:
            yield computation, one, times
            continue
        rounds = re.search(r"known_trip_count\W+n\W+(\d+)", one.attributes) if one.opcode == "while" else None
        for called in one.called:
            yield from _executed(program, called, times * (int(rounds.group(1)) if rounds else 1))


def _within(program: Program, computation: str, one: Instruction) -> Iterator[tuple[str, Instruction]]:
    """Yield an instruction and all that it consists of where it is a fusion, each with its computation."""
    yield computation, one
    if one.opcode == "fusion":
        for called in one.called:
            for part in program.computations.get(called, {}).values():
                yield from _within(program, called, part)


def _kind(one: Instruction) -> str:
    """Return the kind of kernel that an instruction starts, empty for none."""
    if one.opcode in _FREE or one.opcode.endswith(("-done", "-update")):
        return ""
    opcode = one.opcode.removesuffix("-start")
    if opcode in COLLECTIVES:
        return "collective"
    if opcode in ("copy", "slice", "dynamic-slice"):
        return "copy"
    if opcode == "custom-call":
        return "" if one.target.startswith(_ANNOTATIONS) else "library"
    if opcode == "fusion":
        return "fusion"
    # A TPU computes single numbers beside its kernels; a GPU computes them in fusions.
    return "other" if any(array.shape for array in one.results) else ""


def _arrays_of(program: Program, computation: str, name: str) -> tuple[Array, ...]:
    found = program.computations[computation].get(name)
    return found.results if found else ()


def _main(arrays: tuple[Array, ...]) -> int:
    return sum(one.bytes for one in arrays if not one.space)


def _traffic(program: Program, computation: str, one: Instruction) -> int:
    """Return the bytes of main memory that a kernel reads and writes; of what it only looks up, the rows it takes."""
    read = 0
    for position, name in enumerate(one.operands):
        whole = _main(_arrays_of(program, computation, name))
        read += int(min(whole, _read(program, one, position, name))) if whole else 0
    if one.opcode.endswith("-start"):
        return read + _main((_target(one),))
    return read + _written(program, computation, one)


def _target(one: Instruction) -> Array:
    """Return what an instruction that begins a transfer fills; its tuple holds operands and semaphores too."""
    if one.opcode == "copy-start":
        return one.results[0]
    return one.results[min(len(one.operands), len(one.results) - 1)]


def _read(program: Program, user: Instruction, position: int, name: str) -> float:
    """Return the bytes that an instruction takes of one operand, infinity for all of it."""
    if user.opcode in ("slice-start", "dynamic-slice-start") and position == 0:
        return _target(user).bytes
    if user.opcode in ("gather", "dynamic-slice", "slice") and position == 0:
        return sum(one.bytes for one in user.results)
    if user.opcode == "dynamic-update-slice" and position == 0:
        return 0
    if user.opcode != "fusion" or not user.called:
        return math.inf
    inside = program.computations[user.called[0]]
    parameter = next((p for p in inside.values() if p.attributes.startswith(f"number={position},")), None) or next(
        (p for p in inside.values() if p.opcode == "parameter" and p.attributes == f"number={position}"), None
    )
    return math.inf if parameter is None else _read_within(program, user.called[0], parameter.name)


def _read_within(program: Program, computation: str, name: str) -> float:
    total = 0.0
    for user in program.computations[computation].values():
        for position, operand in enumerate(user.operands):
            if operand == name:
                same = user.opcode == "bitcast"
                total += _read_within(program, computation, user.name) if same else _read(program, user, position, name)
    return total


def _written(program: Program, computation: str, one: Instruction) -> int:
    """Return the bytes that an instruction writes; of an array that it changes in place, the part it changes."""
    if one.opcode == "fusion" and one.called:
        root = program.root(one.called[0])
        parts = [root]
        if root.opcode == "tuple":
            parts = [program.computations[one.called[0]][name] for name in root.operands]
        if len(parts) == len(one.results):
            pairs = zip(parts, one.results, strict=True)
            return sum(0 if whole.space else _changed(program, one.called[0], part, whole) for part, whole in pairs)
    elif not one.results or all(whole.space for whole in one.results):
        return 0
    elif one.opcode == "dynamic-update-slice":
        return _changed(program, computation, one, one.results[0])
    return _main(one.results)


def _changed(program: Program, computation: str, part: Instruction, whole: Array) -> int:
    inside = program.computations[computation]
    while part.opcode == "bitcast" and part.operands[0] in inside:
        part = inside[part.operands[0]]
    if part.opcode == "dynamic-update-slice":
        return min(whole.bytes, sum(one.bytes for one in inside[part.operands[1]].results))
    return whole.bytes


def _is_matmul(one: Instruction) -> bool:
    return one.opcode in ("dot", "convolution") or (one.opcode == "custom-call" and one.target.startswith("__cublas"))


def _matmul(program: Program, computation: str, one: Instruction, times: int) -> Matmul:
    left, right = (_arrays_of(program, computation, name)[0] for name in one.operands[:2])
    result = one.results[0]
    # Each of batch, rows, columns and what is summed over is a dimension of two of the three, batch of all of them.
    product = left.elements * right.elements * result.elements
    flops = 2 * round(math.sqrt(product / _batch(one, left, right, result)))
    return Matmul((left, right), result, _precision(one, left, right), flops, times, tuple(program.frames(one)))


def _batch(one: Instruction, left: Array, right: Array, result: Array) -> int:
    """Return the number of matmuls that one batched matmul consists of."""
    if one.opcode == "dot" or one.opcode == "custom-call":
        found = re.search(r'lhs_batch_dim(?:ension)?s"?[=:][{\[]([^}\]]*)[}\]]', one.attributes)
        return math.prod(left.shape[int(place)] for place in re.findall(r"\d+", found.group(1) if found else ""))
    groups = re.findall(r"(?:feature|batch)_group_count=(\d+)", one.attributes)
    batch = math.prod(map(int, groups))
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", one.attributes)
    if labels is None:
        return batch
    for place in re.findall(r"\d", labels.group(1)):
        sizes = {
            array.shape[names.index(place)]
            for names, array in zip(labels.groups(), (left, right, result), strict=True)
            if place in names
        }
        batch *= sizes.pop() if len(sizes) == 1 else 1
    return batch


def _precision(one: Instruction, left: Array, right: Array) -> str:
    kinds = {left.dtype, right.dtype}
    if kinds & {"bf16", "f16", "f8e4m3fn", "f8e5m2"}:
        return "bfloat16"
    algorithm = re.search(r"algorithm[\"=:]+(\w+)", one.attributes)
    exact = algorithm and algorithm.group(1).lower() in _EXACT_ALGORITHMS
    if exact or set(one.precisions) == {"highest"} or "f64" in kinds:
        return "float32"
    return "three passes" if "default" not in one.precisions else "default"


def _collective(one: Instruction, times: int) -> Collective:
    kind, results = one.opcode.removesuffix("-start"), one.results
    if one.opcode.endswith("-start") and kind != "all-reduce":
        # The tuple holds operands first, and may hold contexts last.
        results = results[len(one.operands) : 2 * len(one.operands)] or results
    return Collective(kind, results, times)


def _sort(one: Instruction) -> Sort:
    place = re.search(r"dimensions=\{(\d+)\}", one.attributes)
    return Sort(one.results[0].shape[int(place.group(1)) if place else -1], one.op_name)
