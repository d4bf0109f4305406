"""Attention on TPUs: Pallas' "splash" kernel of JAX."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jaxtyping import Array, Bool, Float

_LANES = 128
_BLOCK = 512
"""Queries, and keys, whose float32 scores are in vector memory at a time; libtpu compiles it for
every generation from v4 on. More keys than that are loaded at once, 2,048 of them."""


def splash_attention(
    query: Float[Array, "B T H K"],
    key: Float[Array, "B S H K"],
    value: Float[Array, "B S H K"],
    real: Bool[Array, "B S"],
    interpret: bool = False,
) -> Float[Array, "B T H K"]:
    """Pallas' attention kernel for TPUs, on whole arrays (under `shard_map` on several devices).

    Lengths are widened to a multiple of 128 tokens by pads. `interpret` runs the kernel step by
    step on any device, for tests.
    """
    length, keys, heads, size = *query.shape[1:2], *key.shape[1:]
    more, behind = -length % _LANES, -keys % _LANES
    # Heads in front, as the kernel has them.
    query, key, value = (
        jnp.pad(jnp.swapaxes(x, 1, 2), ((0, 0), (0, 0), (0, pads), (0, 0)))
        for x, pads in ((query * size**-0.5, more), (key, behind), (value, behind))
    )
    # Tokens attend to tokens of their own segment: all queries are of segment 1, pads of 0.
    segments = splash.SegmentIds(
        q=jnp.ones(query.shape[:1] + query.shape[2:3], jnp.int32),
        kv=jnp.pad(real, ((0, 0), (0, behind))).astype(jnp.int32),
    )
    kernel = _splash_kernel(heads, query.shape[2], key.shape[2], interpret)
    mixed = jax.vmap(kernel)(query, key, value, segment_ids=segments)
    return jnp.swapaxes(mixed[:, :, :length], 1, 2).astype(query.dtype)


def _splash_kernel(heads: int, queries: int, keys: int, interpret: bool) -> Callable[..., Any]:
    block_q, block_kv = _block(queries, _BLOCK), _block(keys, 4 * _BLOCK)
    compute = _block(block_kv, _BLOCK)
    return splash.make_splash_mha(
        masks.MultiHeadMask([masks.FullMask((queries, keys))] * heads),
        block_sizes=splash.BlockSizes(
            block_q=block_q,
            block_kv=block_kv,
            block_kv_compute=compute,
            block_q_dkv=block_q,
            block_kv_dkv=block_kv,
            block_kv_dkv_compute=compute,
            # One kernel for all gradients multiplies five matrices instead of seven. It writes
            # the gradient of the queries once for each block of keys, hence the long ones.
            use_fused_bwd_kernel=True,
        ),
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
    )


def _block(length: int, most: int) -> int:
    """The largest multiple of 128 tokens that divides the length, `most` at most."""
    return next(size for size in range(most, 0, -_LANES) if length % size == 0)
