"""The published fixtures as the tests see them: joblib's own reader is the independent one."""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import textwrap

import joblib
import numpy as np
import pytest

from nt_jax.config import ModelConfig, TokenizerConfig
from nt_jax.interchange.hyperparams import config_from_hyperparams
from nt_jax.interchange.weights import Weights

# Before anything imports transformers: modelling code is cached here, and nothing is fetched.
_HF_HOME = tempfile.TemporaryDirectory(prefix="hf-home-")
os.environ["HF_HOME"] = _HF_HOME.name
os.environ["HF_HUB_OFFLINE"] = "1"

EMBED = "esm_transformer/~/embed/embeddings"


@dataclasses.dataclass(frozen=True)
class Published:
    hyperparams: dict
    arrays: dict
    outputs: dict
    model: ModelConfig
    tokenizer: TokenizerConfig

    def assert_stored(self, found) -> None:
        """Logits and {layer: embedding} equal the stored ones where the tokens are real."""
        stored = {"logits": self.outputs["logits"]} | {
            layer: self.outputs[f"embeddings_{layer}"]
            for layer in range(1, self.model.num_layers + 1)
        }
        real = self.outputs["tokens"] != self.tokenizer.make().pad_id
        assert not real.all()
        values = {"logits": found["logits"]} | found["embeddings"]
        assert values.keys() == stored.keys()
        for name, expected in stored.items():
            value = np.asarray(values[name])
            assert value.shape == expected.shape
            error = np.abs(value - expected)[real].max()
            assert error <= 1e-5 * np.abs(expected[real]).max(), name
        assert not np.asarray(found["logits"])[~real].any()

    def weights(self, **changed) -> Weights:
        arrays = self.arrays | changed
        shapes = {name: array.shape for name, array in arrays.items() if array is not None}
        return Weights(self.model, self.tokenizer, shapes, arrays.__getitem__, "ckpt.joblib")


_ALONE = """
    import sys

    class Forbid:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in {forbidden}:
                raise AssertionError(name + " is imported")

    sys.meta_path.insert(0, Forbid())
"""


def run_alone(code, folder, forbidden) -> str:
    """Standard output of Python code that must run in `folder` without the forbidden packages."""
    forbid = _ALONE.replace("{forbidden}", repr(set(forbidden)))
    program = textwrap.dedent(forbid) + textwrap.dedent(code)
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


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
