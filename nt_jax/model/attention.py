"""Multi-head self-attention. How scores become outputs is a function passed in.

B batch, T query tokens, S key tokens (the same sequence), H heads, K head size, D model width.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from nt_jax.model.layers import Linear
from nt_jax.model.rotary import Tables, rotate

AttentionFunction: TypeAlias = Callable[[Array, Array, Array, Array], Array]
"""(query [B,T,H,K], key [B,S,H,K], value [B,S,H,K], real [B,S]) -> [B,T,H,K] in their dtype.

`real` is False where the key is a pad, which nobody attends to. Softmax and scores are float32.
The published mask is the outer product of the non-pad masks; it differs in the rows of queries
that are pads, which nothing reads: their logits are set to 0. In a sequence of pads alone the
outputs are finite, and otherwise of no meaning. Kernels may ask for pads at the end, as every
batch of this package has them.
"""

MASKED = -1e30


def attention_weights(
    query: Float[Array, "B T H K"],
    key: Float[Array, "B S H K"],
    real: Bool[Array, "B S"],
) -> Float[Array, "B H T S"]:
    """Attention maps, float32: softmax over the real keys of q.k / sqrt(K).

    The queries are scaled, as ESM does: a pass over T x K numbers instead of T x S.
    """
    # Heads in front: the batched matmul of XLA's CPU backend takes half the time on this layout.
    query, key = jnp.swapaxes(query * query.shape[-1] ** -0.5, 1, 2), jnp.swapaxes(key, 1, 2)
    scores = jnp.einsum("bhtk,bhsk->bhts", query, key, preferred_element_type=jnp.float32)
    scores = jnp.where(real[:, None, None, :], scores, MASKED)
    return jax.nn.softmax(scores, axis=-1)


def weighted_values(
    weights: Float[Array, "B H T S"], value: Float[Array, "B S H K"]
) -> Float[Array, "B T H K"]:
    """Sums the values by their weights, in the dtype of the values."""
    value = jnp.swapaxes(value, 1, 2)
    return jnp.swapaxes(jnp.einsum("bhts,bhsk->bhtk", weights.astype(value.dtype), value), 1, 2)


@jax.custom_vjp
def dense_attention(
    query: Float[Array, "B T H K"],
    key: Float[Array, "B S H K"],
    value: Float[Array, "B S H K"],
    real: Bool[Array, "B S"],
) -> Float[Array, "B T H K"]:
    """The default: materialises the maps; runs on every backend and exports everywhere."""
    return _dense_forward(query, key, value, real)[0]


def _dense_forward(query: Array, key: Array, value: Array, real: Array) -> tuple[Array, Any]:
    weights = attention_weights(query, key, real)
    mixed = weighted_values(weights, value)
    return mixed, (query, key, value, weights, mixed)


def _dense_backward(saved: Any, grad: Array) -> tuple[Array, Array, Array, None]:
    """What JAX derives, but for the order of two products and where 1 / sqrt(K) is multiplied.

    The gradients of keys and values sum over the rows of a map. Written as JAX writes them, the
    large factor is read by columns, for which XLA's CPU backend takes three times as long.
    """
    query, key, value, weights, mixed = saved
    query, key, value, mixed, grad = (
        jnp.swapaxes(x, 1, 2) for x in (query, key, value, mixed, grad)
    )
    wide = {"preferred_element_type": jnp.float32}

    def over_queries(maps: Array, x: Array) -> Array:
        return jnp.swapaxes(jnp.einsum("bhkt,bhts->bhks", jnp.swapaxes(x, 2, 3), maps), 2, 3)

    scaled = grad * query.shape[-1] ** -0.5
    to_weights = jnp.einsum("bhtk,bhsk->bhts", scaled, value, **wide)
    mean = jnp.sum(scaled.astype(jnp.float32) * mixed, axis=-1, keepdims=True)
    # Where a key is a pad its weight is 0, and so is this.
    to_scores = weights * (to_weights - mean)
    to_scores = to_scores.astype(query.dtype)
    gradients = (
        jnp.einsum("bhts,bhsk->bhtk", to_scores, key),
        over_queries(to_scores, query),
        over_queries(weights.astype(value.dtype), grad),
    )
    to_query, to_key, to_value = (jnp.swapaxes(x, 1, 2) for x in gradients)
    return to_query, to_key, to_value, None


dense_attention.defvjp(_dense_forward, _dense_backward)


def parted_attention(
    query: Float[Array, "B T H K"],
    key: Float[Array, "B S H K"],
    value: Float[Array, "B S H K"],
    real: Bool[Array, "B S"],
) -> Float[Array, "B T H K"]:
    """`dense_attention` on half the heads at a time, up to 512 tokens on half the sequences too.

    For CPUs: XLA runs a product of many small matrices on one core, but parts that need nothing
    of each other side by side. The batch and the heads must not be split over devices.
    """
    short = query.shape[1] <= 512
    halves = 2 - query.shape[0] % 2 if short else 1, 2 - query.shape[2] % 2

    def rows(x: Array) -> list[Array]:
        return jnp.split(x, halves[0], axis=0)

    def some(*arrays: Array) -> Array:
        heads = zip(*(jnp.split(x, halves[1], axis=2) for x in arrays[:3]), strict=True)
        return jnp.concatenate([dense_attention(*part, arrays[3]) for part in heads], axis=2)

    parts = zip(*(rows(x) for x in (query, key, value, real)), strict=True)
    return jnp.concatenate([some(*part) for part in parts], axis=0)


def reference_heads(maps: Float[Array, "B H T S"]) -> Float[Array, "B H T S"]:
    """Maps under the published head numbers: number h holds head h + 1, the last one twice.

    `attention_maps_to_save` of the published model reads `attention_weights[:, number + 1]`, and
    JAX clamps an index beyond the end; so head 0 is under no number.
    """
    heads = maps.shape[1]
    return maps[:, np.minimum(np.arange(heads) + 1, heads - 1)]


class MultiHeadAttention(hk.Module):
    """Query, key, value and output projections, all with biases (v1 and v2)."""

    def __init__(self, num_heads: int, head_size: int, attend: AttentionFunction, *, name: str):
        super().__init__(name=name)
        self.num_heads, self.head_size, self.attend = num_heads, head_size, attend

    def __call__(
        self,
        x: Float[Array, "B T D"],
        real: Bool[Array, "B T"],
        rotary: Tables | None,
        maps: bool = False,
    ) -> tuple[Float[Array, "B T D"], Float[Array, "B H T T"] | None]:
        """Returns the output and, if `maps`, the true attention map of every head (else None)."""
        # The published initialisation: He, uniform, of weights and biases alike.
        he = hk.initializers.VarianceScaling(2.0, "fan_in", "uniform")

        def project(name: str) -> Array:
            flat = Linear(self.num_heads * self.head_size, w_init=he, b_init=he, name=name)(x)
            return flat.reshape(*x.shape[:-1], self.num_heads, self.head_size)

        query, key, value = project("query"), project("key"), project("value")
        if rotary is not None:
            query, key = rotate(query, rotary), rotate(key, rotary)
        weights = None
        if maps:
            weights = attention_weights(query, key, real)
            mixed = weighted_values(weights, value)
        else:
            mixed = self.attend(query, key, value, real)
        mixed = mixed.reshape(*x.shape[:-1], self.num_heads * self.head_size)
        return Linear(x.shape[-1], w_init=he, b_init=he, name="out")(mixed), weights
