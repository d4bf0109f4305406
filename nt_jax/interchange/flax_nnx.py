"""Flax NNX: the model as one file of source beside its weights, to read, change and train.

| file | what it is |
|---|---|
| model.py | `NucleotideTransformer`, a Flax NNX module, and `load(folder)`; nothing of nt-jax |
| weights.safetensors | float32 tensors named by their path in the module, `blocks.0.query.kernel` |
| vocab.txt | a token a line, in the order of the ids |
| config.json | configs of the model and the tokenizer |
"""

import importlib.resources
import pathlib
import re

from nt_jax.files import write_atomically
from nt_jax.interchange.config_file import read_config, write_config, write_vocabulary
from nt_jax.interchange.safetensors_file import (
    float_tensors,
    read_exactly,
    write_safetensors,
)
from nt_jax.interchange.weights import ROOT, Weights, expected_tensors
from nt_jax.progress import Progress, silent

LAYOUT, VERSION = "nt-jax/flax-nnx", 1
CODE_FILE, WEIGHTS_FILE = "model.py", "weights.safetensors"

# Published -> ours in NNX, once a model.
_MODULES = {
    "~/embed": "token_embedding",
    "~/esm_learned_positional_embeddings/~/embed": "position_embedding",
    "~/emb_layer_norm_before": "embedding_norm",
    "~/esm_roberta_lm_head/~/emb_layer_norm_after": "head_norm",
    "~/esm_roberta_lm_head/~/lm_head_fc_1": "head_transform",
    "~/esm_roberta_lm_head/~/lm_head_layer_norm": "head_transform_norm",
    "~/esm_roberta_lm_head/~/lm_final_fc": "head_logits",
}
# Published -> ours in NNX, once a layer.
_BLOCK_MODULES = {
    "mha_layer_norm": "attention_norm",
    "mha/query": "query",
    "mha/key": "key",
    "mha/value": "value",
    "mha/mha_output": "out",
    "final_layer_norm": "ffn_norm",
    "fc1": "fc1",
    "fc2": "fc2",
}
_ARRAYS = {
    "embeddings": "embedding",
    "w": "kernel",
    "b": "bias",
    "scale": "scale",
    "offset": "bias",
}
_LAYER = re.compile(r"attention_layer_(\d+)/~/(.*)")


def write_flax(
    weights: Weights,
    folder: pathlib.Path,
    progress: Progress = silent,
) -> None:
    """Writes the folder described above; one tensor is in memory at a time.

    Raises InputError where the tensors are not those of the model.
    """
    tensors = {_nnx_name(name): tensor for name, tensor in float_tensors(weights).items()}
    code = importlib.resources.files(__package__) / "nnx_code" / CODE_FILE
    tokenizer = weights.tokenizer.make()
    vocabulary = {
        "vocab_size": tokenizer.vocab_size,
        "pad_id": tokenizer.pad_id,
        "mask_id": tokenizer.mask_id,
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(folder / WEIGHTS_FILE, tensors, {"format": "flax"}, progress)
    write_atomically(folder / CODE_FILE, code.read_bytes())
    write_vocabulary(folder, weights.tokenizer)
    write_config(folder, LAYOUT, VERSION, weights, vocabulary=vocabulary)


def read_flax(folder: pathlib.Path) -> Weights:
    """Weights that read a folder of `write_flax` where it lies; its code is not run.

    Raises InputError when a file is missing or damaged, or when the tensors are not those of the
    model that `config.json` describes.
    """
    model, tokenizer = read_config(folder, LAYOUT, VERSION)
    path = folder / WEIGHTS_FILE
    expected = expected_tensors(model, tokenizer)
    arrays = read_exactly(path, {_nnx_name(name): shape for name, shape in expected.items()})
    return Weights(model, tokenizer, expected, lambda name: arrays[_nnx_name(name)], str(path))


def _nnx_name(published: str) -> str:
    """`ROOT/attention_layer_0/~/mha/query/w` -> `blocks.0.query.kernel`."""
    module, _, array = published.removeprefix(f"{ROOT}/").rpartition("/")
    layer = _LAYER.fullmatch(module)
    parts = ["blocks", layer[1], _BLOCK_MODULES[layer[2]]] if layer else [_MODULES[module]]
    return ".".join([*parts, _ARRAYS[array]])
