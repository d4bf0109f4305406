"""Masked-token loss of a model on held-out windows, beside the unigram k-mer baseline."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from nt_jax.step import EvalRows
from nt_jax.tokenizers import KmerTokenizer

IMPOSSIBLE = -1e9
"""Log-probability of tokens that are never targets (special tokens)."""


def unigram_log_probabilities(
    counts: Int[np.ndarray, " V"], tokenizer: KmerTokenizer
) -> Float[np.ndarray, " V"]:
    """Log-probabilities in nats from token counts, add-one over k-mers, letters and `N`."""
    first, _ = tokenizer.kmer_ids
    smoothed = counts.astype(np.float64)
    smoothed[:first] = 0.0
    smoothed[first:] += 1.0
    with np.errstate(divide="ignore"):
        log = np.log(smoothed / smoothed.sum())
    return np.where(np.isfinite(log), log, IMPOSSIBLE).astype(np.float32)


def validate(
    eval_step: Callable[..., EvalRows],
    place: Callable[[np.ndarray], jax.Array],
    params: Any,
    batches: Iterable[tuple[Int[np.ndarray, "b T"], Bool[np.ndarray, " B"], Int[np.ndarray, " B"]]],
    unigram: Float[np.ndarray, " V"],
) -> dict[str, int | float]:
    """Runs the eval step over all batches of (tokens, valid, window number) and summarises.

    `place` makes the array of all rows, [B,T], from the tokens that this process has read.
    """
    kept: list[EvalRows] = []
    for tokens, valid, index in batches:
        rows = eval_step(params, place(tokens), valid, index.astype(np.int32), unigram)
        kept.append(jax.tree.map(lambda x, keep=valid: np.asarray(x, np.float64)[keep], rows))
    return summarise(jax.tree.map(lambda *parts: np.concatenate(parts), *kept))


def summarise(rows: EvalRows) -> dict[str, int | float]:
    """Losses in nats a token, over all selected positions and over `<mask>` positions alone.

    `mask_difference` is model minus unigram on the same `<mask>` positions, with the 95 %
    interval of the mean over windows (windows weighted by their masked tokens, standard error of
    the ratio estimator): below 0 the model knows more than the k-mer frequencies.
    """
    selected, asked = rows.selected.sum(), rows.mask_selected.sum()
    loss, mask_loss = rows.nats.sum() / selected, rows.mask_nats.sum() / asked
    unigram = rows.mask_unigram_nats.sum() / asked
    bits = 1.0 / (math.log(2) * rows.mask_bases.sum())

    difference = rows.mask_nats - rows.mask_unigram_nats
    mean = difference.sum() / asked
    windows = len(difference)
    residual = difference - mean * rows.mask_selected
    error = math.sqrt(windows / max(windows - 1, 1) * float((residual**2).sum())) / asked
    return {
        "windows": windows,
        "loss": float(loss),
        "perplexity": float(np.exp(loss)),
        "accuracy": float(rows.correct.sum() / selected),
        "mask_loss": float(mask_loss),
        "mask_perplexity": float(np.exp(mask_loss)),
        "mask_accuracy": float(rows.mask_correct.sum() / asked),
        "mask_bits_per_base": float(rows.mask_nats.sum() * bits),
        "unigram_mask_loss": float(unigram),
        "unigram_bits_per_base": float(rows.mask_unigram_nats.sum() * bits),
        "mask_difference": float(mean),
        "mask_difference_low": float(mean - 1.959964 * error),
        "mask_difference_high": float(mean + 1.959964 * error),
    }
