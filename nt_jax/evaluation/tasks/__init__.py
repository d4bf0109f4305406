"""Labelled sequences: read, cleaned, split, and audited for leakage.

| given | training | test |
|---|---|---|
| one table, `.fna` or set of classes | all | k-fold |
| train, dev and test (GUE) | train + dev | test |
| train and test (NT, Genomic Benchmarks) | train | test |
| dev and test | dev | test |
| train and dev | train | dev |
| one split | all | k-fold |

Splits are files or folders of those names or a column (`layouts`). What is tuned is tuned by
cross-validation within the training sequences, so a dev split adds to them. Columns and kinds of
labels are described in `tables` and `labels`, intervals with a reference in `intervals`, tasks
known by name in `registry`.
"""

from nt_jax.evaluation.tasks.folds import Fold, make_folds
from nt_jax.evaluation.tasks.read import read_task
from nt_jax.evaluation.tasks.task import Audit, Kind, Split, Task, subsample

__all__ = ["Audit", "Fold", "Kind", "Split", "Task", "make_folds", "read_task", "subsample"]
