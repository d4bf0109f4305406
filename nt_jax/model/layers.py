"""Linear, LayerNorm and Embed whose parameters are float32 whatever the activations are.

Haiku's own layers create parameters in the dtype of their input, so bfloat16 activations would
silently make bfloat16 master weights. Here the dtype of a parameter is written down once
(`PARAM_DTYPE`), and the dtype of the activations decides only the dtype of the arithmetic.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import haiku as hk
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

PARAM_DTYPE = jnp.dtype(jnp.float32)

Light: TypeAlias = Callable[[Callable[..., Array]], Callable[..., Array]]
"""Stands around what passes over elements alone: activations and LayerNorms."""


def saved(function: Callable[..., Array]) -> Callable[..., Array]:
    """The backward pass finds what it needs in memory, or where the compiler puts it."""
    return function


def recomputed(function: Callable[..., Array]) -> Callable[..., Array]:
    """The backward pass computes the function again from its inputs.

    For CPUs and GPUs, where to keep what it needs takes memory and more time than to compute it.
    XLA does it by itself on TPUs, and libtpu needs many times as long to compile a program that
    says so and does not fit.
    """
    return jax.checkpoint(function)


class Linear(hk.Module):
    """Affine map of the last axis; weights are cast to the dtype of the input.

    Default initialisation is Haiku's: truncated normal with standard deviation 1/sqrt(fan_in),
    biases zero. With `parts` the columns are so many equal groups, and the output has an axis for
    them: [..., parts, size / parts]. The product is computed with columns of zeros up to a
    `multiple`, which the output does not have.
    """

    def __init__(
        self,
        size: int,
        *,
        parts: int = 1,
        multiple: int = 1,
        bias: bool = True,
        w_init: hk.initializers.Initializer | None = None,
        b_init: hk.initializers.Initializer = jnp.zeros,
        name: str,
    ):
        super().__init__(name=name)
        self.size, self.parts, self.multiple, self.bias = size, parts, multiple, bias
        self.w_init, self.b_init = w_init, b_init

    def __call__(
        self, x: Float[Array, "... I"], out_dtype: DTypeLike | None = None
    ) -> Float[Array, "..."]:
        """Projects to [..., size]; `out_dtype` (default: that of x) is that of the sums too."""
        fan_in = x.shape[-1]
        w_init = self.w_init or hk.initializers.TruncatedNormal(stddev=fan_in**-0.5)
        w = hk.get_parameter("w", [fan_in, self.size], PARAM_DTYPE, init=w_init)
        columns = [self.size] if self.parts == 1 else [self.parts, self.size // self.parts]
        w = w.astype(x.dtype).reshape(fan_in, *columns)
        if more := -columns[-1] % self.multiple:
            w = jnp.pad(w, [(0, 0)] * len(columns) + [(0, more)])
        y = jnp.tensordot(x, w, axes=1) if out_dtype is None else wide_product(x, w, out_dtype)
        y = y[..., : columns[-1]]
        if self.bias:
            b = hk.get_parameter("b", [self.size], PARAM_DTYPE, init=self.b_init)
            y += b.astype(y.dtype).reshape(columns)
        return y


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def wide_product(
    x: Float[Array, "... I"], w: Float[Array, "I O"], dtype: DTypeLike
) -> Float[Array, "... O"]:
    """x w with sums in `dtype`; its gradient is rounded to the dtype of x before it is multiplied.

    JAX's own transpose multiplies the wide gradient with the narrow matrix, at the speed of wide
    matrices: a tenth of that of bfloat16 on a GPU. PyTorch's autocast rounds as this does.
    """
    return jnp.tensordot(x, w, axes=1, preferred_element_type=dtype)


def _wide_product_forward(x: Array, w: Array, dtype: DTypeLike) -> tuple[Array, Any]:
    return wide_product(x, w, dtype), (x, w)


def _wide_product_backward(dtype: DTypeLike, saved: Any, grad: Array) -> tuple[Array, Array]:
    x, w = saved
    _, pull = jax.vjp(lambda x, w: jnp.tensordot(x, w, axes=1), x, w)
    return pull(grad.astype(x.dtype))


wide_product.defvjp(_wide_product_forward, _wide_product_backward)


def flattened(intercept: Callable[..., Any]) -> Callable[..., Any]:
    """An interceptor (`haiku.intercept_methods`) whose projections see all tokens on one axis.

    For CPUs: the gradient of weights sums over tokens. Over two axes, [B, T], XLA's CPU backend
    first copies what it multiplies, transposed, element by element, with the gradients of
    activations inside, which takes longer than the product. Tokens must lie on one device.
    """

    def around(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        linear = isinstance(context.module, Linear) and context.method_name == "__call__"
        if not linear or args[0].ndim < 3:
            return intercept(call, args, kwargs, context)
        x, *others = args
        rows = x.reshape(-1, x.shape[-1])
        y = intercept(call, (rows, *others), kwargs, context)
        return y.reshape(*x.shape[:-1], *y.shape[1:])

    return around


class LayerNorm(hk.Module):
    """LayerNorm of the last axis, computed in float32, returned in the dtype of the input."""

    def __init__(self, epsilon: float, *, light: Light = saved, name: str):
        super().__init__(name=name)
        self.epsilon, self.light = epsilon, light

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        """Normalises each vector to mean 0 and variance 1, then scales and offsets it."""
        width = [x.shape[-1]]
        scale = hk.get_parameter("scale", width, PARAM_DTYPE, init=jnp.ones)
        offset = hk.get_parameter("offset", width, PARAM_DTYPE, init=jnp.zeros)
        return self.light(self._normalised)(x, scale, offset)

    def _normalised(self, x: Array, scale: Array, offset: Array) -> Array:
        wide = x.astype(jnp.float32)
        centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
        variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
        y = centred * (jax.lax.rsqrt(variance + self.epsilon) * scale) + offset
        return y.astype(x.dtype)


class Embed(hk.Module):
    """Table lookup; the table starts as a truncated normal of the given standard deviation."""

    def __init__(self, rows: int, width: int, init_std: float, *, name: str):
        super().__init__(name=name)
        self.rows, self.width, self.init_std = rows, width, init_std

    def __call__(self, ids: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        """Rows of the float32 table."""
        table = hk.get_parameter(
            "embeddings",
            [self.rows, self.width],
            PARAM_DTYPE,
            init=hk.initializers.TruncatedNormal(stddev=self.init_std),
        )
        return table[ids]
