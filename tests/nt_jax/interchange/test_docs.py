"""The script of docs/interchange.md, run as a reader would run it."""

import re

import jax
import numpy as np
import pytest

import nt_jax
from nt_jax import cli
from tests.conftest import ROOT
from tests.nt_jax.interchange.conftest import run_alone


def script() -> str:
    text = (ROOT / "docs" / "interchange.md").read_text()
    return re.search(r"## In PyTorch.*?```python\n(.*?)```", text, re.DOTALL)[1]


def ours(model, text: str) -> list[str]:
    """What the script prints, from our own model and tokenizer."""
    tokenizer = model.tokenizer
    masked = [tokenizer.cls_id]
    for i, part in enumerate(text.split("<mask>")):
        masked += [tokenizer.mask_id] * bool(i) + tokenizer.encode(part)[1:].tolist()
    tokens = np.array([masked])
    logits = model.apply(tokens)["logits"][tokens == tokenizer.mask_id]
    return [
        " ".join(f"{tokenizer.tokens[token]} {row[token]:.5f}" for token in np.argsort(-row)[:4])
        for row in np.asarray(jax.nn.softmax(logits))
    ]


def test_the_script_is_short():
    assert len([line for line in script().splitlines() if line]) <= 10


@pytest.mark.parametrize("name", ["v1_tiny", "v2_tiny"])
def test_plain_torch_predicts_the_same_masked_tokens(name, fixtures, tmp_path):
    pytest.importorskip("torch")
    workdir, out = str(tmp_path / "first"), str(tmp_path / "first-hf")
    assert cli.main(["import", str(fixtures / name), "--workdir", workdir]) == 0
    assert cli.main(["export", "--checkpoint", workdir, "--format", "hf", "--out", out]) == 0
    code = script()
    printed = run_alone(code, tmp_path, {"jax", "haiku", "nt_jax", "flax"})
    text = re.search(r'tokenizer\("(.*?)"', code)[1]
    assert printed.splitlines() == ours(nt_jax.load(workdir), text)
