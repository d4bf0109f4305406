"""Hyper-parameters that carry over from a small model to a larger one.

With `optim.base_width` the rules of muP for Adam hold (Yang et al. 2022, table 3), with
`optim.base_depth` those of CompleteP beside them (Dey et al. 2025, table 1, alpha = 1). Both
are usually written with multipliers in the forward pass. Adam's updates do not depend on the
scale of a gradient, so a multiplier of a matrix is the same as a factor on its initial values and
on its learning rate (Yang and Littwin 2023); written so, the model itself, its exports and its
checkpoints stay as they are. With m = D / base_width and d = L / base_depth:

| parameter | initial values | learning rate |
|---|---|---|
| query, key, value, fc1, the head's transform (matrices) | 1 | 1/m |
| attention's out and fc2, which add to the residual stream (matrices) | 1/d | 1/(m d) |
| their biases | 1/d | 1/d |
| the last projection (matrix) | 1/sqrt(m) | 1/m |
| embeddings, LayerNorms, all other biases | 1 | 1 |

Initial values of matrices have the spread 1/sqrt(fan in) already; so have attention's biases, which
muP's table would give one spread at all widths. What keeps its size along a ladder is taken to be
the size of a head and F/D, so 1/sqrt(K) of the scores needs no factor.
Weight decay is not multiplied: rate x decay of a matrix is the same at every width.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from nt_jax.config import ConfigError, Experiment, ModelConfig, OptimConfig
from nt_jax.model.factory import Model, Params

_RESIDUAL = ("/attention/out", "/ffn/fc2")


class Factors(NamedTuple):
    """Of one parameter."""

    initial: float
    """Of its initial values."""
    rate: float
    """Of its learning rate."""


def factors(path: str, model: ModelConfig, config: OptimConfig) -> Factors:
    """Factors of the parameter MODULE/NAME, as listed in nt_jax/model/factory.py."""
    narrow = config.base_width / model.embed_dim if config.base_width else 1.0
    shallow = config.base_depth / model.num_layers if config.base_depth else 1.0
    module, _, name = path.rpartition("/")
    matrix = name == "w"
    if module.endswith("/head/logits"):
        return Factors(narrow**0.5, narrow) if matrix else Factors(1.0, 1.0)
    depth = shallow if module.endswith(_RESIDUAL) else 1.0
    return Factors(depth, depth * (narrow if matrix else 1.0))


def rates(experiment: Experiment) -> Callable[[Params], Params] | None:
    """From parameters to the factors on their learning rates; None where there are none."""
    if not carries(experiment.optim):
        return None
    return lambda params: _over(params, experiment, lambda found: found.rate)


def started(params: Params, experiment: Experiment) -> Params:
    """Fresh parameters with their factors; the same ones where the experiment has no base."""
    if not carries(experiment.optim):
        return params
    sizes = _over(params, experiment, lambda found: found.initial)
    return jax.tree.map(lambda x, size: x if size == 1.0 else x * size, params, sizes)


def starting(model: Model, experiment: Experiment) -> Model:
    """The model whose `init` gives parameters as they start in this experiment."""
    return dataclasses.replace(model, init=lambda key: started(model.init(key), experiment))


def carries(config: OptimConfig) -> bool:
    """Whether any rule is asked for; raises ConfigError for bases that make no sense."""
    for name in ("base_width", "base_depth"):
        if getattr(config, name) < 0:
            raise ConfigError(f"optim.{name}={getattr(config, name)}: 1 or more, or 0 for none")
    return bool(config.base_width or config.base_depth)


def _over(params: Params, experiment: Experiment, take: Callable[[Factors], float]) -> Params:
    def one(path: Any, _: Any) -> float:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return take(factors(name, experiment.model, experiment.optim))

    return jax.tree_util.tree_map_with_path(one, params)
