"""Weights between two formats: published names, one tensor at a time.

Every format is read into `Weights` and written from `Weights`, so that n formats need n readers
and n writers. The published JAX layout gives the names (FACTS): one module a layer, where our
parameters stack the layers of each module on axis 0. Beyond that only names differ, so the mapping
moves bits and computes nothing.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import DTypeLike

from nt_jax.config import ModelConfig, TokenizerConfig
from nt_jax.errors import InputError
from nt_jax.memory import aligned_empty, let_go
from nt_jax.model.factory import Params, build_model
from nt_jax.progress import Progress, silent

ROOT = "esm_transformer"

# Ours -> published, once a model.
_MODULES = {
    "nt/embed/token": "~/embed",
    "nt/embed/position": "~/esm_learned_positional_embeddings/~/embed",
    "nt/embed/norm": "~/emb_layer_norm_before",
    "nt/head/norm": "~/esm_roberta_lm_head/~/emb_layer_norm_after",
    "nt/head/transform": "~/esm_roberta_lm_head/~/lm_head_fc_1",
    "nt/head/transform_norm": "~/esm_roberta_lm_head/~/lm_head_layer_norm",
    "nt/head/logits": "~/esm_roberta_lm_head/~/lm_final_fc",
}
# Ours -> published, once a layer, below `attention_layer_i/~/`.
_BLOCK_MODULES = {
    "nt/block/attention_norm": "mha_layer_norm",
    "nt/block/attention/query": "mha/query",
    "nt/block/attention/key": "mha/key",
    "nt/block/attention/value": "mha/value",
    "nt/block/attention/out": "mha/mha_output",
    "nt/block/ffn_norm": "final_layer_norm",
    "nt/block/ffn/fc1": "fc1",
    "nt/block/ffn/fc2": "fc2",
}

# The number of a layer in names of any layout.
_LAYER_NUMBER = re.compile(r"(?:layer[._]|blocks\.)(\d+)")

FLOATS = ("float32", "bfloat16", "float16")
"""Types of tensors that become parameters; half precision is widened."""


@dataclasses.dataclass(frozen=True)
class Weights:
    """A checkpoint whose tensors are read when they are asked for."""

    model: ModelConfig
    """Architecture."""
    tokenizer: TokenizerConfig
    """Vocabulary."""
    tensors: Mapping[str, tuple[int, ...]]
    """Published name -> shape, in the order of the model. A name is `MODULE/ARRAY`."""
    read: Callable[[str], np.ndarray]
    """Published name -> array of float32, bfloat16 or float16; may be a view of a file."""
    source: str
    """Where it came from, for messages."""

    def __iter__(self) -> Iterator[tuple[str, np.ndarray]]:
        """All tensors, one after the other."""
        return ((name, self.read(name)) for name in self.tensors)


def expected_tensors(model: ModelConfig, tokenizer: TokenizerConfig) -> dict[str, tuple[int, ...]]:
    """Published name -> shape of every tensor of such a model; nothing is allocated."""
    return {name: place.shape for name, place in _places(_abstract(model, tokenizer)).items()}


def check_tensors(
    found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], where: str
) -> None:
    """Raises InputError, one line with all that is missing, unexpected or of another shape."""
    wrong = [
        f"{name} of shape {list(found[name])} (expected {list(shape)})"
        for name, shape in expected.items()
        if name in found and tuple(found[name]) != tuple(shape)
    ]
    report_faults(
        {
            "missing": expected.keys() - found.keys(),
            "unexpected": found.keys() - expected.keys(),
            "wrong": wrong,
        },
        where,
    )


def report_faults(faults: Mapping[str, Iterable[str]], where: str) -> None:
    """Raises InputError with every fault by kind; faults of several layers stand together."""
    problems = [f"{kind} {', '.join(_gathered(names))}" for kind, names in faults.items() if names]
    if problems:
        raise InputError(f"{where}: {'; '.join(problems)}")


def _gathered(names: Iterable[str]) -> list[str]:
    """`layer.0.x`, `layer.1.x`, `layer.2.x` as `layer.{0-2}.x`; nothing is left out."""
    layers: dict[tuple[str, str], list[int]] = {}
    for name in sorted(names):
        found = _LAYER_NUMBER.search(name)
        around = (name[: found.start(1)], name[found.end(1) :]) if found else (name, "")
        layers.setdefault(around, []).extend([int(found[1])] if found else [])
    return [before + _ranges(numbers) + after for (before, after), numbers in layers.items()]


def _ranges(numbers: list[int]) -> str:
    """Nothing, `7`, or several as `{0-2,5}`."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    texts = [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    return f"{{{','.join(texts)}}}" if len(numbers) > 1 else "".join(texts)


def to_params(weights: Weights, progress: Progress = silent) -> dict[str, dict[str, np.ndarray]]:
    """Our parameters (float32 NumPy arrays, layers stacked); half precision is widened exactly.

    Memory: the parameters and one tensor. `progress` gets (bytes done, bytes in all). Raises
    InputError, one line that lists every tensor at fault.
    """
    abstract = _abstract(weights.model, weights.tokenizer)
    places = _places(abstract)
    check_tensors(
        weights.tensors, {name: place.shape for name, place in places.items()}, weights.source
    )
    params = {
        module: {name: aligned_empty(x.shape) for name, x in named.items()}
        for module, named in abstract.items()
    }
    total = sum(x.nbytes for named in params.values() for x in named.values())
    done, wrong = 0, []
    for name, place in places.items():
        array = weights.read(name)
        if str(array.dtype) not in FLOATS:
            wrong.append(f"{name} of type {array.dtype} (expected float32)")
            continue
        target = params[place.module][place.name]
        (target if place.layer is None else target[place.layer])[...] = array
        let_go(array)
        done += 4 * array.size
        progress(done, total)
    report_faults({"wrong": wrong}, weights.source)
    return params


class Parameter(NamedTuple):
    """One of our parameters before it is read."""

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]
    """Reads it into a float32 array of its own."""
    parts: Callable[[], Iterator[np.ndarray]]
    """Its tensors (one a layer) as float32, one after the other."""


def stacked(weights: Weights) -> dict[str, Parameter]:
    """`to_params`, one parameter in memory at a time: our `MODULE/ARRAY` -> parameter.

    Raises InputError as `to_params` does; for a tensor that holds no floats, when it is read.
    """
    abstract = _abstract(weights.model, weights.tokenizer)
    places = _places(abstract)
    expected = {name: place.shape for name, place in places.items()}
    check_tensors(weights.tensors, expected, weights.source)
    parts: dict[tuple[str, str], list[str]] = {}
    for name, place in places.items():
        parts.setdefault((place.module, place.name), []).append(name)

    def read_parts(module: str, name: str) -> Iterator[np.ndarray]:
        return (read_as(weights, published) for published in parts[module, name])

    def read(module: str, name: str) -> np.ndarray:
        names = parts[module, name]
        array = np.empty(abstract[module][name].shape, np.float32)
        layers = array.reshape(len(names), *expected[names[0]])
        for layer, part in zip(layers, read_parts(module, name), strict=True):
            layer[...] = part
        return array

    return {
        f"{module}/{name}": Parameter(
            x.shape,
            functools.partial(read, module, name),
            functools.partial(read_parts, module, name),
        )
        for module, named in abstract.items()
        for name, x in named.items()
    }


def read_as(weights: Weights, name: str, dtype: DTypeLike = np.float32) -> np.ndarray:
    """One tensor as float32 (exact) or bfloat16 (rounded); InputError where it holds no floats."""
    array = weights.read(name)
    if str(array.dtype) not in FLOATS:
        raise InputError(f"{weights.source}: {name} of type {array.dtype} (expected float32)")
    return array.astype(dtype, copy=False)


def counted(weights: Weights, progress: Progress) -> Weights:
    """The same weights, for a writer without `progress`, which gets (bytes read, bytes in all)."""
    total = 4 * sum(map(math.prod, weights.tensors.values()))
    done = 0

    def read(name: str) -> np.ndarray:
        nonlocal done
        array = weights.read(name)
        done += 4 * array.size
        progress(done, total)
        return array

    return dataclasses.replace(weights, read=read)


def of_params(
    params: Params, model: ModelConfig, tokenizer: TokenizerConfig, source: str
) -> Weights:
    """Weights that hold our parameters; bitwise inverse of `to_params`."""
    places = _places(params)

    def read(name: str) -> np.ndarray:
        place = places[name]
        array = params[place.module][place.name]
        return np.asarray(array if place.layer is None else array[place.layer])

    shapes = {name: place.shape for name, place in places.items()}
    return Weights(model, tokenizer, shapes, read, source)


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where a published tensor lives in our parameters."""

    module: str
    name: str
    layer: int | None
    shape: tuple[int, ...]


def _places(params: Params) -> dict[str, _Place]:
    """Published name -> place, layer by layer."""
    places = {}
    layers = max(x.shape[0] for module in _BLOCK_MODULES for x in params[module].values())
    for module, published in _MODULES.items():
        for name, x in params.get(module, {}).items():
            places[f"{ROOT}/{published}/{name}"] = _Place(module, name, None, x.shape)
    for layer in range(layers):
        for module, published in _BLOCK_MODULES.items():
            for name, x in params[module].items():
                full = f"{ROOT}/attention_layer_{layer}/~/{published}/{name}"
                places[full] = _Place(module, name, layer, x.shape[1:])
    return places


def _abstract(model: ModelConfig, tokenizer: TokenizerConfig) -> Any:
    return jax.eval_shape(build_model(model, tokenizer.make()).init, jax.random.key(0))
