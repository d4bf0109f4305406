"""Attention maps against a computation by hand, head by head, in float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from nt_jax.model.attention import dense_attention, reference_heads
from tests.nt_jax.model.conftest import V1, V2, batch, library_attention, outputs, parameters


def layer_norm(x, values, epsilon):
    scaled = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)
    return scaled * values["scale"] + values["offset"]


def head_map(params, embedding, real, config, head, positions):
    """[B, T, T] attention of one head of the first layer; rotation as a complex product."""
    size = config.head_size
    columns = slice(head * size, (head + 1) * size)
    params = {
        module: {name: np.float64(x[0]) for name, x in named.items()}
        for module, named in params.items()
        if module.startswith("nt/block")
    }
    x = layer_norm(embedding, params["nt/block/attention_norm"], config.layer_norm_epsilon)
    query, key = (
        x @ values["w"][:, columns] + values["b"][columns]
        for values in (params[f"nt/block/attention/{name}"] for name in ("query", "key"))
    )
    if positions is not None:
        half = size // 2
        turn = np.exp(1j * positions[:, None] * config.rope_base ** (-np.arange(half) / half))
        query, key = ((h[..., :half] + 1j * h[..., half:]) * turn for h in (query, key))
    scores = (query @ key.conj().swapaxes(1, 2)).real / np.sqrt(size)
    scores = np.where(real[:, None, :], scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


@pytest.fixture(scope="module")
def first_layer(tokenizer):
    """v2 parameters, tokens, first-layer maps and the embedding (token rows: nothing is added)."""
    params = parameters(V2, tokenizer)
    tokens = batch(tokenizer, (12, 7), seed=1)
    maps = outputs(V2, tokenizer, tokens)["attention"][1]
    embedding = np.float64(params["nt/embed/token"]["embeddings"])[tokens]
    return params, tokens, maps, embedding


def test_map_of_head_h_is_that_of_head_h(first_layer, tokenizer):
    # The published code returns head h+1, and repeats the last one (FACTS, defect 1).
    params, tokens, maps, embedding = first_layer
    real = tokens != tokenizer.pad_id
    for head in range(V2.num_heads):
        expected = head_map(params, embedding, real, V2, head, np.arange(tokens.shape[1]))
        np.testing.assert_allclose(maps[:, head][real], expected[real], atol=2e-6)
    others = np.abs(maps[:, 1:] - maps[:, :-1]).max(axis=(0, 2, 3))
    assert (others > 1e-2).all(), "heads must differ, or the test above could not tell them apart"


def test_reference_numbers_are_those_of_the_published_index(first_layer):
    _, _, maps, _ = first_layer
    found = reference_heads(jnp.asarray(maps))
    assert found.shape == maps.shape
    for number in range(V2.num_heads):
        # The published code, word for word.
        expected = jnp.asarray(maps)[:, number + 1]
        np.testing.assert_array_equal(found[:, number], expected)
    np.testing.assert_array_equal(found[:, -1], found[:, -2])


def test_maps_sum_to_one_and_never_look_at_pads(first_layer, tokenizer):
    _, tokens, maps, _ = first_layer
    pads = tokens == tokenizer.pad_id
    assert maps.dtype == np.float32
    np.testing.assert_allclose(maps.sum(-1), 1.0, atol=1e-6)
    assert not maps.swapaxes(1, 3)[pads].any()


def test_v1_has_no_rotation(tokenizer):
    config, params = V1, parameters(V1, tokenizer)
    tokens = batch(tokenizer, (12, 12), masks=False)
    maps = outputs(V1, tokenizer, tokens)["attention"][1]
    x = np.float64(params["nt/embed/token"]["embeddings"])[tokens] * config.embed_scale
    x = x * (1 - config.token_dropout)
    x = x + np.float64(params["nt/embed/position"]["embeddings"])[2:14]
    x = layer_norm(x, params["nt/embed/norm"], config.layer_norm_epsilon)
    real = np.ones_like(tokens, bool)
    expected = head_map(params, x, real, config, 2, None)
    np.testing.assert_allclose(maps[:, 2], expected, atol=2e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_library_attention_agrees_with_the_dense_one(dtype):
    rng = np.random.default_rng(0)
    query, key, value = (jnp.asarray(rng.normal(size=(2, 6, 3, 8)), dtype) for _ in range(3))
    real = jnp.asarray([[True] * 4 + [False] * 2, [True] * 6])
    dense = dense_attention(query, key, value, real)
    library = library_attention(query, key, value, real)
    assert dense.dtype == library.dtype == dtype
    tolerance = 1e-6 if dtype == jnp.float32 else 2e-2
    np.testing.assert_allclose(np.float32(dense), np.float32(library), atol=tolerance)


def test_scores_of_half_precision_are_float32():
    query = jnp.full((1, 2, 1, 4), 16.0, jnp.bfloat16)
    key = jnp.asarray([[[[16.0] * 4], [[16.0, 16.0, 16.0, 16.125]]]], jnp.bfloat16)
    value = jnp.asarray([[[[0.0] * 4], [[1.0] * 4]]], jnp.bfloat16)
    mixed = dense_attention(query, key, value, jnp.ones((1, 2), bool))
    # Scores 512 and 513: in bfloat16 both would be 512, and the mean of the values 0.5.
    np.testing.assert_allclose(np.float32(mixed), 1 / (1 + np.exp(-1)), atol=5e-3)
