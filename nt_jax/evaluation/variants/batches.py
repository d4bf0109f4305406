"""Many small questions to a model, in few batches of few shapes.

The same question is asked once: alleles of one site share their masked windows (for SNVs and MNVs
REF and ALT do, and so do neighbouring records of saturation mutagenesis).
"""

import dataclasses
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jaxtyping import Float, Int, UInt8

from nt_jax.evaluation.variants.haplotypes import FREE

TARGETS_A_ROW = 4
"""Targets that a batch holds for each of its rows."""


@dataclasses.dataclass(frozen=True, eq=False)
class Batch:
    """One call of the model; rows and targets beyond those asked for fill the shape."""

    tokens: Int[np.ndarray, "B T"]
    positions: Int[np.ndarray, "B M"]
    rows: Int[np.ndarray, " Q"]
    targets: UInt8[np.ndarray, "Q M k"]
    answers: list[int]
    """Number of the question of each real target."""


class Questions:
    """Masked windows with targets, gathered and then answered together."""

    def __init__(self, length: int, k: int, mask_id: int, pad_id: int):
        self._length, self._k = length, k
        self._mask_id, self._pad_id = mask_id, pad_id
        self._count = 0
        # Slots for masked tokens -> masked window -> target -> number of the question.
        self._asked: dict[int, dict[bytes, dict[bytes, int]]] = {}

    def ask(
        self, window: Int[np.ndarray, " T"], first: int, target: UInt8[np.ndarray, "M k"]
    ) -> int:
        """Masks the `target`'s tokens from `first` on; returns the number of the question."""
        count = len(target)
        row = np.full(self._length + 2, self._pad_id, np.int32)
        row[: len(window)] = window
        row[first : first + count] = self._mask_id
        row[-2:] = first, count
        slots = 1 << (count - 1).bit_length()
        targets = self._asked.setdefault(slots, {}).setdefault(row.tobytes(), {})
        key = target.tobytes()
        if key not in targets:
            targets[key] = self._count
            self._count += 1
        return targets[key]

    def batches(self, batch_tokens: int) -> Iterator[Batch]:
        """All questions; a batch has at most `batch_tokens` tokens, and logits of as many."""
        for slots, asked in self._asked.items():
            most = max(1, batch_tokens // (self._length * slots))
            rows: list[bytes] = []
            targets: list[tuple[int, bytes]] = []
            answers: list[int] = []
            for row, of_row in asked.items():
                for key, number in of_row.items():
                    full = len(targets) == most * TARGETS_A_ROW
                    new = not rows or rows[-1] is not row
                    if full or (new and len(rows) == most):
                        yield self._batch(slots, most, rows, targets, answers)
                        rows, targets, answers = [], [], []
                        new = True
                    if new:
                        rows.append(row)
                    targets.append((len(rows) - 1, key))
                    answers.append(number)
            if rows:
                yield self._batch(slots, most, rows, targets, answers)

    def answer(
        self, batch_tokens: int, ask: Callable[[Batch], jax.Array]
    ) -> Float[np.ndarray, " questions"]:
        """Answers by number; `ask` gives those of a batch's targets, and need not wait for them."""
        pending = [(batch.answers, ask(batch)) for batch in self.batches(batch_tokens)]
        found = np.full(self._count, np.nan)
        for numbers, answers in pending:
            found[numbers] = np.asarray(answers, np.float64)[: len(numbers)]
        return found

    def _batch(
        self,
        slots: int,
        most: int,
        rows: list[bytes],
        targets: list[tuple[int, bytes]],
        answers: list[int],
    ) -> Batch:
        needed = max(len(rows), -(-len(targets) // TARGETS_A_ROW))
        filled = rounded(needed, most)
        stored = np.stack([np.frombuffer(row, np.int32) for row in rows])
        # Rows that only fill the shape repeat the last one: a row of pads would make NaN.
        stored = np.concatenate([stored, np.repeat(stored[-1:], filled - len(rows), axis=0)])
        first, count = stored[:, -2:].T
        slot = np.arange(slots)
        positions = np.where(slot < count[:, None], first[:, None] + slot, 0)
        asked = np.full((filled * TARGETS_A_ROW, slots, self._k), FREE, np.uint8)
        row_of = np.zeros(len(asked), np.int32)
        for place, (row, key) in enumerate(targets):
            target = np.frombuffer(key, np.uint8).reshape(-1, self._k)
            asked[place, : len(target)] = target
            row_of[place] = row
        return Batch(stored[:, :-2], positions.astype(np.int32), row_of, asked, answers)


def rounded(rows: int, most: int) -> int:
    """Rows that `rows` are filled up to: a power of four or `most`, so that few shapes occur."""
    return min(most, 4 ** max(0, -(-(rows - 1).bit_length() // 2)))
