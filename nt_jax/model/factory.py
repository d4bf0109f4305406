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
from typing import Any, TypeAlias

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from nt_jax.config import ConfigError, ModelConfig
from nt_jax.model.attention import AttentionFunction, dense_attention
from nt_jax.model.encoder import Vocabulary, encode, policy
from nt_jax.model.heads import MaskedLMHead
from nt_jax.model.layers import PARAM_DTYPE, Light, saved
from nt_jax.tokenizers import KmerTokenizer

Params = Any
"""Haiku parameters: {module: {name: float32 array}}, listed above."""

Getter: TypeAlias = Callable[..., Any]
"""(next getter, value, haiku.GetterContext) -> what the layer gets; see `as_stored`."""

Interceptor: TypeAlias = Callable[..., Any]
"""(method, args, kwargs, haiku.MethodContext) -> what the method returns; see `unchanged`."""


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


def unchanged(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
    """The interceptor that does nothing."""
    return call(*args, **kwargs)


def as_stored(following: Callable[..., Any], value: Any, context: Any) -> Any:
    """The getter that does nothing."""
    return following(value)


def build_model(
    model: ModelConfig,
    tokenizer: KmerTokenizer,
    attend: AttentionFunction = dense_attention,
    intercept: Interceptor = unchanged,
    getter: Getter = as_stored,
    unroll: int = 1,
    light: Light = saved,
) -> Model:
    """Builds a model for a vocabulary; raises ConfigError when its sizes do not fit together.

    `attend` computes attention wherever no maps are asked for. `intercept` stands around every
    call of a module (`haiku.intercept_methods`): adapters of fine-tuning change inputs and outputs
    of projections there, and their parameters are listed beside those of the projection. `getter`
    sees every parameter before its layer does (`haiku.custom_getter`). `unroll` layers are
    compiled at a time: 1 for the smallest program, more where the loop itself costs time. `light`
    stands around activations and LayerNorms: `recomputed` keeps nothing of them for gradients.
    """
    _check(model)
    vocabulary = Vocabulary(tokenizer.vocab_size, tokenizer.pad_id, tokenizer.mask_id)

    def hidden_states(tokens: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        return encode(model, vocabulary, attend, tokens, unroll=unroll, light=light)[0]

    def head(hidden: Float[Array, "... D"]) -> tuple[Array, Array]:
        hidden = policy(model).cast_to_compute(hidden)
        return MaskedLMHead(vocabulary.size, model.layer_norm_epsilon)(hidden)

    def everything(
        tokens: Int[Array, "B T"], layers: tuple[int, ...] = (), attention: bool = False
    ) -> dict[str, Any]:
        last = model.num_layers
        inner = tuple(layer for layer in dict.fromkeys(layers) if layer != last)
        mapped = (tuple(dict.fromkeys(layers)) or tuple(range(1, last + 1))) if attention else ()
        hidden, found = encode(model, vocabulary, attend, tokens, inner, mapped, unroll, light)
        logits, embedding = head(hidden)
        embeddings = dict(zip(inner, found.get("embeddings", ()), strict=True))
        return {
            "logits": jnp.where((tokens == vocabulary.pad_id)[..., None], 0.0, logits),
            "embeddings": embeddings | ({last: embedding} if last in layers else {}),
            "attention": dict(zip(mapped, found.get("attention", ()), strict=True)),
        }

    def functions() -> Any:
        template, *parts = (
            _below_nt(function, intercept, getter)
            for function in (everything, hidden_states, lambda x: head(x)[0])
        )
        return template, (*parts, template)

    transformed = hk.multi_transform(functions)

    def init(key: PRNGKeyArray) -> Params:
        params = transformed.init(key, jnp.full((1, 1), tokenizer.cls_id, jnp.int32))
        dtypes = {x.dtype for x in jax.tree.leaves(params)}
        assert dtypes == {PARAM_DTYPE}, f"parameters must be float32, not {dtypes}"
        return params

    return Model(init, *map(_deterministic, transformed.apply))


def _below_nt(
    function: Callable[..., Any], intercept: Interceptor, getter: Getter
) -> Callable[..., Any]:
    def scoped(*args: Any, **kwargs: Any) -> Any:
        with hk.name_scope("nt"), hk.intercept_methods(intercept), hk.custom_getter(getter):
            return function(*args, **kwargs)

    return scoped


def _deterministic(apply: Callable[..., Any]) -> Callable[..., Any]:
    def pure(params: Params, x: Any, *args: Any, **kwargs: Any) -> Any:
        return apply(params, None, jnp.asarray(x), *args, **kwargs)

    return pure


def _check(model: ModelConfig) -> None:
    for name in ("num_layers", "num_heads", "embed_dim", "ffn_dim", "max_positions"):
        if getattr(model, name) < 1:
            raise ConfigError(f"model.{name}={getattr(model, name)} must be 1 or more")
    if model.key_size is None and model.embed_dim % model.num_heads:
        raise ConfigError(
            f"model.embed_dim={model.embed_dim} does not divide by model.num_heads="
            f"{model.num_heads}; set model.key_size"
        )
    if model.positions == "rotary" and (model.head_size % 2 or model.head_size < 4):
        raise ConfigError(
            f"model.positions='rotary' needs an even head size of 4 or more, not {model.head_size}"
        )
