"""The optax chain: schedule, clipping, Adam or AdamW, skipping of non-finite steps and spikes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from nt_jax.config import ConfigError, OptimConfig

_UNLIMITED = np.iinfo(np.int32).max


def learning_rate(config: OptimConfig, steps: int) -> optax.Schedule:
    """Learning rate at each optimizer step.

    `nt` is the published recipe: linear from init_lr to peak_lr over warmup_steps, then
    peak_lr * sqrt(warmup_steps / step) (FACTS, formula inferred).
    """
    warmup = config.warmup_steps
    if warmup >= steps and config.schedule in ("cosine", "wsd"):
        raise ConfigError(f"optim.warmup_steps={warmup} leaves nothing of train.steps={steps}")
    rise = optax.linear_schedule(config.init_lr, config.peak_lr, max(warmup, 1))

    def inverse_square_root(count: jax.typing.ArrayLike) -> jax.Array:
        # Before the boundary `count` is negative and the value is not used.
        return config.peak_lr * jnp.sqrt(max(warmup, 1) / (jnp.maximum(count, 0) + max(warmup, 1)))

    match config.schedule:
        case "nt":
            return optax.join_schedules([rise, inverse_square_root], [warmup])
        case "cosine":
            return optax.warmup_cosine_decay_schedule(
                config.init_lr, config.peak_lr, warmup, steps, config.end_lr
            )
        case "wsd":
            decay = max(1, round(config.decay_share * steps))
            stable = optax.constant_schedule(config.peak_lr)
            fall = optax.linear_schedule(config.peak_lr, config.end_lr, decay)
            return optax.join_schedules([rise, stable, fall], [warmup, max(warmup, steps - decay)])
        case "constant":
            return optax.join_schedules([rise, optax.constant_schedule(config.peak_lr)], [warmup])


def is_decayed(path: tuple[jax.tree_util.KeyEntry, ...]) -> bool:
    """Weight decay touches projection matrices only: never biases, LayerNorms, embeddings."""
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    return name.endswith("/w") and "embed" not in name


def optimizer(
    config: OptimConfig, steps: int, rates: Callable[[Any], Any] | None = None
) -> optax.GradientTransformation:
    """Builds the chain; `rates(params)` are factors on the learning rates, if there are any.

    A step with a non-finite gradient leaves parameters and moments as they are and is counted in
    the state. `optax.apply_if_finite` would apply the bad update once its own limit is reached,
    so it gets none: the training loop enforces `nonfinite_limit`. With `spike_factor` the same
    holds for spikes.
    """
    if config.spike_factor and (config.spike_factor <= 1 or config.spike_window < 1):
        raise ConfigError("optim.spike_factor is above 1 (0 is off), optim.spike_window at least 1")
    schedule = learning_rate(config, steps)
    clip = optax.clip_by_global_norm(config.clip) if config.clip else optax.identity()
    parts = [optax.scale_by_adam(config.b1, config.b2, config.eps)]
    if rates is not None:
        parts.append(_scaled(rates))
    if config.name == "adamw":
        # Behind the factors, so that the decay of a matrix does not depend on its own.
        parts.append(optax.add_decayed_weights(config.weight_decay, _decayed))
    rule = optax.chain(clip, optax.chain(*parts, optax.scale_by_learning_rate(schedule)))
    if config.spike_factor:
        rule = skip_spikes(rule, config.spike_factor, config.spike_window)
    return optax.apply_if_finite(rule, max_consecutive_errors=_UNLIMITED)


def _decayed(params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: is_decayed(path), params)


def _scaled(rates: Callable[[Any], Any]) -> optax.GradientTransformation:
    return optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, updates, rates(updates)))


class SpikeState(NamedTuple):
    """State of `skip_spikes`; saved with the moments, so a resumed run skips the same steps."""

    mean: Float[Array, ""]
    """Running mean of the accepted gradient norms."""
    accepted: Int[Array, ""]
    """Steps applied."""
    in_a_row: Int[Array, ""]
    """Spikes since the last applied step."""
    total: Int[Array, ""]
    """Spikes in all."""
    inner_state: Any


def skip_spikes(
    inner: optax.GradientTransformation, factor: float, window: int
) -> optax.GradientTransformation:
    """Leaves parameters and moments as they are where the gradient norm leaps.

    A leap is a norm above `factor` times the exponential mean, over `window` steps, of the norms
    that were accepted; the first `window` steps are all accepted. Nothing leaves the device.
    """

    def init(params: Any) -> SpikeState:
        zero = jnp.zeros((), jnp.int32)
        return SpikeState(jnp.zeros(()), zero, zero, zero, inner.init(params))

    def update(updates: Any, state: SpikeState, params: Any = None) -> tuple[Any, SpikeState]:
        norm = optax.global_norm(updates)
        spike = (state.accepted >= window) & ~(norm <= factor * state.mean)
        accepted = state.accepted + ~spike
        # The plain mean of the first steps, then an exponential one.
        share = jnp.where(spike, 0.0, 1.0 / jnp.clip(accepted, 1, window))
        updates, inner_state = jax.lax.cond(
            spike,
            lambda: (optax.tree.zeros_like(updates), state.inner_state),
            lambda: inner.update(updates, state.inner_state, params),
        )
        return updates, SpikeState(
            mean=jnp.where(spike, state.mean, state.mean + share * (norm - state.mean)),
            accepted=accepted,
            in_a_row=jnp.where(spike, state.in_a_row + 1, 0),
            total=state.total + spike,
            inner_state=inner_state,
        )

    return optax.GradientTransformation(init, update)


def skips(opt_state: Any) -> dict[str, Int[Array, ""]]:
    """Counts of an optimizer state: steps skipped so far and since the last applied one.

    `skipped` counts the non-finite ones, `spikes` (where spikes are looked for) the others.
    """
    found = {"skipped": opt_state.total_notfinite, "skipped_in_a_row": opt_state.notfinite_count}
    if isinstance(opt_state.inner_state, SpikeState):
        found["spikes"] = opt_state.inner_state.total
        found["skipped_in_a_row"] += opt_state.inner_state.in_a_row
    return found


def applied(step: Int[Array, ""], opt_state: Any) -> Int[Array, ""]:
    """How many of the first `step` steps changed the parameters: where the schedule stands."""
    counts = skips(opt_state)
    return step - counts["skipped"] - counts.get("spikes", 0)
