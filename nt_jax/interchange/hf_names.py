"""Names of the tensors in PyTorch checkpoints (ESM's, which v2 kept), from the published JAX ones.

A projection is stored as [outputs, inputs], where the JAX layout has [inputs, outputs]; nothing
else differs, so tensors pass through bit by bit.
"""

import re
from typing import NamedTuple

import numpy as np

from nt_jax.config import ModelConfig
from nt_jax.interchange.weights import ROOT
from nt_jax.model.rotary import rotary_frequencies

EMBEDDING = "esm.embeddings.word_embeddings.weight"
DECODER = "lm_head.decoder.weight"

# Published module -> PyTorch module, once a model.
_MODULES = {
    "~/embed": "esm.embeddings.word_embeddings",
    "~/esm_learned_positional_embeddings/~/embed": "esm.embeddings.position_embeddings",
    "~/emb_layer_norm_before": "esm.embeddings.layer_norm",
    "~/esm_roberta_lm_head/~/emb_layer_norm_after": "esm.encoder.emb_layer_norm_after",
    "~/esm_roberta_lm_head/~/lm_head_fc_1": "lm_head.dense",
    "~/esm_roberta_lm_head/~/lm_head_layer_norm": "lm_head.layer_norm",
    "~/esm_roberta_lm_head/~/lm_final_fc": "lm_head.decoder",
}
# The same, once a layer, below `attention_layer_i/~/` and `esm.encoder.layer.i.`.
_LAYER_MODULES = {
    "mha_layer_norm": "attention.LayerNorm",
    "mha/query": "attention.self.query",
    "mha/key": "attention.self.key",
    "mha/value": "attention.self.value",
    "mha/mha_output": "attention.output.dense",
    "final_layer_norm": "LayerNorm",
    "fc1": "intermediate.dense",
    "fc2": "output.dense",
}
_ARRAYS = {
    "embeddings": "weight",
    "scale": "weight",
    "offset": "bias",
    "w": "weight",
    "b": "bias",
}
_LAYER = re.compile(r"attention_layer_(\d+)/~/(.+)")

# What PyTorch checkpoints carry beside the model. The contact head belongs to ESM's proteins.
_UNUSED = re.compile(
    r"esm\.contact_head\.regression\.(weight|bias)"
    r"|esm\.embeddings\.position_ids"
    r"|esm\.(encoder\.layer\.\d+\.attention\.self\.)?rotary_embeddings\.inv_freq"
)
_POSITIONS = "esm.embeddings.position_embeddings.weight"


class Key(NamedTuple):
    """A tensor in a PyTorch checkpoint."""

    name: str
    transposed: bool

    def oriented(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape there from the shape here, and back."""
        return shape[::-1] if self.transposed else shape


def key_of(published: str) -> Key:
    """Where the tensor of a published name (`MODULE/ARRAY`) is in a PyTorch checkpoint."""
    module, array = published.removeprefix(f"{ROOT}/").rsplit("/", 1)
    layer = _LAYER.fullmatch(module)
    if layer:
        prefix = f"esm.encoder.layer.{layer[1]}.{_LAYER_MODULES[layer[2]]}"
    else:
        prefix = _MODULES[module]
    if prefix == "lm_head.decoder" and array == "b":
        return Key("lm_head.bias", False)
    return Key(f"{prefix}.{_ARRAYS[array]}", array == "w")


def modern(key: str) -> str:
    """Name of today for the gamma and beta of LayerNorms in old files.

    transformers renames them while loading, and current versions even save them.
    """
    return re.sub(r"\.beta$", ".bias", re.sub(r"\.gamma$", ".weight", key))


def is_unused(key: str, model: ModelConfig) -> bool:
    """Whether a tensor of that name is known to be read by no computation."""
    return bool(_UNUSED.fullmatch(key)) or (key == _POSITIONS and model.positions == "rotary")


def added_tensors(model: ModelConfig, pad_id: int) -> dict[str, np.ndarray]:
    """Tensors that PyTorch code expects and no computation reads, so that none is missing there.

    A contact head of zeros; with rotary positions also the frequencies of every layer and a
    position table of zeros.
    """
    heads = model.num_layers * model.num_heads
    tensors = {
        "esm.contact_head.regression.weight": np.zeros((1, heads), np.float32),
        "esm.contact_head.regression.bias": np.zeros(1, np.float32),
    }
    if model.positions == "rotary":
        rows = model.max_positions + pad_id + 1
        tensors[_POSITIONS] = np.zeros((rows, model.embed_dim), np.float32)
        frequencies = rotary_frequencies(model.head_size, model.rope_base, model.rope_rescale)
        for layer in range(model.num_layers):
            name = f"esm.encoder.layer.{layer}.attention.self.rotary_embeddings.inv_freq"
            tensors[name] = frequencies.astype(np.float32)
    return tensors
