"""What each instruction of a compiled program costs on its chip: FLOPs and bytes of main memory.

Fusions count what they read and write, not what happens inside; of an array that a fusion only
slices, the slice counts. Arrays that a TPU program keeps in its on-chip memory cost nothing.
"""

import dataclasses
import math
import re

from nt_jax.plan import hlo
from nt_jax.plan.collectives import KINDS
from nt_jax.plan.hlo import Buffer, Computation, Instruction, Module

_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id",
    "replica-id", "opt-barrier", "add-dependency", "domain", "copy-done", "async-done",
    "async-update", "send", "recv", "send-done", "recv-done", "custom-call-done",
    *KINDS, *(f"{kind}-start" for kind in KINDS), *(f"{kind}-done" for kind in KINDS),
}  # fmt: skip
_ROWS = 128
_SLICES = ("dynamic-slice", "slice", "gather")
_THROUGH = ("bitcast", "reshape", "convert", "copy", "transpose")


@dataclasses.dataclass(frozen=True)
class Work:
    """Instructions of one kind and cost."""

    times: int
    """Per step."""
    flops: float
    """Of matrix products, each time."""
    bytes: float
    """Main memory read and written, each time."""
    cycles: int
    """The TPU compiler's own estimate, each time; 0 where it gives none."""
    filled: float = 1.0
    """Of a matrix unit, what the shapes leave in use."""


def work(module: Module) -> list[Work]:
    """Costs of a step on one device."""
    found: dict[tuple[float, float, int, float], int] = {}
    for item in hlo.executed(module):
        instruction = item.instruction
        cycles = re.search(r'"estimated_cycles":"(\d+)"', instruction.attributes)
        cost = (
            flops(module, item.computation, instruction),
            traffic(module, item.computation, instruction),
            int(cycles[1]) if cycles else 0,
            _filled(item.computation, instruction),
        )
        if any(cost[:3]):
            found[cost] = found.get(cost, 0) + item.times
    return [Work(times, *cost) for cost, times in found.items()]


def flops(module: Module, computation: Computation, instruction: Instruction) -> float:
    """Of the matrix products in an instruction, two a multiply-add."""
    if instruction.opcode == "fusion":
        inner = module.computations[instruction.calls("calls") or ""]
        return math.fsum(flops(module, inner, one) for one in inner.instructions)
    if instruction.opcode == "dot":
        return (
            2.0
            * _elements(instruction)
            * _contracted(computation, instruction, "lhs_contracting_dims=")
        )
    if products := _attention_products(instruction):
        query, key = _query_and_key(computation, instruction)
        keys = key.elements // (query.elements // query.dims[_tokens(instruction)])
        return 2.0 * products * query.elements * keys
    if instruction.opcode == "custom-call" and "gemm" in instruction.attributes:
        return (
            2.0
            * instruction.buffers[0].elements
            * _contracted(computation, instruction, '"lhs_contracting_dimensions":')
        )
    if instruction.opcode == "convolution":
        return _convolution(computation, instruction)
    return 0.0


def _attention_products(instruction: Instruction) -> int:
    """Matrix products of an attention kernel; 0 for everything else."""
    if instruction.opcode != "custom-call":
        return 0
    if instruction.name.startswith("splash_mha_"):
        return 2 if instruction.name.startswith("splash_mha_fwd") else 5
    target = re.search(r'custom_call_target="__cudnn\$fmha(\w+)"', instruction.attributes)
    return (5 if "Backward" in target[1] else 2) if target else 0


def _tokens(instruction: Instruction) -> int:
    """Axis of the tokens: splash has heads in front of them, cuDNN behind."""
    return -2 if instruction.name.startswith("splash_mha_") else -3


def _query_and_key(computation: Computation, instruction: Instruction) -> tuple[Buffer, Buffer]:
    """The first operands that are no integers; a batch of one has no axis of its own."""
    found = (computation.by_name[name].buffers[0] for name in instruction.operands)
    query, key = [buffer for buffer in found if "f" in buffer.dtype][:2]
    return query, key


def _filled(computation: Computation, instruction: Instruction) -> float:
    """Kernels multiply heads; the matrix unit of a TPU has 128 rows whatever a head has."""
    if not _attention_products(instruction) or _tokens(instruction) == -3:
        return 1.0
    size = _query_and_key(computation, instruction)[0].dims[-1]
    return size / (_ROWS * math.ceil(size / _ROWS))


def _elements(instruction: Instruction) -> int:
    return sum(buffer.elements for buffer in instruction.buffers)


def _contracted(computation: Computation, instruction: Instruction, attribute: str) -> int:
    """Product of the dimensions of the first operand that a product sums over."""
    found = re.search(re.escape(attribute) + r"[\[{]([^\]}]*)[\]}]", instruction.attributes)
    dims = computation.by_name[instruction.operands[0]].buffers[0].dims
    return math.prod(dims[int(axis)] for axis in re.findall(r"\d+", found[1] if found else ""))


def _convolution(computation: Computation, instruction: Instruction) -> float:
    """A convolution, as which TPUs write matrix products; batch axes are dilated windows."""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes)
    assert labels, f"{instruction.name} has no dim_labels"
    left, right = (computation.by_name[name].buffers[0].dims for name in instruction.operands[:2])
    out = instruction.buffers[0].dims
    window = dict(re.findall(r"(\w+)=([-\w]+)", _window(instruction.attributes)))
    spatial = sorted(label for label in labels[1] if label.isdigit())
    pairs = 1
    for number, label in enumerate(spatial):

        def entry(name: str, default: str, number: int = number) -> str:
            return window[name].split("x")[number] if name in window else default

        low, _, _ = entry("pad", "0_0").partition("_")
        pairs *= _valid_pairs(
            size=left[labels[1].index(label)],
            taps=right[labels[2].index(label)],
            outputs=out[labels[3].index(label)],
            stride=int(entry("stride", "1")),
            low=int(low),
            left_dilation=int(entry("lhs_dilate", "1")),
            right_dilation=int(entry("rhs_dilate", "1")),
        )
    features = right[labels[2].index("i")]
    return 2.0 * pairs * features * out[labels[3].index("b")] * out[labels[3].index("f")]


def _window(attributes: str) -> str:
    found = re.search(r"window=\{([^}]*)\}", attributes)
    return found[1] if found else ""


def _valid_pairs(
    *, size: int, taps: int, outputs: int, stride: int, low: int,
    left_dilation: int, right_dilation: int,
) -> int:  # fmt: skip
    """Pairs of output position and tap that meet an element and not padding or dilation."""
    if taps == 1 and stride == left_dilation == 1 and low == 0:
        return min(outputs, size)
    end = (size - 1) * left_dilation
    found = 0
    for output in range(outputs):
        for tap in range(taps):
            at = output * stride + tap * right_dilation - low
            found += 0 <= at <= end and at % left_dilation == 0
    return found


def traffic(module: Module, computation: Computation, instruction: Instruction) -> float:
    """Bytes of main memory that an instruction outside of fusions reads and writes."""
    opcode = instruction.opcode
    if opcode in _FREE:
        return 0.0
    operands = [computation.by_name[name] for name in instruction.operands]
    if opcode == "fusion":
        inner = module.computations[instruction.calls("calls") or ""]
        if any(map(_is_collective, inner.instructions)) and not flops(
            module, computation, instruction
        ):
            return 0.0  # part of a collective, which counts there
        reads = math.fsum(
            min(_main(operand.buffers), _read(module, inner, inner.parameters[number]))
            for number, operand in enumerate(operands)
            if number in inner.parameters
        )
        return reads + _written(module, inner, instruction)
    if opcode in _SLICES:
        return 2 * _main(instruction.buffers)
    if opcode == "dynamic-update-slice":
        return 2 * _main(operands[1].buffers)
    if opcode == "scatter":
        return 3 * math.fsum(
            _main(operand.buffers) for operand in operands[-len(instruction.buffers) :]
        )
    if opcode == "copy-start":
        return _main(operands[0].buffers) + _main(instruction.buffers[:1])
    return math.fsum(_main(operand.buffers) for operand in operands) + _main(instruction.buffers)


def _is_collective(instruction: Instruction) -> bool:
    return instruction.opcode.removesuffix("-start") in KINDS


def _main(found: tuple[Buffer, ...]) -> float:
    return math.fsum(buffer.bytes for buffer in found if buffer.space == 0)


def _read(module: Module, inner: Computation, value: Instruction) -> float:
    """Bytes of a fusion's parameter that the fusion reads."""
    whole = math.fsum(buffer.bytes for buffer in value.buffers)
    total = 0.0
    for user in inner.users.get(value.name, []):
        first = user.operands[0] == value.name
        if user.opcode in _SLICES and first:
            total += math.fsum(buffer.bytes for buffer in user.buffers)
        elif user.opcode == "bitcast":
            total += _read(module, inner, user)
        elif user.opcode == "dynamic-update-slice" and first:
            continue
        elif user.opcode == "fusion":
            called = module.computations[user.calls("calls") or ""]
            for number, name in enumerate(user.operands):
                if name == value.name and number in called.parameters:
                    total += _read(module, called, called.parameters[number])
        else:
            return whole
    return min(whole, total)


def _written(module: Module, inner: Computation, fusion: Instruction) -> float:
    """Bytes of main memory that a fusion writes; of an array updated in place, the update."""
    root = inner.root
    results = [inner.by_name[name] for name in root.operands] if root.opcode == "tuple" else [root]
    if len(results) != len(fusion.buffers):
        return _main(fusion.buffers)
    return math.fsum(
        min(buffer.bytes, _update(module, inner, result)) if buffer.space == 0 else 0.0
        for buffer, result in zip(fusion.buffers, results, strict=True)
    )


def _update(module: Module, inner: Computation, value: Instruction) -> float:
    while value.opcode in _THROUGH and value.operands:
        value = inner.by_name[value.operands[0]]
    if value.opcode == "dynamic-update-slice":
        return math.fsum(buffer.bytes for buffer in inner.by_name[value.operands[1]].buffers)
    if value.opcode == "fusion":
        called = module.computations[value.calls("calls") or ""]
        if called.root.opcode != "tuple":
            return _update(module, called, called.root)
    return math.inf
