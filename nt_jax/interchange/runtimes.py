"""One batch of tokens through a checkpoint, in the runtime of its layout.

The arithmetic is float32 on every side, whatever a model trains or is stored in: in bfloat16 each
side's own rounding would hide a small error.
"""

import dataclasses
import functools
import importlib.resources
import pathlib
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax import export
from jaxtyping import Int

from nt_jax.checkpoint import parse_checkpoint, restore_params
from nt_jax.config import ModelConfig, TokenizerConfig
from nt_jax.errors import InputError
from nt_jax.interchange import formats, onnx_file
from nt_jax.interchange.proof import Outputs
from nt_jax.interchange.weights import to_params
from nt_jax.memory import aligned_empty, let_go
from nt_jax.model.factory import Params, build_model

Tokens = Int[np.ndarray, "B T"]
Values = np.ndarray | jax.Array
Layers = Mapping[int, Values]
# Elements that are copied from a mapped file before its pages are let go.
_PIECE = 1 << 24


def run_params(
    params: Params, model: ModelConfig, tokenizer: TokenizerConfig, tokens: Tokens
) -> Outputs:
    """Our model."""
    layers = tuple(range(1, model.num_layers + 1))
    model = dataclasses.replace(model, compute_dtype="float32", remat="none")
    apply = build_model(model, tokenizer.make()).apply
    found = jax.jit(functools.partial(apply, layers=layers, attention=True))(params, tokens)
    return _named(found["logits"], found["embeddings"], found["attention"])


def run_ours(path: pathlib.Path, tokens: Tokens) -> Outputs:
    """A layout without a runtime of its own, through our model."""
    weights = formats.read(path)
    # `device_put` takes aligned host arrays over without a copy.
    params = jax.device_put(to_params(weights))
    return run_params(params, weights.model, weights.tokenizer, tokens)


def run_workdir(path: pathlib.Path, tokens: Tokens) -> Outputs:
    """A checkpoint of ours."""
    folder, step = parse_checkpoint(path)
    params, _, experiment = restore_params(folder, step)
    return run_params(params, experiment.model, experiment.tokenizer, tokens)


def run_onnx(folder: pathlib.Path, tokens: Tokens) -> Outputs:
    """The graph in onnxruntime."""
    onnx_file.read_onnx(folder)  # says in one line what is missing or damaged
    session = onnx_session(folder)
    names = [output.name for output in session.get_outputs()]
    found = session.run(names, {"tokens": tokens.astype(np.int64)})
    return dict(zip(names, found, strict=True))


def onnx_session(folder: pathlib.Path) -> Any:
    """An `onnxruntime.InferenceSession` on the CPU whose weights are mapped, not copied."""
    try:
        import onnxruntime
    except ImportError:
        raise InputError(
            f"{folder}: running it needs onnxruntime: pip install 'nt-jax[export]'"
        ) from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    # Prepacking copies every matrix into another order.
    options.add_session_config_entry("session.disable_prepacking", "1")
    path = folder / onnx_file.GRAPH_FILE
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no class in common
        reason = str(error).splitlines()[0]
        version = onnxruntime.__version__
        raise InputError(f"{path}: refused by onnxruntime {version}: {reason}") from None


def run_stablehlo(folder: pathlib.Path, tokens: Tokens) -> Outputs:
    """The serialised program, with the weights beside it."""
    from nt_jax.interchange import stablehlo
    from nt_jax.interchange.safetensors_file import read_safetensors

    program = export.deserialize(bytearray((folder / stablehlo.PROGRAM_FILE).read_bytes()))
    arrays, _ = read_safetensors(folder / stablehlo.WEIGHTS_FILE)
    found = program.call({name: _in_memory(array) for name, array in arrays.items()}, tokens)
    return _named(found["logits"], dict(enumerate(found["embeddings"], start=1)), {})


def _in_memory(mapped: np.ndarray) -> jax.Array:
    """A tensor of a mapped file on the device; on a CPU one copy of it is all there is."""
    array = aligned_empty(mapped.shape)
    to, source = array.reshape(-1), mapped.reshape(-1)
    for start in range(0, source.size, _PIECE):
        to[start : start + _PIECE] = source[start : start + _PIECE]
        let_go(mapped)
    return jax.device_put(array)


def run_flax(folder: pathlib.Path, tokens: Tokens) -> Outputs:
    """The NNX module of the folder; its code must be ours, byte for byte."""
    check_code(folder, "nnx_code", required=True)
    module = types.ModuleType("nt_nnx_model")
    sys.modules[module.__name__] = module
    path = folder / "model.py"
    exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
    found = module.load(folder, compute_dtype="float32")(tokens)
    return _named(found["logits"], found["embeddings"], {})


def run_torch(folder: pathlib.Path, tokens: Tokens) -> Outputs:
    """A Hugging Face folder with transformers; code of the folder must be ours, byte for byte."""
    try:
        import torch
        import transformers
    except ImportError as error:
        raise InputError(
            f"{folder}: running it needs {error.name}: pip install 'nt-jax[export]'"
        ) from None

    check_code(folder, "hf_code", required=False)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    model = transformers.AutoModelForMaskedLM.from_pretrained(
        folder, trust_remote_code=True, attn_implementation="eager", torch_dtype=torch.float32
    ).eval()
    ids = torch.tensor(tokens, dtype=torch.long)
    real = (ids != model.config.pad_token_id).long()
    with torch.no_grad():
        found = model(
            input_ids=ids, attention_mask=real, output_hidden_states=True, output_attentions=True
        )
    return _named(
        found.logits.numpy(),
        {layer: x.numpy() for layer, x in enumerate(found.hidden_states[1:], start=1)},
        {layer: x.numpy() for layer, x in enumerate(found.attentions, start=1)},
    )


def run(path: str | pathlib.Path, tokens: Tokens) -> Outputs:
    """Any layout; raises InputError."""
    return _RUNTIMES[formats.layout(path)](pathlib.Path(path), tokens)


_RUNTIMES: Mapping[str, Callable[[pathlib.Path, Tokens], Outputs]] = {
    "workdir": run_workdir,
    "nt": run_ours,
    "safetensors": run_ours,
    "onnx": run_onnx,
    "stablehlo": run_stablehlo,
    "flax": run_flax,
    "hf": run_torch,
}


def describe(path: str | pathlib.Path) -> tuple[ModelConfig, TokenizerConfig]:
    """Configs of a checkpoint of any layout; raises InputError. No tensor is read."""
    weights = formats.read(path)
    return weights.model, weights.tokenizer


def check_code(folder: pathlib.Path, package: str, required: bool) -> None:
    """InputError where Python files of `folder` are not ours; nothing of it has run by then."""
    ours = importlib.resources.files(__package__) / package
    found = sorted(folder.glob("*.py"))
    if required and not found:
        raise InputError(f"{folder}: its code is missing; export the model again")
    for path in found:
        known = ours / path.name
        if not known.is_file() or known.read_bytes() != path.read_bytes():
            raise InputError(
                f"{path}: not the code that nt-jax writes, so it is not run; "
                "import the folder (`nt-jax import`) and compare the workdir"
            )


def _named(logits: Values, embeddings: Layers, attention: Layers) -> Outputs:
    """Under the names of `Outputs`, as float32 on the host."""
    kinds = {"embedding": embeddings, "attention": attention}
    layers = {
        f"{kind}_{layer}": np.asarray(maps[layer], np.float32)
        for kind, maps in kinds.items()
        for layer in sorted(maps)
    }
    return {**layers, "logits": np.asarray(logits, np.float32)}
