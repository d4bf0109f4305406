"""Rotary angles are float32 whatever the compute dtype; the published defect is not here."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from nt_jax.model import attention
from nt_jax.model.rotary import rotary_tables, rotate
from tests.nt_jax.model.conftest import V2, batch, build_model, parameters


def angles(length, size, base):
    return np.arange(length)[:, None] * base ** (-np.arange(0, size, 2) / size)


def rotate_with_angles_in(dtype):
    """The published defect: angles rounded to the compute dtype before the cosine is taken."""

    def defective(x, tables):
        rounded = angles(x.shape[1], x.shape[3], 1e4).astype(dtype).astype(np.float32)
        return rotate(x, (np.cos(rounded), np.sin(rounded)))

    return defective


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
    defective = np.float64(rotate_with_angles_in(jnp.bfloat16)(x, None))
    assert np.abs(defective - expected)[:, 1000:].max() > 1.0


def test_model_in_bfloat16_attends_as_in_float32_at_long_range(tokenizer, monkeypatch):
    config = dataclasses.replace(V2, num_layers=1, num_heads=1, embed_dim=16)
    params = parameters(config, tokenizer)
    tokens = batch(tokenizer, (1100,), length=1100)

    def maps(dtype):
        model = build_model(dataclasses.replace(config, compute_dtype=dtype), tokenizer)
        return np.asarray(model.apply(params, tokens, attention=True)["attention"][1][0, 0, -50:])

    exact = maps("float32")
    distance = np.abs(maps("bfloat16") - exact).sum(-1).max()
    build_model.cache_clear()
    monkeypatch.setattr(attention, "rotate", rotate_with_angles_in(jnp.bfloat16))
    defect = np.abs(maps("bfloat16") - exact).sum(-1).max()
    build_model.cache_clear()
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
