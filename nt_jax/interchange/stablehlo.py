"""StableHLO: the forward pass as one portable program for CPU, CUDA and TPU.

Batch and length stay open, and the weights are arguments: the serialisation ends at 2 GB. Who runs
it needs JAX, not our code. It is for inference (it has no gradient), and it ages: JAX promises to
run programs up to six months older than itself and refuses them later. The weights do not age.

| file | what it is |
|---|---|
| model.stablehlo | `jax.export.Exported`, serialised: (weights, tokens) -> outputs |
| weights.safetensors | our parameters, `MODULE/ARRAY`, layers stacked (`nt_jax.model.factory`) |
| vocab.txt | a token a line, in the order of the ids |
| run.py | the smallest program that runs it |
| config.json | configs of the model and the tokenizer |
"""

import contextlib
import dataclasses
import importlib.resources
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import Array, Float, Int

from nt_jax.config import ModelConfig, TokenizerConfig
from nt_jax.files import write_atomically
from nt_jax.interchange.config_file import read_config, write_config, write_vocabulary
from nt_jax.interchange.safetensors_file import Tensor, read_exactly, write_safetensors
from nt_jax.interchange.weights import Weights, of_params, stacked
from nt_jax.model.factory import build_model
from nt_jax.progress import Progress, silent

LAYOUT, VERSION = "nt-jax/stablehlo", 1
PLATFORMS = ("cpu", "cuda", "tpu")
PROGRAM_FILE, WEIGHTS_FILE, EXAMPLE_FILE = "model.stablehlo", "weights.safetensors", "run.py"


def export_forward(model: ModelConfig, tokenizer: TokenizerConfig) -> export.Exported:
    """The program (weights, tokens) -> outputs; no weight is needed to make it.

    weights: {"MODULE/ARRAY": float32} of our parameters; tokens: int32 [b, t] for any b and any
    t up to max_positions; outputs: {"logits": float32 [b, t, V], 0 at pads, "embeddings": float32
    [L, b, t, D]}, where index i holds layer i + 1, the last one being the output of the head's
    first LayerNorm. Arithmetic is float32, whatever the model trains in.
    """
    plain = dataclasses.replace(model, remat="none", compute_dtype="float32")
    built = build_model(plain, tokenizer.make())
    layers = tuple(range(1, model.num_layers + 1))

    def forward(
        weights: dict[str, Float[Array, "..."]], tokens: Int[Array, "b t"]
    ) -> dict[str, Float[Array, "..."]]:
        found = built.apply(_nested(weights), tokens, layers)
        embeddings = [found["embeddings"][layer].astype(jnp.float32) for layer in layers]
        return {"logits": found["logits"], "embeddings": jnp.stack(embeddings)}

    batch, length = export.symbolic_shape("b, t", constraints=[f"t <= {model.max_positions}"])
    weights = {
        name: jax.ShapeDtypeStruct(shape, jnp.float32)
        for name, shape in _shapes(model, tokenizer).items()
    }
    tokens = jax.ShapeDtypeStruct((batch, length), jnp.int32)
    with _no_source_locations():
        return export.export(jax.jit(forward), platforms=PLATFORMS)(weights, tokens)


@contextlib.contextmanager
def _no_source_locations() -> Iterator[None]:
    """Else the program holds the paths of the machine that made it."""
    option = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, option)
    jax.config.update(option, 0)
    try:
        yield
    finally:
        jax.config.update(option, before)


def write_stablehlo(
    weights: Weights,
    folder: pathlib.Path,
    progress: Progress = silent,
) -> None:
    """Writes the folder described above; one parameter (its L layers) is in memory at a time.

    Raises InputError where the tensors are not those of the model.
    """
    tensors = {name: Tensor(np.float32, *parameter) for name, parameter in stacked(weights).items()}
    program = export_forward(weights.model, weights.tokenizer).serialize()
    example = importlib.resources.files(__package__) / "stablehlo_code" / EXAMPLE_FILE
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(folder / WEIGHTS_FILE, tensors, {"format": "np"}, progress)
    write_atomically(folder / PROGRAM_FILE, bytes(program))
    write_atomically(folder / EXAMPLE_FILE, example.read_bytes())
    write_vocabulary(folder, weights.tokenizer)
    write_config(folder, LAYOUT, VERSION, weights)


def read_stablehlo(folder: pathlib.Path) -> Weights:
    """Weights that read a folder of `write_stablehlo` where it lies; the program is not looked at.

    Raises InputError when a file is missing or damaged, or when the tensors are not those of the
    model that `config.json` describes.
    """
    model, tokenizer = read_config(folder, LAYOUT, VERSION)
    path = folder / WEIGHTS_FILE
    arrays = read_exactly(path, _shapes(model, tokenizer))
    return of_params(_nested(arrays), model, tokenizer, str(path))


def _shapes(model: ModelConfig, tokenizer: TokenizerConfig) -> dict[str, tuple[int, ...]]:
    """Our `MODULE/ARRAY` -> shape."""
    abstract = jax.eval_shape(build_model(model, tokenizer.make()).init, jax.random.key(0))
    return {f"{m}/{name}": x.shape for m, named in abstract.items() for name, x in named.items()}


def _nested(arrays: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """`MODULE/ARRAY` -> array, as {module: {name: array}}."""
    nested: dict[str, dict[str, Any]] = {}
    for name, array in arrays.items():
        module, _, last = name.rpartition("/")
        nested.setdefault(module, {})[last] = array
    return nested
