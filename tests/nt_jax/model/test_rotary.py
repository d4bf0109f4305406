"""Rotary angles are float32 whatever the compute dtype; the published defect is a setting."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from nt_jax.model.rotary import rotary_tables, rotate, rounded_rotary_tables
from tests.nt_jax.model.conftest import V2, batch, build_model, outputs, parameters


def angles(length, size, base):
    return np.arange(length)[:, None] * base ** (-np.arange(0, size, 2) / size)


def published_rotation(heads, base=1e4):
    """What the published code computes: angles cast to the type of the heads, then the cosine."""
    length, size = heads.shape[1], heads.shape[3]
    frequencies = 1.0 / (base ** (jnp.arange(0, size, 2) / size))
    angles = jnp.einsum("i,j->ij", jnp.arange(length), frequencies)
    angles = jnp.concatenate((angles, angles), axis=-1, dtype=heads.dtype)
    cos, sin = jnp.cos(angles)[None, :, None, :], jnp.sin(angles)[None, :, None, :]
    swapped = jnp.concatenate((-heads[..., size // 2 :], heads[..., : size // 2]), axis=-1)
    return heads * cos + swapped * sin, cos, sin


def test_tables_are_exact_far_beyond_position_1000():
    cos, sin = rotary_tables(12_000, 64, 1e4)
    exact = angles(12_000, 64, 1e4)
    assert cos.dtype == sin.dtype == np.float32
    assert np.abs(cos - np.cos(exact)).max() < 1e-7
    assert np.abs(sin - np.sin(exact)).max() < 1e-7


def test_bfloat16_input_is_rotated_by_float32_angles():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 1500, 1, 64)), jnp.bfloat16)
    wide = np.float64(x)
    angle = angles(1500, 64, 1e4)[:, None]
    first, second = wide[..., :32], wide[..., 32:]
    turn = (first + 1j * second) * np.exp(1j * angle)
    expected = np.concatenate([turn.real, turn.imag], -1)
    rotated = rotate(x, rotary_tables(1500, 64, 1e4))
    assert rotated.dtype == jnp.bfloat16
    # Half a unit in the last of bfloat16's 8 bits is at most 2^-8 of the value: no more is lost.
    error = np.abs(np.float64(rotated) - expected)
    assert (error <= 2.0**-8 * np.abs(expected) + 1e-6).all()
    defective = np.float64(published_rotation(x)[0])
    assert np.abs(defective - expected)[:, 1000:].max() > 1.0


@pytest.mark.parametrize("size", [8, 20, 64])
def test_rounded_tables_repeat_the_published_code_bit_by_bit(size):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 2048, 1, size)), jnp.bfloat16)
    rotated, cos, sin = published_rotation(x)
    tables = rounded_rotary_tables(2048, size, 1e4, 1.0, jnp.bfloat16)
    for table, published in zip(tables, (cos, sin), strict=True):
        assert table.dtype == published.dtype == jnp.bfloat16
        np.testing.assert_array_equal(table, published[0, :, 0, : size // 2])
    np.testing.assert_array_equal(rotate(x, tables), rotated)
    error = np.abs(np.float32(tables[0]) - rotary_tables(2048, size, 1e4)[0])
    assert error[:64].max() < 0.15
    assert error[1000:].max() > 1.9


def test_rounded_tables_follow_the_rescaled_base():
    size, s = 16, 4.0
    base = 1e4 * s ** (size / (size - 2))
    x = jnp.zeros((1, 500, 1, size), jnp.bfloat16)
    cos = rounded_rotary_tables(500, size, 1e4, s, jnp.bfloat16)[0]
    np.testing.assert_array_equal(cos, published_rotation(x, base)[1][0, :, 0, : size // 2])


def test_rounding_to_float32_changes_nothing(tokenizer):
    for mine, exact in zip(
        rounded_rotary_tables(500, 16, 1e4, 2.0, np.float32),
        rotary_tables(500, 16, 1e4, 2.0),
        strict=True,
    ):
        assert mine.dtype == np.float32
        np.testing.assert_array_equal(mine, exact)
    rounded = dataclasses.replace(V2, rotary_angles="compute_dtype")
    tokens = batch(tokenizer, (12, 7))
    np.testing.assert_array_equal(
        outputs(rounded, tokenizer, tokens)["logits"], outputs(V2, tokenizer, tokens)["logits"]
    )


def test_model_in_bfloat16_attends_as_in_float32_at_long_range(tokenizer):
    config = dataclasses.replace(V2, num_layers=1, num_heads=1, embed_dim=16)
    params = parameters(config, tokenizer)
    tokens = batch(tokenizer, (1100,), length=1100)

    def maps(dtype, angles="float32"):
        changed = dataclasses.replace(config, compute_dtype=dtype, rotary_angles=angles)
        model = build_model(changed, tokenizer)
        return np.asarray(model.apply(params, tokens, attention=True)["attention"][1][0, 0, -50:])

    exact = maps("float32")
    distance = np.abs(maps("bfloat16") - exact).sum(-1).max()
    defect = np.abs(maps("bfloat16", "compute_dtype") - exact).sum(-1).max()
    assert distance < 0.1
    assert defect > 5 * distance


def test_rotation_depends_on_distance_alone():
    rng = np.random.default_rng(1)
    query, key = (jnp.asarray(rng.normal(size=(1, 1, 1, 8)), jnp.float32) for _ in range(2))
    tables = rotary_tables(200, 8, 1e4)

    def score(i, j):
        left, right = (
            rotate(x, tuple(table[at : at + 1] for table in tables))
            for x, at in ((query, i), (key, j))
        )
        return float(jnp.sum(left * right))

    assert score(3, 10) == pytest.approx(score(103, 110), abs=1e-5)
    assert score(3, 10) != pytest.approx(score(10, 3), abs=1e-3)


def test_rescaling_raises_the_base():
    # SegmentNT: base * s^(K/(K-2)); the slowest pair then turns exactly s times slower.
    size, s = 16, 4.0
    plain, slow = rotary_tables(50, size, 1e4), rotary_tables(50, size, 1e4, rescale=s)
    np.testing.assert_array_equal(plain[1][:, 0], slow[1][:, 0])
    last = np.arcsin(np.float64(plain[1][1, -1])) / np.arcsin(np.float64(slow[1][1, -1]))
    assert last == pytest.approx(s, rel=1e-4)


@pytest.mark.parametrize("length", [1, 2, 7, 31, 1000])
def test_a_table_is_the_beginning_of_every_longer_one(length):
    # A program exported for any length takes its rows from the longest table.
    for own, longest in zip(
        rotary_tables(length, 20, 1e4), rotary_tables(2048, 20, 1e4), strict=True
    ):
        np.testing.assert_array_equal(own, longest[:length])
