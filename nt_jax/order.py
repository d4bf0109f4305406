"""Which bases feed which row of which training step: a pure function of the step and the seed.

(global step, row) -> epoch and position -> window, by a fresh permutation each epoch -> offset,
strand and haplotype, by a hash. Nothing here reads data; `nt-jax data trace` and the loader share
it.

Steps count from 0 here: batch s leads from the parameters after s updates to those after s + 1.
"""

import dataclasses

from grain.experimental import index_shuffle

from data_pipelines.windows import Recipe
from nt_jax.errors import InputError

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


@dataclasses.dataclass(frozen=True)
class WindowRef:
    """What one row of one step reads."""

    index: int
    """Record number in the training split."""
    epoch: int
    """Passes over the training split completed before."""
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
    position = step * order.global_batch + row
    epoch, place = divmod(position, order.windows)
    # The permutation takes 32-bit seeds only.
    key = _hash(order.seed, 0, epoch) >> 32
    index = index_shuffle(place, max_index=order.windows - 1, seed=key, rounds=_ROUNDS)
    draw = _hash(order.seed, 1, position)
    offset = ((draw >> 32) * order.offsets) >> 32
    reverse = (draw & 0xFFFFFFFF) < order.reverse_complement * 2**32
    return WindowRef(int(index), epoch, offset, reverse, _hash(order.seed, 2, position) >> 32)


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
