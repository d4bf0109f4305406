"""Embedding rules of ESM, and outputs that do not depend on padding."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nt_jax.tokenizers import KmerTokenizer
from tests.nt_jax.model.conftest import V1, V2, batch, build_model, randomise

TOKENIZER = KmerTokenizer(k=2, vocabulary="v2")
WIDEST = 16


@functools.cache
def compiled(config):
    model = build_model(config, TOKENIZER)
    params = randomise(model.init(jax.random.key(0)))
    run = jax.jit(lambda tokens: model.apply(params, tokens, layers=(1, 2))["embeddings"])
    return run, params


@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.integers(1, WIDEST), min_size=2, max_size=2),
    seed=st.integers(0, 100),
    config=st.sampled_from([V1, V2]),
)
def test_pads_change_no_real_position(lengths, seed, config):
    run, _ = compiled(config)
    padded = batch(TOKENIZER, lengths, WIDEST, seed)
    together = run(padded)
    for row, length in enumerate(lengths):
        other = padded.copy()
        other[1 - row] = TOKENIZER.pad_id
        alone = run(other)
        # The same row, cut to its length and padded again by repeating it beside others.
        for layer in (1, 2):
            np.testing.assert_allclose(
                alone[layer][row, :length], together[layer][row, :length], atol=1e-5
            )


@pytest.mark.parametrize("config", [V1, V2], ids=["v1", "v2"])
@pytest.mark.parametrize("length", [3, 11])
def test_a_sequence_without_pads_equals_the_padded_one(config, length):
    run, _ = compiled(config)
    padded = batch(TOKENIZER, (length,), WIDEST)
    short, long = run(padded[:, :length]), run(np.repeat(padded, 2, axis=0))
    for layer in (1, 2):
        np.testing.assert_allclose(short[layer][0], long[layer][1, :length], atol=1e-5)


def embedding(config, params, tokens):
    """Output of a model whose blocks add nothing: the embedding itself."""
    model = build_model(config, TOKENIZER)
    silent = {
        module: jax.tree.map(np.zeros_like, named)
        if module in ("nt/block/attention/out", "nt/block/ffn/fc2")
        else named
        for module, named in params.items()
    }
    return np.asarray(model.encode(silent, tokens))


def test_token_dropout_blanks_masks_and_keeps_the_scale():
    config = dataclasses.replace(V1, embed_layer_norm=False, embed_scale=1.0)
    _, params = compiled(config)
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
    _, params = compiled(config)
    pad = TOKENIZER.pad_id
    tokens = np.array([[3, 7, pad, 8]], np.int32)
    tables = {
        name: np.float64(params[f"nt/embed/{name}"]["embeddings"]) for name in ("token", "position")
    }
    expected = tables["token"][tokens[0]] + tables["position"][[2, 3, pad, 4]]
    np.testing.assert_allclose(embedding(config, params, tokens)[0], expected, atol=1e-5)


def test_embed_scale_multiplies_token_rows():
    config = dataclasses.replace(V2, embed_scale=2.5)
    _, params = compiled(config)
    tokens = batch(TOKENIZER, (5,), 5)
    expected = 2.5 * np.float64(params["nt/embed/token"]["embeddings"])[tokens]
    np.testing.assert_allclose(embedding(config, params, tokens), expected, atol=1e-5)


def test_gate_is_the_first_half():
    """SwiGLU of FACTS: swish(first half of fc1) * second half."""
    config = dataclasses.replace(V2, num_layers=2)
    _, params = compiled(V2)
    tokens = batch(TOKENIZER, (5,), 5)
    params = dict(params)
    params["nt/block/attention/out"] = jax.tree.map(np.zeros_like, params["nt/block/attention/out"])
    x = np.float64(params["nt/embed/token"]["embeddings"])[tokens]
    for layer in range(2):
        norm, fc1, fc2 = (
            {name: np.float64(values[layer]) for name, values in params[f"nt/block/{m}"].items()}
            for m in ("ffn_norm", "ffn/fc1", "ffn/fc2")
        )
        centred = x - x.mean(-1, keepdims=True)
        normed = centred / np.sqrt(x.var(-1, keepdims=True) + config.layer_norm_epsilon)
        hidden = (normed * norm["scale"] + norm["offset"]) @ fc1["w"]
        gate, up = hidden[..., : config.ffn_dim], hidden[..., config.ffn_dim :]
        x = x + (gate / (1 + np.exp(-gate)) * up) @ fc2["w"]
    out = build_model(config, TOKENIZER).encode(params, tokens)
    np.testing.assert_allclose(out, x, atol=1e-4 * np.abs(x).max())
