"""Certificates: what passes, what does not, and that the comparison sees every error."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nt_jax.interchange.proof import compare, example_tokens
from nt_jax.tokenizers import KmerTokenizer

TOKENIZER = KmerTokenizer(k=2, vocabulary="v2")


def outputs(seed=0, batch=4, length=12):
    rng = np.random.default_rng(seed)
    return {
        "logits": rng.normal(size=(batch, length, 27)).astype(np.float32),
        "embedding_1": rng.normal(size=(batch, length, 8)).astype(np.float32),
        "attention_1": rng.random((batch, 2, length, length)).astype(np.float32),
    }


def test_examples_have_everything_that_can_differ():
    tokens = example_tokens(TOKENIZER, 40, batch=4)
    assert tokens.dtype == np.int32
    assert (tokens[:, 0] == TOKENIZER.cls_id).all()
    lengths = (tokens != TOKENIZER.pad_id).sum(axis=1)
    assert list(lengths) == sorted(set(lengths), reverse=True)
    assert lengths[0] == 40
    assert 0 <= tokens.min() < tokens.max() < TOKENIZER.vocab_size
    for token in (TOKENIZER.mask_id, *TOKENIZER.encode("AN")[1:]):
        assert (tokens == token).any()
    np.testing.assert_array_equal(tokens, example_tokens(TOKENIZER, 40, batch=4))
    assert (tokens != example_tokens(TOKENIZER, 40, batch=4, seed=1)).any()


def test_the_same_numbers_pass_and_say_so():
    tokens = example_tokens(TOKENIZER, 12)
    certificate = compare(tokens, TOKENIZER.pad_id, {"a": outputs(), "b": outputs()}, 1e-5)
    assert certificate.passed
    assert certificate.table().endswith("equal\n")
    assert certificate.table().count("same bits") == 3
    assert json.loads(certificate.json())["passed"] is True


@given(name=st.sampled_from(["logits", "embedding_1", "attention_1"]), data=st.data())
def test_one_wrong_number_fails_and_pads_do_not_count(name, data):
    tokens = example_tokens(TOKENIZER, 12)
    left, right = outputs(), outputs()
    row, position = data.draw(st.integers(0, 3)), data.draw(st.integers(0, 11))
    where = (row, 1, position, 0) if name == "attention_1" else (row, position, 3)
    right[name][where] += 0.01
    certificate = compare(tokens, TOKENIZER.pad_id, {"a": left, "b": right}, 1e-5)
    assert certificate.passed == (tokens[row, position] == TOKENIZER.pad_id)
    if not certificate.passed:
        assert [line.output for line in certificate.lines if line.relative > 1e-5] == [name]
        assert "FAILED" in certificate.table()
        assert "NOT equal" in certificate.table()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_what_is_not_finite_never_passes(bad, side):
    tokens = example_tokens(TOKENIZER, 12)
    sides = [outputs(), outputs()]
    sides[side]["logits"][0, 0, 0] = bad
    assert not compare(tokens, TOKENIZER.pad_id, {"a": sides[0], "b": sides[1]}, 1e-5).passed
    both = {"a": sides[side], "b": sides[side]}
    assert not compare(tokens, TOKENIZER.pad_id, both, 1e-5).passed


def test_other_shapes_and_missing_outputs():
    tokens = example_tokens(TOKENIZER, 12)
    left, right = outputs(), outputs()
    right["logits"] = right["logits"][..., :-1]
    assert not compare(tokens, TOKENIZER.pad_id, {"a": left, "b": right}, 1e-5).passed
    right = outputs()
    del right["attention_1"]
    certificate = compare(tokens, TOKENIZER.pad_id, {"a": left, "b": right}, 1e-5)
    assert certificate.passed
    assert "only in a: attention_1" in certificate.table()
    del right["logits"]
    assert not compare(tokens, TOKENIZER.pad_id, {"a": left, "b": right}, 1e-5).passed
