"""The head of a task: standardised embedding -> one linear map.

It starts at its own optimum on the frozen embeddings, the L2-regularised convex fit whose strength
the validation sequences choose, and the encoder moves from there. So fine-tuning begins at the
score of a probe instead of pulling the encoder after random weights (Kumar et al. 2022,
arXiv:2202.10054). The standardisation is that of the frozen embeddings and stays, as does the
penalty: at the start the loss falls by moving the encoder and in no other way.

N sequences, D embedding width, C outputs.

| parameter of `nt-task/head` | shape | |
|---|---|---|
| w, b | [D, C], [C] | trained |
| mean, scale | [D] | of the embeddings of the training sequences, constant |
| target_mean, target_scale | [C] | of measured values; 0 and 1 for classes; constant |
| strength | [] | of the L2 penalty, constant |
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.optimize import minimize

from nt_jax.evaluation.finetune.objectives import Objective, Targets

HEAD = "nt-task/head"
TRAINED = ("w", "b")
CONSTANT = ("mean", "scale", "target_mean", "target_scale", "strength")
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Grid of the L2 penalty: half its product with the squared norm of w is added to the mean loss."""
_MOST_ITERATIONS = 500

Head = Mapping[str, Any]
"""The arrays of the table above, by name; on the host or, within a step, traced."""


class Examples(NamedTuple):
    """Frozen embeddings with their targets."""

    features: Float[np.ndarray, "N D"]
    targets: Targets


def outputs(head: Head, features: Any) -> Any:
    """Outputs [N, C] of embeddings [N, D] on the scale of the loss: logits, standardised values."""
    return (features - head["mean"]) / head["scale"] @ head["w"] + head["b"]


def natural_outputs(head: Head, features: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N C"]:
    """Logits, or values in the units of the labels."""
    return outputs(head, features) * head["target_scale"] + head["target_mean"]


def on_loss_scale(head: Head, targets: Targets) -> Targets:
    """Targets as the loss compares them with `outputs`."""
    if targets.ndim == 1:
        return targets
    return (targets - head["target_mean"]) / head["target_scale"]


def penalty(strength: Any, w: Any) -> Any:
    """What is added to the mean loss of the training sequences."""
    return strength / 2 * jnp.sum(jnp.square(w))


def mean_loss(head: Head, examples: Examples, objective: Objective) -> float:
    """Loss of the sequences."""
    targets = jnp.asarray(on_loss_scale(head, examples.targets))
    return float(objective.loss(outputs(head, examples.features), targets))


def fit_head(train: Examples, validation: Examples, width: int, objective: Objective) -> Head:
    """The head with `width` outputs, fitted with the strength that is best on validation."""
    if objective.standardised:
        target_mean, target_scale = _standardisation(train.targets)
    else:
        target_mean, target_scale = np.zeros(width, np.float32), np.ones(width, np.float32)
    mean, scale = _standardisation(train.features)
    constants = {
        "mean": mean,
        "scale": scale,
        "target_mean": target_mean,
        "target_scale": target_scale,
    }
    shape = (train.features.shape[1], width)
    standard = ((train.features - mean) / scale).astype(np.float64)
    targets = on_loss_scale(constants, train.targets)

    @jax.jit
    @jax.value_and_grad
    def penalised(flat: Array, strength: Array) -> Array:
        w, b = flat[:-width].reshape(shape), flat[-width:]
        return objective.loss(standard @ w + b, jnp.asarray(targets)) + penalty(strength, w)

    def fit(strength: float) -> Head:
        def function(flat: np.ndarray) -> tuple[float, np.ndarray]:
            value, gradient = penalised(flat, strength)
            return float(value), np.asarray(gradient)

        found = minimize(
            function,
            np.zeros(shape[0] * width + width),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": _MOST_ITERATIONS, "ftol": 1e-13, "gtol": 1e-9},
        ).x.astype(np.float32)
        w, b = found[:-width].reshape(shape), found[-width:]
        return {**constants, "w": w, "b": b, "strength": np.float32(strength)}

    # In float32 the search stops anywhere on a wide flat floor, and where depends on rounding.
    with jax.enable_x64(True):
        fitted = [fit(strength) for strength in STRENGTHS]
    return min(fitted, key=lambda head: mean_loss(head, validation, objective))


def _standardisation(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column; 1 for one that does not vary."""
    spread = values.std(axis=0, dtype=np.float64)
    mean = values.mean(axis=0, dtype=np.float64)
    return mean.astype(np.float32), np.where(spread > 0, spread, 1.0).astype(np.float32)
