"""Masking: exact counts, 80/10/10, never a special token, the same under any batch or sharding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nt_jax import masking
from nt_jax.config import MaskingConfig
from nt_jax.masking import budget
from nt_jax.tokenizers import KmerTokenizer

mask_tokens = jax.jit(masking.mask_tokens, static_argnums=(2, 3))
row_keys = jax.jit(masking.row_keys, static_argnums=(0, 2))
TOKENIZER = KmerTokenizer(k=6, vocabulary="v2")
FIRST, END = TOKENIZER.kmer_ids


def batch(rows: int, length: int, pads: int = 0, seed: int = 0) -> jax.Array:
    tokens = np.random.default_rng(seed).integers(FIRST, END, (rows, length)).astype(np.int32)
    tokens[:, 0] = TOKENIZER.cls_id
    if pads:
        tokens[:, -pads:] = TOKENIZER.pad_id
    return jnp.asarray(tokens)


@settings(max_examples=25, deadline=None)
@given(
    length=st.sampled_from([2, 7, 64]),
    pads=st.integers(0, 70),
    ratio=st.sampled_from([0.05, 0.15, 0.5]),
    step=st.integers(0, 2**31 - 1),
)
def test_selects_exactly_the_share_of_real_tokens(length, pads, ratio, step):
    pads = min(pads, length - 1)
    tokens = batch(3, length, pads)
    masked = mask_tokens(row_keys(7, step, 3), tokens, TOKENIZER, MaskingConfig(ratio=ratio))
    real = length - 1 - pads
    expected = max(1, round(ratio * real)) if real else 0
    assert masked.positions.shape == (3, budget(length, ratio))
    np.testing.assert_array_equal(masked.weights.sum(-1), expected)
    for row in range(3):
        chosen = np.asarray(masked.positions[row])[np.asarray(masked.weights[row]) > 0]
        assert len(set(chosen.tolist())) == expected
        assert all(0 < position < length - pads for position in chosen)
        untouched = np.setdiff1d(np.arange(length), chosen)
        np.testing.assert_array_equal(masked.inputs[row, untouched], tokens[row, untouched])
        np.testing.assert_array_equal(
            masked.targets[row, : len(chosen)], tokens[row, masked.positions[row, : len(chosen)]]
        )


def test_eighty_ten_ten():
    tokens = batch(200, 512)
    masked = mask_tokens(row_keys(0, 3, 200), tokens, TOKENIZER, MaskingConfig())
    inputs = np.take_along_axis(np.asarray(masked.inputs), np.asarray(masked.positions), 1)
    targets = np.asarray(masked.targets)
    total = targets.size
    is_mask = inputs == TOKENIZER.mask_id
    np.testing.assert_array_equal(is_mask, masked.replaced)
    changed = ~is_mask & (inputs != targets)
    for share, expected in ((is_mask, 0.8), (changed, 0.1), (inputs == targets, 0.1)):
        # Four standard errors of a proportion.
        assert abs(share.mean() - expected) < 4 * np.sqrt(expected * (1 - expected) / total)
    assert inputs[changed].min() >= FIRST
    assert inputs[changed].max() < END


def test_random_tokens_are_uniform_over_the_other_kmers():
    tokenizer = KmerTokenizer(k=1, vocabulary="v2")
    first, end = tokenizer.kmer_ids
    tokens = jnp.full((400, 200), first + 1, jnp.int32)
    config = MaskingConfig(ratio=0.5, mask=0.0, random=1.0)
    masked = mask_tokens(row_keys(0, 0, 400), tokens, tokenizer, config)
    drawn = np.take_along_axis(np.asarray(masked.inputs), np.asarray(masked.positions), 1)
    counts = np.bincount(drawn.ravel() - first, minlength=end - first)
    assert counts[1] == 0
    others = np.delete(counts, 1)
    assert np.all(np.abs(others - drawn.size / 3) < 4 * np.sqrt(drawn.size * 2 / 9))


def test_without_random_replacement_nothing_else_appears():
    tokens = batch(50, 256)
    config = MaskingConfig(random=0.0)
    masked = mask_tokens(row_keys(1, 1, 50), tokens, TOKENIZER, config)
    inputs = np.asarray(masked.inputs)
    assert np.all((inputs == tokens) | (inputs == TOKENIZER.mask_id))


def test_rows_do_not_depend_on_the_batch_they_travel_in():
    tokens = batch(8, 64)
    keys = row_keys(3, 11, 8)
    whole = mask_tokens(keys, tokens, TOKENIZER, MaskingConfig())
    parts = [
        mask_tokens(keys[i : i + 2], tokens[i : i + 2], TOKENIZER, MaskingConfig())
        for i in range(0, 8, 2)
    ]
    jax.tree.map(lambda a, *b: np.testing.assert_array_equal(a, jnp.concatenate(b)), whole, *parts)


@pytest.mark.parametrize("other", [(4, 11), (3, 12)])
def test_masks_change_with_seed_and_step(other):
    tokens = batch(2, 256)
    one = mask_tokens(row_keys(3, 11, 2), tokens, TOKENIZER, MaskingConfig())
    two = mask_tokens(row_keys(*other, 2), tokens, TOKENIZER, MaskingConfig())
    assert not np.array_equal(one.positions, two.positions)
    assert not np.array_equal(one.positions[0], one.positions[1])
