"""Which sequences a fit trains on and which it is scored on.

N is the number of training sequences, M of held-out ones.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

from nt_jax.errors import InputError
from nt_jax.evaluation.tasks.task import Kind, Labels, Task


@dataclasses.dataclass(frozen=True)
class Fold:
    """Rows that one fit trains on, and those it is scored on."""

    train: Int[np.ndarray, " N"]
    test: Int[np.ndarray, " M"]


def make_folds(task: Task, folds: int, seed: int) -> list[Fold]:
    """The given split as one fold, or `folds` of the training sequences.

    Rows are numbered through training, then test. A group is never torn apart. Classes keep their
    proportions, exactly without groups and as far as they allow it with them; sets of several
    labels and measurements are drawn at random (scikit-learn has no stratification for them).

    Raises InputError when a class is too small, or when there are too few sequences or groups.
    """
    if folds < 2:
        raise InputError(f"{folds} folds: cross-validation needs at least 2")
    rows = len(task.train)
    needed = 2 if task.test is not None else folds
    fewer = "" if task.test is not None else "; ask for fewer folds"
    if task.kind == "classes":
        counts = np.bincount(task.train.labels, minlength=len(task.classes))
        if counts.min() < needed:
            scarce = task.classes[int(counts.argmin())]
            raise InputError(
                f"{task.name}: class {scarce!r} has {counts.min()} training sequences, at least "
                f"{needed} are needed{fewer}"
            )
    elif rows < needed:
        raise InputError(
            f"{task.name}: {rows} training sequences, at least {needed} are needed{fewer}"
        )
    if task.test is not None:
        return [Fold(np.arange(rows), np.arange(rows, rows + len(task.test)))]
    if task.groups is not None and len(set(task.groups)) < folds:
        raise InputError(
            f"{task.name}: {len(set(task.groups))} groups cannot be spread over {folds} folds"
            f"{fewer}"
        )
    parts = splits(task.kind, task.train.labels, task.groups, folds, seed)
    for part in parts:
        _check(task, part, folds)
    return parts


def splits(
    kind: Kind, labels: Labels, groups: Sequence[str] | None, folds: int, seed: int
) -> list[Fold]:
    """`folds` splits of the rows that `labels` and `groups` describe; see `make_folds`.

    Raises ValueError where scikit-learn cannot: fewer rows, groups or members of a class than
    folds.
    """
    classes = kind == "classes"
    splitter = {
        (True, False): StratifiedKFold,
        (True, True): StratifiedGroupKFold,
        (False, False): KFold,
        (False, True): GroupKFold,
    }[classes, groups is not None](folds, shuffle=True, random_state=seed)
    numbers = None if groups is None else np.unique(groups, return_inverse=True)[1]
    given = labels if classes else None
    return [Fold(*pair) for pair in splitter.split(np.zeros(len(labels)), given, numbers)]


def _check(task: Task, fold: Fold, folds: int) -> None:
    """Groups may leave a fold without sequences, or its training without a class."""
    if not len(fold.test):
        raise InputError(
            f"{task.name}: the groups leave one of {folds} folds empty; ask for fewer folds"
        )
    if task.kind == "classes":
        held = np.bincount(task.train.labels[fold.train], minlength=len(task.classes))
        if not held.min():
            raise InputError(
                f"{task.name}: class {task.classes[int(held.argmin())]!r} stands in so few groups "
                f"that one of {folds} folds trains without it; ask for fewer folds or drop groups"
            )
