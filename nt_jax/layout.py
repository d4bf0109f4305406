"""How a step uses a mesh: where the arrays of a model lie while it runs, and what is summed.

Every device works on its own windows (`shard_map` over slices x data x fsdp), so the collectives
are written down here and are those of the theory:

- a weight matrix is gathered over `fsdp` when its layer runs, in the compute dtype, once in the
  forward and once in the backward pass; its gradient is scattered back, summed, by the transpose;
- all other gradients are summed over `slices`, `data` (and `fsdp`, where a parameter is not split)
  once a step, in float32, whatever the number of micro-batches;
- within a device's windows the compiler follows the marks for `tensor` (a sum of activations
  behind each half of a block, forward and backward) and `sequence` (attention gathers keys and
  values).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from nt_jax.config import ModelConfig
from nt_jax.sharding import AXES, BATCH, WINDOW_AXES, parameter_spec

# Modules whose output has its last axis split over `tensor`, and those that sum over it.
_COLUMNS = ("query", "key", "value", "fc1")
_NORMS = ("attention_norm", "ffn_norm")
_WHOLE = ("out", "fc2", "token", "position", *_NORMS)


class Layout(NamedTuple):
    """What `build_model` takes so that a model runs within `over_windows` or `by_windows`."""

    getter: Callable[..., Any]
    """haiku.custom_getter: a parameter, as stored -> as its layer multiplies with it."""
    intercept: Callable[..., Any]
    """haiku.intercept_methods: what a layer returns -> the same, in its place."""
    attend: Callable[..., Any]
    """Attention whose keys and values are whole sequences."""


def layout(mesh: Mesh, model: ModelConfig, attend: Callable[..., Any]) -> Layout:
    """Where the arrays of a model lie on a mesh."""
    dtype = jnp.dtype(model.compute_dtype)
    inner = mesh.shape["sequence"] * mesh.shape["tensor"] > 1

    def at(x: jax.Array, *axes: str | None) -> jax.Array:
        fits = (
            axis if axis and size % mesh.shape[axis] == 0 else None
            for axis, size in zip(axes, x.shape, strict=True)
        )
        return jax.lax.with_sharding_constraint(x, P(*fits)) if inner else x

    def getter(following: Callable[..., Any], value: jax.Array, context: Any) -> jax.Array:
        path, shape = f"/{context.full_name}", tuple(context.original_shape)
        stored = tuple(parameter_spec(path, shape, mesh))
        if path.endswith("/w"):
            value = value.astype(dtype)
        if "fsdp" in stored and mesh.shape["fsdp"] > 1:
            value = jax.lax.all_gather(value, "fsdp", axis=stored.index("fsdp"), tiled=True)
        # The halves of a gated projection are each split over `tensor`, which one matrix of both
        # cannot be: it is gathered whole, and a device multiplies with its columns. What is whole
        # is marked too: libtpu starts all gradients of a shape as one array of zeros, and the
        # place of one would become that of the others, and of the activations behind them.
        whole = model.ffn_gated and "/fc1/" in path
        value = at(value, *("tensor" if a == "tensor" and not whole else None for a in stored))
        return following(value)

    def intercept(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        # Scopes come by here while they are made, without a name.
        name = context.module.name if context.method_name == "__call__" else ""
        if name not in _COLUMNS + _WHOLE:
            return call(*args, **kwargs)
        if name in _NORMS:
            args = (at(args[0], None, "sequence", None), *args[1:])
        y = call(*args, **kwargs)
        last = "tensor" if name in _COLUMNS else None
        return at(y, None, "sequence", *[None] * (y.ndim - 3), last)

    def attention(query: jax.Array, key: jax.Array, value: jax.Array, real: jax.Array) -> jax.Array:
        if not inner:
            return attend(query, key, value, real)
        # A kernel cannot be split by the compiler: it is told which queries and heads are here.
        tensor = "tensor" if query.shape[2] % mesh.shape["tensor"] == 0 else None
        tokens = "sequence" if query.shape[1] % mesh.shape["sequence"] == 0 else None
        heads = P(None, None, tensor, None)
        queries = P(None, tokens, tensor, None)
        return jax.shard_map(
            attend,
            in_specs=(queries, heads, heads, P()),
            out_specs=queries,
            axis_names={"sequence", "tensor"},
            check_vma=False,
        )(query, key, value, real)

    return Layout(getter, intercept, attention)


Gradient = Callable[[Any, Any], tuple[Any, Any]]
"""(params, windows) -> (sums over the windows, gradient of the first sum)."""


def over_windows(mesh: Mesh, gradient: Gradient) -> Gradient:
    """From the gradient of the windows that a device has to that of all windows."""
    if mesh.size == 1:
        return gradient

    def everywhere(params: Any, windows: Any) -> tuple[Any, Any]:
        specs = _shards(params, mesh)
        axes = [axis for axis in WINDOW_AXES if mesh.shape[axis] > 1]

        def summed(params: Any, windows: Any) -> tuple[Any, Any]:
            def whole(grad: jax.Array, spec: P) -> jax.Array:
                return jax.lax.psum(grad, [axis for axis in axes if axis not in tuple(spec)])

            sums, grads = gradient(params, windows)
            return jax.lax.psum(sums, axes), jax.tree.map(whole, grads, specs)

        return _shard_map(mesh, summed, (specs, BATCH), (P(), specs))(params, windows)

    return everywhere


def by_windows(mesh: Mesh, function: Callable[..., Any]) -> Callable[..., Any]:
    """From `function(params, whole, *rows)`, one result a row, on a device's rows to all rows;
    `whole` is the same on all devices."""
    if mesh.size == 1:
        return function

    def everywhere(params: Any, whole: Any, *rows: Any) -> Any:
        specs = (_shards(params, mesh), P(), *[BATCH] * len(rows))
        return _shard_map(mesh, function, specs, BATCH)(params, whole, *rows)

    return everywhere


def _shard_map(mesh: Mesh, function: Callable[..., Any], in_specs: Any, out_specs: Any) -> Any:
    alone = mesh.shape["sequence"] * mesh.shape["tensor"] == 1
    return functools.partial(jax.shard_map, check_vma=False)(
        function,
        mesh=mesh,
        in_specs=in_specs,
        out_specs=out_specs,
        axis_names=set(AXES if alone else WINDOW_AXES),
    )


def _shards(params: Any, mesh: Mesh) -> Any:
    """Specs of parameters over the axes that share the windows out."""

    def rule(path: tuple[Any, ...], leaf: Any) -> P:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        spec = parameter_spec(name, leaf.shape, mesh)
        return P(*(axis if axis == "fsdp" else None for axis in spec))

    return jax.tree_util.tree_map_with_path(rule, params)
