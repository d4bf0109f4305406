"""Memory and time by formula: no compiler asked. Prunes searches, and plans GPU meshes.

The state is exact (the sharding table applied to the parameters' shapes); the rest is a model of
what a train step keeps, checked against the compiler in every plan that is compiled.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh

from nt_jax import optim, sharding, throughput
from nt_jax.config import ConfigError, Experiment, ModelConfig, OptimConfig, TokenizerConfig
from nt_jax.masking import budget
from nt_jax.model.factory import build_model
from nt_jax.model.flash import has_kernel
from nt_jax.plan.collectives import Collective, sent_share
from nt_jax.plan.topology import Topology
from nt_jax.step import init_state

# Share of the whole forward pass that the backward pass computes again.
_AGAIN = {"none": 0.0, "dots": 0.1, "full": 0.75}


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of one JAX device."""

    state: float
    """Parameters, moments, counters."""
    gradients: float
    parameters: float
    """Copies in the compute dtype: all of the device's share, and gathered layers."""
    activations: float
    """Kept from the forward pass for the backward pass."""
    working: float
    """Of the one layer that is computed, or of the head, whichever is larger."""

    @property
    def total(self) -> float:
        """All of it."""
        return sum(dataclasses.astuple(self))


def flops_per_step(experiment: Experiment) -> float:
    """Model FLOPs of a step over all devices (recomputation not counted)."""
    return throughput.train_flops_per_step(experiment)


def executed_flops(experiment: Experiment) -> float:
    """With what the backward pass computes again."""
    return flops_per_step(experiment) * (3 + _AGAIN[experiment.model.remat]) / 3


def memory(experiment: Experiment, mesh: dict[str, int], platform: str) -> Memory:
    """Of a train step on a mesh of these sizes of tpu, gpu or cpu devices."""
    state, parameters = _state(experiment, mesh)
    model, tensor = experiment.model, mesh["tensor"]
    wide = 2 if model.compute_dtype == "bfloat16" else 4
    rows = _rows(experiment, mesh)
    tokens = rows * experiment.data.sequence_length / mesh["sequence"]
    layer = parameters * mesh["fsdp"] / model.num_layers / 4  # elements of a gathered layer
    copies = parameters * (wide / 4 if wide < 4 else 0) + (
        2 * layer * (wide + 4) if mesh["fsdp"] > 1 else 0
    )
    scores = _scores(experiment, tensor, wide, platform)
    kernel = _kernel_columns(model, tensor, platform)
    kept = _kept(model, tensor, wide, scores, kernel, platform)
    layers = tokens * model.num_layers * kept
    vocabulary = experiment.tokenizer.make().vocab_size
    selected = rows * budget(experiment.data.sequence_length, experiment.masking.ratio)
    head = selected * (3 * 4 * vocabulary + 8 * model.embed_dim)
    # A layer never has all of it at once: the share is libtpu's for the v1 500M on v5e-16.
    inside = 0.8 * tokens * (_inside(model, tensor, wide) + scores)
    return Memory(
        state=state,
        gradients=parameters * (2 if experiment.train.accumulate > 1 else 1),
        parameters=copies,
        activations=layers,
        working=max(inside, head) + tokens * 4 * model.embed_dim,
    )


def _rows(experiment: Experiment, mesh: dict[str, int]) -> float:
    """Sequences of a micro-batch on one device."""
    copies = math.prod(mesh[axis] for axis in ("slices", "data", "fsdp"))
    return experiment.train.global_batch / experiment.train.accumulate / copies


def _columns(model: ModelConfig) -> int:
    return model.ffn_dim * (2 if model.ffn_gated else 1)


def _inside(model: ModelConfig, tensor: int, wide: int) -> float:
    """Bytes a token of what a layer computes on the way, scores left out."""
    heads = model.num_heads * model.head_size / tensor
    return wide * (5 * model.embed_dim + 4 * heads + (2 * _columns(model) + model.ffn_dim) / tensor)


def _scores(experiment: Experiment, tensor: int, wide: int, platform: str) -> float:
    """Bytes a token of attention scores and maps, which a kernel does not lay out."""
    model = experiment.model
    if has_kernel(platform, model):
        return 0.0
    return (4 + wide) * model.num_heads / tensor * experiment.data.sequence_length


def _kernel_columns(model: ModelConfig, tensor: int, platform: str) -> float:
    """Elements a token that "dots" keeps of what an attention kernel returns: see saves_kernel."""
    kept = platform == "gpu" and has_kernel(platform, model)
    return model.num_heads * model.head_size / tensor if kept else 0.0


def _kept(
    model: ModelConfig, tensor: int, wide: int, scores: float, kernel: float, platform: str
) -> float:
    """Bytes a token that a layer keeps for the backward pass."""
    heads = model.num_heads * model.head_size / tensor
    if model.remat == "full":
        return float(wide * model.embed_dim)
    if model.remat == "dots":
        return wide * (3 * model.embed_dim + 3 * heads + kernel + _columns(model) / tensor)
    if platform == "tpu":
        return _inside(model, tensor, wide) + scores
    # Activations and LayerNorms are computed again: their inputs and outputs alone are kept.
    columns = (_columns(model) + model.ffn_dim) / tensor
    return wide * (3 * model.embed_dim + 4 * heads + columns) + scores


def _state(experiment: Experiment, mesh: dict[str, int]) -> tuple[float, float]:
    """Bytes of one device: (whole state, parameters)."""
    # Remat changes no shape.
    model = dataclasses.replace(experiment.model, remat="none")
    return _placed(model, experiment.tokenizer, experiment.optim, tuple(mesh.items()))


@functools.cache
def _placed(
    model: ModelConfig, tokenizer: TokenizerConfig, optimizer: OptimConfig,
    mesh: tuple[tuple[str, int], ...],
) -> tuple[float, float]:  # fmt: skip
    shapes = _shapes(model, tokenizer, optimizer)
    axes, sizes = zip(*mesh, strict=True)
    placed = sharding.state_sharding(shapes, AbstractMesh(sizes, axes))
    bytes_ = jax.tree.map(
        lambda x, s: x.dtype.itemsize * math.prod(s.shard_shape(x.shape)), shapes, placed
    )
    return float(sum(jax.tree.leaves(bytes_))), float(sum(jax.tree.leaves(bytes_.params)))


@functools.cache
def _shapes(model: ModelConfig, tokenizer: TokenizerConfig, optimizer: OptimConfig) -> Any:
    built = build_model(model, tokenizer.make())
    chain = optim.optimizer(optimizer, 1_000_000)
    return jax.eval_shape(functools.partial(init_state, built, chain), jnp.uint32(0))


def traffic(experiment: Experiment, mesh: dict[str, int], platform: str) -> float:
    """Bytes of main memory that a tpu, gpu or cpu device reads and writes in a step."""
    state, parameters = _state(experiment, mesh)
    model, tensor = experiment.model, mesh["tensor"]
    wide = 2 if model.compute_dtype == "bfloat16" else 4
    parts = experiment.train.accumulate
    again = 1 + _AGAIN[model.remat]
    tokens = _rows(experiment, mesh) * parts * experiment.data.sequence_length / mesh["sequence"]
    # Forward (and again) writes and reads what it computes; backward reads it and its gradient.
    passes = again + 2
    inside = _inside(model, tensor, wide) + 2 * _scores(experiment, tensor, wide, platform)
    weights = parameters / 4 * mesh["fsdp"] * wide * (again + 1) + parameters * 3
    return tokens * model.num_layers * inside * passes + parts * weights + 2.5 * state


def collectives(experiment: Experiment, mesh: dict[str, int]) -> list[Collective]:
    """What theory asks for: gathers of weights, one reduction of gradients, tensor sums."""
    model, parts = experiment.model, experiment.train.accumulate
    wide = 2 if model.compute_dtype == "bfloat16" else 4
    _, parameters = _state(experiment, mesh)
    found = []

    def add(kind: str, axis: str, count: int, size: float) -> None:
        if mesh[axis] > 1 and size:
            whole = count * size
            sent = whole * sent_share(kind, mesh[axis])
            found.append(Collective(kind, (axis,), mesh[axis], count, whole, sent, True))

    layers = model.num_layers
    gathered = parameters * mesh["fsdp"] / 4 * wide / layers
    passes = 1 if model.remat == "none" else 2  # which keeps what it gathered
    add("all-gather", "fsdp", layers * parts * passes, gathered)
    add("reduce-scatter", "fsdp", layers * parts, gathered)
    for axis in ("data", "slices"):
        add("all-reduce", axis, layers, parameters / layers)
    rows = _rows(experiment, mesh) * experiment.data.sequence_length / mesh["sequence"]
    sums = 4 + (model.remat == "full")
    add("all-reduce", "tensor", layers * parts * sums, rows * model.embed_dim * wide)
    keys = 2 * rows * model.num_heads * model.head_size / mesh["tensor"] * wide
    add("all-gather", "sequence", layers * parts * 2, keys * mesh["sequence"])
    return found


def mesh_sizes(experiment: Experiment, topology: Topology) -> dict[str, int]:
    """Sizes of the axes on that topology, before anything is compiled.

    Raises ConfigError where the mesh does not cover the devices or the batch does not divide.
    """
    sizes = {axis: getattr(experiment.mesh, axis) for axis in sharding.AXES}
    fixed = math.prod(size for size in sizes.values() if size != -1)
    sizes = {axis: topology.devices // fixed if n == -1 else n for axis, n in sizes.items()}
    text = " x ".join(f"{axis} {size}" for axis, size in sizes.items())
    if fixed < 1 or math.prod(sizes.values()) != topology.devices:
        raise ConfigError(
            f"{topology.name}: the mesh {text} does not cover its {topology.devices} devices; "
            "set --mesh.data -1 and sizes that divide them"
        )
    if sizes["slices"] != topology.slices and topology.compiled:
        raise ConfigError(
            f"{topology.name} has {topology.slices} slices: set --mesh.slices {topology.slices}"
        )
    sharding.check_batch(
        experiment.train.global_batch,
        experiment.train.accumulate,
        AbstractMesh(tuple(sizes.values()), tuple(sizes)),
    )
    return sizes
