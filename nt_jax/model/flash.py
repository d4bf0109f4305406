"""Attention that never lays the scores out in memory, where a device has a kernel for it.

cuDNN's on GPUs here, Pallas' "splash" on TPUs in splash.py. Both compute what `dense_attention`
does, block by block (Dao et al. 2022), with float32 scores and softmax. Neither can return maps:
those are dense everywhere.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from nt_jax.config import ModelConfig
from nt_jax.model.attention import AttentionFunction, dense_attention, parted_attention

_CUDNN = "dot_product_attention_fwd_wrapper"


def attention_for(platform: str, model: ModelConfig) -> AttentionFunction:
    """The fastest attention of a platform, for arrays that lie on one device (or `shard_map`).

    The kernels of GPUs and TPUs multiply in bfloat16, which a float32 model must not.
    """
    if model.attention == "dense":
        return dense_attention
    if platform == "cpu":
        return parted_attention
    if model.compute_dtype != "bfloat16":
        return dense_attention
    if platform == "tpu":
        # Imported where it runs: it brings the compiler of kernels, which no other device needs.
        from nt_jax.model.splash import splash_attention

        return splash_attention
    return cudnn_attention if platform in ("gpu", "cuda") else dense_attention


def has_kernel(platform: str, model: ModelConfig) -> bool:
    """Whether `attention_for` never lays the scores out."""
    return attention_for(platform, model) not in (dense_attention, parted_attention)


def attention_here(model: ModelConfig) -> AttentionFunction:
    """The fastest attention for functions that are jitted as they are, on this process's devices.

    The compiler spreads cuDNN's kernel over several GPUs by itself, but not the others.
    """
    platform = jax.default_backend()
    if platform in ("tpu", "cpu") and jax.device_count() > 1:
        return dense_attention
    return attention_for(platform, model)


def saves_kernel(primitive: Any, *_: Any, **params: Any) -> bool:
    """Policy of rematerialisation: keeps what cuDNN's backward pass reads of the forward one.

    On a TPU that takes 128 elements for each head of a token, twice or four times what a head
    has and more than scores ever took, so there the forward kernel runs again.
    """
    return primitive.name == _CUDNN


def cudnn_attention(
    query: Float[Array, "B T H K"],
    key: Float[Array, "B S H K"],
    value: Float[Array, "B S H K"],
    real: Bool[Array, "B S"],
    implementation: str = "cudnn",
) -> Float[Array, "B T H K"]:
    """cuDNN's flash attention, which is told how many keys are real: pads must be at the end.

    Heads are widened with zeros to a multiple of 8. `implementation` is that of
    `jax.nn.dot_product_attention`; "xla" runs everywhere, for tests.
    """
    size = query.shape[-1]
    wider = ((0, 0), (0, 0), (0, 0), (0, -size % 8))
    attend: Callable[..., Array] = jax.nn.dot_product_attention
    mixed = attend(
        *(jnp.pad(x, wider) for x in (query, key, value)),
        scale=size**-0.5,
        # A sequence of pads alone looks at its first one.
        key_value_seq_lengths=jnp.maximum(jnp.sum(real, axis=1, dtype=jnp.int32), 1),
        implementation=implementation,
    )
    return mixed[..., :size]
