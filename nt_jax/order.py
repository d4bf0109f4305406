"""Which bases feed which row of which training step: a pure function of the step and the seed.

(global step, row) -> epoch and position -> window, by a fresh permutation each epoch -> offset,
strand and haplotype, by a hash. Nothing here reads data; `nt-jax data trace` and the loader share
it.

Steps count from 0 here: batch s leads from the parameters after s updates to those after s + 1.
"""

import dataclasses
import functools
from typing import NamedTuple

import numpy as np
from grain.experimental import index_shuffle
from jaxtyping import Int

from data_pipelines.windows import Recipe
from nt_jax.errors import InputError

_FEW = 2048
"""Sources with fewer windows have their permutation listed."""
_ROUNDS = 4
"""Rounds of the permutation's cipher; Grain's own shuffle uses as many."""


@dataclasses.dataclass(frozen=True)
class TrainOrder:
    """All that decides which bases feed which row of which step."""

    windows: int
    """Windows of the training split."""
    global_batch: int
    """Rows of a step, over all hosts."""
    seed: int
    """Any integer; its low 64 bits count."""
    offsets: int
    """Offsets 0..offsets-1, in bases, are equally likely."""
    reverse_complement: float
    """Probability of the other strand."""
    phases: tuple["Phase", ...] = ()
    """Mixtures one after the other; in front of the first all windows are read equally often."""
    left_out: tuple[tuple[int, int], ...] = ()
    """(step, batches): from this step on so many batches more are left out (rollbacks)."""


@dataclasses.dataclass(frozen=True)
class Phase:
    """A mixture of C sources from some position on. `mixture` makes the numbers."""

    origin: int
    """Position of its first row: step * global batch."""
    ends: tuple[int, ...]
    """Cumulated rows of each source in a block."""
    first: tuple[int, ...]
    """Record number of each source's first window."""
    windows: tuple[int, ...]
    """Windows of each source."""
    read: tuple[int, ...]
    """Rows that each source had in the phases before."""


@dataclasses.dataclass(frozen=True)
class WindowRef:
    """What one row of one step reads."""

    index: int
    """Record number in the training split."""
    epoch: int
    """Passes over the training split (in a mixture, over its source) completed before."""
    offset: int
    """First base, counted in the window on its forward strand."""
    reverse: bool
    """The bases are reverse-complemented after they were cut out."""
    draw: int = 0
    """Below 2**32: which haplotype, where the window has several."""


def count_offsets(recipe: Recipe, k: int, sequence_length: int) -> int:
    """How many offsets a training sequence of `sequence_length` tokens has in a window.

    With the recipe's own context these are its jitter, as far as the window allows; a shorter
    context is cut anywhere in the window. Raises InputError when the window is too short.
    """
    if sequence_length < 2:
        raise InputError(f"data.sequence_length={sequence_length} has no room beside <cls>")
    slack = recipe.length - (sequence_length - 1) * k
    if slack < 0:
        raise InputError(
            f"data.sequence_length={sequence_length} tokens need {(sequence_length - 1) * k} bases,"
            f" the windows ({recipe.name}) have {recipe.length}; choose at most "
            f"{recipe.length // k + 1} tokens or build longer windows"
        )
    if sequence_length < recipe.tokens:
        return slack + 1
    return max(1, min(recipe.jitter, slack + 1))


def locate(order: TrainOrder, step: int, row: int) -> WindowRef:
    """What row `row` (of the global batch) of step `step` (from 0) reads."""
    position = (step + left_out(order.left_out, step)) * order.global_batch + row
    if order.phases and position >= order.phases[0].origin:
        index, epoch = _mixed(order, position)
    else:
        epoch, place = divmod(position, order.windows)
        index = _shuffled(place, order.windows, _hash(order.seed, 0, epoch))
    draw = _hash(order.seed, 1, position)
    offset = ((draw >> 32) * order.offsets) >> 32
    reverse = (draw & 0xFFFFFFFF) < order.reverse_complement * 2**32
    return WindowRef(index, epoch, offset, reverse, _hash(order.seed, 2, position) >> 32)


def left_out(events: tuple[tuple[int, int], ...], step: int) -> int:
    """Batches left out before batch `step` (from 0)."""
    return sum(batches for first, batches in events if first <= step)


class _Block(NamedTuple):
    """The rows of one block of a phase."""

    source: Int[np.ndarray, " n"]
    """Source of each row."""
    rank: Int[np.ndarray, " n"]
    """How many rows of the block its source had before."""


@functools.lru_cache(maxsize=8)
def _block(seed: int, phase: Phase, number: int) -> _Block:
    """In every block each source has its exact share, in an order that is drawn anew."""
    drawn = _listed(phase.ends[-1], _hash(seed, 3, phase.origin, number))
    source = np.searchsorted(phase.ends, drawn, side="right")
    rank = np.empty_like(source)
    rank[np.argsort(source, kind="stable")] = np.arange(len(source))
    return _Block(source, rank - np.concatenate([[0], phase.ends])[source])


def rows_of(seed: int, phase: Phase, rows: int) -> Int[np.ndarray, " C"]:
    """How many of the first rows of a phase each source has."""
    blocks, rest = divmod(rows, phase.ends[-1])
    begun = _block(seed, phase, blocks).source[:rest]
    counts = np.diff(phase.ends, prepend=0)
    return blocks * counts + np.bincount(begun, minlength=len(counts))


def _mixed(order: TrainOrder, position: int) -> tuple[int, int]:
    """(record number, epoch of its source)."""
    phase = max(
        (phase for phase in order.phases if phase.origin <= position), key=lambda own: own.origin
    )
    number, place = divmod(position - phase.origin, phase.ends[-1])
    block = _block(order.seed, phase, number)
    source = int(block.source[place])
    share = phase.ends[source] - (phase.ends[source - 1] if source else 0)
    before = phase.read[source] + number * share + int(block.rank[place])
    windows = phase.windows[source]
    epoch, place = divmod(before, windows)
    key = _hash(order.seed, 4, source, epoch)
    if windows < _FEW:
        return phase.first[source] + int(_listed(windows, key)[place]), epoch
    return phase.first[source] + _shuffled(place, windows, key), epoch


def _shuffled(place: int, size: int, key: int) -> int:
    """Where a place of 0..size-1 comes to lie in the permutation of a 64-bit key."""
    # The permutation takes 32-bit seeds only.
    return int(index_shuffle(place, max_index=size - 1, seed=key >> 32, rounds=_ROUNDS))


@functools.lru_cache(maxsize=4096)
def _listed(size: int, key: int) -> Int[np.ndarray, " n"]:
    """A whole permutation: the cipher needs milliseconds for each place of a small one."""
    words = (np.arange(size, dtype=np.uint64) + np.uint64(key)) * np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.argsort(words ^ (words >> np.uint64(31)), kind="stable")


def _hash(*words: int) -> int:
    """64 bits that depend on every word: the SplitMix64 finaliser (Steele et al., 2014), chained.

    Cheap, and unlike NumPy's generators the same in every version.
    """
    state = 0
    for word in words:
        state = (state + word + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state
