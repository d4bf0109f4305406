"""Masked-token accuracy and loss by element class, beside the unigram k-mer frequencies.

The same positions are asked as by `nt-jax evaluate`: a window's number keys its mask. A masked
token counts for a class by the share of its bases that is in the class, so nothing is rounded and
tokens on a border count a little on both sides. W windows, B batch, M selected tokens of a window,
T tokens, C classes and, last, all tokens as a class of their own.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from nt_jax.config import MaskingConfig
from nt_jax.evaluation.elements.statistics import percentiles, resampled_weights
from nt_jax.evaluation.elements.windows import ElementWindows
from nt_jax.evaluation.loading import LoadedModel
from nt_jax.masking import mask_tokens
from nt_jax.model.factory import Model, Params
from nt_jax.progress import Progress, silent
from nt_jax.step import EVAL_SEED, token_losses
from nt_jax.tokenizers import KmerTokenizer

ROWS = 16
"""Windows of a batch."""


class MaskedSums(NamedTuple):
    """Sums over the `<mask>` positions of each window, weighted by their share in the class.

    All are float [W, C].
    """

    tokens: Any
    nats: Any
    """Cross-entropy."""
    correct: Any
    unigram_nats: Any
    unigram_correct: Any
    """Tokens that are the most frequent one of the training data."""


class Score(NamedTuple):
    """A number with its 95 % interval over windows."""

    value: float
    low: float
    high: float


def sum_masked(
    loaded: LoadedModel,
    windows: ElementWindows,
    unigram: Float[np.ndarray, " V"],
    progress: Progress = silent,
    rows: int = ROWS,
) -> MaskedSums:
    """Runs the model over all windows; `unigram` holds log-probabilities in nats."""
    kept: list[MaskedSums] = []
    done = 0
    for batch in windows.batches(min(rows, len(windows.chosen)), seed=0):
        every = np.ones_like(batch.fractions[:, :1])
        found = _sums(
            loaded.model,
            loaded.params,
            batch.tokens,
            np.concatenate([batch.fractions, every], axis=1),
            batch.number.astype(np.int32),
            unigram,
            loaded.tokenizer,
            loaded.config.masking,
        )
        kept.append(MaskedSums(*(np.asarray(part, np.float64)[batch.valid] for part in found)))
        done += int(batch.valid.sum())
        progress(done, len(windows.chosen))
    return MaskedSums(*(np.concatenate(parts) for parts in zip(*kept, strict=True)))


@functools.partial(jax.jit, static_argnames=("model", "tokenizer", "masking"))
def _sums(
    model: Model,
    params: Params,
    tokens: Int[Array | np.ndarray, "B T"],
    labels: Float[Array | np.ndarray, "B C T"],
    number: Int[Array | np.ndarray, " B"],
    unigram: Float[Array | np.ndarray, " V"],
    tokenizer: KmerTokenizer,
    masking: MaskingConfig,
) -> MaskedSums:
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(EVAL_SEED), jnp.asarray(number))
    masked = mask_tokens(keys, jnp.asarray(tokens), tokenizer, masking)
    nats, correct = token_losses(model, params, masked)
    inside = jnp.take_along_axis(jnp.asarray(labels), masked.positions[:, None], axis=2)
    inside *= (masked.weights * masked.replaced)[:, None]
    frequent = masked.targets == jnp.argmax(unigram)

    def total(values: Array) -> Array:
        return jnp.sum(inside * values[:, None], axis=2)

    return MaskedSums(
        tokens=jnp.sum(inside, axis=2),
        nats=total(nats),
        correct=total(correct),
        unigram_nats=total(-jnp.asarray(unigram)[masked.targets]),
        unigram_correct=total(frequent),
    )


def masked_scores(
    trained: MaskedSums, untrained: MaskedSums, column: int, seed: int
) -> dict[str, Score]:
    """Losses in nats a token, accuracies and paired differences of one class.

    All of them share their resamples of windows. Values are NaN where the class has no `<mask>`.
    """
    weights = resampled_weights(len(trained.tokens), seed)
    own = MaskedSums(*(part[:, column] for part in trained))
    random = MaskedSums(*(part[:, column] for part in untrained))

    def score(sums: Float[np.ndarray, " W"], form: Callable = lambda ratio: ratio) -> Score:
        with np.errstate(invalid="ignore", divide="ignore"):
            value = form(sums.sum() / own.tokens.sum())
            replicates = form((weights @ sums) / (weights @ own.tokens))
        low, high = percentiles(replicates[:, None])
        return Score(float(value), float(low[0]), float(high[0]))

    return {
        "mask_loss": score(own.nats),
        "mask_perplexity": score(own.nats, np.exp),
        "mask_accuracy": score(own.correct),
        "unigram_mask_loss": score(own.unigram_nats),
        "unigram_mask_accuracy": score(own.unigram_correct),
        "random_init_mask_loss": score(random.nats),
        "random_init_mask_accuracy": score(random.correct),
        "mask_loss_minus_unigram": score(own.nats - own.unigram_nats),
        "mask_loss_minus_random_init": score(own.nats - random.nats),
        "mask_accuracy_minus_unigram": score(own.correct - own.unigram_correct),
    }
