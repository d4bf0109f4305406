"""Mesh, the table of parameter rules, batch specs.

Axes: `slices` copies the model over the data-centre network and `data` within a slice, `fsdp`
shards parameters, moments and the batch, `sequence` splits the tokens of a window, `tensor` heads
and feed-forward columns. Rules are regular expressions on the parameter path; the first
match wins. Stacked block parameters have the layer axis in front.
"""

import math
import re
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from nt_jax.config import ConfigError, MeshConfig

AXES = ("slices", "data", "fsdp", "sequence", "tensor")
WINDOW_AXES = ("slices", "data", "fsdp")
"""Axes that share the windows of a batch out."""
BATCH = P(WINDOW_AXES)

# Axes of the last dimensions; those in front (layers) are whole. The vocabulary (4,105 or 4,107
# rows) divides by nothing: its matrices are split over the width. Adapters and the head of a
# fine-tuning are kilobytes: every device holds them.
RULES: tuple[tuple[str, P], ...] = (
    (r"/(ia3|lora_a|lora_b)$|nt-task/", P()),
    (r"embed.*/embeddings$", P(None, "fsdp")),
    (r"/(query|key|value|fc1)/w$", P("fsdp", "tensor")),
    (r"/(query|key|value|fc1)/b$", P("tensor")),
    (r"/(out|fc2)/w$", P("tensor", "fsdp")),
    (r"head/.*/w$", P("fsdp", None)),
    (r"/(b|scale|offset)$", P()),
)


def make_mesh(config: MeshConfig, devices: list[jax.Device] | None = None) -> Mesh:
    """Mesh of all devices; raises ConfigError when the axes do not multiply to their number."""
    devices = jax.devices() if devices is None else devices
    sizes = [getattr(config, axis) for axis in AXES]
    fixed = int(np.prod([size for size in sizes if size != -1]))
    if sizes.count(-1) > 1 or any(size == 0 or size < -1 for size in sizes):
        raise ConfigError(f"mesh {sizes}: axes are positive, and at most one is -1 (the rest)")
    if -1 in sizes:
        sizes[sizes.index(-1)] = max(1, len(devices) // fixed)
    if int(np.prod(sizes)) != len(devices):
        raise ConfigError(
            f"mesh {' x '.join(AXES)} = {' x '.join(map(str, sizes))} does not cover the "
            f"{len(devices)} devices of this run; set --mesh.data -1 or other sizes"
        )
    # Explicit axes (the new default) break hk.Embed.
    kinds = (AxisType.Auto,) * len(AXES)
    slices = len({getattr(device, "slice_index", None) for device in devices})
    # An axis may be part of a dimension of the torus: 32 of 8 x 8 chips.
    split = {"allow_split_physical_axes": True}
    if slices == 1:
        return Mesh(mesh_utils.create_device_mesh(sizes, devices, **split), AXES, axis_types=kinds)
    if sizes[0] != slices:
        raise ConfigError(f"mesh.slices={sizes[0]}: these devices are {slices} slices")
    between = (slices, *[1] * len(sizes[1:]))
    grid = mesh_utils.create_hybrid_device_mesh((1, *sizes[1:]), between, devices, **split)
    return Mesh(grid, AXES, axis_types=kinds)


def parameter_spec(path: str, shape: tuple[int, ...], mesh: Mesh | AbstractMesh) -> P:
    """Spec of one parameter. An axis that does not divide its dimension is left out."""
    spec = next((spec for pattern, spec in RULES if re.search(pattern, path)), None)
    if spec is None:
        raise ConfigError(f"no sharding rule for parameter {path!r} of shape {shape}")
    axes = (None,) * (len(shape) - len(spec)) + tuple(spec)
    return P(
        *(
            axis if axis and size % mesh.shape[axis] == 0 else None
            for axis, size in zip(axes, shape, strict=True)
        )
    )


def state_sharding(abstract: Any, mesh: Mesh | AbstractMesh) -> Any:
    """NamedSharding for every array of a train state.

    Moments carry the path of their parameter as a suffix, so the same table serves them;
    scalars (step, counters) are replicated.
    """

    def rule(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        if leaf.ndim == 0:
            return NamedSharding(mesh, P())
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return NamedSharding(mesh, parameter_spec(name, leaf.shape, mesh))

    return jax.tree_util.tree_map_with_path(rule, abstract)


def check_batch(global_batch: int, accumulate: int, mesh: Mesh | AbstractMesh) -> None:
    """Raises ConfigError unless micro-batches divide evenly over slices x data x fsdp."""
    copies = math.prod(mesh.shape[axis] for axis in WINDOW_AXES)
    if global_batch % (accumulate * copies):
        raise ConfigError(
            f"train.global_batch={global_batch} does not divide by train.accumulate={accumulate} "
            f"x mesh slices*data*fsdp={copies}; nearest: "
            f"{max(1, round(global_batch / (accumulate * copies))) * accumulate * copies}"
        )
