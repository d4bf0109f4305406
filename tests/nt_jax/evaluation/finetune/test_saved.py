"""Adapter files: small, whole, tied to their checkpoint, and giving the same predictions."""

import json
import pathlib

import jax
import numpy as np
import pytest

from nt_jax.checkpoint import restore_params
from nt_jax.errors import InputError
from nt_jax.evaluation.finetune import finetune, load_adapter
from nt_jax.evaluation.finetune.saved import ADAPTER, DESCRIPTION, MODEL, read_arrays
from nt_jax.evaluation.loading import load
from nt_jax.interchange.exporter import export_checkpoint
from tests.nt_jax.evaluation.finetune.conftest import make_task, write_task

QUIET = {"epochs": 1, "batch": 16, "progress": lambda text: None}
RANK = 3
"""Not the default: it is read from the description."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """A task with a given split."""
    folder = tmp_path_factory.mktemp("task")
    task = make_task("classes")
    for part in ("train", "test"):
        write_task(folder / f"{part}.csv", task, part)
    return folder


@pytest.fixture(scope="module")
def adapted(checkpoint, folder, tmp_path_factory) -> dict[str, pathlib.Path]:
    """Each method's folder; one short training each."""
    out = tmp_path_factory.mktemp("out")
    for method, more in (
        ("ia3", {}),
        ("lora", {"learning_rate": 1e-2, "rank": RANK}),
        ("full", {}),
    ):
        finetune(checkpoint, folder, out / method, method=method, merge=True, **more, **QUIET)
    return {path.name: path for path in out.iterdir()}


@pytest.mark.parametrize("method", ["ia3", "lora", "full"])
def test_loaded_again_it_predicts_the_same_bits(adapted, method: str):
    found = load_adapter(adapted[method])
    stored = read_arrays(adapted[method] / "held_out.npz")
    predictions = found.predict(make_task("classes").test.sequences)
    np.testing.assert_array_equal(predictions, stored["predictions"])
    assert found.classes == ("0", "1")
    assert predictions.shape == (40, 2)


def test_loaded_factors_are_those_that_were_trained(adapted, loaded):
    """The second factor starts at zero: a file of the start would give the frozen model."""
    found = load_adapter(adapted["lora"])
    shapes = {"lora_a": (loaded.num_layers, 16, RANK), "lora_b": (loaded.num_layers, RANK, 16)}
    modules = {f"nt/block/attention/{name}" for name in ("query", "value")}
    assert set(found.trained) == modules
    for arrays in found.trained.values():
        assert {name: array.shape for name, array in arrays.items()} == shapes
        assert np.abs(arrays["lora_b"]).max() > 1e-3
    sequences = make_task("classes").test.sequences
    stored = read_arrays(adapted["lora"] / "held_out.npz")
    assert np.abs(found.predict(sequences) - stored["frozen"]).max() > 1e-3


@pytest.mark.parametrize("method", ["ia3", "lora"])
def test_an_adapter_is_kilobytes(adapted, loaded, method: str):
    size = (adapted[method] / ADAPTER).stat().st_size
    added = loaded.num_layers * {"ia3": 2 * 16 + 32, "lora": 2 * RANK * (16 + 16)}[method]
    head = 16 * 2 + 2 + 2 * 16 + 2 * 2 + 1
    assert 4 * (added + head) < size < 4 * (added + head) + 2000
    stored = read_arrays(adapted[method] / "held_out.npz")
    assert stored["bytes"] == size
    assert stored["trained"] == added


@pytest.mark.parametrize("method", ["ia3", "lora"])
def test_the_merged_workdir_is_a_checkpoint_like_any_other(adapted, loaded, tmp_path, method: str):
    sequences = make_task("classes").test.sequences[:8]
    found = load_adapter(adapted[method])
    merged = load(adapted[method] / MODEL)
    ids = [found.encoder.tokenizer.encode(sequence) for sequence in sequences]
    np.testing.assert_allclose(
        merged.embed(sequences, layer=2), found.encoder.embed(found.trained, ids), atol=1e-5
    )
    assert np.abs(merged.embed(sequences) - loaded.embed(sequences)).max() > 1e-4
    certificate = export_checkpoint(str(adapted[method] / MODEL), "safetensors", tmp_path / "out")
    assert certificate.passed


def test_full_fine_tuning_leaves_the_head_of_the_language_model(adapted, loaded):
    params = restore_params(adapted["full"] / MODEL)[0]
    moved = {
        module
        for module, arrays in params.items()
        for name, array in arrays.items()
        if not np.array_equal(array, loaded.params[module][name])
    }
    assert "nt/block/ffn/fc1" in moved
    assert not moved & {"nt/head/logits", "nt/head/transform", "nt/head/transform_norm"}


def copy_of(folder: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
    target.mkdir()
    for name in (ADAPTER, DESCRIPTION):
        (target / name).write_bytes((folder / name).read_bytes())
    return target


def test_another_checkpoint_is_refused(adapted, tmp_path):
    mine = copy_of(adapted["ia3"], tmp_path / "copy")
    with pytest.raises(InputError, match="made from other parameters than those of"):
        load_adapter(mine, adapted["full"] / MODEL)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (DESCRIPTION, b"{", "adapter.json: unreadable"),
        (DESCRIPTION, b'{"format": "x"}', "not an adapter of nt-jax/adapter, version 1"),
        (ADAPTER, b"abc", "adapter.safetensors: unreadable .*copy it again"),
    ],
)
def test_damaged_files_are_refused(adapted, tmp_path, name: str, content: bytes, message: str):
    mine = copy_of(adapted["ia3"], tmp_path / "copy")
    (mine / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_adapter(mine)


def test_a_missing_adapter_names_those_of_the_folds(adapted, tmp_path):
    with pytest.raises(InputError, match=r"no adapter\.json"):
        load_adapter(tmp_path)
    copy_of(adapted["ia3"], tmp_path / "fold_0")
    with pytest.raises(InputError, match="its folds have one each: fold_0"):
        load_adapter(tmp_path)


def test_tensors_of_another_method_are_refused(adapted, tmp_path):
    mine = copy_of(adapted["ia3"], tmp_path / "copy")
    described = json.loads((mine / DESCRIPTION).read_text())
    described["settings"]["method"] = "lora"
    (mine / DESCRIPTION).write_text(json.dumps(described))
    with pytest.raises(InputError, match=r"not the tensors that adapter\.json describes"):
        load_adapter(mine)


def test_parameters_stay_float32(adapted):
    found = load_adapter(adapted["ia3"])
    assert {x.dtype for x in jax.tree.leaves(found.trained)} == {np.dtype(np.float32)}
