"""The encoder of NT v1 and v2: embedding, then L pre-LayerNorm blocks with stacked parameters."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import jmp
import numpy as np
from jax.export import is_symbolic_dim
from jaxtyping import Array, Float, Int

from nt_jax.config import ModelConfig
from nt_jax.errors import InputError
from nt_jax.model.attention import AttentionFunction, MultiHeadAttention
from nt_jax.model.flash import saves_kernel
from nt_jax.model.layers import Embed, LayerNorm, Light, Linear, saved
from nt_jax.model.rotary import Tables, rotary_tables, rounded_rotary_tables

# What the backward pass of a block finds saved. "dots" keeps the outputs of the projections and of
# cuDNN's kernel, not the [B,H,T,T] scores of dense attention (they are matmuls with batch
# dimensions), which are what fills the memory.
_REMAT_POLICIES = {
    "dots": jax.checkpoint_policies.save_from_both_policies(
        jax.checkpoint_policies.dots_with_no_batch_dims_saveable, saves_kernel
    ),
    "full": jax.checkpoint_policies.nothing_saveable,
}
_ACTIVATIONS = {
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "swish": jax.nn.swish,
}


class Vocabulary(NamedTuple):
    """What the model must know of the tokenizer."""

    size: int
    pad_id: int
    mask_id: int


def policy(config: ModelConfig) -> jmp.Policy:
    """Parameters and outputs float32, arithmetic in config.compute_dtype."""
    return jmp.get_policy(f"params=float32,compute={config.compute_dtype},output=float32")


def _rotary_tables(config: ModelConfig) -> Callable[..., Tables]:
    if config.rotary_angles == "float32":
        return rotary_tables
    return functools.partial(rounded_rotary_tables, dtype=policy(config).compute_dtype)


def embed_tokens(
    config: ModelConfig, vocabulary: Vocabulary, tokens: Int[Array, "B T"]
) -> Float[Array, "B T D"]:
    """Token (and learned position) embeddings with ESM's token dropout, in the compute dtype."""
    std = config.embed_init_std
    with hk.name_scope("embed"):
        x = Embed(vocabulary.size, config.embed_dim, std, name="token")(tokens)
        if config.embed_scale != 1.0:
            x *= config.embed_scale
        real = tokens != vocabulary.pad_id
        if config.token_dropout:
            # `<mask>` embeds to zero; what is left is scaled to the share of masks that training
            # saw, so that the sum keeps its size whatever share this sequence has.
            masks = tokens == vocabulary.mask_id
            observed = jnp.sum(masks, axis=1) / jnp.maximum(jnp.sum(real, axis=1), 1)
            scale = (1.0 - config.token_dropout) / jnp.maximum(1.0 - observed, 1e-6)
            x *= jnp.where(masks, 0.0, scale[:, None])[..., None]
        if config.positions == "learned":
            rows = config.max_positions + vocabulary.pad_id + 1
            index = jnp.cumsum(real, axis=1) * real + vocabulary.pad_id
            x += Embed(rows, config.embed_dim, std, name="position")(index)
        if config.embed_layer_norm:
            x = LayerNorm(config.layer_norm_epsilon, name="norm")(x)
    return policy(config).cast_to_compute(x)


def feed_forward(
    config: ModelConfig, x: Float[Array, "B T D"], light: Light = saved
) -> Float[Array, "B T D"]:
    """fc1 -> activation -> fc2; gated: the activated first half of fc1 times its second half."""
    with hk.name_scope("ffn"):
        parts = 2 if config.ffn_gated else 1
        fc1 = Linear(parts * config.ffn_dim, parts=parts, bias=config.ffn_bias, name="fc1")
        hidden = fc1(x)
        activation = _ACTIVATIONS[config.ffn_activation]

        def activated(hidden: Array) -> Array:
            if config.ffn_gated:
                return activation(hidden[..., 0, :]) * hidden[..., 1, :]
            return activation(hidden)

        return Linear(config.embed_dim, bias=config.ffn_bias, name="fc2")(light(activated)(hidden))


def encode(
    config: ModelConfig,
    vocabulary: Vocabulary,
    attend: AttentionFunction,
    tokens: Int[Array, "B T"],
    layers: tuple[int, ...] = (),
    attention: tuple[int, ...] = (),
    unroll: int = 1,
    light: Light = saved,
) -> tuple[Float[Array, "B T D"], dict[str, Array]]:
    """Runs the blocks; keeps the outputs of `layers` and the maps of `attention` (1-based layers).

    `unroll` blocks stand in the body of the loop over the layers; `light` stands around their
    activations and LayerNorms.

    Returns the output of the last block, before the head's first LayerNorm, and what was asked
    for, in the order asked: "embeddings" [N,B,T,D], "attention" [N,B,H,T,T] float32. Raises
    InputError for a sequence longer than max_positions or a layer that does not exist.
    """
    batch, length = tokens.shape
    if length > config.max_positions:
        raise InputError(
            f"sequence of {length} tokens exceeds the model's max_positions="
            f"{config.max_positions}: crop it, or build the model with --model.max-positions"
        )
    x = embed_tokens(config, vocabulary, tokens)
    real = tokens != vocabulary.pad_id
    rotary = None
    if config.positions == "rotary":
        # A length that jax.export leaves open has no table of its own, but rows of the longest.
        known = config.max_positions if is_symbolic_dim(length) else length
        tables = _rotary_tables(config)
        rotary = tables(known, config.head_size, config.rope_base, config.rope_rescale)
        if is_symbolic_dim(length):
            positions = jnp.arange(length)
            rotary = jnp.asarray(rotary[0])[positions], jnp.asarray(rotary[1])[positions]

    norm = functools.partial(LayerNorm, config.layer_norm_epsilon, light=light)

    def block(x: Array) -> tuple[Array, Array | None]:
        normed = norm(name="attention_norm")(x)
        mha = MultiHeadAttention(config.num_heads, config.head_size, attend, name="attention")
        mixed, maps = mha(normed, real, rotary, maps=bool(attention))
        x += mixed
        x += feed_forward(config, norm(name="ffn_norm")(x), light)
        return x, maps

    if config.remat != "none" and not hk.running_init():
        # Without a loop around it the compiler would see what is computed twice, and keep it.
        rematerialise = functools.partial(hk.remat, policy=_REMAT_POLICIES[config.remat])
        block = rematerialise(block, prevent_cse=unroll > 1)

    # Only what is asked for is stored: each layer writes to its row of a buffer, and a layer that
    # nobody asked for writes to a row that does not exist.
    kept, rows = {}, {}
    if layers:
        kept["embeddings"] = jnp.zeros((len(layers), *x.shape), x.dtype)
        rows["embeddings"] = _rows(config.num_layers, layers)
    if attention:
        maps_shape = (len(attention), batch, config.num_heads, length, length)
        kept["attention"] = jnp.zeros(maps_shape, jnp.float32)
        rows["attention"] = _rows(config.num_layers, attention)

    def step(carry: Any, rows: dict[str, Array]) -> tuple[Any, None]:
        x, kept = carry
        x, maps = block(x)
        new = {"embeddings": x, "attention": maps}
        kept = {
            name: buffer.at[rows[name]].set(new[name], mode="drop") for name, buffer in kept.items()
        }
        return (x, kept), None

    stack = hk.layer_stack(
        config.num_layers, with_per_layer_inputs=True, unroll=unroll, name="block"
    )
    (x, kept), _ = stack(step)((x, kept), rows)
    return x, kept


def _rows(num_layers: int, wanted: tuple[int, ...]) -> np.ndarray:
    rows = np.full(num_layers, len(wanted), np.int32)
    for row, layer in enumerate(wanted):
        if not 1 <= layer <= num_layers:
            raise InputError(f"layer {layer} does not exist: layers are 1 to {num_layers}")
        rows[layer - 1] = row
    return rows
