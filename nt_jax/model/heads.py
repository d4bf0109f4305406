"""The masked-language-model head, not tied to the embedding."""

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nt_jax.model.layers import LayerNorm, Linear

VOCABULARY_MULTIPLE = 128
"""Columns that the last product is computed with are a multiple of this; 4,105 or 4,107 tokens
would leave rows of odd length, which matrix units read at a fraction of their speed."""


class MaskedLMHead(hk.Module):
    """LayerNorm -> Linear D->D -> exact GELU -> LayerNorm -> Linear D->V."""

    def __init__(self, vocab_size: int, epsilon: float, *, name: str = "head"):
        super().__init__(name=name)
        self.vocab_size, self.epsilon = vocab_size, epsilon

    def __call__(
        self, hidden: Float[Array, "... D"]
    ) -> tuple[Float[Array, "... V"], Float[Array, "... D"]]:
        """Float32 logits, and the output of the first LayerNorm: "the last layer's embedding"."""
        embedding = LayerNorm(self.epsilon, name="norm")(hidden)
        x = Linear(hidden.shape[-1], name="transform")(embedding)
        x = LayerNorm(self.epsilon, name="transform_norm")(jax.nn.gelu(x, approximate=False))
        logits = Linear(self.vocab_size, multiple=VOCABULARY_MULTIPLE, name="logits")
        return logits(x, out_dtype=jnp.float32), embedding
