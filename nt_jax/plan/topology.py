"""Slices by the cloud's names, and GPU meshes: how many chips, in which shape, on how many hosts.

In `v2-`, `v3-`, `v4-` and `v5p-` names the number counts TensorCores, two a chip; elsewhere chips.
`NAMExN` is N slices joined by the data-centre network.
"""

import dataclasses
import math
import re
from collections.abc import Iterator

from nt_jax import hardware
from nt_jax.errors import InputError, nearest
from nt_jax.hardware import Chip

_CORES_COUNTED = ("v2", "v3", "v4", "v5p")
_SMALL = {4: (2, 2, 1), 8: (2, 2, 2), 16: (2, 2, 4), 32: (2, 4, 4)}
_LARGEST = {"v2": 256, "v3": 1024, "v4": 4096, "v5e": 256, "v5p": 6144, "v6e": 256, "tpu7x": 9216}
"""Chips of the largest slice of a generation."""


@dataclasses.dataclass(frozen=True)
class Topology:
    """Where a run would run."""

    name: str
    """As asked for."""
    chip: Chip
    chips: int
    """Of one slice."""
    shape: tuple[int, ...]
    """Chips along each dimension of the torus; (chips,) behind switches."""
    slices: int

    @property
    def devices(self) -> int:
        """JAX devices in all."""
        return self.slices * self.chips * self.chip.devices

    @property
    def hosts(self) -> int:
        """Machines in all; each must read its share of the data."""
        return self.slices * math.ceil(self.chips / self.chip.host)

    @property
    def compiled(self) -> bool:
        """Whether the compiler for it runs on a machine without one (libtpu)."""
        return self.chip.dimensions > 0

    def description(self) -> dict[str, object]:
        """Arguments of `jax.experimental.topologies.get_topology_desc`."""
        shape = "x".join(map(str, self.shape))
        more: dict[str, object] = {"num_slices": self.slices} if self.slices > 1 else {}
        if self.chip.name == "v4":
            # Both TensorCores of a chip as one device, as Cloud TPU presents them.
            more["chip_config_name"] = "megacore"
        if math.prod(self.shape) < _CHIPS_OF_A_HOST:
            more["chips_per_host_bounds"] = [*self.shape, 1, 1][:3]
        return {"platform": "tpu", "topology_name": f"{self.chip.name}:{shape}", **more}


# Of a host in libtpu's eyes, where nothing else is said.
_CHIPS_OF_A_HOST = 4


def parse(name: str) -> Topology:
    """The topology of a name such as v5e-16, v5p-64x2 or h200-8; raises InputError."""
    found = re.fullmatch(r"(.+)-(\d+)(?:x(\d+))?", name)
    if not found or found[1] not in hardware.CHIPS or int(found[3] or 1) < 1:
        known = [example(chip) for chip in hardware.CHIPS]
        raise InputError(
            f"no topology {name!r}{nearest(name, known)}; GENERATION-NUMBER such as "
            f"{', '.join(known)} (v5p-64x2: two slices), or here: the devices of this machine"
        )
    chip = hardware.CHIPS[found[1]]
    number, slices = int(found[2]), int(found[3] or 1)
    shapes = dict(_shapes(chip))
    chips = number // 2 if chip.name in _CORES_COUNTED else number
    even = chip.name not in _CORES_COUNTED or number % 2 == 0
    if not chip.dimensions:
        if number < 1:
            raise InputError(f"topology {name!r}: at least one chip")
        return Topology(name, chip, number, (number,), slices)
    if not even or chips not in shapes:
        factor = 2 if chip.name in _CORES_COUNTED else 1
        sizes = sorted(factor * size for size in shapes)
        close = min(sizes, key=lambda size: abs(math.log(size / max(number, 1))))
        unit = "TensorCores" if factor == 2 else "chips"
        raise InputError(
            f"no slice {name!r}; did you mean '{chip.name}-{close}'? "
            f"{chip.name} comes in {', '.join(map(str, sizes[:12]))}"
            f"{', ...' if len(sizes) > 12 else ''} {unit}"
        )
    return Topology(name, chip, chips, shapes[chips], slices)


def example(chip: str) -> str:
    """A usual name of that generation."""
    cores = 2 if chip in _CORES_COUNTED else 1
    return f"{chip}-{8 if not hardware.CHIPS[chip].dimensions else 16 * cores}"


def _shapes(chip: Chip) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Every slice of a generation: chips and the shape that the cloud gives by default."""
    largest = _LARGEST.get(chip.name, 0)
    if chip.dimensions == 2:
        if chip.devices == 1:
            yield 1, (1, 1)
        for shape in ((2**k, 2 ** (k + more)) for k in range(1, 6) for more in (0, 1)):
            if math.prod(shape) <= largest:
                yield math.prod(shape), shape
    elif chip.dimensions == 3:
        yield from _SMALL.items()
        # Larger ones are made of cubes of 4x4x4, in the most compact order.
        for cubes in range(1, largest // 64 + 1):
            yield 64 * cubes, tuple(4 * side for side in _compact(cubes))


def _compact(cubes: int) -> tuple[int, int, int]:
    """Three ascending factors of the number with the least surface."""
    triples = [
        (a, b, cubes // (a * b))
        for a in range(1, round(cubes ** (1 / 3)) + 1)
        if cubes % a == 0
        for b in range(a, math.isqrt(cubes // a) + 1)
        if (cubes // a) % b == 0
    ]
    return min(triples, key=lambda sides: sides[0] * sides[1] + (sides[0] + sides[1]) * sides[2])
