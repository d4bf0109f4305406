"""TrainState, train_step and eval_step: pure functions, jitted by the caller."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, UInt32

from nt_jax import optim
from nt_jax.config import Experiment, MaskingConfig
from nt_jax.masking import Masked, mask_tokens, row_keys
from nt_jax.model.factory import Model
from nt_jax.tokenizers import KmerTokenizer

Params = Any
EVAL_SEED = 20_230_115


class TrainState(NamedTuple):
    """Everything that changes during training. The data state is `step`."""

    step: Int[Array, ""]
    params: Params
    opt_state: Any


class EvalRows(NamedTuple):
    """Sums over the selected tokens of each window, [B]; `mask_*` over `<mask>` positions only."""

    selected: Float[Array, " B"]
    nats: Float[Array, " B"]
    correct: Float[Array, " B"]
    mask_selected: Float[Array, " B"]
    mask_nats: Float[Array, " B"]
    mask_correct: Float[Array, " B"]
    mask_bases: Float[Array, " B"]
    mask_unigram_nats: Float[Array, " B"]


def init_state(
    model: Model, optimizer: optax.GradientTransformation, seed: int | UInt32[Array, ""]
) -> TrainState:
    """Fresh state from the seed; jit it with out_shardings to build it sharded."""
    params = model.init(jax.random.fold_in(jax.random.key(seed), 2**31 - 1))
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))


def token_losses(
    model: Model, params: Params, masked: Masked
) -> tuple[Float[Array, "B M"], Bool[Array, "B M"]]:
    """Cross-entropy in nats and correctness at the selected positions only."""
    hidden = model.encode(params, masked.inputs)
    hidden = jnp.take_along_axis(hidden, masked.positions[..., None], axis=1)
    logits = model.head(params, hidden)
    nats = optax.softmax_cross_entropy_with_integer_labels(logits, masked.targets)
    return nats, jnp.argmax(logits, axis=-1) == masked.targets


def alone(function: Callable[..., Any]) -> Callable[..., Any]:
    """One device has all windows."""
    return function


def make_train_step(
    model: Model,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    tokenizer: KmerTokenizer,
    experiment: Experiment,
    over_windows: Callable[..., Any] = alone,
) -> Callable[[TrainState, Int[Array, "B T"]], tuple[TrainState, dict[str, Array]]]:
    """Builds `train_step(state, tokens) -> (state, metrics)`.

    Loss is the mean cross-entropy over all selected tokens of the global batch, whatever the
    number of micro-batches: sums are accumulated and divided once. `over_windows` makes the
    gradient of a device's windows that of all windows (layout.py).
    """
    parts = experiment.train.accumulate

    def summed(params: Params, masked: Masked) -> tuple[Array, tuple[Array, Array]]:
        nats, correct = token_losses(model, params, masked)
        return jnp.sum(nats * masked.weights), (
            jnp.sum(correct * masked.weights),
            jnp.sum(masked.weights),
        )

    one_part = jax.value_and_grad(summed, has_aux=True)

    def gradient(params: Params, masked: Masked) -> Any:
        if parts == 1:
            return one_part(params, masked)
        split = jax.tree.map(lambda x: x.reshape(parts, x.shape[0] // parts, *x.shape[1:]), masked)

        def accumulate(total: Any, part: Masked) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, one_part(params, part)), None

        zeros = jax.tree.map(
            lambda x: jnp.zeros(x.shape, x.dtype),
            jax.eval_shape(one_part, params, jax.tree.map(lambda x: x[0], split)),
        )
        return jax.lax.scan(accumulate, zeros, split)[0]

    def train_step(
        state: TrainState, tokens: Int[Array, "B T"]
    ) -> tuple[TrainState, dict[str, Array]]:
        keys = row_keys(experiment.train.seed, state.step, tokens.shape[0])
        masked = mask_tokens(keys, tokens, tokenizer, experiment.masking)
        (nats, (correct, weight)), grads = over_windows(gradient)(state.params, masked)
        weight = jnp.maximum(weight, 1.0)
        grads = jax.tree.map(lambda g: g / weight, grads)
        norm = optax.global_norm(grads)
        # Where the loss or the norm overflows, single gradients (and their squares, the moments)
        # may still look finite; the optimizer skips the step when they are NaN.
        sound = jnp.where(jnp.isfinite(nats) & jnp.isfinite(norm), 1.0, jnp.nan)
        grads = jax.tree.map(lambda g: g * sound, grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {
            "loss": nats / weight,
            "accuracy": correct / weight,
            "grad_norm": norm,
            "lr": schedule(optim.applied(state.step, state.opt_state)),
            **optim.skips(opt_state),
        }
        return TrainState(state.step + 1, params, opt_state), metrics

    return train_step


def make_eval_step(
    model: Model,
    tokenizer: KmerTokenizer,
    masking: MaskingConfig,
    by_windows: Callable[..., Any] = alone,
) -> Callable[..., EvalRows]:
    """Builds `eval_step(params, tokens, valid, index, unigram) -> EvalRows`.

    `index` [B] is the number of each window in its split: it alone keys the mask, so the same
    positions are asked of every checkpoint, batch size and device count. `unigram` [V] holds
    log-probabilities in nats; `valid` [B] is False on rows that only fill the batch.
    """
    bases = jnp.asarray(tokenizer.bases(np.arange(tokenizer.vocab_size)), jnp.float32)

    def rows(
        params: Params,
        unigram: Float[Array, " V"],
        tokens: Int[Array, "B T"],
        valid: Bool[Array, " B"],
        index: Int[Array, " B"],
    ) -> EvalRows:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(EVAL_SEED), index)
        masked = mask_tokens(keys, tokens, tokenizer, masking)
        nats, correct = token_losses(model, params, masked)
        weights = masked.weights * valid[:, None]
        asked = weights * masked.replaced

        def total(values: Array) -> Array:
            return jnp.sum(values, axis=-1)

        return EvalRows(
            selected=total(weights),
            nats=total(weights * nats),
            correct=total(weights * correct),
            mask_selected=total(asked),
            mask_nats=total(asked * nats),
            mask_correct=total(asked * correct),
            mask_bases=total(asked * bases[masked.targets]),
            mask_unigram_nats=total(-asked * unigram[masked.targets]),
        )

    def eval_step(
        params: Params,
        tokens: Int[Array, "B T"],
        valid: Bool[Array, " B"],
        index: Int[Array, " B"],
        unigram: Float[Array, " V"],
    ) -> EvalRows:
        return by_windows(rows)(params, unigram, tokens, valid, index)

    return eval_step
