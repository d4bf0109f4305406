"""The published fixtures as the tests see them: joblib's own reader is the independent one."""

import dataclasses
import json

import joblib
import numpy as np
import pytest

from nt_jax.config import ModelConfig, TokenizerConfig
from nt_jax.interchange.hyperparams import config_from_hyperparams
from nt_jax.interchange.weights import Weights

EMBED = "esm_transformer/~/embed/embeddings"


@dataclasses.dataclass(frozen=True)
class Published:
    hyperparams: dict
    arrays: dict
    outputs: dict
    model: ModelConfig
    tokenizer: TokenizerConfig

    def weights(self, **changed) -> Weights:
        arrays = self.arrays | changed
        shapes = {name: array.shape for name, array in arrays.items() if array is not None}
        return Weights(self.model, self.tokenizer, shapes, arrays.__getitem__, "ckpt.joblib")


@pytest.fixture(scope="session", params=["v1_tiny", "v2_tiny"])
def published(request, fixtures) -> Published:
    folder = fixtures / request.param
    hyperparams = json.loads((folder / "hyperparams.json").read_text())
    nested = joblib.load(folder / "pytree_ckpt.joblib")
    arrays = {f"{m}/{n}": np.asarray(x) for m, named in nested.items() for n, x in named.items()}
    outputs = dict(np.load(folder / "outputs.npz"))
    model, tokenizer = config_from_hyperparams(hyperparams, arrays[EMBED].shape[0])
    assert tokenizer == TokenizerConfig(k=6, vocabulary=request.param[:2])
    return Published(hyperparams, arrays, outputs, model, tokenizer)
