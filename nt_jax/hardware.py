"""What accelerators can do: one table that training (MFU) and planning read.

Sources, read in 2026-11: the architecture page of each generation at cloud.google.com/tpu/docs
(peak FLOP/s, HBM, interconnect and data-centre network), NVIDIA's data sheets, and jax-ml's
"How to Scale Your Model" (wrap-around links). Usable memory of TPUs is what libtpu itself
names as available when a program is too large. Prices are Google Cloud's on-demand list prices in
the cheapest US region as last known in 2025-11, not checked since: `nt-jax plan --price` overrides.
"""

import dataclasses
import functools

from nt_jax.errors import InputError, nearest

GIB = 2**30
PRICES_OF = "2025-11"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """One chip; rates are in FLOP/s and bytes/s, memory in bytes, all of the whole chip."""

    name: str
    """As the cloud's slice names begin."""
    kinds: tuple[str, ...]
    """`device_kind` of its JAX devices."""
    flops: float
    """Dense bfloat16 peak."""
    memory: float
    """What a program may use."""
    bandwidth: float
    """Of the memory."""
    link: float
    """One direction of one link to a neighbour (TPU), or into the switch of the host (GPU)."""
    network: float
    """Between slices or hosts, one direction, per chip."""
    price: float | None
    """US dollars an hour; None where no list price is known."""
    host: int
    """Chips of one host of a slice of many."""
    devices: int = 1
    """JAX devices (TensorCores without megacore) of a chip."""
    dimensions: int = 0
    """Of the torus that its links make; 0 is a switch."""
    float32: float = 0.5
    """Share of `flops` that matrix products of float32 inputs reach (XLA's default precision)."""
    flops_share: float = 0.65
    """Of the peak, what matrix products reach inside a model: stated, until measured on it."""
    bandwidth_share: float = 0.8
    """Of the bandwidth, what large reads and writes reach: stated, until measured on it."""

    @property
    def platform(self) -> str:
        """Of its JAX devices: tpu, gpu or cpu."""
        return "tpu" if self.dimensions else "cpu" if self.kinds == ("cpu",) else "gpu"


# Matrix products of float32 inputs run in bfloat16 on TPUs, and in TF32 on GPUs.
_tpu = functools.partial(Chip, float32=1.0)

CHIPS = {
    chip.name: chip
    for chip in (
        _tpu(
            name="v2", kinds=("TPU v2",),
            flops=45e12, memory=2 * 7.48 * GIB, bandwidth=700e9, link=62e9,
            network=3.1e9, price=1.31, host=4, devices=2, dimensions=2,
        ),
        _tpu(
            name="v3", kinds=("TPU v3",),
            flops=123e12, memory=2 * 15.48 * GIB, bandwidth=900e9, link=82e9,
            network=3.1e9, price=2.20, host=4, devices=2, dimensions=2,
        ),
        _tpu(
            name="v4", kinds=("TPU v4",),
            flops=275e12, memory=30.75 * GIB, bandwidth=1228e9, link=50e9,
            network=6.25e9, price=3.22, host=4, dimensions=3,
        ),
        _tpu(
            name="v5e", kinds=("TPU v5 lite", "TPU v5e"),
            flops=197e12, memory=15.75 * GIB, bandwidth=819e9,
            link=50e9, network=3.125e9, price=1.20, host=4, dimensions=2,
        ),
        _tpu(
            name="v5p", kinds=("TPU v5", "TPU v5p"),
            flops=459e12, memory=95.73 * GIB, bandwidth=2765e9,
            link=100e9, network=6.25e9, price=4.20, host=4, dimensions=3,
        ),
        _tpu(
            name="v6e", kinds=("TPU v6 lite", "TPU v6e"),
            flops=918e12, memory=31.24 * GIB, bandwidth=1640e9,
            link=112e9, network=12.5e9, price=2.70, host=4, dimensions=2,
        ),
        _tpu(
            name="tpu7x", kinds=("TPU7x",),
            flops=2307e12, memory=2 * 94.74 * GIB, bandwidth=7380e9,
            link=200e9, network=12.5e9, price=12.00, host=4, devices=2, dimensions=3,
        ),
        Chip(
            name="a100-40g", kinds=("NVIDIA A100-SXM4-40GB",), flops=312e12, memory=39.4 * GIB,
            bandwidth=1555e9, link=300e9, network=25e9, price=3.67, host=8,
        ),
        Chip(
            name="a100-80g", kinds=("NVIDIA A100-SXM4-80GB",), flops=312e12, memory=79.1 * GIB,
            bandwidth=2039e9, link=300e9, network=25e9, price=5.07, host=8,
        ),
        Chip(
            name="h100", kinds=("NVIDIA H100 80GB HBM3",), flops=989e12, memory=79.1 * GIB,
            bandwidth=3350e9, link=450e9, network=50e9, price=11.06, host=8,
        ),
        Chip(
            name="h200", kinds=("NVIDIA H200",), flops=989e12, memory=139.7 * GIB,
            bandwidth=4800e9, link=450e9, network=50e9, price=10.60, host=8,
        ),
    )
}  # fmt: skip
"""By name."""


def named(name: str) -> Chip:
    """The chip of that name; raises InputError with the nearest."""
    if name not in CHIPS:
        raise InputError(f"no chip {name!r}{nearest(name, CHIPS)}; known: {', '.join(CHIPS)}")
    return CHIPS[name]


def of_kind(device_kind: str) -> Chip | None:
    """The chip of JAX devices of that kind; None where it is not known (CPUs)."""
    return next((chip for chip in CHIPS.values() if device_kind in chip.kinds), None)


def peak_flops(device_kind: str) -> float | None:
    """Dense bfloat16 peak of one JAX device in FLOP/s; None where it is not known (CPUs)."""
    chip = of_kind(device_kind)
    return chip.flops / chip.devices if chip else None
