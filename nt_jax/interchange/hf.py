"""Hugging Face folders, both ways: v1 as transformers' own ESM, v2 with a small code of its own.

Reading understands the published PyTorch models (v1, and the hub's v2 layout) and what is written
here. Rotary models are written with hf_code/, which runs on transformers 4.40 and later without
this package; its tensor names are the published ones, so the hub's code loads such a folder too.
"""

import functools
import json
import pathlib
from collections.abc import Mapping

import numpy as np

from nt_jax.config import MaskingConfig, ModelConfig
from nt_jax.errors import InputError
from nt_jax.files import write_atomically
from nt_jax.interchange.hf_config import (
    TYPE,
    config_from_hf,
    hf_from_config,
    ties_embeddings,
)
from nt_jax.interchange.hf_files import open_weights, read_json, write_weights
from nt_jax.interchange.hf_names import DECODER, EMBEDDING, added_tensors, is_unused, key_of, modern
from nt_jax.interchange.hf_tokenizer import check_vocabulary, write_tokenizer
from nt_jax.interchange.safetensors_file import FLOAT_TYPES, Tensor
from nt_jax.interchange.weights import (
    FLOATS,
    Weights,
    check_tensors,
    expected_tensors,
    read_as,
    report_faults,
)
from nt_jax.model.rotary import rotary_frequencies
from nt_jax.progress import Progress, silent

_CONFIG = "config.json"
_CODE = pathlib.Path(__file__).with_name("hf_code")


def read_hf(folder: pathlib.Path) -> Weights:
    """Weights of a masked language model in a Hugging Face folder; tensors are read when asked for.

    Weight files are safetensors or PyTorch pickles, whole or in shards. The LayerNorm epsilon is
    that of the config, which gives the outputs of the PyTorch model; the published configs say
    1e-12, whereas the published models were trained with 1e-5 (the JAX code).

    Raises InputError: a file is missing or damaged; config, weights and vocab.txt contradict each
    other; or the architecture is none of ours.
    """
    where = folder / _CONFIG
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    values = read_json(where)
    tensors = _renamed(open_weights(folder))
    if EMBEDDING not in tensors:
        raise InputError(f"{folder}: missing {EMBEDDING}: no masked language model of this family")
    rows = tensors[EMBEDDING].shape[0]
    model, tokenizer = config_from_hf(values, rows, str(where))
    check_vocabulary(tokenizer.make(), folder)
    try:
        shapes = expected_tensors(model, tokenizer)
    except InputError as error:  # sizes that do not fit together
        raise InputError(f"{where}: {error}") from None
    if ties_embeddings(values, str(where)):
        tensors = _tied(tensors, where)
    _check(tensors, shapes, model, folder)

    def read(name: str) -> np.ndarray:
        key = key_of(name)
        array = tensors[key.name].read()
        return array.T if key.transposed else array

    return Weights(model, tokenizer, shapes, read, str(folder))


def write_hf(
    weights: Weights,
    masking: MaskingConfig | None,
    folder: pathlib.Path,
    dtype: str = "float32",
    progress: Progress = silent,
    shard_bytes: int = 5 * 10**9,
) -> None:
    """Writes a folder that transformers loads, one tensor at a time.

    Learned positions (v1) give stock ESM: `EsmForMaskedLM.from_pretrained(folder)`. Rotary ones
    (v2) carry their code: `AutoModelForMaskedLM.from_pretrained(folder, trust_remote_code=True)`.
    transformers 4.56 to 5.2 count pads in ESM's token dropout: there, v1 is wrong for sequences
    that have both `<mask>` and pads, and right for the same sequences one by one.

    Args:
        weights: what to write.
        masking: how the model was trained; noted in config.json (`masking`).
        folder: made where it is absent.
        dtype: type of the stored tensors, one of `FLOAT_TYPES`; float32 is exact.
        progress: gets (bytes done, bytes in all).
        shard_bytes: largest weight file; more than that is written in shards with an index.

    Raises InputError where the model has parts that stock ESM has not.
    """
    model, tokenizer = weights.model, weights.tokenizer.make()
    values = hf_from_config(model, weights.tokenizer, masking, dtype, weights.source)
    check_tensors(weights.tensors, expected_tensors(model, weights.tokenizer), weights.source)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = _stored(weights, dtype, tokenizer.pad_id)
    write_weights(folder, tensors, shard_bytes, progress)
    write_atomically(folder / _CONFIG, json.dumps(values, indent=2) + "\n")
    write_tokenizer(tokenizer, model.max_positions, folder)
    if values["model_type"] == TYPE:
        for file in sorted(_CODE.glob("*.py")):
            write_atomically(folder / file.name, file.read_bytes())


def _renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under the names of today, unless that name is taken."""
    return {
        name if modern(name) in tensors else modern(name): tensor
        for name, tensor in tensors.items()
    }


def _tied(tensors: Mapping[str, Tensor], where: pathlib.Path) -> dict[str, Tensor]:
    """The same tensors with the embedding as output projection, as PyTorch would tie them."""
    embedding = tensors[EMBEDDING]
    decoder = tensors.get(DECODER, embedding)
    if not np.array_equal(decoder.read(), embedding.read()):
        raise InputError(
            f"{where}: tie_word_embeddings is true (or absent, which means the same), but "
            f"{DECODER} is not the embedding; set it to false if the weights are right"
        )
    return {**tensors, DECODER: decoder}


def _check(
    tensors: Mapping[str, Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    model: ModelConfig,
    folder: pathlib.Path,
) -> None:
    """Raises InputError when the tensors are not exactly those of the model."""
    keys = {key_of(name): shape for name, shape in shapes.items()}
    expected = {key.name: key.oriented(shape) for key, shape in keys.items()}
    found = {
        name: tensor
        for name, tensor in tensors.items()
        if name in expected or not is_unused(name, model)
    }
    check_tensors({name: tensor.shape for name, tensor in found.items()}, expected, str(folder))
    wrong = [f"{name} ({x.dtype})" for name, x in found.items() if str(x.dtype) not in FLOATS]
    report_faults({f"not of type {', '.join(FLOATS)}:": wrong}, str(folder))
    if model.positions == "rotary":
        _check_frequencies(tensors, model, folder)


def _check_frequencies(
    tensors: Mapping[str, Tensor], model: ModelConfig, folder: pathlib.Path
) -> None:
    """PyTorch code rotates by the frequencies in the file, ours by those of the config."""
    expected = rotary_frequencies(model.head_size, model.rope_base, model.rope_rescale)
    wrong = [
        name
        for name, tensor in tensors.items()
        if name.endswith("inv_freq")
        # Stored in half precision, they are off by up to 1 %.
        and not (
            tensor.shape == expected.shape
            and np.allclose(tensor.read().astype(np.float64), expected, rtol=0.01, atol=0)
        )
    ]
    if wrong:
        raise InputError(
            f"{folder}: {', '.join(wrong)}: frequencies of another base than the config's "
            f"{model.rope_base} (rescaled by {model.rope_rescale})"
        )


def _stored(weights: Weights, dtype: str, pad_id: int) -> dict[str, Tensor]:
    """The tensors of the folder: those of the model and those that PyTorch code expects."""
    kind = FLOAT_TYPES[dtype]

    def read(name: str) -> np.ndarray:
        array = read_as(weights, name, kind)
        return array.T if key_of(name).transposed else array

    tensors = {
        key_of(name).name: Tensor(kind, key_of(name).oriented(shape), functools.partial(read, name))
        for name, shape in weights.tensors.items()
    }
    for key, array in added_tensors(weights.model, pad_id).items():
        # Angles are nothing for half precision.
        kept = array if key.endswith("inv_freq") else array.astype(kind)
        tensors[key] = Tensor(kept.dtype, kept.shape, functools.partial(np.asarray, kept))
    return tensors
