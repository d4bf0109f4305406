"""BERT corruption on device: a pure function of (tokens, key).

Exactly `round(ratio * real tokens)` tokens of a sequence are selected (at least one), drawn
without replacement among the tokens that are neither `<cls>` nor `<pad>`; single letters and `N`
count as real. Of the selected, a share `mask` becomes `<mask>`, a share `random` becomes a k-mer
drawn uniformly from the vocabulary's full k-mers other than the original, the rest stays.
Because the number of selected tokens is bounded by the shape, the head and the loss run on those
positions alone and no selected token is ever dropped.

Every row has its own key, so the masks of a batch are the same under any sharding, batch size or
number of micro-batches. (Published: 15 %, 80/10/10; the fixed count a sequence is ours.)
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from nt_jax.config import MaskingConfig
from nt_jax.tokenizers import KmerTokenizer


class Masked(NamedTuple):
    """Corrupted tokens and what was selected. B batch, T tokens, M selected positions."""

    inputs: Int[Array, "B T"]
    """Tokens after corruption."""
    positions: Int[Array, "B M"]
    """Selected positions; where `weights` is 0 the entry is padding of the budget."""
    targets: Int[Array, "B M"]
    """Original tokens at those positions."""
    weights: Float[Array, "B M"]
    """1 for a selected token, 0 for padding of the budget."""
    replaced: Bool[Array, "B M"]
    """Selected tokens that became `<mask>`."""


def budget(length: int, ratio: float) -> int:
    """Most tokens that can be selected in a sequence of `length` tokens (`<cls>` included)."""
    return max(1, round(ratio * (length - 1)))


def row_keys(seed: int, step: Int[Array, ""] | int, rows: int) -> Key[Array, " B"]:
    """Keys of the rows of global batch `step`: one per row, [rows]."""
    key = jax.random.fold_in(jax.random.key(seed), step)
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(rows))


def mask_tokens(
    keys: Key[Array, " B"],
    tokens: Int[Array, "B T"],
    tokenizer: KmerTokenizer,
    config: MaskingConfig,
) -> Masked:
    """Corrupts a batch; `keys` holds one key per row."""

    def one(key: Key[Array, ""], row: Int[Array, " T"]) -> Masked:
        return _mask_row(key, row, tokenizer, config)

    return jax.vmap(one)(keys, tokens)


def _mask_row(
    key: Key[Array, ""], tokens: Int[Array, " T"], tokenizer: KmerTokenizer, config: MaskingConfig
) -> Masked:
    length = tokens.shape[0]
    first, end = tokenizer.kmer_ids
    select_key, action_key, random_key = jax.random.split(key, 3)
    real = (tokens != tokenizer.pad_id) & (tokens != tokenizer.cls_id)
    count = jnp.sum(real)
    wanted = jnp.where(count > 0, jnp.maximum(1, jnp.round(config.ratio * count)), 0)

    # The tokens with the largest draws are the sample without replacement.
    draws = jnp.where(real, jax.random.uniform(select_key, (length,)), -1.0)
    size = budget(length, config.ratio)
    _, positions = jax.lax.top_k(draws, size)
    chosen = jnp.arange(size) < wanted
    targets = tokens[positions]

    action = jax.random.uniform(action_key, (size,))
    replaced = chosen & (action < config.mask)
    randomised = chosen & (action >= config.mask) & (action < config.mask + config.random)
    # Skipping the original keeps the draw uniform over the other k-mers.
    others = jax.random.randint(random_key, (size,), first, end - 1)
    is_kmer = (targets >= first) & (targets < end)
    different = jnp.where(
        is_kmer,
        others + (others >= targets),
        jax.random.randint(jax.random.fold_in(random_key, 1), (size,), first, end),
    )
    corrupted = jnp.where(replaced, tokenizer.mask_id, jnp.where(randomised, different, targets))
    inputs = tokens.at[positions].set(corrupted.astype(tokens.dtype))
    return Masked(inputs, positions, targets, chosen.astype(jnp.float32), replaced)
