"""The state of a fine-tuning and its step: a pure function, jitted and sharded by the caller.

The state is a `TrainState`, so checkpoints of it are written and verified as those of pretraining:
`params` is what is trained (adapters or parameters of the encoder, and w and b of the head),
`opt_state` is `Rest`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from nt_jax.evaluation.embed import Pooling, embed_batch
from nt_jax.evaluation.finetune.head import CONSTANT, HEAD, TRAINED, Head, outputs, penalty
from nt_jax.evaluation.finetune.objectives import Objective
from nt_jax.model.factory import Model, Params
from nt_jax.step import TrainState


class Rest(NamedTuple):
    """What a fine-tuning keeps beside the trained parameters."""

    optimizer: Any
    loss: Float[Array, ""]
    """Sum of the mean losses of the batches since the last evaluation."""
    best: Params
    """Trained parameters of the best evaluation."""
    start: Params
    """w and b of the head that was fitted to the frozen embeddings."""
    constants: Params
    """Standardisation of the head."""


Advance = Callable[[TrainState, Params, Int[Array, "B T"], Array], TrainState]


def fresh_state(optimizer: optax.GradientTransformation, encoder: Params, head: Head) -> TrainState:
    """State before the first step; shares no memory with what it is made of."""
    start = {HEAD: {name: head[name] for name in TRAINED}}
    trained = hk.data_structures.merge(encoder, start)
    constants = {HEAD: {name: head[name] for name in CONSTANT}}
    # Copies, because the step takes the state's memory over.
    trained, best, start, constants = jax.tree.map(jnp.copy, (trained, trained, start, constants))
    rest = Rest(optimizer.init(trained), jnp.zeros(()), best, start, constants)
    return TrainState(jnp.zeros((), jnp.int32), trained, rest)


def make_step(
    model: Model,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    *,
    layer: int,
    pooling: Pooling,
    pad_id: int,
    head_share: float,
) -> Advance:
    """Builds `step(state, frozen, tokens, targets) -> state`; targets are on the loss's scale.

    The head moves at `head_share` of the learning rate. Gradients are taken with respect to the
    trained parameters alone, so the backward pass
    multiplies by frozen matrices and never computes their gradients.
    """

    def penalised(
        trained: Params, constants: Params, frozen: Params, tokens: Array, targets: Array
    ) -> tuple[Array, Array]:
        params = hk.data_structures.merge(frozen, trained, constants)
        features = embed_batch(model, params, tokens, (layer,), pooling, pad_id)[0]
        head = params[HEAD]
        loss = objective.loss(outputs(head, features), targets)
        return loss + penalty(head["strength"], head["w"]), loss

    def step(
        state: TrainState, frozen: Params, tokens: Int[Array, "B T"], targets: Array
    ) -> TrainState:
        rest: Rest = state.opt_state
        gradient, loss = jax.grad(penalised, has_aux=True)(
            state.params, rest.constants, frozen, tokens, targets
        )
        updates, optimizer_state = optimizer.update(gradient, rest.optimizer, state.params)
        updates[HEAD] = jax.tree.map(lambda update: head_share * update, updates[HEAD])
        return TrainState(
            state.step + 1,
            optax.apply_updates(state.params, updates),
            rest._replace(optimizer=optimizer_state, loss=rest.loss + loss),
        )

    return step


def close_interval(state: TrainState, better: Bool[Array, ""]) -> TrainState:
    """State after an evaluation: the best so far is kept, and a new sum of losses begins."""
    rest: Rest = state.opt_state
    best = jax.tree.map(lambda new, old: jnp.where(better, new, old), state.params, rest.best)
    return state._replace(opt_state=rest._replace(best=best, loss=jnp.zeros_like(rest.loss)))
