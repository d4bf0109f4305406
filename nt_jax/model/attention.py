"""Multi-head self-attention. How scores become outputs is a function passed in.

B batch, T query tokens, S key tokens (the same sequence), H heads, K head size, D model width.
"""

from collections.abc import Callable
from typing import TypeAlias

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from nt_jax.model.layers import Linear
from nt_jax.model.rotary import Tables, rotate

# (query [B,T,H,K], key, value, bias [B,1,1,S]) -> [B,T,H,K]
AttentionFunction: TypeAlias = Callable[[Array, Array, Array, Array], Array]

MASKED = -1e30


def key_bias(tokens: Int[Array, "B S"], pad_id: int) -> Float[Array, "B 1 1 S"]:
    """Additive float32 bias that hides pads as keys.

    The published mask is the outer product of the non-pad masks. It differs in the rows of
    queries that are pads, which nothing reads: their logits are set to 0.
    """
    return jnp.where(tokens == pad_id, MASKED, 0.0).astype(jnp.float32)[:, None, None, :]


def attention_weights(
    query: Float[Array, "B T H K"],
    key: Float[Array, "B S H K"],
    bias: Float[Array, "B 1 1 S"],
) -> Float[Array, "B H T S"]:
    """Attention maps, float32: softmax over keys of q.k / sqrt(K) + bias, scores in float32."""
    # Heads in front: the batched matmul of XLA's CPU backend takes half the time on this layout.
    query, key = jnp.swapaxes(query, 1, 2), jnp.swapaxes(key, 1, 2)
    scores = jnp.einsum("bhtk,bhsk->bhts", query, key, preferred_element_type=jnp.float32)
    return jax.nn.softmax(scores * query.shape[-1] ** -0.5 + bias, axis=-1)


def weighted_values(
    weights: Float[Array, "B H T S"], value: Float[Array, "B S H K"]
) -> Float[Array, "B T H K"]:
    """Sums the values by their weights, in the dtype of the values."""
    value = jnp.swapaxes(value, 1, 2)
    return jnp.swapaxes(jnp.einsum("bhts,bhsk->bhtk", weights.astype(value.dtype), value), 1, 2)


def dense_attention(
    query: Float[Array, "B T H K"],
    key: Float[Array, "B S H K"],
    value: Float[Array, "B S H K"],
    bias: Float[Array, "B 1 1 S"],
) -> Float[Array, "B T H K"]:
    """The default: materialises the maps; runs on every backend and exports everywhere."""
    return weighted_values(attention_weights(query, key, bias), value)


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
        bias: Float[Array, "B 1 1 T"],
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
            weights = attention_weights(query, key, bias)
            mixed = weighted_values(weights, value)
        else:
            mixed = self.attend(query, key, value, bias)
        mixed = mixed.reshape(*x.shape[:-1], self.num_heads * self.head_size)
        return Linear(x.shape[-1], w_init=he, b_init=he, name="out")(mixed), weights
