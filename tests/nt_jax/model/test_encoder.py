"""Embedding rules of ESM, the gated feed-forward, and outputs that do not depend on padding."""

import dataclasses

import haiku as hk
import jax
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from nt_jax.model.encoder import Vocabulary, embed_tokens, feed_forward
from nt_jax.tokenizers import KmerTokenizer
from tests.nt_jax.model.conftest import V1, V2, batch, outputs, parameters

TOKENIZER = KmerTokenizer(k=2, vocabulary="v2")
SHORT, LONG = 7, 12


@settings(max_examples=15, deadline=None)
@given(
    lengths=st.tuples(st.integers(1, SHORT), st.integers(1, SHORT)),
    seed=st.integers(0, 100),
    config=st.sampled_from([V1, V2]),
)
def test_more_pads_change_no_real_position(lengths, seed, config):
    short = batch(TOKENIZER, lengths, SHORT, seed)
    long = np.full((2, LONG), TOKENIZER.pad_id, np.int32)
    long[:, :SHORT] = short
    real = short != TOKENIZER.pad_id
    little, much = outputs(config, TOKENIZER, short), outputs(config, TOKENIZER, long)
    np.testing.assert_allclose(little["logits"][real], much["logits"][:, :SHORT][real], atol=2e-5)
    for layer in (1, 2):
        left, right = little["embeddings"][layer], much["embeddings"][layer][:, :SHORT]
        np.testing.assert_allclose(left[real], right[real], atol=2e-5)


def test_a_row_does_not_see_its_neighbour():
    tokens = batch(TOKENIZER, (9, 12))
    swapped = outputs(V2, TOKENIZER, tokens[::-1])["logits"]
    np.testing.assert_allclose(swapped[::-1], outputs(V2, TOKENIZER, tokens)["logits"], atol=1e-5)


def in_model(function, params, *args):
    """Runs a part of the model with the parameters below `nt/`."""

    def scoped(*args):
        with hk.name_scope("nt"):
            return function(*args)

    return np.asarray(jax.jit(hk.transform(scoped).apply)(params, None, *args))


def embedding(config, params, tokens):
    vocabulary = Vocabulary(TOKENIZER.vocab_size, TOKENIZER.pad_id, TOKENIZER.mask_id)
    return in_model(lambda tokens: embed_tokens(config, vocabulary, tokens), params, tokens)


def test_token_dropout_blanks_masks_and_keeps_the_scale():
    config = dataclasses.replace(V1, embed_layer_norm=False, embed_scale=1.0)
    params = parameters(config, TOKENIZER)
    tokens = batch(TOKENIZER, (8,), 10, masks=False)
    tokens[0, 2:4] = TOKENIZER.mask_id
    tables = {
        name: np.float64(params[f"nt/embed/{name}"]["embeddings"]) for name in ("token", "position")
    }
    # 2 of 8 real tokens are masks: the others are scaled by (1 - 0.12) / (1 - 2/8).
    expected = tables["token"][tokens] * (1 - 0.12) / (1 - 0.25)
    expected[0, 2:4] = 0.0
    expected[0, :8] += tables["position"][2:10]
    np.testing.assert_allclose(embedding(config, params, tokens)[0, :8], expected[0, :8], atol=1e-5)
    off = dataclasses.replace(config, token_dropout=0.0)
    plain = embedding(off, params, tokens)[0, 2] - tables["position"][4]
    np.testing.assert_allclose(plain, tables["token"][TOKENIZER.mask_id], atol=1e-5)


def test_learned_positions_count_real_tokens_from_the_row_after_the_pad():
    config = dataclasses.replace(V1, embed_layer_norm=False, embed_scale=1.0, token_dropout=0.0)
    params = parameters(config, TOKENIZER)
    pad = TOKENIZER.pad_id
    tokens = np.array([[3, 7, pad, 8]], np.int32)
    tables = {
        name: np.float64(params[f"nt/embed/{name}"]["embeddings"]) for name in ("token", "position")
    }
    expected = tables["token"][tokens[0]] + tables["position"][[2, 3, pad, 4]]
    np.testing.assert_allclose(embedding(config, params, tokens)[0], expected, atol=1e-5)


def test_embed_scale_multiplies_token_rows():
    config = dataclasses.replace(V2, embed_scale=2.5)
    params = parameters(config, TOKENIZER)
    tokens = batch(TOKENIZER, (5,), 5)
    expected = 2.5 * np.float64(params["nt/embed/token"]["embeddings"])[tokens]
    np.testing.assert_allclose(embedding(config, params, tokens), expected, atol=1e-5)


@pytest.mark.parametrize("config", [V1, V2], ids=["v1", "v2"])
def test_feed_forward(config):
    """FACTS: v2 is swish(first half of fc1) * second half; v1 is exact GELU with biases."""
    blocks = parameters(config, TOKENIZER)
    params = {
        f"nt/ffn/{name}": {n: x[1] for n, x in blocks[f"nt/block/ffn/{name}"].items()}
        for name in ("fc1", "fc2")
    }
    x = np.random.default_rng(0).normal(size=(2, 5, config.embed_dim)).astype(np.float32)
    fc1, fc2 = params["nt/ffn/fc1"], params["nt/ffn/fc2"]
    hidden = np.float64(x) @ fc1["w"] + fc1.get("b", 0.0)
    if config.ffn_gated:
        gate, up = hidden[..., : config.ffn_dim], hidden[..., config.ffn_dim :]
        hidden = gate / (1 + np.exp(-gate)) * up
    else:
        hidden = hidden * scipy.stats.norm.cdf(hidden)
    expected = hidden @ fc2["w"] + fc2.get("b", 0.0)
    found = in_model(lambda x: feed_forward(config, x), params, x)
    np.testing.assert_allclose(found, expected, atol=1e-5)
