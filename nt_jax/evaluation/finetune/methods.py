"""What fine-tuning trains: a method is the functions that add, choose and merge its parameters.

The published encoder stays as it is. Adapters stand around its projections
(`haiku.intercept_methods`, passed to `build_model`), so their parameters are born inside the
stacked blocks and lie beside those of the projection, with the layer axis in front. What a method
does not train is a constant of the loss: no gradient of a frozen matrix is ever computed.

L blocks, A = H*K attention width, F feed-forward width, D model width, R rank.

| parameter | shape | effect on its projection |
|---|---|---|
| nt/block/attention/{key,value}/ia3 | [L, A] | output times the vector |
| nt/block/ffn/fc2/ia3 | [L, F] | input times the vector |
| nt/block/attention/{query,value}/lora_a | [L, D, R] | output plus (ALPHA / R) x a b |
| nt/block/attention/{query,value}/lora_b | [L, R, A] | |
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from nt_jax.config import Experiment
from nt_jax.errors import InputError, nearest
from nt_jax.model.factory import Interceptor, Params, build_model, unchanged
from nt_jax.model.layers import PARAM_DTYPE, Linear

ALPHA = 16
"""LoRA's scale is ALPHA / rank, so that another rank needs no other learning rate."""
RANK = 8

IA3_OUTPUTS = ("key", "value")
IA3_INPUTS = ("fc2",)
LORA_PROJECTIONS = ("query", "value")
# The head of masked language modelling; the encoder ends with its first LayerNorm.
_NOT_READ = ("nt/head/transform", "nt/head/transform_norm", "nt/head/logits")


@dataclasses.dataclass(frozen=True)
class Method:
    """One way of fine-tuning."""

    name: str
    learning_rate: float
    """Peak rate of Adam where none is given."""
    intercept: Interceptor
    """Stands around the projections of the encoder."""
    trains: Callable[[str, str], bool]
    """(module, array) -> whether it is trained; all other arrays never change."""
    merge: Callable[[Params, Params], Params]
    """(parameters, trained ones) -> parameters of the plain model that computes the same."""


def find_method(name: str, rank: int = RANK) -> Method:
    """The method of that name; raises InputError with the nearest one."""
    if name not in METHODS:
        raise InputError(f"method {name!r}{nearest(name, METHODS)}; known: {', '.join(METHODS)}")
    if rank < 1:
        raise InputError(f"rank {rank}: 1 or more")
    return METHODS[name](rank)


def initial(method: Method, experiment: Experiment, key: PRNGKeyArray) -> Params:
    """Fresh adapters, with which the model computes what it computes without; {} for none."""
    adapted = build_model(
        experiment.model, experiment.tokenizer.make(), intercept=method.intercept
    ).init
    plain = build_model(experiment.model, experiment.tokenizer.make()).init
    known = jax.eval_shape(plain, key)

    def added(key: PRNGKeyArray) -> Params:
        # The model's own parameters are not computed: nothing reads them.
        return hk.data_structures.filter(
            lambda module, name, _: name not in known[module], adapted(key)
        )

    return jax.jit(added)(key)


def count(params: Params) -> int:
    """Numbers in a tree of parameters."""
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(params))


def _on_linear(apply: Callable[[Linear, Callable[..., Any], Any], Any]) -> Interceptor:
    """An interceptor for the projections alone."""

    def intercept(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        if context.method_name != "__call__" or not isinstance(module, Linear):
            return call(*args, **kwargs)
        return apply(module, lambda x: call(x, **kwargs), *args)

    return intercept


def _scaled(module: Linear, call: Callable[[Any], Any], x: jax.Array) -> jax.Array:
    def vector(width: int) -> jax.Array:
        return hk.get_parameter("ia3", [width], PARAM_DTYPE, init=jnp.ones).astype(x.dtype)

    if module.name in IA3_INPUTS:
        return call(x * vector(x.shape[-1]))
    y = call(x)
    return y * vector(y.shape[-1]) if module.name in IA3_OUTPUTS else y


def _merge_ia3(params: Params, trained: Params) -> Params:
    merged = dict(params)
    for module, adapters in trained.items():
        own, scale = dict(params[module]), adapters["ia3"]
        if module.rpartition("/")[2] in IA3_INPUTS:
            own["w"] = own["w"] * scale[:, :, None]
        else:
            own = {"w": own["w"] * scale[:, None, :], "b": own["b"] * scale}
        merged[module] = own
    return merged


def _ia3(rank: int) -> Method:
    """Liu et al. 2022 (arXiv:2205.05638): keys, values and the feed-forward's inner activations
    are rescaled by learned vectors that start at one. Keys are scaled before the rotation, which
    is where the vector can be merged into the projection."""
    return Method("ia3", 3e-3, _on_linear(_scaled), lambda _, name: name == "ia3", _merge_ia3)


def _merge_lora(rank: int) -> Callable[[Params, Params], Params]:
    def merge(params: Params, trained: Params) -> Params:
        merged = dict(params)
        for module, adapters in trained.items():
            change = jnp.einsum("lir,lro->lio", adapters["lora_a"], adapters["lora_b"])
            own = dict(params[module])
            merged[module] = own | {"w": own["w"] + (ALPHA / rank) * change}
        return merged

    return merge


def _lora(rank: int) -> Method:
    """Hu et al. 2021 (arXiv:2106.09685): a product of rank R is added to the query and value
    projections, the pair that section 7.1 finds best for its size; a is random, b starts at 0."""
    random = hk.initializers.VarianceScaling(1.0, "fan_in", "normal")

    def added(module: Linear, call: Callable[[Any], Any], x: jax.Array) -> jax.Array:
        y = call(x)
        if module.name not in LORA_PROJECTIONS:
            return y
        a = hk.get_parameter("lora_a", [x.shape[-1], rank], PARAM_DTYPE, init=random)
        b = hk.get_parameter("lora_b", [rank, y.shape[-1]], PARAM_DTYPE, init=jnp.zeros)
        return y + (ALPHA / rank) * ((x @ a.astype(x.dtype)) @ b.astype(x.dtype))

    return Method(
        "lora", 3e-4, _on_linear(added), lambda _, name: "lora" in name, _merge_lora(rank)
    )


def _full(rank: int) -> Method:
    """Every parameter of the encoder."""
    return Method(
        "full",
        3e-5,
        unchanged,
        lambda module, _: module not in _NOT_READ,
        lambda params, trained: hk.data_structures.merge(params, trained),
    )


def _head(rank: int) -> Method:
    """Nothing of the encoder: the head alone, on frozen embeddings."""
    return Method("head", 0.0, unchanged, lambda *_: False, lambda params, trained: params)


METHODS: dict[str, Callable[[int], Method]] = {
    "ia3": _ia3,
    "lora": _lora,
    "full": _full,
    "head": _head,
}
"""Methods by name; each is made for a rank, which only LoRA has."""
