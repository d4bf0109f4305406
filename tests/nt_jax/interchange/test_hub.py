"""Checkpoints by name, from a local server that serves repositories as the hub does."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from nt_jax.errors import InputError
from nt_jax.interchange import hub
from nt_jax.model.presets import PRESETS
from tests.nt_jax.interchange.hub_server import COMMIT, serve

ROOT = pathlib.Path(__file__).parents[3]
FIND = """
import sys
from nt_jax.errors import InputError
from nt_jax.interchange.hub import find
try:
    folder, name = find(sys.argv[1])
    print(name, *sorted(path.name for path in folder.iterdir()))
except InputError as error:
    print("refused:", error)
"""


def find(name, home, endpoint, **environment) -> str:
    """What a new process finds; `HF_ENDPOINT` is read when huggingface_hub is imported."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    done = subprocess.run(
        [sys.executable, "-c", FIND, name],
        env=kept | {"HF_ENDPOINT": endpoint, "HF_HOME": str(home)} | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def tree(tmp_path) -> pathlib.Path:
    safe = tmp_path / "hub" / hub.PUBLISHED["nt_v2_50m_multispecies"]
    torch = tmp_path / "hub" / "somebody" / "model"
    for folder in (safe, torch):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "vocab.txt").write_text("A")
        (folder / "modeling_esm.py").write_text("raise SystemExit")
        (folder / "pytorch_model.bin").write_bytes(b"pickle")
    (safe / "model.safetensors").write_bytes(b"safe")
    original = tmp_path / "hub" / "somebody" / "original"
    shutil.copytree(safe, original)
    (original / "jax_model").mkdir()
    for name in ("hyperparams.json", "pytree_ckpt.joblib"):
        (original / "jax_model" / name).write_text("{}")
    (tmp_path / "hub" / "somebody" / "empty").mkdir()
    return tmp_path / "hub"


def test_every_published_model_has_a_repository():
    assert set(hub.PUBLISHED) == set(PRESETS) - {"nt_v2_nano", "nt_v2_micro"}
    assert len(set(hub.PUBLISHED.values())) == 10


def test_names_are_fetched_once_and_pickles_only_in_need(tree, tmp_path):
    home = tmp_path / "home"
    with serve(tree) as (endpoint, asked):
        published = "nt_v2_50m_multispecies config.json model.safetensors vocab.txt"
        assert find("nt_v2_50m_multispecies", home, endpoint) == published
        assert not [path for path in asked if path.endswith((".bin", ".py"))]
        assert f"/{hub.PUBLISHED['nt_v2_50m_multispecies']}/resolve/{COMMIT}/vocab.txt" in asked
        found = find("somebody/model", home, endpoint)
        assert found == "model config.json pytorch_model.bin vocab.txt"
        found = find("somebody/original", home, endpoint)
        assert found == "original hyperparams.json pytree_ckpt.joblib"
        assert not [path for path in asked if "original" in path and "model.safetensors" in path]
        assert find("somebody/empty", home, endpoint).startswith("refused: somebody/empty")
        assert "somebody/none" in find("somebody/none", home, endpoint)
    # The server is gone: the cache is enough.
    for environment in ({"HF_HUB_OFFLINE": "1"}, {}):
        assert find("nt_v2_50m_multispecies", home, endpoint, **environment) == published
    missing = find("nt_v2_100m_multispecies", home, endpoint, HF_HUB_OFFLINE="1")
    assert missing.startswith("refused: InstaDeepAI/nucleotide-transformer-v2-100m-multi-species")


def test_folders_come_first(tmp_path):
    (tmp_path / "run").mkdir()
    assert hub.find(str(tmp_path / "run")) == (tmp_path / "run", "run")
    path, name = hub.find(f"{tmp_path}/run@200")
    assert (str(path), name) == (f"{tmp_path}/run@200", "run")
    with pytest.raises(InputError, match="did you mean 'nt_v2_50m_multispecies'"):
        hub.find("nt_v2_50m_multispecie")
    with pytest.raises(InputError, match="no such folder"):
        hub.find("/nowhere/at/all")
