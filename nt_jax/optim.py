"""The optax chain: schedule, clipping, Adam or AdamW, skipping of non-finite steps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

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


def optimizer(config: OptimConfig, steps: int) -> optax.GradientTransformation:
    """Builds the chain.

    A step with a non-finite gradient leaves parameters and moments as they are and is counted in
    the state. `optax.apply_if_finite` would apply the bad update once its own limit is reached,
    so it gets none: the training loop enforces `nonfinite_limit`.
    """
    schedule = learning_rate(config, steps)
    clip = optax.clip_by_global_norm(config.clip) if config.clip else optax.identity()
    match config.name:
        case "adam":
            update = optax.adam(schedule, config.b1, config.b2, config.eps)
        case "adamw":
            update = optax.adamw(
                schedule,
                config.b1,
                config.b2,
                config.eps,
                weight_decay=config.weight_decay,
                mask=lambda params: jax.tree_util.tree_map_with_path(
                    lambda path, _: is_decayed(path), params
                ),
            )
    return optax.apply_if_finite(optax.chain(clip, update), max_consecutive_errors=_UNLIMITED)
