"""Reads the text of a compiled program (HLO): computations, instructions, how often each runs.

`compiled.as_text()` is the only view of a program that every backend gives. What is used of it:
types with their memory space, operands, called computations, and the trip counts of loops (the
backends of CPU and GPU state them; in TPU programs they stand in the loop's condition).
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

WIDTHS = {
    "pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2, "s32": 4, "u32": 4,
    "f32": 4, "s64": 8, "u64": 8, "f64": 8, "c64": 8, "c128": 16, "s4": 0.5, "u4": 0.5,
}  # fmt: skip
"""Bytes of an element; 8-bit floats (f8...) have one."""

_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\](?:\{([^{}]*)\})?")
_NAME = re.compile(r"%([\w.-]+)")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.-]+) = ")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_END = re.compile(r"^\}(, execution_thread=.*)?$")


@dataclasses.dataclass(frozen=True)
class Buffer:
    """One array of a type."""

    dtype: str
    dims: tuple[int, ...]
    space: int
    """Memory space: 0 is the device's main memory (HBM)."""

    @property
    def bytes(self) -> float:
        """Without padding of the layout."""
        width = WIDTHS.get(self.dtype, 1 if self.dtype.startswith("f8") else 0)
        return float(width * self.elements)

    @property
    def elements(self) -> int:
        """Of the array."""
        return math.prod(self.dims)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """`%name = type opcode(operands), attributes`."""

    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    arguments: str
    """Text between the parentheses."""
    attributes: str
    is_root: bool

    @functools.cached_property
    def buffers(self) -> tuple[Buffer, ...]:
        """Arrays of the result."""
        return buffers(self.type)

    def calls(self, attribute: str) -> str | None:
        """Name of the computation that an attribute names."""
        found = re.search(rf"\b{attribute}=%?([\w.-]+)", self.attributes)
        return found[1] if found else None

    @property
    def branches(self) -> list[str]:
        """Computations of a conditional."""
        found = re.search(r"branch_computations=\{([^}]*)\}", self.attributes)
        if found:
            return _NAME.findall(found[1])
        both = (self.calls("true_computation"), self.calls("false_computation"))
        return [name for name in both if name]


class Computation:
    """A named list of instructions."""

    def __init__(self, name: str):
        self.name = name
        self.instructions: list[Instruction] = []

    @functools.cached_property
    def by_name(self) -> dict[str, Instruction]:
        """Instructions by name."""
        return {instruction.name: instruction for instruction in self.instructions}

    @functools.cached_property
    def users(self) -> dict[str, list[Instruction]]:
        """Instructions that take a value, by its name."""
        found: dict[str, list[Instruction]] = {}
        for instruction in self.instructions:
            for name in dict.fromkeys(instruction.operands):
                found.setdefault(name, []).append(instruction)
        return found

    @functools.cached_property
    def parameters(self) -> dict[int, Instruction]:
        """Parameters by their number."""
        return {int(i.arguments): i for i in self.instructions if i.opcode == "parameter"}

    @property
    def root(self) -> Instruction:
        """What it returns."""
        return next((i for i in self.instructions if i.is_root), self.instructions[-1])


@dataclasses.dataclass(frozen=True)
class Module:
    """A compiled program."""

    computations: dict[str, Computation]
    entry: str


@dataclasses.dataclass(frozen=True)
class Executed:
    """An instruction outside of fusions, and how often a run of the program executes it."""

    times: int
    computation: Computation
    instruction: Instruction


def buffers(type_text: str) -> tuple[Buffer, ...]:
    """Arrays of a type, tuples flattened."""
    found = []
    for dtype, dims, layout in _ARRAY.findall(type_text):
        space = re.search(r"S\((\d+)\)", layout)
        shape = tuple(int(dim) for dim in dims.split(",") if dim)
        found.append(Buffer(dtype, shape, int(space[1]) if space else 0))
    return tuple(found)


def parse(text: str) -> Module:
    """The module of a text; raises ValueError where there is no program in it."""
    computations: dict[str, Computation] = {}
    entry, current = "", None
    for line in _lines(text):
        if current is None:
            header = _HEADER.match(line)
            if header:
                current = computations[header[2]] = Computation(header[2])
                entry = header[2] if header[1] else entry
        elif _END.match(line):
            current = None
        else:
            instruction = _instruction(line)
            if instruction:
                current.instructions.append(instruction)
    if not entry:
        raise ValueError("no ENTRY computation: this is not the text of a compiled program")
    return Module(computations, entry)


def _lines(text: str) -> Iterator[str]:
    """Lines, with those joined that continue an instruction: kernels have attributes of several."""
    line = ""
    for part in text.splitlines():
        if line.startswith(" ") and not part.startswith(" ") and not _END.match(part):
            line += part
            continue
        yield line
        line = part
    yield line


def _instruction(line: str) -> Instruction | None:
    head = _INSTRUCTION.match(line)
    if not head:
        return None
    rest = line[head.end() :]
    end = _closing(rest) if rest.startswith("(") else rest.find(" ")
    type_text, rest = rest[:end].strip(), rest[end:].strip()
    opcode, _, _ = rest.partition("(")
    rest = rest[len(opcode) :]
    end = _closing(rest)
    arguments, attributes = rest[1 : end - 1], rest[end:]
    names = () if opcode in ("parameter", "constant") else tuple(_NAME.findall(arguments))
    return Instruction(head[2], type_text, opcode, names, arguments, attributes, bool(head[1]))


def _closing(text: str) -> int:
    """Position after the parenthesis that closes the one at 0."""
    depth = 0
    for position, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return position + 1
    return len(text)


def executed(module: Module) -> Iterator[Executed]:
    """Everything outside of fusions, loops multiplied out; `while` and `call` are followed.

    All branches of a conditional count: which one runs is not in the text, and the program's own
    conditionals (a skipped update) do nothing in the other.
    """
    yield from _executed(module, module.entry, 1)


def _executed(module: Module, name: str, times: int) -> Iterator[Executed]:
    computation = module.computations[name]
    for instruction in computation.instructions:
        if instruction.opcode == "while":
            body = instruction.calls("body")
            assert body, f"{instruction.name} has no body"
            yield from _executed(module, body, times * trips(module, computation, instruction))
        elif instruction.opcode == "conditional":
            for branch in instruction.branches:
                yield from _executed(module, branch, times)
        elif instruction.opcode in ("call", "async-start"):
            called = instruction.calls("to_apply") or instruction.calls("calls")
            if called in module.computations:
                yield from _executed(module, called, times)
        else:
            yield Executed(times, computation, instruction)


def trips(module: Module, where: Computation, loop: Instruction) -> int:
    """How often the body of a loop runs; raises ValueError where the text does not tell."""
    known = _TRIPS.search(loop.attributes)
    if known:
        return int(known[1])
    condition = module.computations[loop.calls("condition") or ""]
    compare = condition.root
    if compare.opcode == "fusion":
        condition = module.computations[compare.calls("calls") or ""]
        compare = condition.root
    bound = direction = start = None
    for operand in compare.operands:
        side = condition.by_name[operand]
        if side.opcode == "constant":
            bound = int(side.arguments)
        elif side.opcode == "get-tuple-element":
            start = _start(where, loop, int(re.findall(r"index=(\d+)", side.attributes)[0]))
    found = re.search(r"direction=(\w+)", compare.attributes)
    direction = found[1] if found else None
    if bound is None or direction not in ("LT", "LE", "GT", "GE"):
        raise ValueError(
            f"how often does the loop {loop.name} run? {compare.type} {compare.opcode}"
        )
    return abs(bound - (start or 0)) + (direction in ("LE", "GE"))


def _start(where: Computation, loop: Instruction, index: int) -> int | None:
    """Where a loop's counter starts; None (taken as 0) where that is not a constant in sight."""
    state = where.by_name.get(loop.operands[0])
    value = where.by_name.get(state.operands[index]) if state and state.opcode == "tuple" else None
    while value is not None and value.opcode in ("copy", "bitcast"):
        value = where.by_name.get(value.operands[0])
    return int(value.arguments) if value is not None and value.opcode == "constant" else None
