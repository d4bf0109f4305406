"""Same weights, same numbers? Both sides run on the same inputs; the error of every output."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from nt_jax.evaluation.summary import aligned
from nt_jax.tokenizers import KmerTokenizer

Outputs = Mapping[str, Float[np.ndarray, "..."]]
"""`logits` [B, T, V], `embedding_i` [B, T, D] and `attention_i` [B, H, T, T], layers 1-based."""

TOLERANCES = {"float32": 1e-5, "bfloat16": 3e-2}
"""Largest error over the largest magnitude of an output that counts as equal, by the coarser
precision of the two sides. float32: rounding of another order of summation. bfloat16: its 8 bits,
through all layers."""


@dataclasses.dataclass(frozen=True)
class Line:
    """One output on both sides."""

    output: str
    error: float
    """Largest absolute difference at tokens that are no pads."""
    scale: float
    """Largest magnitude there, of the first side."""
    equal_bits: bool

    @property
    def relative(self) -> float:
        """Error over scale; infinite where a value is not finite."""
        finite = np.isfinite(self.error) and np.isfinite(self.scale)
        return self.error / max(self.scale, 1e-30) if finite else float("inf")


@dataclasses.dataclass(frozen=True)
class Certificate:
    """Result of a comparison."""

    sides: tuple[str, str]
    tolerance: float
    lines: tuple[Line, ...]
    tokens: int
    seed: int
    only: tuple[tuple[str, ...], tuple[str, ...]]
    """Outputs that one side alone has."""

    @property
    def passed(self) -> bool:
        """Whether every common output, logits among them, is within the tolerance."""
        common = {line.output for line in self.lines}
        return "logits" in common and all(line.relative <= self.tolerance for line in self.lines)

    def json(self) -> str:
        """For machines."""
        lines = [{**dataclasses.asdict(line), "relative": line.relative} for line in self.lines]
        values: dict[str, Any] = {**dataclasses.asdict(self), "lines": lines}
        return json.dumps({"passed": self.passed, **values}, indent=2) + "\n"

    def table(self) -> str:
        """For people."""
        rows = [
            [
                line.output,
                "same bits" if line.equal_bits else f"{line.error:.1e}",
                f"{line.scale:.3g}",
                f"{line.relative:.1e}",
                "ok" if line.relative <= self.tolerance else "FAILED",
            ]
            for line in self.lines
        ]
        header = ["output", "largest error", "largest value", "relative", ""]
        verdict = "equal" if self.passed else "NOT equal"
        text = [
            f"{self.sides[0]}  against  {self.sides[1]}",
            f"{self.tokens:,} tokens (seed {self.seed}), tolerance {self.tolerance:g} of the "
            "largest value",
            aligned(header, rows),
        ]
        for side, names in zip(self.sides, self.only, strict=True):
            if names:
                text.append(f"only in {side}: {', '.join(names)}")
        return "\n".join([*text, f"{verdict}\n"])


def example_tokens(
    tokenizer: KmerTokenizer, length: int, batch: int = 4, seed: int = 0
) -> Int[np.ndarray, "B T"]:
    """Rows of several lengths, padded, with single bases, N and about 15 % `<mask>` in them."""
    rng = np.random.default_rng(seed)
    first, last = tokenizer.kmer_ids
    tokens = rng.integers(first, last, (batch, length)).astype(np.int32)
    rare = rng.random(tokens.shape)
    # Left-overs and N come after the k-mers in the vocabulary.
    tokens[rare < 0.1] = rng.integers(last, tokenizer.vocab_size, (rare < 0.1).sum())
    tokens[(rare > 0.1) & (rare < 0.25)] = tokenizer.mask_id
    tokens[:, 0] = tokenizer.cls_id
    for row in range(1, batch):
        tokens[row, max(2, length - row * length // batch) :] = tokenizer.pad_id
    return tokens


def compare(
    tokens: Int[np.ndarray, "B T"],
    pad_id: int,
    sides: Mapping[str, Outputs],
    tolerance: float,
    seed: int = 0,
) -> Certificate:
    """Compares two sides (name -> outputs) at the tokens that are no pads."""
    (left_name, left), (right_name, right) = sides.items()
    real = tokens != pad_id
    lines = []
    for name in [name for name in left if name in right]:
        a, b = (_at(np.asarray(side[name], np.float32), name, real) for side in (left, right))
        same = a.shape == b.shape
        with np.errstate(invalid="ignore"):
            error = float(np.abs(a - b).max()) if same else float("inf")
        lines.append(
            Line(
                name,
                error,
                float(np.abs(a).max()),
                same and bool(np.array_equal(a, b)),
            )
        )
    only = (
        tuple(name for name in left if name not in right),
        tuple(name for name in right if name not in left),
    )
    return Certificate(
        (left_name, right_name), tolerance, tuple(lines), int(real.sum()), seed, only
    )


def _at(array: Float[np.ndarray, "..."], name: str, real: np.ndarray) -> np.ndarray:
    """Values of real tokens; of attention, those of real queries."""
    return array.swapaxes(1, 2)[real] if name.startswith("attention") else array[real]
