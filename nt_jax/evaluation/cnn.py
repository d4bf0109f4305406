"""The supervised control: a small convolutional network on one-hot sequence, without pretraining.

One-hot [T, 4] (an N is zero) -> convolution of 11 bases -> maximum over 4 -> convolution of 7 ->
maximum over the sequence -> dense -> outputs, 64 channels throughout. Trained by AdamW on four
fifths of the training sequences; the epoch with the best score on the last fifth is used. B
sequences of a batch, T bases, C channels, K outputs.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from nt_jax.evaluation import heads
from nt_jax.evaluation.metrics import SCORERS
from nt_jax.evaluation.search import Fit, Problem, inner_folds
from nt_jax.evaluation.tasks import Fold

CHANNELS = 64
BATCH = 64
EPOCHS = 20
PATIENCE = 4
"""Epochs without a better score after which training ends."""
LEARNING_RATE, DECAY = 1e-3, 1e-2
_STRIDE = 4
_UNKNOWN, _PAD = 4, 5


def fit_cnn(
    sequences: Sequence[str],
    problem: Problem,
    finished: Callable[[int, float], None] = lambda fold, inner: None,
) -> list[Fit]:
    """One `Fit` for every outer fold; `finished` hears (fold, score on the part set aside)."""
    codes = _codes(sequences)
    fits = []
    for number, fold in enumerate(problem.folds):
        fits.append(_fit(codes, problem, fold))
        finished(number, fits[-1].inner)
    return fits


def _codes(sequences: Sequence[str]) -> Int[np.ndarray, "N T"]:
    """0..3 for A, C, G, T, then N, then what lies behind the end; T is a multiple of the stride."""
    longest = max(map(len, sequences))
    length = -(-longest // _STRIDE) * _STRIDE
    table = np.full(256, _UNKNOWN, np.int8)
    table[np.frombuffer(b"ACGT", np.uint8)] = np.arange(4)
    codes = np.full((len(sequences), length), _PAD, np.int8)
    for row, sequence in enumerate(sequences):
        codes[row, : len(sequence)] = table[np.frombuffer(sequence.encode(), np.uint8)]
    return codes


def _network(codes: Int[Array | np.ndarray, "B T"], outputs: int) -> Float[Array, "B K"]:
    x = jax.nn.one_hot(codes, 4)
    x = jax.nn.relu(hk.Linear(CHANNELS)(_neighbours(x, 11)))
    x = x.reshape(x.shape[0], -1, _STRIDE, CHANNELS).max(axis=2)
    x = jax.nn.relu(hk.Linear(CHANNELS)(_neighbours(x, 7)))
    # Behind the end of a sequence there is nothing to find: zero is the least after a ReLU.
    x = x * (codes[:, ::_STRIDE] != _PAD)[..., None]
    x = jax.nn.relu(hk.Linear(CHANNELS)(x.max(axis=1)))
    return hk.Linear(outputs)(x)


def _neighbours(x: Float[Array, "B T C"], width: int) -> Float[Array, "B T W"]:
    """Each position with those around it, zero beyond the ends.

    A linear map of it is a convolution; a convolution proper takes XLA on a CPU 17 times as long.
    """
    around = jnp.pad(x, ((0, 0), (width // 2, width // 2), (0, 0)))
    return jnp.concatenate([around[:, i : i + x.shape[1]] for i in range(width)], axis=-1)


def _fit(codes: Int[np.ndarray, "N T"], problem: Problem, fold: Fold) -> Fit:
    kind = problem.kind
    aside = inner_folds(problem, fold)[0]
    targets = heads.targets_of(kind, problem.truth, problem.classes)
    mean, spread = 0.0, 1.0
    if kind == "values":
        mean, spread = targets[aside.train].mean(), targets[aside.train].std() or 1.0
    outputs = targets.shape[1]
    scorer = SCORERS[kind]

    def predict(params: Any, rows: Int[np.ndarray, " n"]) -> np.ndarray:
        parts = [
            _outputs(params, codes[_filled(part, 4 * BATCH)], outputs)[: len(part)]
            for part in np.array_split(rows, -(-len(rows) // (4 * BATCH)))
        ]
        return heads.predictions_of(kind, np.concatenate(parts) * spread + mean)

    rng = np.random.default_rng(problem.seed)
    params, state = _start(codes[:1], outputs, problem.seed)
    size = min(BATCH, len(aside.train))
    best, kept, waited = -np.inf, params, 0
    for _ in range(EPOCHS):
        order = rng.permutation(aside.train)
        batches = order[: len(order) // size * size].reshape(-1, size)
        params, state = _epoch(
            params, state, codes, (targets - mean) / spread, batches, kind, outputs
        )
        found = predict(params, aside.test)
        score = scorer.scores(problem.truth[aside.test], found)[scorer.names[0]]
        score = score if np.isfinite(score) else 0.0
        waited += 1
        if score > best:
            best, kept, waited = score, params, 0
        if waited == PATIENCE:
            break
    return Fit(predict(kept, fold.test), float(best), "CNN", True)


def _filled(rows: Int[np.ndarray, " n"], count: int) -> Int[np.ndarray, " m"]:
    """Rows repeated up to one size, so that there is one compiled shape."""
    return np.resize(rows, count)


def _transformed(outputs: int) -> Any:
    return hk.without_apply_rng(hk.transform(functools.partial(_network, outputs=outputs)))


def _solver() -> optax.GradientTransformation:
    return optax.adamw(LEARNING_RATE, weight_decay=DECAY)


def _start(codes: Int[np.ndarray, "1 T"], outputs: int, seed: int) -> tuple[Any, Any]:
    params = _transformed(outputs).init(jax.random.key(seed), codes)
    return params, _solver().init(params)


@functools.partial(jax.jit, static_argnames="outputs")
def _outputs(
    params: Any, codes: Int[Array | np.ndarray, "B T"], outputs: int
) -> Float[Array, "B K"]:
    return _transformed(outputs).apply(params, codes)


@functools.partial(jax.jit, static_argnames=("kind", "outputs"))
def _epoch(
    params: Any,
    state: Any,
    codes: Int[Array | np.ndarray, "N T"],
    targets: Float[Array | np.ndarray, "N K"],
    batches: Int[Array | np.ndarray, "S B"],
    kind: heads.Kind,
    outputs: int,
) -> tuple[Any, Any]:
    loss = heads.loss_of(kind, outputs)
    apply = _transformed(outputs).apply

    def step(carry: Any, rows: Any) -> tuple[Any, None]:
        params, state = carry

        def objective(params: Any) -> Array:
            return loss(apply(params, codes[rows]), targets[rows]).mean()

        updates, state = _solver().update(jax.grad(objective)(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, state), batches)[0]
