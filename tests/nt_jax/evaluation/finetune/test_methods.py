"""Adapters: equal to the frozen model at the start, mergeable, and what their papers say."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nt_jax.checksums import named
from nt_jax.config import ModelConfig
from nt_jax.errors import InputError
from nt_jax.evaluation.finetune import methods
from nt_jax.evaluation.finetune.methods import ALPHA, METHODS, find_method, initial
from nt_jax.model.attention import MultiHeadAttention, dense_attention
from nt_jax.model.encoder import feed_forward
from nt_jax.model.factory import build_model
from nt_jax.model.presets import PRESETS, parameter_count

RANK = 3


def hidden(loaded, method, params):
    model = build_model(loaded.config.model, loaded.tokenizer, intercept=method.intercept)
    rng = np.random.default_rng(1)
    tokens = rng.integers(*loaded.tokenizer.kmer_ids, (3, 20)).astype(np.int32)
    tokens[1, 15:] = loaded.tokenizer.pad_id
    out = jax.jit(model.apply, static_argnums=2)(params, tokens, (1, 2))["embeddings"]
    return np.stack([out[1], out[2]])[:, tokens != loaded.tokenizer.pad_id]


def adapters(loaded, method, seed: int = 0):
    """Adapters that changed in training."""
    start = initial(method, loaded.config, jax.random.key(seed))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: x + 0.3 * rng.normal(size=x.shape).astype(np.float32), start)


@pytest.mark.parametrize("name", METHODS)
def test_at_step_0_the_adapted_model_is_the_frozen_one(loaded, name: str):
    method = find_method(name, RANK)
    start = initial(method, loaded.config, jax.random.key(0))
    params = hk.data_structures.merge(loaded.params, start)
    np.testing.assert_array_equal(
        hidden(loaded, method, params), hidden(loaded, find_method("head"), loaded.params)
    )


@pytest.mark.parametrize("name", ["ia3", "lora"])
def test_the_merged_model_computes_what_the_adapted_one_does(loaded, name: str):
    method = find_method(name, RANK)
    trained = adapters(loaded, method)
    adapted = hidden(loaded, method, hk.data_structures.merge(loaded.params, trained))
    plain = find_method("head")
    merged = method.merge(loaded.params, trained)
    assert jax.tree.map(np.shape, merged) == jax.tree.map(np.shape, loaded.params)
    again = hidden(loaded, plain, merged)
    np.testing.assert_allclose(adapted, again, rtol=0, atol=1e-5 * np.abs(adapted).max())
    assert np.abs(adapted - hidden(loaded, plain, loaded.params)).max() > 0.05


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("name", ["ia3", "lora"])
def test_attention_follows_the_published_formula(name: str):
    """softmax((l_k * K) Q / sqrt(d)) (l_v * V), and W x + (alpha / r) B A x, in plain NumPy."""
    heads, size, width = 2, 4, 8
    method = find_method(name, RANK)

    def attend(x, real):
        with hk.intercept_methods(method.intercept):
            return MultiHeadAttention(heads, size, dense_attention, name="attention")(x, real, None)

    function = hk.without_apply_rng(hk.transform(attend))
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 5, width)), jnp.float32)
    real = jnp.ones((2, 5), bool)
    params = jax.tree.map(
        lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float32),
        function.init(jax.random.key(0), x, real),
    )
    own = {path.rpartition("/")[2]: arrays for path, arrays in params.items()}

    projected = {}
    for projection in ("query", "key", "value"):
        p = own[projection]
        y = x @ p["w"] + p["b"]
        if name == "ia3" and projection != "query":
            y = p["ia3"] * y
        if name == "lora" and projection != "key":
            y = y + ALPHA / RANK * (x @ p["lora_a"] @ p["lora_b"])
        projected[projection] = y.reshape(2, 5, heads, size)
    scores = np.einsum("bthk,bshk->bhts", projected["query"], projected["key"]) / np.sqrt(size)
    mixed = np.einsum("bhts,bshk->bthk", softmax(scores), projected["value"]).reshape(2, 5, -1)
    expected = mixed @ own["out"]["w"] + own["out"]["b"]
    np.testing.assert_allclose(function.apply(params, x, real)[0], expected, rtol=2e-4, atol=2e-4)


def test_ia3_rescales_the_inner_activations_of_the_feed_forward():
    config = ModelConfig(num_layers=1, num_heads=2, embed_dim=8, ffn_dim=12, max_positions=9)

    def layer(x):
        with hk.intercept_methods(find_method("ia3").intercept):
            return feed_forward(config, x)

    function = hk.without_apply_rng(hk.transform(layer))
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 3, 8)), jnp.float32)
    params = function.init(jax.random.key(0), x)
    params["ffn/fc2"]["ia3"] = jnp.asarray(rng.normal(size=12), jnp.float32)
    first, second = np.split(x @ params["ffn/fc1"]["w"], 2, axis=-1)
    inner = first / (1 + np.exp(-first)) * second
    expected = (inner * params["ffn/fc2"]["ia3"]) @ params["ffn/fc2"]["w"]
    np.testing.assert_allclose(function.apply(params, x), expected, rtol=1e-4, atol=1e-5)


def shapes(preset: str, method: str, rank: int = 8):
    from nt_jax.config import Experiment

    model, tokenizer = PRESETS[preset]
    experiment = Experiment(name=preset, model=model, tokenizer=tokenizer)
    build = lambda: initial(find_method(method, rank), experiment, jax.random.key(0))  # noqa: E731
    return jax.eval_shape(build), experiment


@pytest.mark.parametrize(
    ("preset", "expected", "share"),
    [
        ("nt_v2_nano", 3_072, 0.00145),
        ("nt_v2_500m_multispecies", 178_176, 0.00036),
        ("nt_v1_500m_human_ref", 184_320, 0.00038),
        ("nt_v1_2b5_multispecies", 491_520, 0.00019),
    ],
)
def test_ia3_trains_three_vectors_a_layer(preset: str, expected: int, share: float):
    trained, experiment = shapes(preset, "ia3")
    model = experiment.model
    inner = model.num_heads * model.head_size
    assert methods.count(trained) == model.num_layers * (2 * inner + model.ffn_dim) == expected
    total = parameter_count(model, experiment.tokenizer.make().vocab_size)
    assert methods.count(trained) / total == pytest.approx(share, rel=0.03)


def test_lora_trains_two_factors_of_queries_and_values():
    trained, experiment = shapes("nt_v2_50m_multispecies", "lora", rank=4)
    model = experiment.model
    inner = model.num_heads * model.head_size
    expected = model.num_layers * 2 * 4 * (model.embed_dim + inner)
    assert methods.count(trained) == expected
    assert {x.dtype for x in jax.tree.leaves(trained)} == {np.dtype(np.float32)}


def test_every_adapter_has_the_layer_axis_in_front_and_a_rule_of_sharding(loaded):
    from nt_jax import sharding
    from nt_jax.config import MeshConfig

    mesh = sharding.make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    for name in ("ia3", "lora"):
        trained = initial(find_method(name), loaded.config, jax.random.key(0))
        for path, array in named(trained):
            assert array.shape[0] == loaded.num_layers
            spec = sharding.parameter_spec(path, array.shape, mesh)
            assert tuple(spec) == (None,) * array.ndim


def test_full_trains_all_that_the_embedding_is_made_of(loaded):
    method = find_method("full")
    unread = [
        m for m, n, _ in hk.data_structures.traverse(loaded.params) if not method.trains(m, n)
    ]
    assert set(unread) == {"nt/head/transform", "nt/head/transform_norm", "nt/head/logits"}


@pytest.mark.parametrize(
    ("name", "rank", "message"),
    [("loar", 8, "method 'loar'; did you mean 'lora'"), ("lora", 0, "rank 0: 1 or more")],
)
def test_bad_methods_are_refused(name: str, rank: int, message: str):
    with pytest.raises(InputError, match=message):
        find_method(name, rank)
