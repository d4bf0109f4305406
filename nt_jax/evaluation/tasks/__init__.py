"""Labelled sequences: read, cleaned, split, and audited for leakage."""

from nt_jax.evaluation.tasks.folds import Fold, make_folds
from nt_jax.evaluation.tasks.read import read_task
from nt_jax.evaluation.tasks.task import Audit, Kind, Split, Task, subsample

__all__ = ["Audit", "Fold", "Kind", "Split", "Task", "make_folds", "read_task", "subsample"]
