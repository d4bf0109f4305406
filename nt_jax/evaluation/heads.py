"""Probe heads, trained on the device: all folds and hyper-parameters of a search at once.

A problem is one fit: which rows it trains on, and its hyper-parameters. P problems share the
features X [N, D], so that a step of all of them is one matrix product. Each standardises the
features by the mean and the standard deviation of its own training rows; that map is folded into
its first weights instead of being applied to a copy of the features.

The linear head solves what scikit-learn's `LogisticRegression(C)` (for values: `Ridge`) solves:

    min  sum over training rows of loss + |W|^2 / (2 C)

by L-BFGS until the largest component of the gradient of the mean loss is below `TOLERANCE`. The
MLP is trained by Adam on all rows at a time.

N rows, D features, P problems, K outputs: 1 for two classes and for values, else one a class.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, UInt32

from nt_jax.evaluation.tasks import Kind

TOLERANCE = 1e-4
MAX_ITERATIONS = 300
MEMORY = 10
"""Pairs that L-BFGS keeps."""
MLP_STEPS = 300
"""Adam steps, each on all training rows; the learning rate falls to zero along a cosine."""
_NUMBERS = 1 << 27
"""Most float32 of one activation of the problems that are trained together."""


class Fitted(NamedTuple):
    """Outputs of P problems on all rows."""

    predictions: Float[np.ndarray, "P N K"]
    """Logits; for values, in the unit of the truth."""
    converged: Bool[np.ndarray, " P"]
    """Whether the tolerance was met; always, for the MLP."""


def _sigmoid_loss(logits: Float[Array, "N K"], targets: Float[Array, "N K"]) -> Array:
    return optax.sigmoid_binary_cross_entropy(logits, targets).sum(axis=-1)


def _softmax_loss(logits: Float[Array, "N K"], targets: Float[Array, "N K"]) -> Array:
    return optax.softmax_cross_entropy(logits, targets)


def _squared_loss(outputs: Float[Array, "N K"], targets: Float[Array, "N K"]) -> Array:
    return 0.5 * jnp.square(outputs - targets).sum(axis=-1)


def targets_of(kind: Kind, truth: np.ndarray, classes: int) -> Float[np.ndarray, "N K"]:
    """What the outputs of a head are fitted to."""
    if kind == "classes" and classes > 2:
        return np.eye(classes, dtype=np.float32)[truth]
    return np.asarray(truth, np.float32).reshape(len(truth), -1)


def predictions_of(kind: Kind, outputs: Float[np.ndarray, "N K"]) -> np.ndarray:
    """Outputs as `metrics` scores them: probabilities [N, C], or values [N]."""
    if kind == "values":
        return outputs[:, 0].astype(np.float64)
    wide = outputs.astype(np.float64)
    if kind == "classes" and wide.shape[1] > 1:
        shifted = np.exp(wide - wide.max(axis=1, keepdims=True))
        return shifted / shifted.sum(axis=1, keepdims=True)
    present = 1.0 / (1.0 + np.exp(-wide))
    return present if kind == "multilabel" else np.hstack([1.0 - present, present])


def loss_of(kind: Kind, outputs: int) -> Callable[..., Array]:
    """(outputs [N, K], targets [N, K]) -> loss of every row [N]."""
    if kind == "values":
        return _squared_loss
    return _softmax_loss if kind == "classes" and outputs > 1 else _sigmoid_loss


class _Scale(NamedTuple):
    """Standardisation of one problem: features, and for values the targets too."""

    mean: Float[Array, " D"]
    factor: Float[Array, " D"]
    target_mean: Float[Array, " K"]
    target_factor: Float[Array, " K"]


def _scale(
    kind: Kind, x: Float[Array, "N D"], targets: Float[Array, "N K"], rows: Float[Array, " N"]
) -> _Scale:
    total = rows.sum()

    def moments(values: Array) -> tuple[Array, Array]:
        mean = rows @ values / total
        variance = jnp.maximum(rows @ jnp.square(values) / total - jnp.square(mean), 0.0)
        # A feature that is constant but for rounding says nothing; it is left as it is.
        return mean, jnp.where(variance > 1e-10, jax.lax.rsqrt(variance + 1e-30), 1.0)

    mean, factor = moments(x)
    if kind != "values":
        zeros = jnp.zeros(targets.shape[1])
        return _Scale(mean, factor, zeros, zeros + 1.0)
    return _Scale(mean, factor, *moments(targets))


def _first(x: Array, weights: Array, bias: Array, scale: _Scale) -> Array:
    """x standardised, times weights, plus bias."""
    scaled = scale.factor[:, None] * weights
    return x @ scaled + (bias - scale.mean @ scaled)


def _linear(
    kind: Kind,
    x: Float[Array, "N D"],
    targets: Float[Array, "N K"],
    rows: Float[Array, " N"],
    hyper: Mapping[str, Float[Array, ""]],
    key: Array,
) -> tuple[Float[Array, "N K"], Bool[Array, ""]]:
    """One linear problem; `hyper["C"]` is the inverse regularisation.

    The outputs are linear in the weights, so that a search along a line needs no product with the
    features: an iteration costs one with them and one with their transpose.
    """
    scale = _scale(kind, x, targets, rows)
    goal = (targets - scale.target_mean) * scale.target_factor
    total = rows.sum()
    loss = loss_of(kind, targets.shape[1])
    slope = jax.grad(lambda outputs: rows @ loss(outputs, goal) / total)

    def gradient(params: dict[str, Array], outputs: Array) -> dict[str, Array]:
        missed = slope(outputs)
        sums = missed.sum(axis=0)
        weights = scale.factor[:, None] * (x.T @ missed - jnp.outer(scale.mean, sums))
        return {"w": weights + params["w"] / (hyper["C"] * total), "b": sums}

    def best_step(params: Any, direction: Any, outputs: Array, change: Array) -> Array:
        def value(step: Array) -> Array:
            weights = params["w"] + step * direction["w"]
            penalty = jnp.square(weights).sum() / (2.0 * hyper["C"])
            return (rows @ loss(outputs + step * change, goal) + penalty) / total

        return _minimum(value)

    solver = optax.scale_by_lbfgs(memory_size=MEMORY)

    def unfinished(carry: Any) -> Array:
        *_, descent, count = carry
        return (count < MAX_ITERATIONS) & (_largest(descent) > TOLERANCE)

    def advance(carry: Any) -> Any:
        params, outputs, state, descent, count = carry
        direction, state = solver.update(descent, state, params)
        direction = jax.tree.map(jnp.negative, direction)
        change = _first(x, direction["w"], direction["b"], scale)
        step = best_step(params, direction, outputs, change)
        params = jax.tree.map(lambda value, way: value + step * way, params, direction)
        outputs = outputs + step * change
        return params, outputs, state, gradient(params, outputs), count + 1

    params = {"w": jnp.zeros((x.shape[1], targets.shape[1])), "b": jnp.zeros(targets.shape[1])}
    outputs = jnp.zeros_like(goal)
    start = (params, outputs, solver.init(params), gradient(params, outputs), 0)
    params, _, _, descent, _ = jax.lax.while_loop(unfinished, advance, start)
    # Not the sum of all changes, which has gathered their rounding.
    outputs = _first(x, params["w"], params["b"], scale)
    return outputs / scale.target_factor + scale.target_mean, _largest(descent) <= TOLERANCE


def _minimum(value: Callable[[Array], Array], trials: int = 2) -> Array:
    """Nearly where a convex function of a step > 0, falling at 0, is least: Newton in a bracket."""
    slope, bend = jax.grad(value), jax.grad(jax.grad(value))

    def narrow(_: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        low, high, step = carry
        falling = slope(step) < 0
        low, high = jnp.where(falling, step, low), jnp.where(falling, high, step)
        newton = step - slope(step) / jnp.maximum(bend(step), 1e-30)
        halfway = jnp.where(jnp.isfinite(high), (low + high) / 2, 2 * low + 1)
        return low, high, jnp.where((newton > low) & (newton < high), newton, halfway)

    start = (jnp.array(0.0), jnp.array(jnp.inf), jnp.array(1.0))
    return jax.lax.fori_loop(0, trials, narrow, start)[2]


def _largest(tree: Any) -> Array:
    return jnp.max(jnp.stack([jnp.abs(leaf).max() for leaf in jax.tree.leaves(tree)]))


def _mlp(
    kind: Kind,
    x: Float[Array, "N D"],
    targets: Float[Array, "N K"],
    rows: Float[Array, " N"],
    hyper: Mapping[str, Float[Array, ""]],
    key: Array,
    hidden: tuple[int, ...],
) -> tuple[Float[Array, "N K"], Bool[Array, ""]]:
    """One MLP with ReLU; `hyper` holds "learning_rate" and "decay", AdamW's."""
    scale = _scale(kind, x, targets, rows)
    goal = (targets - scale.target_mean) * scale.target_factor
    loss = loss_of(kind, targets.shape[1])
    total = rows.sum()
    sizes = [x.shape[1], *hidden, targets.shape[1]]
    he = jax.nn.initializers.he_normal()
    params = [
        (he(part, (rows_in, rows_out)), jnp.zeros(rows_out))
        for part, rows_in, rows_out in zip(
            jax.random.split(key, len(sizes) - 1), sizes[:-1], sizes[1:], strict=True
        )
    ]

    def forward(params: list[tuple[Array, Array]]) -> Array:
        (weights, bias), *rest = params
        values = _first(x, weights, bias, scale)
        for weights, bias in rest:
            values = jax.nn.relu(values) @ weights + bias
        return values

    def objective(params: list[tuple[Array, Array]]) -> Array:
        return rows @ loss(forward(params), goal) / total

    schedule = optax.cosine_decay_schedule(1.0, MLP_STEPS)
    solver = optax.chain(
        optax.scale_by_adam(),
        optax.add_decayed_weights(hyper["decay"], mask=[(True, False)] * len(params)),
        optax.scale_by_schedule(schedule),
        optax.scale(-hyper["learning_rate"]),
    )

    def step(carry: Any, _: None) -> tuple[Any, None]:
        params, state = carry
        updates, state = solver.update(jax.grad(objective)(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, solver.init(params)), None, MLP_STEPS)
    return forward(params) / scale.target_factor + scale.target_mean, jnp.array(True)


Solve = Callable[..., tuple[Array, Array]]
linear: Solve = _linear


@functools.cache
def mlp(hidden: tuple[int, ...]) -> Solve:
    """MLP with the given widths of its hidden layers."""
    return functools.partial(_mlp, hidden=hidden)


def solve(
    how: Solve,
    kind: Kind,
    features: Float[np.ndarray, "N D"],
    targets: Float[np.ndarray, "N K"],
    rows: Bool[np.ndarray, "P N"],
    hyper: Mapping[str, Float[np.ndarray, " P"]],
    seeds: Int[np.ndarray, " P"],
    width: int = 1,
) -> Fitted:
    """Fits P problems, as many at a time as fit into memory; `width` is the widest activation."""
    x = _standardised(features)
    count = len(rows)
    at_once = max(1, min(count, _NUMBERS // (len(x) * max(width, targets.shape[1]))))
    # Equal parts, so that there is one compiled shape.
    at_once = -(-count // -(-count // at_once))
    outputs, converged = [], []
    for start in range(0, count, at_once):
        part = np.minimum(np.arange(start, start + at_once), count - 1)
        found, met = _solve_part(
            how,
            kind,
            x,
            jnp.asarray(targets),
            jnp.asarray(rows[part], jnp.float32),
            {name: jnp.asarray(values[part], jnp.float32) for name, values in hyper.items()},
            jnp.asarray(seeds[part], jnp.uint32),
        )
        kept = min(at_once, count - start)
        outputs.append(np.asarray(found)[:kept])
        converged.append(np.asarray(met)[:kept])
    return Fitted(np.concatenate(outputs), np.concatenate(converged))


def _standardised(features: Float[np.ndarray, "N D"]) -> Float[Array, "N D"]:
    """By all rows: the sums of a problem's own moments then lose no digits to a large offset."""
    x = np.asarray(features, np.float64)
    spread = x.std(axis=0)
    return jnp.asarray((x - x.mean(axis=0)) / np.where(spread > 0, spread, 1.0), jnp.float32)


@functools.partial(jax.jit, static_argnames=("how", "kind"))
def _solve_part(
    how: Solve,
    kind: Kind,
    x: Float[Array, "N D"],
    targets: Float[Array, "N K"],
    rows: Float[Array, "P N"],
    hyper: Mapping[str, Float[Array, " P"]],
    seeds: UInt32[Array, " P"],
) -> tuple[Float[Array, "P N K"], Bool[Array, " P"]]:
    def one(rows: Array, hyper: Mapping[str, Array], seed: Array) -> tuple[Array, Array]:
        return how(kind, x, targets, rows, hyper, jax.random.key(seed))

    return jax.vmap(one)(rows, hyper, seeds)
