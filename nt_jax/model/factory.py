"""`build_model`: from a config to the pure functions of one model.

Every parameter is float32. Those of the L blocks are stacked on axis 0. A = H*K, columns of fc1
C = 2F when gated, else F; P = max_positions + pad_id + 1 rows.

| parameter | shape | present |
|---|---|---|
| nt/embed/token/embeddings | [V, D] | always |
| nt/embed/position/embeddings | [P, D] | positions = learned |
| nt/embed/norm/{scale,offset} | [D] | embed_layer_norm |
| nt/block/attention_norm/{scale,offset} | [L, D] | always |
| nt/block/attention/{query,key,value}/w | [L, D, A] | always |
| nt/block/attention/{query,key,value}/b | [L, A] | always |
| nt/block/attention/out/w | [L, A, D] | always |
| nt/block/attention/out/b | [L, D] | always |
| nt/block/ffn_norm/{scale,offset} | [L, D] | always |
| nt/block/ffn/fc1/w | [L, D, C] | always |
| nt/block/ffn/fc1/b | [L, C] | ffn_bias |
| nt/block/ffn/fc2/w | [L, F, D] | always |
| nt/block/ffn/fc2/b | [L, D] | ffn_bias |
| nt/head/norm/{scale,offset} | [D] | always |
| nt/head/transform/{w,b} | [D, D], [D] | always |
| nt/head/transform_norm/{scale,offset} | [D] | always |
| nt/head/logits/{w,b} | [D, V], [V] | always |

In `params` the module is one key and the array another: `params["nt/embed/token"]["embeddings"]`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from nt_jax.config import ConfigError, ModelConfig
from nt_jax.model.attention import AttentionFunction, dense_attention
from nt_jax.model.encoder import Vocabulary, encode, policy
from nt_jax.model.heads import MaskedLMHead
from nt_jax.tokenizers import KmerTokenizer

Params = Any
"""Haiku parameters: {module: {name: float32 array}}, listed above."""


@dataclasses.dataclass(frozen=True)
class Model:
    """The pure functions of one model; all of them can be jitted, sharded and differentiated."""

    init: Callable[[PRNGKeyArray], Params]
    """key -> parameters (float32)."""
    encode: Callable[[Params, Int[Array, "B T"]], Float[Array, "B T D"]]
    """(params, tokens) -> output of the last block, in the compute dtype; input of `head`."""
    head: Callable[[Params, Float[Array, "... D"]], Float[Array, "... V"]]
    """(params, hidden) -> float32 logits, at any subset of positions."""
    apply: Callable[..., dict[str, Any]]
    """(params, tokens, layers=(), attention=False) -> everything that was asked for.

    "logits": float32 [B,T,V], 0 at pads; "embeddings": {layer: [B,T,D]} of the 1-based `layers`,
    the last one being the output of the head's first LayerNorm; "attention": {layer: float32
    [B,H,T,T] (query, key)} of `layers`, or of every layer if none is named, when `attention`.
    """


def build_model(
    model: ModelConfig,
    tokenizer: KmerTokenizer,
    attention: AttentionFunction = dense_attention,
) -> Model:
    """Builds a model for a vocabulary; raises ConfigError when its sizes do not fit together."""
    _check(model)
    vocabulary = Vocabulary(tokenizer.vocab_size, tokenizer.pad_id, tokenizer.mask_id)

    def run_head(hidden: Array) -> tuple[Array, Array]:
        return MaskedLMHead(vocabulary.size, model.layer_norm_epsilon)(hidden)

    def forward(
        tokens: Int[Array, "B T"], layers: tuple[int, ...] = (), attention: bool = False
    ) -> dict[str, Any]:
        layers = tuple(dict.fromkeys(layers))
        last = model.num_layers
        mapped = (layers or tuple(range(1, last + 1))) if attention else ()
        kept_layers = tuple(layer for layer in layers if layer != last)
        hidden, kept = encode(model, vocabulary, attend, tokens, kept_layers, mapped)
        logits, embedding = run_head(hidden)
        embeddings = dict(zip(kept_layers, kept.get("embeddings", ()), strict=True))
        if last in layers:
            embeddings[last] = embedding
        return {
            "logits": jnp.where((tokens == vocabulary.pad_id)[..., None], 0.0, logits),
            "embeddings": embeddings,
            "attention": dict(zip(mapped, kept.get("attention", ()), strict=True)),
        }

    attend = attention

    def functions() -> Any:
        scoped = [
            _in_scope(lambda tokens: encode(model, vocabulary, attend, tokens)[0]),
            _in_scope(lambda hidden: run_head(policy(model).cast_to_compute(hidden))[0]),
            _in_scope(forward),
        ]
        return scoped[2], scoped

    transformed = hk.multi_transform(functions)
    run_encode, head, apply = (_without_key(function) for function in transformed.apply)

    def init(key: PRNGKeyArray) -> Params:
        params = transformed.init(key, jnp.full((1, 1), tokenizer.cls_id, jnp.int32))
        wrong = {str(x.dtype) for x in jax.tree.leaves(params)} - {"float32"}
        if wrong:
            raise TypeError(f"parameters of dtype {wrong}: they must all be float32")
        return params

    return Model(init=init, encode=run_encode, head=head, apply=apply)


def _in_scope(function: Callable[..., Any]) -> Callable[..., Any]:
    def scoped(*args: Any, **kwargs: Any) -> Any:
        with hk.name_scope("nt"):
            return function(*args, **kwargs)

    return scoped


def _without_key(apply: Callable[..., Any]) -> Callable[..., Any]:
    def deterministic(params: Params, *args: Any, **kwargs: Any) -> Any:
        return apply(params, None, *args, **kwargs)

    return deterministic


def _check(model: ModelConfig) -> None:
    if model.key_size is None and model.embed_dim % model.num_heads:
        raise ConfigError(
            f"model.embed_dim={model.embed_dim} does not divide by model.num_heads="
            f"{model.num_heads}; set model.key_size"
        )
    if model.positions == "rotary" and (model.head_size % 2 or model.head_size < 4):
        raise ConfigError(
            f"model.positions='rotary' needs an even head size of 4 or more, not {model.head_size}"
        )
