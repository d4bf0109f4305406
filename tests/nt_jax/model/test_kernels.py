"""Attention kernels against the dense attention: outputs and gradients, to the edge cases.

The TPU kernel runs step by step (Pallas' interpreter). cuDNN's needs a GPU, so what is around it is
tested with JAX's own implementation behind the same call; benchmarks/kernels_gpu.py compares the
kernel itself on a GPU.
"""

import dataclasses
import functools

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nt_jax.model import factory
from nt_jax.model.attention import dense_attention, parted_attention
from nt_jax.model.flash import attention_for, cudnn_attention, has_kernel
from nt_jax.model.splash import splash_attention
from tests.nt_jax.model.conftest import V1, V2, batch, parameters

CUDNN = functools.partial(cudnn_attention, implementation="xla")
SPLASH = functools.partial(splash_attention, interpret=True)
CASES = {
    "splash": (SPLASH, 200, 64),
    "splash, blocks of keys": (SPLASH, 640, 32),
    "splash, odd head": (SPLASH, 130, 75),
    "splash, one token": (SPLASH, 1, 128),
    "cudnn": (CUDNN, 200, 64),
    "cudnn, odd head": (CUDNN, 13, 75),
    "cudnn, one token": (CUDNN, 1, 32),
}


def drawn(length, size, dtype, rows=3, heads=2):
    """(query, key, value) and which keys are real: a full row, a part, and only pads."""
    rng = np.random.default_rng(length)
    arrays = (jnp.asarray(rng.normal(size=(rows, length, heads, size)), dtype) for _ in range(3))
    lengths = np.array([length, max(1, length // 3), 0])[:, None]
    return tuple(arrays), jnp.asarray(np.arange(length) < lengths)


def outputs_and_gradients(attend, arrays, real):
    """Outputs at real queries, and gradients of a sum that reads only those, in float32."""
    read = real[..., None, None]

    def summed(*arrays):
        mixed = attend(*arrays, real).astype(jnp.float32)
        return jnp.sum(jnp.where(read, jnp.sin(3 * mixed), 0.0)), mixed

    (_, mixed), gradients = jax.jit(jax.value_and_grad(summed, (0, 1, 2), has_aux=True))(*arrays)
    return [np.where(read, mixed, 0.0), *(np.float32(g) for g in gradients)], mixed


@pytest.mark.parametrize("name", CASES)
def test_kernels_agree_with_the_dense_attention(name):
    attend, length, size = CASES[name]
    arrays, real = drawn(length, size, jnp.float32)
    (found, mixed), (expected, _) = (
        outputs_and_gradients(function, arrays, real) for function in (attend, dense_attention)
    )
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=5e-6)
        # Nothing comes out of, or goes into, a sequence of pads.
        assert not mine[2].any()
    assert np.isfinite(mixed).all()


@pytest.mark.parametrize(
    ("rows", "heads", "length"), [(3, 2, 24), (2, 4, 24), (4, 3, 24), (1, 1, 24), (2, 2, 520)]
)
def test_parts_of_the_dense_attention_are_the_dense_attention(rows, heads, length):
    rng = np.random.default_rng(rows)
    arrays = [jnp.asarray(rng.normal(size=(rows, length, heads, 8)), jnp.float32) for _ in range(3)]
    real = jnp.asarray(np.arange(length) < np.array([length, 5, 0, 1])[:rows, None])
    for found, expected in zip(
        outputs_and_gradients(parted_attention, arrays, real)[0],
        outputs_and_gradients(dense_attention, arrays, real)[0],
        strict=True,
    ):
        np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("attend", [SPLASH, CUDNN], ids=["splash", "cudnn"])
def test_kernels_in_bfloat16_are_as_near_to_float32_as_the_dense_attention(attend):
    arrays, real = drawn(192, 64, jnp.bfloat16)
    exact, _ = outputs_and_gradients(dense_attention, [x.astype(jnp.float32) for x in arrays], real)
    (mine, mixed), (dense, _) = (
        outputs_and_gradients(function, arrays, real) for function in (attend, dense_attention)
    )
    assert mixed.dtype == jnp.float32
    for kernel, plain, true in zip(mine, dense, exact, strict=True):
        error, usual = (np.abs(x - true).max() for x in (kernel, plain))
        assert error <= max(2 * usual, 1e-2 * np.abs(true).max())


@settings(max_examples=20, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    size=st.integers(1, 12),
    seed=st.integers(0, 99),
)
def test_key_lengths_mean_what_the_pads_mean(lengths, size, seed):
    rng = np.random.default_rng(seed)
    query, key, value = rng.normal(size=(3, len(lengths), 9, 2, size)).astype(np.float32)
    real = np.arange(9) < np.array(lengths)[:, None]

    def run(attend, *arrays):
        return attend(*map(jnp.asarray, (*arrays, real)))

    found = run(CUDNN, query, key, value)
    assert found.shape == query.shape
    np.testing.assert_allclose(found, run(dense_attention, query, key, value), atol=3e-6)
    # What stands at a pad is not read.
    key, value = (np.where(real[..., None, None], x, 1e3) for x in (key, value))
    np.testing.assert_array_equal(found, run(CUDNN, query, key, value))


def test_which_attention_is_the_fastest():
    half = dataclasses.replace(V2, compute_dtype="bfloat16")
    assert attention_for("gpu", half) is cudnn_attention
    assert attention_for("tpu", half) is splash_attention
    assert attention_for("cpu", half) is attention_for("cpu", V2) is parted_attention
    assert [has_kernel(platform, half) for platform in ("gpu", "tpu", "cpu")] == [True, True, False]
    for platform in ("gpu", "tpu"):
        assert attention_for(platform, V2) is dense_attention
    for platform in ("gpu", "tpu", "cpu"):
        dense = dataclasses.replace(half, attention="dense")
        assert attention_for(platform, dense) is dense_attention


@pytest.mark.parametrize("config", [V1, V2], ids=["v1", "v2"])
@pytest.mark.parametrize("remat", ["none", "dots", "full"])
def test_a_model_on_kernels_has_the_gradients_of_the_dense_one(config, remat, tokenizer):
    tokens = batch(tokenizer, (12, 5, 1))

    def gradient(attend):
        model = factory.build_model(dataclasses.replace(config, remat=remat), tokenizer, attend)

        def loss(params):
            logits = model.apply(params, tokens)["logits"]
            return jnp.sum(jax.nn.log_softmax(logits)[..., 7] * (tokens != tokenizer.pad_id))

        return jax.jit(jax.grad(loss))(parameters(config, tokenizer))

    attend = SPLASH if remat == "dots" else CUDNN
    found, expected = (jax.tree.leaves(gradient(f)) for f in (attend, dense_attention))
    # Of the bias of the keys, which shifts all scores of a query alike, it is 0 but for rounding.
    largest = max(np.abs(x).max() for x in expected)
    for mine, theirs in zip(found, expected, strict=True):
        scale = max(np.abs(theirs).max(), 1e-2 * largest)
        np.testing.assert_allclose(mine / scale, theirs / scale, atol=5e-5)


def test_layers_of_linear_multiples_compute_what_was_asked_for():
    from nt_jax.model.layers import Linear

    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 8)), jnp.float32)

    def run(multiple):
        linear = hk.without_apply_rng(
            hk.transform(lambda x: Linear(13, multiple=multiple, name="l")(x, jnp.float32))
        )
        params = linear.init(jax.random.key(0), x)
        assert params["l"]["w"].shape == (8, 13)
        value, pull = jax.vjp(linear.apply, params, x)
        assert value.shape == (5, 13)
        return value, pull(jnp.sin(value))

    for mine, theirs in zip(*map(jax.tree.leaves, (run(128), run(1))), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-6)
