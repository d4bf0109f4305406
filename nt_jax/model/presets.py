"""The published models by name, and two small ones of our own.

Sizes are verified in public configs (FACTS, "Architecture"), as is token dropout for v1 and v2.
Unpublished and therefore inferred: AgroNT's number of heads, and its token dropout (taken from v1,
whose code it uses); codonNT's context (taken from v2). v1 expects 0.15 * 0.8 of the tokens to be
`<mask>`.
"""

import dataclasses
import types
from collections.abc import Mapping
from typing import NamedTuple

from nt_jax.config import ModelConfig, TokenizerConfig
from nt_jax.errors import InputError, nearest


class Preset(NamedTuple):
    """Architecture and vocabulary of a model."""

    model: ModelConfig
    tokenizer: TokenizerConfig


def _v1(layers: int, width: int, ffn: int, max_positions: int = 1000) -> Preset:
    model = ModelConfig(
        num_layers=layers,
        num_heads=20,
        embed_dim=width,
        ffn_dim=ffn,
        positions="learned",
        max_positions=max_positions,
        ffn_activation="gelu",
        ffn_gated=False,
        ffn_bias=True,
        token_dropout=0.15 * 0.8,
    )
    return Preset(model, TokenizerConfig(k=6, vocabulary="v1"))


def _v2(layers: int, width: int, *, heads: int = 16, k: int = 6) -> Preset:
    model = ModelConfig(
        num_layers=layers,
        num_heads=heads,
        embed_dim=width,
        ffn_dim=4 * width,
        positions="rotary",
        max_positions=2048,
        ffn_activation="swish",
        ffn_gated=True,
        ffn_bias=False,
    )
    return Preset(model, TokenizerConfig(k=k, vocabulary="v2"))


def _small(preset: Preset) -> Preset:
    return Preset(dataclasses.replace(preset.model, embed_init_std=0.02), preset.tokenizer)


PRESETS: Mapping[str, Preset] = types.MappingProxyType(
    {
        "nt_v1_500m_human_ref": _v1(24, 1280, 5120),
        "nt_v1_500m_1000g": _v1(24, 1280, 5120),
        "nt_v1_2b5_1000g": _v1(32, 2560, 10240),
        "nt_v1_2b5_multispecies": _v1(32, 2560, 10240),
        "nt_v2_50m_multispecies": _v2(12, 512),
        "nt_v2_100m_multispecies": _v2(22, 512),
        "nt_v2_250m_multispecies": _v2(24, 768),
        "nt_v2_500m_multispecies": _v2(29, 1024),
        "agro_nt_1b": _v1(40, 1500, 5120, max_positions=1024),
        "codon_nt_50m": _v2(12, 512, k=3),
        "nt_v2_nano": _small(_v2(4, 128, heads=4)),
        "nt_v2_micro": _small(_v2(8, 256, heads=8)),
    }
)


def preset(name: str) -> Preset:
    """The preset of that name; raises InputError with the nearest name."""
    if name not in PRESETS:
        raise InputError(f"no model {name!r}{nearest(name, PRESETS)}; known: {', '.join(PRESETS)}")
    return PRESETS[name]


def parameter_count(model: ModelConfig, vocab_size: int) -> int:
    """Parameters of a model by formula, LM head included; builds nothing."""
    width, inner = model.embed_dim, model.num_heads * model.head_size
    norm = 2 * width
    attention = 3 * (width * inner + inner) + inner * width + width
    columns = model.ffn_dim * (2 if model.ffn_gated else 1)
    ffn = width * columns + model.ffn_dim * width
    if model.ffn_bias:
        ffn += columns + width
    # Pad id 1: a learned table has a row for the pad, and ids start after it.
    positions = (model.max_positions + 2) * width if model.positions == "learned" else 0
    embedding = vocab_size * width + positions + (norm if model.embed_layer_norm else 0)
    head = 2 * norm + width * width + width + width * vocab_size + vocab_size
    return embedding + model.num_layers * (2 * norm + attention + ffn) + head
