"""Collectives of a compiled program: kind, times a step, bytes, mesh axes."""

import dataclasses
import math
import re
from collections.abc import Sequence

import numpy as np

from nt_jax.plan import hlo
from nt_jax.plan.hlo import Computation, Instruction, Module

KINDS = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "ragged-all-to-all",
    "collective-broadcast",
)
_MESH = re.compile(
    r"replica_groups=mesh\[([^\]]*)\]"
    r"(?:, device_ids=\((?:\[([\d,]+)\](?:T\(([\d,]+)\))?|([\d,]+))\))?"
    r" \{([^}]*)\}"
)
_IOTA = re.compile(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_LISTS = re.compile(r"replica_groups=\{((?:\{[\d,]*\},?)*)\}")
_PAIRS = re.compile(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}")


@dataclasses.dataclass(frozen=True)
class Collective:
    """All collectives of a step that are alike."""

    kind: str
    axes: tuple[str, ...]
    """Mesh axes over which they run; empty where the group is no product of axes."""
    group: int
    """Devices that take part in one."""
    count: int
    """Per step."""
    bytes: float
    """Of the whole arrays, per step: what is gathered, reduced, scattered or moved."""
    sent: float
    """Bytes that each device sends per step, in rings."""
    hidden: bool
    """Asynchronous: computation may go on meanwhile."""


def collectives(module: Module, axes: dict[str, int]) -> list[Collective]:
    """What a step of a program exchanges, largest first.

    `axes` are the sizes of the mesh in its order. A collective that the TPU compiler spreads over
    several fusions (they share channel and chain) counts once; so does a start/done pair. An
    all-reduce whose result is cut down to the device's own part is what TPUs make of a
    reduce-scatter, and counts as one.
    """
    found: dict[tuple, list[float]] = {}
    seen = set()
    for item in hlo.executed(module):
        for computation, instruction, fused in _within(module, item.computation, item.instruction):
            kind = _kind(instruction)
            if kind is None:
                continue
            chain = re.search(r'chain_id="(\d+)"', instruction.attributes)
            if fused and chain:
                shape = re.sub(r"\{[^}]*\}", "", instruction.type)
                key = (item.computation.name, kind, _channel(instruction), chain[1], shape)
                if key in seen:
                    continue
                seen.add(key)
            if kind == "all-reduce" and _is_scattered(computation, instruction):
                kind = "reduce-scatter"
            group = members(instruction.attributes, math.prod(axes.values()))
            if len(group) < 2:
                continue
            whole = _operand_bytes(computation, instruction)
            whole *= len(group) if kind == "all-gather" else 1
            hidden = instruction.opcode.endswith("-start") or bool(fused and chain)
            row = found.setdefault((kind, mesh_axes(group, axes), len(group), hidden), [0, 0.0])
            row[0] += item.times
            row[1] += item.times * whole
    rows = [
        Collective(kind, over, size, int(count), whole, whole * sent_share(kind, size), hidden)
        for (kind, over, size, hidden), (count, whole) in found.items()
    ]
    return sorted(rows, key=lambda row: -row.sent)


def sent_share(kind: str, group: int) -> float:
    """Bytes that a device sends for each byte of the whole array, on a ring of `group` devices."""
    if kind == "collective-permute":
        return 1.0
    return (2.0 if kind == "all-reduce" else 1.0) * (group - 1) / group


def _kind(instruction: Instruction) -> str | None:
    kind = instruction.opcode.removesuffix("-start")
    return kind if kind in KINDS else None


def _channel(instruction: Instruction) -> str:
    found = re.search(r"channel_id=(\d+)", instruction.attributes)
    return found[1] if found else ""


def _within(
    module: Module, computation: Computation, instruction: Instruction, fused: bool = False
) -> list[tuple[Computation, Instruction, bool]]:
    """The instruction, or what is in it if it is a fusion."""
    if instruction.opcode != "fusion":
        return [(computation, instruction, fused)]
    inner = module.computations[instruction.calls("calls") or ""]
    return [part for one in inner.instructions for part in _within(module, inner, one, True)]


def _operand_bytes(computation: Computation, instruction: Instruction) -> float:
    operands = (computation.by_name[name] for name in instruction.operands)
    return math.fsum(buffer.bytes for operand in operands for buffer in operand.buffers)


def _is_scattered(computation: Computation, instruction: Instruction) -> bool:
    """Whether every use of an all-reduce in its fusion is the device's own slice of it."""
    if not any(other.opcode == "partition-id" for other in computation.instructions):
        return False
    uses = [instruction]
    ends: list[Instruction] = []
    while uses:
        for user in computation.users.get(uses.pop().name, []):
            (uses if user.opcode in ("get-tuple-element", "bitcast") else ends).append(user)
    return bool(ends) and all(user.opcode == "dynamic-slice" for user in ends)


def members(attributes: str, devices: int) -> list[int]:
    """Logical numbers of the devices in the first group; all devices where none is named.

    Devices are numbered along the mesh, last axis fastest. Raises ValueError for a form of
    `replica_groups` that is not known.
    """
    if found := _PAIRS.search(attributes):
        numbers = re.findall(r"\{(\d+),(\d+)\}", found[1])
        pairs = [(int(source), int(target)) for source, target in numbers]
        moved = next((pair for pair in pairs if pair[0] != pair[1]), None)
        return _cycle(dict(pairs), moved[0]) if moved else []
    if found := _MESH.search(attributes):
        sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", found[1])}
        ids: np.ndarray = np.arange(math.prod(sizes.values()))
        if found[2]:
            dims = _integers(found[2])
            order = _integers(found[3]) if found[3] else tuple(range(len(dims)))
            ids = ids.reshape(dims).transpose(order)
        elif found[4]:
            ids = np.asarray(_integers(found[4]))
        ids = ids.reshape(tuple(sizes.values()))
        index: list[slice | int] = []
        for name, size in sizes.items():
            over = re.search(rf"'{re.escape(name)}'(?::\((\d+)\)(\d+))?", found[5])
            if over is None:
                index.append(0)
            elif over[1] is None:
                index.append(slice(None))
            else:  # part of an axis: (product of what is before it)size
                step = size // (int(over[1]) * int(over[2]))
                index.append(slice(0, step * int(over[2]), step))
        return ids[tuple(index)].ravel().tolist()
    if found := _IOTA.search(attributes):
        groups, dims = _integers(found[1]), _integers(found[2])
        order = _integers(found[3]) if found[3] else tuple(range(len(dims)))
        ids = np.arange(math.prod(dims)).reshape(dims).transpose(order)
        return ids.reshape(groups)[0].tolist()
    if found := _LISTS.search(attributes):
        first = re.search(r"\{([\d,]*)\}", found[1])
        return list(_integers(first[1])) if first and first[1] else list(range(devices))
    raise ValueError(f"which devices take part? {attributes[:200]}")


def _cycle(pairs: dict[int, int], start: int) -> list[int]:
    """Devices between which a permutation moves data, from `start` on."""
    members = [start]
    while (after := pairs.get(members[-1])) is not None and after not in members:
        members.append(after)
    return members


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(",") if part)


def mesh_axes(group: Sequence[int], axes: dict[str, int]) -> tuple[str, ...]:
    """Axes along which the members of a group differ; empty where they are not all of those."""
    places = np.stack(np.unravel_index(np.asarray(group), tuple(axes.values())))
    differ = [bool(np.ptp(row)) for row in places]
    over = tuple(name for name, differs in zip(axes, differ, strict=True) if differs)
    return over if math.prod(axes[name] for name in over) == len(group) else ()
