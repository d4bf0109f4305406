"""How much of a labelled set the model has read in pretraining, by k-mers.

A sequence counts as seen when at least half of its sketched k-mers, on either strand, occur in the
training windows of the checkpoint. The sketch is of the labelled set, so the windows are streamed
and memory does not grow with the genome.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from data_pipelines import sketch
from nt_jax import data
from nt_jax.errors import InputError
from nt_jax.evaluation.controls import kept_json
from nt_jax.evaluation.tasks import Task

SEEN = 0.5
MOST_WINDOWS = 200_000
"""Windows read at most, spread evenly over the training split."""
_CHUNK = 1024


@dataclasses.dataclass(frozen=True)
class Overlap:
    """What was found; plain values only."""

    windows: int
    """Training windows read."""
    of: int
    """Training windows of the dataset."""
    seen: int
    """Sequences of the scored split of which at least half is in the windows."""
    sequences: int
    """Scored sequences that are long enough to have a sketched k-mer."""

    def line(self) -> str:
        """One line for people."""
        part = "" if self.windows == self.of else f" ({self.windows:,} of {self.of:,} windows read)"
        return (
            f"{self.seen:,} of {self.sequences:,} scored sequences share at least half of their "
            f"{sketch.K}-mers with the pretraining windows{part}"
        )


def overlap(
    dataset: data.WindowDataset,
    sequences: Sequence[str],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Overlap:
    """Looks the sequences up in the training windows; `progress` hears (read, to read)."""
    own = [np.unique(sketch.kmers(sequence.encode())[0]) for sequence in sequences]
    known = np.unique(np.concatenate([np.zeros(0, np.uint64), *own]))
    found = np.zeros(len(known), bool)
    total = dataset.splits["train"]
    chosen = np.linspace(0, total - 1, min(total, MOST_WINDOWS)).round().astype(int)
    for start in range(0, len(chosen), _CHUNK):
        part = chosen[start : start + _CHUNK]
        # A letter that no k-mer holds stands between two windows.
        bases = b"N".join(dataset.window("train", int(index))["sequence"] for index in part)
        found |= sketch.contained(known, sketch.kmers(bases)[0])
        progress(start + len(part), len(chosen))
    shares = [found[np.searchsorted(known, kmers)].mean() for kmers in own if len(kmers)]
    return Overlap(
        windows=len(chosen),
        of=total,
        seen=sum(bool(share >= SEEN) for share in shares),
        sequences=len(shares),
    )


def known_overlap(out: pathlib.Path, windows: str, task: Task) -> dict[str, Any]:
    """Overlap of the scored sequences of a task with the dataset folder `windows`: plain values.

    The fields of `Overlap`, kept in `out`; {"problem": text} where the windows cannot be read.
    """
    try:
        dataset = data.open_dataset(windows)
    except InputError as error:
        # Checkpoints travel without their windows.
        return {"problem": str(error)}
    scored = task.train if task.test is None else task.test
    return kept_json(
        out,
        {"overlap": dataset.fingerprint, "task": task.fingerprint},
        lambda: dataclasses.asdict(overlap(dataset, scored.sequences)),
    )


def overlap_line(found: Mapping[str, Any]) -> str:
    """What `known_overlap` gave, as one line for people."""
    if "problem" in found:
        return f"overlap with the pretraining windows unknown: {found['problem']}"
    return Overlap(**found).line()
