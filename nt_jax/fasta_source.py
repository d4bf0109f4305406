"""Windows that are read by number: what evaluation needs, and its source straight from a FASTA."""

import dataclasses
import functools
import os
import pathlib
from typing import Any, Protocol, runtime_checkable

import numpy as np

from data_pipelines import windows
from data_pipelines.fasta import Contig, read_fasta
from data_pipelines.windows import Recipe
from nt_jax.errors import InputError

FASTA_SPLIT = "fasta"
"""Name of the only split of `FastaWindows`."""


@runtime_checkable
class Windows(Protocol):
    """What evaluation needs: windows that can be read by number."""

    @property
    def recipe(self) -> Recipe:
        """How the windows were cut."""

    @property
    def splits(self) -> dict[str, int]:
        """Windows of each split."""

    def window(self, split: str, i: int) -> dict[str, Any]:
        """Record i: `sequence` (bytes), `source`, `contig`, `start` (0-based, in bases)."""


@dataclasses.dataclass(frozen=True, eq=False)
class FastaWindows:
    """Windows cut from a FASTA file at once, for evaluation; the contigs stay in memory."""

    path: pathlib.Path
    """The file."""
    recipe: Recipe
    """How it is cut."""
    contigs: tuple[Contig, ...]
    """Contigs at least one window long."""
    starts: tuple[np.ndarray, ...]
    """int64[windows] of each contig, 0-based in its bases."""
    short_contigs: int
    """Contigs shorter than a window, left out."""
    n_windows: int
    """Windows that are more than half N, left out."""

    @property
    def splits(self) -> dict[str, int]:
        """The windows, as the one split `fasta`."""
        return {FASTA_SPLIT: sum(map(len, self.starts))}

    @functools.cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum([len(own) for own in self.starts])

    def window(self, split: str, i: int) -> dict[str, Any]:
        """Record i: `sequence` (bytes), `source`, `contig`, `start` (0-based, in bases)."""
        check_split(self, split)
        if not 0 <= i < self._ends[-1]:
            raise IndexError(f"window {i} of {self._ends[-1]}")
        number = int(np.searchsorted(self._ends, i, side="right"))
        contig = self.contigs[number]
        start = int(self.starts[number][i - self._ends[number]])
        return {
            "sequence": contig.bases[start : start + self.recipe.length].tobytes(),
            "source": self.path.name,
            "contig": contig.name,
            "start": contig.start + start,
        }


def fasta_windows(
    path: str | os.PathLike[str], recipe_or_length: Recipe | str | int
) -> FastaWindows:
    """Windows of a FASTA file, by a recipe or side by side with a length in bases.

    Raises InputError for a bad file or recipe, and when no window is left.
    """
    if isinstance(recipe_or_length, int):
        text = f"window={recipe_or_length},stride={recipe_or_length},jitter=0"
        recipe = windows.recipe(text)
    elif isinstance(recipe_or_length, str):
        recipe = windows.recipe(recipe_or_length)
    else:
        recipe = recipe_or_length
    contigs, starts, short, mostly_n, longest = [], [], 0, 0, 0
    for contig in read_fasta(path):
        own, dropped = windows.full_windows(contig.bases, recipe)
        short += len(contig.bases) < recipe.length
        longest = max(longest, len(contig.bases))
        mostly_n += dropped
        if len(own):
            contigs.append(contig)
            starts.append(own)
    if not contigs:
        raise InputError(
            f"{path}: no window of {recipe.length} bases is left (longest contig {longest} bases, "
            f"{mostly_n} windows more than half N); choose shorter windows"
        )
    return FastaWindows(pathlib.Path(path), recipe, tuple(contigs), tuple(starts), short, mostly_n)


def check_split(dataset: Windows, split: str) -> None:
    """Raises InputError when the split has no windows; the message lists those that have."""
    if not dataset.splits.get(split):
        raise InputError(
            f"there are no {split} windows; splits here: "
            + ", ".join(f"{name} ({count})" for name, count in dataset.splits.items())
        )
