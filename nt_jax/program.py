"""An experiment on a mesh: its state, sharded, and its jitted functions.

Training runs them; planning compiles the same ones for devices that are not there.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, UInt32

from nt_jax import optim, sharding, transfer
from nt_jax.config import ConfigError, Experiment
from nt_jax.layout import by_windows, layout, over_windows
from nt_jax.model.factory import build_model
from nt_jax.model.flash import attention_for
from nt_jax.model.layers import flattened, recomputed, saved
from nt_jax.step import EvalRows, TrainState, init_state, make_eval_step, make_train_step
from nt_jax.tokenizers import KmerTokenizer

# libtpu stops with an internal error in the first pass where a loop over micro-batches scatters
# bfloat16 gradients. The program says itself what is summed once a step, so nothing is lost.
# With its own threshold libtpu makes sums of most scatters, which send twice the bytes over links
# that are several times slower than the memory in which a gradient is laid out for a scatter.
_COMPILER_OPTIONS = {
    "tpu": {
        "xla_disable_hlo_passes": "while-loop-all-reduce-code-motion",
        "xla_tpu_relayout_group_size_threshold_for_reduce_scatter": "1",
    }
}


@dataclasses.dataclass(frozen=True)
class Program:
    """What an experiment computes, placed on a mesh; nothing is compiled or allocated yet."""

    mesh: Mesh
    """Devices by axis."""
    tokenizer: KmerTokenizer
    """Of the model."""
    abstract: TrainState
    """Shape, dtype and sharding of every array of the state."""
    init: Callable[[UInt32[Array, ""]], TrainState]
    """seed -> fresh state, built where it is to lie."""
    train_step: Any
    """Jitted (state, tokens [B,T]) -> (state, metrics); takes the state's memory over."""
    eval_step: Callable[..., EvalRows]
    """Jitted; see `make_eval_step`."""

    @property
    def placed(self) -> Any:
        """Sharding of every array of the state."""
        return jax.tree.map(lambda x: x.sharding, self.abstract)

    @property
    def batch_sharding(self) -> NamedSharding:
        """Of a batch of tokens."""
        return NamedSharding(self.mesh, sharding.BATCH)


def build(
    experiment: Experiment, devices: list[jax.Device] | None = None, unroll: int | None = None
) -> Program:
    """The program of an experiment on these devices (default: all there are).

    `unroll` layers are compiled at a time: by default one on TPUs, all of them elsewhere. A loop
    stacks what the backward pass reads and cuts it out again, copies that libtpu hides and a CPU
    or GPU has no time for. Raises ConfigError for what cannot be run on these devices.
    """
    _check(experiment)
    tokenizer = experiment.tokenizer.make()
    mesh = sharding.make_mesh(experiment.mesh, devices)
    sharding.check_batch(experiment.train.global_batch, experiment.train.accumulate, mesh)
    platform = mesh.devices.flat[0].platform
    attend = attention_for(platform, experiment.model)
    on_tpu = platform == "tpu"
    places = layout(mesh, experiment.model, attend)
    if platform == "cpu" and mesh.shape["sequence"] * mesh.shape["tensor"] == 1:
        places = places._replace(intercept=flattened(places.intercept))
    model = build_model(
        experiment.model,
        tokenizer,
        **places._asdict(),
        unroll=unroll or (1 if on_tpu else experiment.model.num_layers),
        light=saved if on_tpu else recomputed,
    )
    steps = experiment.train.steps
    schedule = optim.learning_rate(experiment.optim, steps)
    optimizer = optim.optimizer(experiment.optim, steps, transfer.rates(experiment))
    start = transfer.starting(build_model(experiment.model, tokenizer), experiment)
    fresh = functools.partial(init_state, start, optimizer)
    shapes = jax.eval_shape(fresh, jnp.uint32(0))
    placed = sharding.state_sharding(shapes, mesh)
    replicated = NamedSharding(mesh, P())
    return Program(
        mesh=mesh,
        tokenizer=tokenizer,
        abstract=jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, placed
        ),
        init=jax.jit(fresh, out_shardings=placed),
        train_step=jax.jit(
            make_train_step(
                model,
                optimizer,
                schedule,
                tokenizer,
                experiment,
                functools.partial(over_windows, mesh),
            ),
            donate_argnums=0,
            out_shardings=(placed, replicated),
            compiler_options=_COMPILER_OPTIONS.get(platform),
        ),
        eval_step=jax.jit(
            make_eval_step(
                model, tokenizer, experiment.masking, functools.partial(by_windows, mesh)
            ),
            out_shardings=replicated,
        ),
    )


def _check(experiment: Experiment) -> None:
    """Raises ConfigError for numbers that make no run."""
    length, longest = experiment.data.sequence_length, experiment.model.max_positions
    if length > longest:
        raise ConfigError(
            f"data.sequence_length={length} exceeds model.max_positions={longest} tokens"
        )
    for name in ("steps", "global_batch", "accumulate", "log_every", "eval_every"):
        if getattr(experiment.train, name) < 1:
            raise ConfigError(f"train.{name}={getattr(experiment.train, name)}: at least 1")
    if experiment.checkpoint.every < 1 or experiment.checkpoint.keep < 1:
        raise ConfigError("checkpoint.every and checkpoint.keep are at least 1")


def abstract_tokens(program: Program, experiment: Experiment) -> jax.ShapeDtypeStruct:
    """Shape [B,T] and sharding of a global batch."""
    shape = (experiment.train.global_batch, experiment.data.sequence_length)
    return jax.ShapeDtypeStruct(shape, jnp.int32, sharding=program.batch_sharding)
