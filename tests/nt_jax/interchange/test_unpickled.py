"""`--unpickle`: the published loader's way in, closed unless it is asked for."""

import json
import shutil
import sys

import joblib
import numpy as np
import pytest

from nt_jax import cli
from nt_jax.errors import InputError
from nt_jax.interchange import formats
from nt_jax.interchange.nt import CHECKPOINT, HYPERPARAMS
from nt_jax.interchange.unpickled import read_unpickled, unpickle_tree
from tests.nt_jax.interchange.conftest import EMBED


class RunsCode:
    """Unpickles to an array, and makes a folder on the way."""

    def __init__(self, array, folder):
        self.array, self.folder = array, folder

    def __reduce__(self):
        code = f"__import__('os').mkdir({str(self.folder)!r}) or array"
        return eval, (code, {"array": self.array})


@pytest.fixture
def folder(tmp_path, fixtures):
    """A published checkpoint that may be changed."""
    path = tmp_path / "published"
    path.mkdir()
    for name in (HYPERPARAMS, CHECKPOINT):
        shutil.copyfile(fixtures / "v2_tiny" / name, path / name)
    return path


def test_both_readers_give_the_same_weights(fixtures):
    for name in ("v1_tiny", "v2_tiny"):
        safe, unpickled = (read(fixtures / name) for read in (formats.read, read_unpickled))
        assert (safe.model, safe.tokenizer) == (unpickled.model, unpickled.tokenizer)
        assert safe.tensors == unpickled.tensors
        for tensor, array in safe:
            other = unpickled.read(tensor)
            assert array.dtype == other.dtype
            assert array.tobytes() == other.tobytes()


def test_code_in_a_file_runs_only_where_it_is_asked_for(folder, tmp_path, capfd):
    proof, run = tmp_path / "code_has_run", tmp_path / "run"
    tree = joblib.load(folder / CHECKPOINT)
    module, _, name = EMBED.rpartition("/")
    tree[module][name] = RunsCode(np.asarray(tree[module][name]), proof)
    joblib.dump(tree, folder / CHECKPOINT)

    command = ["import", str(folder), "--workdir", str(run)]
    assert cli.main(command) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert f"{CHECKPOINT}: " in error
    assert "eval" in error
    assert not proof.exists()
    assert not run.exists()

    assert cli.main([*command, "--unpickle"]) == 0
    assert proof.is_dir()
    assert formats.layout(run) == "workdir"
    read = formats.read(run).read(EMBED)
    np.testing.assert_array_equal(read, tree[module][name].array)


def test_the_help_says_that_code_runs(capsys):
    with pytest.raises(SystemExit):
        cli.main(["import", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "code in the file will run, so only for files of trusted origin" in text


def refusal(source) -> str:
    with pytest.raises(InputError) as caught:
        read_unpickled(str(source))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_only_the_published_layout_is_unpickled(folder, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"format": "nt-jax/safetensors"}))
    assert "for the published layout, this is safetensors" in refusal(tmp_path)
    assert "no such folder" in refusal(tmp_path / "none")


@pytest.mark.parametrize("tree", [[1], {"module": 3}])
def test_files_of_something_else(tree, folder):
    joblib.dump(tree, folder / CHECKPOINT)
    assert f"{CHECKPOINT}: expected a joblib file of" in refusal(folder)


def test_a_file_that_joblib_cannot_load(folder):
    (folder / CHECKPOINT).write_bytes(b"\x80\x03not a pickle")
    assert f"{CHECKPOINT}: joblib cannot load it: " in refusal(folder)


def test_weights_of_another_model(folder):
    tree = joblib.load(folder / CHECKPOINT)
    tree["other"] = {"w": np.zeros(3, np.float32)}
    joblib.dump(tree, folder / CHECKPOINT)
    assert "unexpected other/w" in refusal(folder)


def test_without_joblib_it_says_so(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "joblib", None)
    assert refusal(folder) == "--unpickle needs joblib: pip install joblib"
    with pytest.raises(InputError, match="pip install joblib"):
        unpickle_tree(folder / CHECKPOINT)
