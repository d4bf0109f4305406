"""Step time from what a program computes, moves and exchanges.

On the chip every instruction takes the longest of: its FLOPs at the peak, its bytes of main memory
at the bandwidth, and, for TPUs, the cycles that the TPU compiler itself estimates for it (which
know how full the matrix units are). Instructions run one after the other. Collectives run at the
rate of the links that their group spans; asynchronous ones hide behind the chip's work, the others
add to it. Where there are no cycles (GPUs, and everything by formula), peak and bandwidth are
taken times the shares that the hardware table states.
"""

import dataclasses
import math
from collections.abc import Iterable

from nt_jax.hardware import Chip
from nt_jax.plan.collectives import Collective
from nt_jax.plan.topology import Topology
from nt_jax.plan.work import Work

LINK_SHARE = 0.85
"""Of a link's rate that large collectives reach: stated, not measured."""
HOP_SECONDS = 1e-6
"""Latency of one hop between neighbours, and of one round through the network of hosts x 10."""

# Cycles a second of the matrix units: peak FLOP/s of a chip over FLOPs a cycle of all its units.
_CLOCK = {"v2": 0.7e9, "v3": 0.94e9, "v4": 1.05e9, "v5e": 1.5e9, "v5p": 1.75e9, "v6e": 1.75e9}


@dataclasses.dataclass(frozen=True)
class Times:
    """Seconds a step."""

    compute: float
    """FLOPs alone, at the full peak."""
    memory: float
    """Main memory alone, at the full bandwidth."""
    chip: float
    """On the chip: instruction by instruction."""
    links: float
    """Collectives within a slice or host."""
    network: float
    """Collectives between slices or hosts."""
    exposed: float
    """Of the collectives, what the chip waits for."""

    @property
    def step(self) -> float:
        """All in all."""
        return self.chip + self.exposed


def times(
    topology: Topology, dtype: str, costs: Iterable[Work], exchanged: Iterable[Collective],
    mesh: dict[str, int],
) -> Times:  # fmt: skip
    """Of one step, of one device's costs and collectives."""
    chip = topology.chip
    peak, bandwidth = device_rates(chip, dtype)
    clock = _CLOCK.get(chip.name, 0.0)
    compute = memory = total = 0.0
    for cost in costs:
        compute += cost.times * cost.flops / peak
        memory += cost.times * cost.bytes / bandwidth
        if clock and cost.cycles:
            least = max(cost.flops / peak, cost.bytes / bandwidth, cost.cycles / clock)
        else:
            least = max(
                cost.flops / (peak * chip.flops_share * cost.filled),
                cost.bytes / (bandwidth * chip.bandwidth_share),
            )
        total += cost.times * least
    links, network = {True: 0.0, False: 0.0}, {True: 0.0, False: 0.0}
    for one in exchanged:
        inside, outside = collective_seconds(topology, one, mesh)
        links[one.hidden] += inside
        network[one.hidden] += outside
    hidden = links[True] + network[True]
    exposed = links[False] + network[False] + max(0.0, hidden - total)
    return Times(compute, memory, total, sum(links.values()), sum(network.values()), exposed)


def device_rates(chip: Chip, dtype: str) -> tuple[float, float]:
    """(FLOP/s of matrix products, bytes/s of main memory) of one JAX device."""
    peak = chip.flops * (1.0 if dtype == "bfloat16" else chip.float32)
    return peak / chip.devices, chip.bandwidth / chip.devices


def collective_seconds(
    topology: Topology, one: Collective, mesh: dict[str, int]
) -> tuple[float, float]:
    """Seconds a step of a kind of collectives: (within slices or hosts, between them)."""
    chip = topology.chip
    if not chip.dimensions:
        within = min(one.group, chip.host)
        hops = one.count * HOP_SECONDS * 5
        if one.group <= chip.host and not _crosses_hosts(one, mesh, chip):
            return one.sent / (chip.link * LINK_SHARE) + hops, 0.0
        return (
            one.sent / (chip.link * LINK_SHARE),
            one.sent / within / (chip.network * LINK_SHARE) + 10 * hops,
        )
    slices = mesh["slices"] if "slices" in one.axes else 1
    inner = max(1, one.group // slices)
    rate, hops = link_rate(topology, inner)
    inside = one.sent * (inner > 1) / (rate * LINK_SHARE) + one.count * hops * HOP_SECONDS
    if slices == 1:
        return inside, 0.0
    # Reduced within each slice first: every chip exchanges its share with the other slices.
    between = one.sent / inner / (chip.network / chip.devices * LINK_SHARE)
    return (inside if inner > 1 else 0.0), between + one.count * 10 * HOP_SECONDS


def _crosses_hosts(one: Collective, mesh: dict[str, int], chip: Chip) -> bool:
    """Whether the members of a group lie further apart than a host has chips."""
    stride, span = 1, 1
    for axis in reversed(mesh):
        if axis in one.axes:
            span += stride * (mesh[axis] - 1)
        stride *= mesh[axis]
    return span > chip.host


def link_rate(topology: Topology, group: int) -> tuple[float, int]:
    """(bytes/s that a device can send to its group, hops across the group) within a slice.

    A group lies along as few dimensions of the torus as hold it. A dimension is a ring (both of
    its links carry data) where it wraps around: 16 chips on v5e and v6e, multiples of 4 in slices
    of whole 4x4x4 cubes elsewhere; otherwise a line, of which one link counts.
    """
    chip = topology.chip
    chips = max(1, math.ceil(group / chip.devices))
    rate, hops, held = 0.0, 0, 1
    cube = min(topology.shape) >= 4 and len(topology.shape) == 3
    for side in sorted(topology.shape, reverse=True):
        if held >= chips and rate:
            break
        wraps = side >= 16 if len(topology.shape) == 2 else cube
        rate += chip.link * (2 if wraps else 1) * (side > 1)
        hops += side // 2 if wraps else side - 1
        held *= side
    return (rate or chip.link) / chip.devices, max(hops, 1)
