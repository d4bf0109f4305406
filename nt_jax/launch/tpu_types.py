"""Names of Cloud TPU slices: ours are the cloud's (`v5e-16`), the API's differ a little.

Sources: docs.cloud.google.com/tpu/docs/runtimes for the runtime versions (JAX), and the pages of
the generations there for accelerator types and sizes.
"""

import dataclasses

from nt_jax.errors import InputError, nearest

_POWERS = (1, 4, 8, 16, 32, 64, 128, 256)


@dataclasses.dataclass(frozen=True)
class Generation:
    """How one generation is asked for."""

    accelerator: str
    """What stands before the number in `--accelerator-type`."""
    runtime: str
    """`--runtime-version` for JAX: an Ubuntu with the drivers of the generation, no framework."""
    counts: str
    """What the number of a slice counts."""
    sizes: tuple[int, ...] | None
    """All sizes; None: multiples of 8 (whole hosts of 4 chips, each with 2 TensorCores)."""


GENERATIONS = {
    "v4": Generation("v4", "tpu-ubuntu2204-base", "TensorCores", None),
    "v5e": Generation("v5litepod", "v2-alpha-tpuv5-lite", "chips", _POWERS),
    "v5p": Generation("v5p", "v2-alpha-tpuv5", "TensorCores", None),
    "v6e": Generation("v6e", "v2-alpha-tpuv6e", "chips", _POWERS),
}


def accelerator(topology: str) -> tuple[str, str]:
    """(`--accelerator-type`, `--runtime-version`) of a slice such as `v5e-16`; raises InputError.

    TPU7x and later are not served by this API at all (Compute Engine and GKE only).
    """
    name, _, size = topology.partition("-")
    found = GENERATIONS.get(name)
    if found is None:
        known = ", ".join(f"{name}-N" for name in GENERATIONS)
        raise InputError(
            f"--topology {topology}: unknown slice{nearest(name, GENERATIONS)}; known: {known} "
            "(later generations are not served by queued resources)"
        )
    fits = size.isdecimal() and int(size) > 0
    if not fits or (int(size) not in found.sizes if found.sizes else int(size) % 8):
        sizes = ", ".join(map(str, found.sizes)) if found.sizes else "multiples of 8"
        raise InputError(f"--topology {topology}: {name} has {sizes} {found.counts}")
    return f"{found.accelerator}-{size}", found.runtime
