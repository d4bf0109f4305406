"""What a kind of task means for fine-tuning: outputs, loss and prediction, one row a kind.

N sequences, C outputs (classes, labels, or 1).
"""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float
from scipy.special import expit, softmax

from nt_jax.evaluation.tasks import Kind, Task
from nt_jax.evaluation.tasks.task import Labels

Targets = np.ndarray
"""Labels as the loss takes them: int32 [N], or float32 [N, C]."""


@dataclasses.dataclass(frozen=True)
class Objective:
    """The functions of one kind of task."""

    outputs: Callable[[Task], int]
    """Number of outputs C."""
    targets: Callable[[Labels], Targets]
    """Labels -> what the head is fitted to, before standardisation."""
    standardised: bool
    """Whether targets are brought to mean 0 and variance 1 of the training sequences."""
    loss: Callable[[Float[Array, "N C"], Array], Float[Array, ""]]
    """(outputs, targets) -> mean over the sequences, in nats or squared standard deviations."""
    predict: Callable[[Float[np.ndarray, "N C"]], np.ndarray]
    """Outputs, no longer standardised -> probabilities [N, C], or values [N]."""


def _columns(labels: Labels) -> Targets:
    return np.asarray(labels, np.float32).reshape(len(labels), -1)


def _cross_entropy(outputs: Array, targets: Array) -> Array:
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(outputs, targets))


def _binary_cross_entropy(outputs: Array, targets: Array) -> Array:
    return jnp.mean(optax.sigmoid_binary_cross_entropy(outputs, targets))


def _squared_error(outputs: Array, targets: Array) -> Array:
    return jnp.mean(jnp.square(outputs - targets))


OBJECTIVES: Mapping[Kind, Objective] = {
    "classes": Objective(
        outputs=lambda task: len(task.classes),
        targets=lambda labels: np.asarray(labels, np.int32),
        standardised=False,
        loss=jax.jit(_cross_entropy),
        predict=lambda outputs: softmax(outputs, axis=-1),
    ),
    "multilabel": Objective(
        outputs=lambda task: len(task.classes),
        targets=_columns,
        standardised=False,
        loss=jax.jit(_binary_cross_entropy),
        predict=expit,
    ),
    "values": Objective(
        outputs=lambda task: 1,
        targets=_columns,
        standardised=True,
        loss=jax.jit(_squared_error),
        predict=lambda outputs: outputs[:, 0],
    ),
}
