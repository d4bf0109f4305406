"""Tiny models: two-base tokens, two layers, parameters drawn so that nothing is zero or one."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nt_jax.config import ModelConfig
from nt_jax.model import factory
from nt_jax.tokenizers import KmerTokenizer

V1 = ModelConfig(
    num_layers=2,
    num_heads=4,
    embed_dim=16,
    ffn_dim=24,
    positions="learned",
    max_positions=32,
    ffn_activation="gelu",
    ffn_gated=False,
    ffn_bias=True,
    token_dropout=0.12,
    embed_layer_norm=True,
    embed_scale=1.5,
)
V2 = ModelConfig(num_layers=2, num_heads=4, embed_dim=16, ffn_dim=24, max_positions=2048)


@functools.cache
def build_model(config, tokenizer) -> factory.Model:
    """`factory.build_model`, jitted: outside of jit a scan compiles operation by operation."""
    model = factory.build_model(config, tokenizer)
    return dataclasses.replace(
        model,
        init=jax.jit(model.init),
        encode=jax.jit(model.encode),
        head=jax.jit(model.head),
        apply=jax.jit(model.apply, static_argnames=("layers", "attention")),
    )


@functools.cache
def parameters(config, tokenizer, seed=0):
    """Every parameter drawn anew: initial biases are zero and scales one, which hides errors."""
    rng = np.random.default_rng(seed)

    def draw(path, x):
        name = jax.tree_util.keystr(path)
        size = 1.0 if "embed" in name else 0.4
        return jnp.asarray(rng.normal(1.0 if "scale" in name else 0.0, size, x.shape), jnp.float32)

    abstract = jax.eval_shape(factory.build_model(config, tokenizer).init, jax.random.key(0))
    return jax.tree_util.tree_map_with_path(draw, abstract)


def outputs(config, tokenizer, tokens):
    """Everything a model returns, as NumPy arrays; one compilation a config and shape."""
    params = parameters(config, tokenizer)
    layers = tuple(range(1, config.num_layers + 1))
    model = build_model(config, tokenizer)
    return jax.tree.map(np.asarray, model.apply(params, tokens, layers=layers, attention=True))


def batch(tokenizer, lengths, length=12, seed=0, masks=True) -> np.ndarray:
    """int32[B, length]: rows of the given lengths, some `<mask>`, then pads."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(*tokenizer.kmer_ids, (len(lengths), length)).astype(np.int32)
    if masks:
        tokens[rng.random(tokens.shape) < 0.2] = tokenizer.mask_id
    tokens[:, 0] = tokenizer.cls_id
    tokens[np.arange(length) >= np.array(lengths)[:, None]] = tokenizer.pad_id
    return tokens


@pytest.fixture(scope="session")
def tokenizer() -> KmerTokenizer:
    return KmerTokenizer(k=2, vocabulary="v2")


def library_attention(query, key, value, real):
    """JAX's own attention, an implementation independent of ours."""
    mask = real[:, None, None, :]
    return jax.nn.dot_product_attention(query, key, value, mask=mask, implementation="xla")
