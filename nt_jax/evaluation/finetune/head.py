"""The head of a task: standardised embedding -> one linear map.

It starts at its own optimum on the frozen embeddings, the L2-regularised convex fit whose strength
the validation sequences choose, and the encoder moves from there. So fine-tuning begins at the
score of a probe instead of pulling the encoder after random weights (Kumar et al. 2022,
arXiv:2202.10054). The standardisation is that of the frozen embeddings and stays.

N sequences, D embedding width, C outputs.

| parameter of `nt-task/head` | shape | |
|---|---|---|
| w, b | [D, C], [C] | trained |
| mean, scale | [D] | of the embeddings of the training sequences, constant |
| target_mean, target_scale | [C] | of measured values; 0 and 1 for classes; constant |
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.optimize import minimize

from nt_jax.evaluation.finetune.objectives import Objective, Targets

HEAD = "nt-task/head"
TRAINED = ("w", "b")
CONSTANT = ("mean", "scale", "target_mean", "target_scale")
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Grid of the L2 penalty: half its product with the squared norm of w is added to the mean loss."""
_MOST_ITERATIONS = 500

Head = dict[str, Array]


class Examples(NamedTuple):
    """Frozen embeddings with their targets."""

    features: Float[np.ndarray, "N D"]
    targets: Targets


def outputs(head: Head, features: Float[Array, "N D"]) -> Float[Array, "N C"]:
    """Outputs on the scale of the loss: logits, or standardised values."""
    return (features - head["mean"]) / head["scale"] @ head["w"] + head["b"]


def natural_outputs(
    head: Head, features: Float[np.ndarray, "N D"]
) -> Float[np.ndarray, "N C"]:
    """Logits, or values in the units of the labels."""
    found = outputs(head, jnp.asarray(features))
    return np.asarray(found * head["target_scale"] + head["target_mean"])


def on_loss_scale(head: Head, targets: Targets) -> Targets:
    """Targets as the loss compares them with `outputs`."""
    if targets.ndim == 1:
        return targets
    return (targets - np.asarray(head["target_mean"])) / np.asarray(head["target_scale"])


def mean_loss(head: Head, examples: Examples, objective: Objective) -> float:
    """Mean loss over the sequences."""
    targets = on_loss_scale(head, examples.targets)
    found = objective.loss(outputs(head, jnp.asarray(examples.features)), jnp.asarray(targets))
    return float(np.mean(np.asarray(found), dtype=np.float64))


def fit_head(
    train: Examples, validation: Examples, width: int, objective: Objective
) -> tuple[Head, float]:
    """The fitted head with `width` outputs, and the strength that was chosen."""
    constants = {
        **_standardisation(train.features, "mean", "scale"),
        **(
            _standardisation(train.targets, "target_mean", "target_scale")
            if objective.standardised
            else {"target_mean": np.zeros(width), "target_scale": np.ones(width)}
        ),
    }
    head = {name: jnp.asarray(value, jnp.float32) for name, value in constants.items()}
    shape = (train.features.shape[1], width)
    standard = (jnp.asarray(train.features) - head["mean"]) / head["scale"]
    targets = jnp.asarray(on_loss_scale(head, train.targets))

    @jax.jit
    def penalised(flat: Array, strength: Array) -> Array:
        w, b = flat[:-width].reshape(shape), flat[-width:]
        return jnp.mean(objective.loss(standard @ w + b, targets)) + strength / 2 * jnp.sum(w * w)

    value_and_gradient = jax.jit(jax.value_and_grad(penalised))

    def fit(strength: float) -> Head:
        def function(flat: np.ndarray) -> tuple[float, np.ndarray]:
            value, gradient = value_and_gradient(jnp.asarray(flat, jnp.float32), strength)
            return float(value), np.asarray(gradient, np.float64)

        start = np.zeros(shape[0] * width + width)
        found = minimize(
            function, start, jac=True, method="L-BFGS-B", options={"maxiter": _MOST_ITERATIONS}
        ).x
        w, b = found[:-width].reshape(shape), found[-width:]
        return head | {"w": jnp.asarray(w, jnp.float32), "b": jnp.asarray(b, jnp.float32)}

    fitted = {strength: fit(strength) for strength in STRENGTHS}
    best = min(fitted, key=lambda strength: mean_loss(fitted[strength], validation, objective))
    return fitted[best], best


def _standardisation(values: np.ndarray, mean: str, scale: str) -> dict[str, np.ndarray]:
    spread = values.std(axis=0, dtype=np.float64)
    return {mean: values.mean(axis=0, dtype=np.float64), scale: np.where(spread > 0, spread, 1.0)}
