"""Rotary position embedding: base 10000, the halves of a head rotated against each other.

The tables are float32 whatever the compute dtype, and so is the rotation. Angles held in bfloat16
keep 8 bits: at position 1000 they are off by radians and the cosine by up to 2 (a defect of the
published code, which `rounded_rotary_tables` repeats).
"""

from typing import TypeAlias

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

_Table: TypeAlias = Float[np.ndarray | Array, "T R"]
Tables: TypeAlias = tuple[_Table, _Table]
"""Cosines and sines of every position (T) and pair of a head (R = K/2)."""


def rotary_frequencies(
    head_size: int, base: float, rescale: float = 1.0
) -> Float[np.ndarray, " R"]:
    """Float64 radians per token, base^(-2i/K), for the pairs i < K/2 of a head.

    `rescale` s extends the context: the base becomes base * s^(K/(K-2)) (SegmentNT).
    """
    if rescale != 1.0:
        base *= rescale ** (head_size / (head_size - 2))
    return base ** -(np.arange(0, head_size, 2) / head_size)


def rotary_tables(length: int, head_size: int, base: float, rescale: float = 1.0) -> Tables:
    """Float32 cosines and sines of position * `rotary_frequencies`.

    Computed in float64 while tracing, so the result is correctly rounded at any position.
    """
    angles = np.arange(length)[:, None] * rotary_frequencies(head_size, base, rescale)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def rounded_rotary_tables(
    length: int, head_size: int, base: float, rescale: float, dtype: DTypeLike
) -> Tables:
    """The tables of the published code: `rotary_tables` with angles, cosines and sines in `dtype`.

    Its angles are products of float32 numbers, cast to the type of the queries and keys before the
    cosine is taken (`RotaryEmbedding` in layers.py). Where that type is float32 the tables are
    those of `rotary_tables`.
    """
    if jnp.dtype(dtype) == np.float32:
        return rotary_tables(length, head_size, base, rescale)
    frequencies = rotary_frequencies(head_size, base, rescale).astype(np.float32)
    angles = np.arange(length, dtype=np.float32)[:, None] * frequencies
    angles = angles.astype(dtype).astype(np.float32)
    return np.cos(angles).astype(dtype), np.sin(angles).astype(dtype)


def rotate(x: Float[Array, "B T H K"], tables: Tables) -> Float[Array, "B T H K"]:
    """Rotates pair (i, i + K/2) of every head by the angle of its position, in the tables' type."""
    cos, sin = (table[:, None, :] for table in tables)
    first, second = jnp.split(x.astype(cos.dtype), 2, axis=-1)
    turned = (first * cos - second * sin, second * cos + first * sin)
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)
