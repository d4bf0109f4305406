"""A Nucleotide Transformer in Flax NNX, in one file. Needs jax, flax, numpy and safetensors.

    from flax import nnx
    from model import load

    model = load("FOLDER")  # this file's own folder
    outputs = nnx.jit(lambda model, tokens: model(tokens))(model, tokens)

`tokens` are int32 [B, T]: ids of vocab.txt (the line number, from 0), `<cls>` first, `<pad>` last.
B batch, T tokens, H heads, K head size, D width, F feed-forward width, V vocabulary, L layers.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import safe_open

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "swish": jax.nn.swish,
}
Tables = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes and choices of a model; `config.json` holds them."""

    vocab_size: int
    pad_id: int
    mask_id: int
    num_layers: int
    num_heads: int
    embed_dim: int
    ffn_dim: int
    key_size: int | None
    positions: str
    max_positions: int
    rope_base: float
    rope_rescale: float
    rotary_angles: str
    ffn_activation: str
    ffn_gated: bool
    ffn_bias: bool
    token_dropout: float
    embed_scale: float
    embed_layer_norm: bool
    layer_norm_epsilon: float
    compute_dtype: str

    @property
    def head_size(self) -> int:
        """Size K of one attention head."""
        return self.key_size or self.embed_dim // self.num_heads

    @classmethod
    def read(cls, path: str | pathlib.Path) -> "Config":
        """The config of a `config.json`."""
        content = json.loads(pathlib.Path(path).read_text())
        values = content["model"] | content["vocabulary"]
        return cls(**{field.name: values[field.name] for field in dataclasses.fields(cls)})


def layer_norm(config: Config, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """Float32 LayerNorm; the mean is taken off before squaring, which is the exact way."""
    return nnx.LayerNorm(
        config.embed_dim,
        epsilon=config.layer_norm_epsilon,
        dtype=jnp.float32,
        use_fast_variance=False,
        rngs=rngs,
    )


def rotary_tables(config: Config, length: int) -> Tables:
    """Cosines and sines [T, 1, K/2] of the rotary angles.

    They are float32, unless `rotary_angles` asks for the type of the arithmetic: so does the
    published code, whose bfloat16 angles are off by radians beyond position 1000.
    """
    size, base = config.head_size, config.rope_base
    if config.rope_rescale != 1.0:
        base *= config.rope_rescale ** (size / (size - 2))
    positions = np.arange(length)[:, None, None]
    frequencies = base ** -(np.arange(0, size, 2) / size)
    if (config.rotary_angles, config.compute_dtype) == ("compute_dtype", "bfloat16"):
        narrow = positions.astype(np.float32) * frequencies.astype(np.float32)
        narrow = narrow.astype(jnp.bfloat16).astype(np.float32)
        return np.cos(narrow).astype(jnp.bfloat16), np.sin(narrow).astype(jnp.bfloat16)
    angles = positions * frequencies
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def rotate(x: jax.Array, tables: Tables) -> jax.Array:
    """Rotates the first half of each head of x [B, T, H, K] against its second half."""
    cos, sin = tables
    left, right = jnp.split(x.astype(cos.dtype), 2, axis=-1)
    turned = [left * cos - right * sin, right * cos + left * sin]
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)


class Block(nnx.Module):
    """Attention, then feed-forward, each behind a LayerNorm and around a residual."""

    def __init__(self, config: Config, rngs: nnx.Rngs):
        linear = functools.partial(nnx.Linear, dtype=jnp.dtype(config.compute_dtype), rngs=rngs)
        width, inner = config.embed_dim, config.num_heads * config.head_size
        self.config = config
        self.attention_norm = layer_norm(config, rngs)
        self.query = linear(width, inner)
        self.key = linear(width, inner)
        self.value = linear(width, inner)
        self.out = linear(inner, width)
        self.ffn_norm = layer_norm(config, rngs)
        columns = config.ffn_dim * (2 if config.ffn_gated else 1)
        self.fc1 = linear(width, columns, use_bias=config.ffn_bias)
        self.fc2 = linear(config.ffn_dim, width, use_bias=config.ffn_bias)

    def __call__(self, x: jax.Array, mask: jax.Array, tables: Tables | None) -> jax.Array:
        """x [B, T, D], mask [B, 1, 1, T] true where a key may be seen -> [B, T, D]."""
        x += self.attend(self.attention_norm(x), mask, tables)
        hidden = self.fc1(self.ffn_norm(x))
        activation = ACTIVATIONS[self.config.ffn_activation]
        if self.config.ffn_gated:
            gate, hidden = jnp.split(hidden, 2, axis=-1)
            return x + self.fc2(activation(gate) * hidden)
        return x + self.fc2(activation(hidden))

    def attend(self, x: jax.Array, mask: jax.Array, tables: Tables | None) -> jax.Array:
        """Multi-head self-attention of x [B, T, D]."""
        heads = (*x.shape[:-1], self.config.num_heads, self.config.head_size)
        query, key, value = (part(x).reshape(heads) for part in (self.query, self.key, self.value))
        if tables is not None:
            query, key = rotate(query, tables), rotate(key, tables)
        mixed = jax.nn.dot_product_attention(query, key, value, mask=mask)
        return self.out(mixed.reshape(*x.shape[:-1], -1))


class NucleotideTransformer(nnx.Module):
    """Encoder and masked-language-model head. Fresh parameters start as Flax's defaults."""

    def __init__(self, config: Config, rngs: nnx.Rngs):
        width = config.embed_dim
        self.config = config
        self.token_embedding = nnx.Embed(config.vocab_size, width, rngs=rngs)
        if config.positions == "learned":
            # Positions count from the row after the pad's.
            rows = config.max_positions + config.pad_id + 1
            self.position_embedding = nnx.Embed(rows, width, rngs=rngs)
        if config.embed_layer_norm:
            self.embedding_norm = layer_norm(config, rngs)
        self.blocks = nnx.List([Block(config, rngs) for _ in range(config.num_layers)])
        self.head_norm = layer_norm(config, rngs)
        dtype = jnp.dtype(config.compute_dtype)
        self.head_transform = nnx.Linear(width, width, dtype=dtype, rngs=rngs)
        self.head_transform_norm = layer_norm(config, rngs)
        self.head_logits = nnx.Linear(width, config.vocab_size, dtype=jnp.float32, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> dict[str, jax.Array | dict[int, jax.Array]]:
        """Logits and embeddings of tokens, int32 [B, T].

        Returns {"logits": [B, T, V], 0 at pads, "embeddings": {layer: [B, T, D]}} for the layers 1
        to L; the embedding of the last one is the output of the head's first LayerNorm. Under
        `nnx.jit`, what a caller does not use is not computed. Raises ValueError for more than
        max_positions tokens.
        """
        config, length = self.config, tokens.shape[1]
        if length > config.max_positions:
            raise ValueError(f"{length} tokens; the model takes at most {config.max_positions}")
        real = tokens != config.pad_id
        tables = rotary_tables(config, length) if config.positions == "rotary" else None
        x = self.embed(tokens, real).astype(config.compute_dtype)
        embeddings = {}
        for layer, block in enumerate(self.blocks, 1):
            x = block(x, real[:, None, None, :], tables)
            embeddings[layer] = x
        x = embeddings[config.num_layers] = self.head_norm(x)
        x = ACTIVATIONS["gelu"](self.head_transform(x))
        logits = self.head_logits(self.head_transform_norm(x))
        return {"logits": jnp.where(real[..., None], logits, 0.0), "embeddings": embeddings}

    def embed(self, tokens: jax.Array, real: jax.Array) -> jax.Array:
        """Token and position embeddings [B, T, D], float32; `real` is false at pads."""
        config = self.config
        x = self.token_embedding(tokens) * config.embed_scale
        if config.token_dropout:
            # `<mask>` embeds to zero, and the rest is scaled to the share of masks in training.
            masks = tokens == config.mask_id
            share = masks.sum(axis=1) / jnp.maximum(real.sum(axis=1), 1)
            scale = (1.0 - config.token_dropout) / jnp.maximum(1.0 - share, 1e-6)
            x *= jnp.where(masks, 0.0, scale[:, None])[..., None]
        if config.positions == "learned":
            x += self.position_embedding(jnp.cumsum(real, axis=1) * real + config.pad_id)
        return self.embedding_norm(x) if config.embed_layer_norm else x


def load(folder: str | pathlib.Path, compute_dtype: str | None = None) -> NucleotideTransformer:
    """The model of a folder, in its config's compute dtype or another; ValueError if damaged."""
    folder = pathlib.Path(folder)
    config = Config.read(folder / "config.json")
    config = dataclasses.replace(config, compute_dtype=compute_dtype or config.compute_dtype)
    model = nnx.eval_shape(lambda: NucleotideTransformer(config, nnx.Rngs(0)))
    graph, state = nnx.split(model)
    parts = {".".join(map(str, path)): (path, part) for path, part in nnx.to_flat_state(state)}
    path = folder / "weights.safetensors"
    with safe_open(path, framework="flax") as file:
        found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    expected = {name: part.shape for name, (_, part) in parts.items()}
    if found != expected:
        wrong = sorted({name for name, _ in found.items() ^ expected.items()})
        raise ValueError(f"{folder}: missing, unexpected or of another shape: {', '.join(wrong)}")
    values = {}
    for name, (key, part) in parts.items():
        # Opened anew, for an open file keeps all that was read of it in memory.
        with safe_open(path, framework="flax") as file:
            values[key] = part.replace(file.get_tensor(name))
    return nnx.merge(graph, nnx.from_flat_state(values))
