"""Masked-token scores by class: parts of the whole, and the whole is what `evaluate` gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.elements import CLASSES
from nt_jax.evaluation.elements.masked import MaskedSums, masked_scores, sum_masked
from nt_jax.evaluation.loading import random_like
from nt_jax.step import make_eval_step
from nt_jax.validation import unigram_log_probabilities, validate

EXON, INTERGENIC, EVERY = CLASSES.index("exon"), CLASSES.index("intergenic"), len(CLASSES)
INTRON = CLASSES.index("intron")


@pytest.fixture(scope="module")
def unigram(loaded):
    counts = np.random.default_rng(0).integers(1, 90, loaded.tokenizer.vocab_size)
    return unigram_log_probabilities(counts, loaded.tokenizer)


@pytest.fixture(scope="module")
def sums(loaded, windows, unigram) -> MaskedSums:
    return sum_masked(loaded, windows, unigram, rows=5)


def test_all_tokens_are_those_of_evaluate(loaded, windows, unigram, sums):
    step = jax.jit(make_eval_step(loaded.model, loaded.tokenizer, loaded.config.masking))
    batches = ((b.tokens, b.valid, b.number) for b in windows.batches(7, seed=0))
    whole = validate(step, jnp.asarray, loaded.params, batches, unigram)
    scores = masked_scores(sums, sums, EVERY, seed=0)
    for name in ("mask_loss", "mask_perplexity", "mask_accuracy", "unigram_mask_loss"):
        assert scores[name].value == pytest.approx(whole[name], rel=1e-5)
    assert scores["mask_loss_minus_unigram"].value == pytest.approx(
        whole["mask_difference"], rel=1e-4
    )


def test_classes_that_part_the_genome_sum_to_the_whole(sums):
    # Introns and exons of these genes do not overlap, so with intergenic they are everything.
    parts = [EXON, INTRON, INTERGENIC]
    for values in sums:
        np.testing.assert_allclose(values[:, parts].sum(axis=1), values[:, EVERY], atol=1e-4)
    tokens = sums.tokens.sum(axis=0)
    scores = [masked_scores(sums, sums, column, seed=0) for column in (*parts, EVERY)]
    for name in ("mask_accuracy", "mask_loss", "unigram_mask_accuracy"):
        joined = sum(tokens[c] * s[name].value for c, s in zip(parts, scores[:3], strict=True))
        assert joined / tokens[EVERY] == pytest.approx(scores[3][name].value, abs=1e-6)


def test_a_token_counts_by_its_share_in_the_class(loaded, windows, unigram, sums):
    from nt_jax.masking import mask_tokens
    from nt_jax.step import EVAL_SEED, token_losses

    batch = next(windows.batches(14, seed=0))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(
        jax.random.key(EVAL_SEED), jnp.asarray(batch.number)
    )
    masked = mask_tokens(keys, jnp.asarray(batch.tokens), loaded.tokenizer, loaded.config.masking)
    nats, correct = token_losses(loaded.model, loaded.params, masked)
    expected = np.zeros((3, 14))
    for row in range(14):
        for m, position in enumerate(np.asarray(masked.positions[row])):
            if masked.weights[row, m] and masked.replaced[row, m]:
                share = batch.fractions[row, EXON, position]
                own = [share, share * nats[row, m], share * correct[row, m]]
                expected[:, row] += np.array(own, float)
    for values, own in zip((sums.tokens, sums.nats, sums.correct), expected, strict=True):
        np.testing.assert_allclose(values[:, EXON], own, atol=1e-4)


def test_the_batch_size_changes_nothing(loaded, windows, unigram, sums):
    for rows in (1, 14):
        for own, other in zip(sums, sum_masked(loaded, windows, unigram, rows=rows), strict=True):
            np.testing.assert_allclose(own, other, rtol=1e-4, atol=1e-4)


def test_differences_are_paired_with_the_controls(loaded, windows, unigram, sums):
    untrained = sum_masked(random_like(loaded, 1), windows, unigram)
    scores = masked_scores(sums, untrained, EVERY, seed=0)
    own, random = scores["mask_loss"], scores["random_init_mask_loss"]
    gap = scores["mask_loss_minus_random_init"]
    assert gap.value == pytest.approx(own.value - random.value, abs=1e-5)
    assert gap.low <= gap.value <= gap.high
    same = masked_scores(sums, sums, EVERY, seed=0)["mask_loss_minus_random_init"]
    assert same == (0, 0, 0)


def test_the_most_frequent_token_is_the_unigrams_only_guess():
    tokens = np.array([[2.0], [1.0]])
    sums = MaskedSums(tokens, tokens, tokens * 0, tokens * 2, np.array([[1.0], [0.5]]))
    scores = masked_scores(sums, sums, 0, seed=0)
    assert scores["unigram_mask_accuracy"].value == 0.5
    assert scores["mask_loss_minus_unigram"].value == -1.0
    assert scores["mask_perplexity"].value == pytest.approx(np.e)


def test_a_class_without_masked_tokens_has_no_score():
    nothing = MaskedSums(*[np.zeros((3, 1))] * 5)
    assert all(np.isnan(s).all() for s in masked_scores(nothing, nothing, 0, seed=0).values())
