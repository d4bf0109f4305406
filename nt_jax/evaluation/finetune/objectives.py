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

from nt_jax.evaluation.tasks import Kind, Labels, Task

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
    loss: Callable[[Float[Array, "N C"], Array], Float[Array, " N"]]
    """(outputs, targets) -> loss of each sequence; nats, or squared standard deviations."""
    predict: Callable[[Float[np.ndarray, "N C"]], np.ndarray]
    """Outputs, no longer standardised -> probabilities [N, C], or values [N]."""


def _columns(labels: Labels) -> Targets:
    return np.asarray(labels, np.float32).reshape(len(labels), -1)


OBJECTIVES: Mapping[Kind, Objective] = {
    "classes": Objective(
        outputs=lambda task: len(task.classes),
        targets=lambda labels: np.asarray(labels, np.int32),
        standardised=False,
        loss=optax.softmax_cross_entropy_with_integer_labels,
        predict=lambda outputs: np.asarray(jax.nn.softmax(outputs, axis=-1)),
    ),
    "multilabel": Objective(
        outputs=lambda task: len(task.classes),
        targets=_columns,
        standardised=False,
        loss=lambda outputs, targets: jnp.mean(
            optax.sigmoid_binary_cross_entropy(outputs, targets), axis=-1
        ),
        predict=lambda outputs: np.asarray(jax.nn.sigmoid(outputs)),
    ),
    "values": Objective(
        outputs=lambda task: 1,
        targets=_columns,
        standardised=True,
        loss=lambda outputs, targets: jnp.mean(jnp.square(outputs - targets), axis=-1),
        predict=lambda outputs: np.asarray(outputs)[:, 0],
    ),
}
