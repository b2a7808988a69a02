"""Parse the text of a program of XLA, without JAX: its computations, their instructions, and where those come from.

The grammar is that of `HloModule::ToString`, as `jax.stages.Compiled.as_text()` prints it.
"""

import dataclasses
import functools
import math
import re

# Bits of an element; types that are absent, such as tokens, take no memory.
BITS = {"pred": 8, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "s16": 16, "u16": 16, "s32": 32, "u32": 32, "s64": 64}
BITS |= {"u64": 64, "f8e4m3fn": 8, "f8e5m2": 8, "bf16": 16, "f16": 16, "f32": 32, "f64": 64, "c64": 64, "c128": 128}

_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,<=]*)\](?:\{([^{}]*)\})?")
_INSTRUCTION = re.compile(r"^\s*(ROOT )?%?([\w.$-]+) = (.*)$")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.$-]+) .*\{$|^(ENTRY )?%?([\w.$-]+) \{$")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.$-]+)")
_BRANCHES = re.compile(r"(?:branch_computations|called_computations)=\{([^}]*)\}")
_SPACE = re.compile(r"S\((\d+)\)")
_TABLES = ("FileNames", "FunctionNames", "FileLocations", "StackFrames")


@dataclasses.dataclass(frozen=True)
class Array:
    """Hold the type of one array.

    Attributes:
        dtype: as XLA writes it, such as `f32`.
        shape: its dimensions.
        space: memory space; 0 is the device's main memory, others are memories on the chip and on the host.
    """

    dtype: str
    shape: tuple[int, ...]
    space: int = 0

    @property
    def elements(self) -> int:
        """Return the number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Return the bytes of the elements, without padding."""
        return self.elements * BITS.get(self.dtype, 0) // 8

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


@dataclasses.dataclass(frozen=True)
class Instruction:
    """Hold one instruction.

    Attributes:
        name: unique in its computation.
        opcode: such as `fusion`.
        results: its result, or the flat members of its tuple.
        operands: names of its operands.
        called: names of the computations that it calls.
        attributes: text behind the operands.
        is_root: whether its result is that of the computation.
    """

    name: str
    opcode: str
    results: tuple[Array, ...]
    operands: tuple[str, ...]
    called: tuple[str, ...]
    attributes: str
    is_root: bool

    @property
    def target(self) -> str:
        """Return the name of the function that a custom call calls; empty for others."""
        return self._found(r'custom_call_target="([^"]*)"')

    @property
    def op_name(self) -> str:
        """Return the path of the operation in the traced program; empty where it is not known."""
        return self._found(r'op_name="((?:[^"\\]|\\.)*)"')

    @property
    def frame(self) -> int:
        """Return the number of the stack frame that traced it, 0 where it is not known."""
        return int(self._found(r"stack_frame_id=(\d+)") or 0)

    @property
    def precisions(self) -> tuple[str, ...]:
        """Return the precision asked for of each operand of a matmul, `default` where nothing is said."""
        named = self._found(r"operand_precision=\{([^}]*)\}")
        # Calls of cuBLAS carry it in their configuration, in capitals.
        quoted = self._found(r'"operand_precision":\[([^\]]*)\]').replace('"', "")
        found = tuple(word.strip().lower() for word in (named or quoted).split(",") if word.strip())
        return found or ("default", "default")

    def _found(self, pattern: str) -> str:
        match = re.search(pattern, self.attributes)
        return match.group(1) if match else ""


@dataclasses.dataclass(frozen=True)
class Frame:
    """Hold a place in the source: file, function with the names around it, and line."""

    file: str
    function: str
    line: int


@dataclasses.dataclass(frozen=True)
class Program:
    """Hold a parsed program.

    Attributes:
        entry: name of the computation that is executed.
        computations: by name, instructions by name, in the order of the text, which is that of execution.
        tables: `StackFrames` and what they refer to, as text by number.
    """

    entry: str
    computations: dict[str, dict[str, Instruction]]
    tables: dict[str, dict[int, str]]

    def frames(self, instruction: Instruction) -> list[Frame]:
        """Return the places that an instruction was traced at, the innermost first; empty where they are not known."""
        found, number, seen = [], instruction.frame, set()
        while number in self.tables["StackFrames"] and number not in seen:
            seen.add(number)
            location, parent = _numbers(self.tables["StackFrames"][number], "file_location_id", "parent_frame_id")
            file, function, line = _numbers(
                self.tables["FileLocations"].get(location, ""), "file_name_id", "function_name_id", "line"
            )
            names = (self.tables["FileNames"].get(file, ""), self.tables["FunctionNames"].get(function, ""))
            found.append(Frame(*names, line))
            # Parents are counted from 1, and 1 stands for none: the outermost frame names itself.
            number = parent - 1
        return found

    def root(self, computation: str) -> Instruction:
        """Return the instruction whose result is that of a computation."""
        return next(one for one in self.computations[computation].values() if one.is_root)


def parse(text: str) -> Program:
    """Return the program of a text.

    Raises:
        ValueError: the text has no computation that is an entry.
    """
    computations, tables, entry = {}, {name: {} for name in _TABLES}, ""
    table, body = None, None
    for line in text.splitlines():
        if line in _TABLES:
            table = line
        elif table and (match := re.match(r"(\d+) (.*)$", line)):
            tables[table][int(match.group(1))] = match.group(2).strip('"')
        elif body is not None and line.startswith("}"):
            body = None
        elif body is None and line.endswith("{") and (match := _COMPUTATION.match(line)):
            name, table = match.group(2) or match.group(4), None
            body = computations.setdefault(name, {})
            entry = name if match.group(1) or match.group(3) else entry
        elif body is not None and (match := _INSTRUCTION.match(line)):
            one = _instruction(match.group(2), match.group(3), bool(match.group(1)))
            body[one.name] = one
    if not entry:
        raise ValueError("this is no program of XLA: it has no ENTRY computation")
    return Program(entry, computations, tables)


def arrays(text: str) -> tuple[Array, ...]:
    """Return the arrays of a type, those of a tuple one after another."""
    found = []
    for dtype, shape, layout in _ARRAY.findall(text):
        space = _SPACE.search(layout)
        sizes = tuple(int(size.strip("<=")) for size in shape.split(",") if size)
        found.append(Array(dtype, sizes, int(space.group(1)) if space else 0))
    return tuple(found)


def _instruction(name: str, text: str, is_root: bool) -> Instruction:
    """Parse what stands behind the equals sign: type, opcode, operands in parentheses, attributes."""
    end = _closing(text) + 1 if text.startswith("(") else text.index(" ")
    kind, rest = text[:end], text[end:].lstrip()
    opcode, _, behind = rest.partition("(")
    stop = _closing(f"({behind}")
    inside, attributes = behind[: stop - 1], behind[stop:]
    called = tuple(_CALLED.findall(attributes))
    for group in _BRANCHES.findall(attributes):
        called += tuple(one.strip().lstrip("%") for one in group.split(",") if one.strip())
    operands = () if opcode in ("constant", "parameter", "iota") else tuple(_names(inside))
    # The number of a parameter stands where others have operands.
    if opcode == "parameter":
        attributes = f"number={inside}{attributes}"
    return Instruction(name, opcode, arrays(kind), operands, called, attributes, is_root)


def _names(text: str) -> list[str]:
    """Return the names of operands, each of which may have its type before it and a percent sign."""
    # Commas within types do not separate.
    parts = re.sub(r"/\*.*?\*/|\[[^\]]*\]|\{[^{}]*\}", "", text).split(",")
    return [part.split()[-1].lstrip("%") for part in parts if part.strip() and not part.strip().endswith(")")]


def _closing(text: str) -> int:
    """Return the position of the parenthesis that closes the one at the start."""
    depth = 0
    for position, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if not depth:
            return position
    raise ValueError(f"a parenthesis is not closed in {text[:80]!r}")


@functools.cache
def _numbers(text: str, *names: str) -> tuple[int, ...]:
    found = dict(re.findall(r"\b(\w+)=(\d+)", text))
    return tuple(int(found.get(name, 0)) for name in names)
