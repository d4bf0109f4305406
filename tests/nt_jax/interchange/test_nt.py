"""The published JAX layout as a folder."""

import dataclasses
import json
import shutil

import joblib
import ml_dtypes
import numpy as np
import pytest

from nt_jax.config import MaskingConfig
from nt_jax.errors import InputError
from nt_jax.interchange.nt import CHECKPOINT, HYPERPARAMS, read_nt, write_nt
from nt_jax.interchange.weights import of_params, to_params
from tests.nt_jax.interchange.conftest import EMBED


@pytest.fixture
def folder(tmp_path, fixtures):
    """A published checkpoint that may be changed."""
    for name in (HYPERPARAMS, CHECKPOINT):
        shutil.copyfile(fixtures / "v1_tiny" / name, tmp_path / name)
    return tmp_path


def change(folder, **values):
    path = folder / HYPERPARAMS
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def nested(arrays):
    tree = {}
    for name, array in arrays.items():
        module, _, last = name.rpartition("/")
        tree.setdefault(module, {})[last] = array
    return tree


def refusal(folder) -> str:
    with pytest.raises(InputError) as caught:
        read_nt(folder)
    message = str(caught.value)
    assert message.startswith(str(folder))
    assert "\n" not in message
    return message


def content(folder):
    """Bytes of every file."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_published_checkpoints_are_read(published, fixtures):
    weights = read_nt(fixtures / f"{published.tokenizer.vocabulary}_tiny")
    assert (weights.model, weights.tokenizer) == (published.model, published.tokenizer)
    assert set(weights.tensors) == set(published.arrays)
    for name, array in weights:
        assert array.shape == weights.tensors[name]
        assert array.dtype == published.arrays[name].dtype
        assert array.tobytes() == published.arrays[name].tobytes()


def test_a_written_checkpoint_is_the_published_one(published, tmp_path):
    masking = MaskingConfig(
        ratio=published.hyperparams["masking_ratio"], mask=published.hyperparams["masking_prob"]
    )
    ours = of_params(
        to_params(published.weights()), published.model, published.tokenizer, "parameters"
    )
    folder = tmp_path / "new" / "checkpoint"
    write_nt(ours, masking, folder)
    assert sorted(content(folder)) == [HYPERPARAMS, CHECKPOINT]
    hyperparams = json.loads((folder / HYPERPARAMS).read_text())
    assert hyperparams.items() >= published.hyperparams.items()
    loaded = joblib.load(folder / CHECKPOINT)
    expected = nested(published.arrays)
    assert loaded.keys() == expected.keys()
    for module, named in expected.items():
        assert loaded[module].keys() == named.keys()
        for name, array in named.items():
            assert loaded[module][name].dtype == array.dtype
            assert loaded[module][name].shape == array.shape
            assert loaded[module][name].tobytes() == array.tobytes()
    back = read_nt(folder)
    assert (back.model, back.tokenizer) == (published.model, published.tokenizer)
    assert back.tensors == ours.tensors


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_stays_as_it_is(published, tmp_path, dtype):
    half = {name: array.astype(dtype) for name, array in published.arrays.items()}
    write_nt(published.weights(**half), None, tmp_path)
    for name, array in read_nt(tmp_path):
        assert array.dtype == dtype
        assert array.tobytes() == half[name].tobytes()


def test_a_checkpoint_can_be_written_where_it_is_read(folder):
    before = joblib.load(folder / CHECKPOINT)
    write_nt(read_nt(folder), None, folder)
    after = joblib.load(folder / CHECKPOINT)
    assert sorted(content(folder)) == [HYPERPARAMS, CHECKPOINT]
    for module, named in before.items():
        for name, array in named.items():
            assert after[module][name].tobytes() == array.tobytes()


def test_a_failure_leaves_what_was_there(published, folder):
    before = content(folder)

    def fail(name):
        if name == list(published.arrays)[-1]:
            raise KeyboardInterrupt
        return published.arrays[name]

    with pytest.raises(KeyboardInterrupt):
        write_nt(dataclasses.replace(published.weights(), read=fail), None, folder)
    assert content(folder) == before


def test_settings_that_cannot_be_written(published, tmp_path):
    model = dataclasses.replace(published.model, layer_norm_epsilon=1e-12)
    weights = dataclasses.replace(published.weights(), model=model)
    with pytest.raises(InputError, match=r"layer_norm_epsilon=1e-12.*export to another format"):
        write_nt(weights, None, tmp_path / "new")
    assert not list(tmp_path.iterdir())


def test_a_file_is_no_folder(published, tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(InputError, match=rf"^{path}: cannot be made: .*; name a folder$"):
        write_nt(published.weights(), None, path)


@pytest.mark.parametrize("missing", [[HYPERPARAMS], [CHECKPOINT], [HYPERPARAMS, CHECKPOINT]])
def test_missing_files_are_named(folder, missing):
    for name in missing:
        (folder / name).unlink()
    assert f"no {' and no '.join(missing)};" in refusal(folder)


def test_a_path_to_nowhere(tmp_path):
    assert "published layout is a folder with" in refusal(tmp_path / "none")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is no JSON: Expecting value"),
        ("{", "is no JSON"),
        ("\xff", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[1]", "is no JSON object"),
    ],
)
def test_damaged_hyperparams(folder, text, reason):
    (folder / HYPERPARAMS).write_bytes(text.encode("latin1"))
    message = refusal(folder)
    assert f"{HYPERPARAMS}: {reason}" in message


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"num_layers": 3}, "num_layers is 3, but the weights in pytree_ckpt.joblib have 2"),
        ({"num_layers": 10**9}, "num_layers is 1000000000, but"),
        ({"embed_dim": 64}, "embed_dim is 64, but the weights in pytree_ckpt.joblib have 32"),
        ({"k_for_kmers": 3}, "4105 rows fits no vocabulary"),
        ({"attention_heads": 5}, "embed_dim=32 does not divide by model.num_heads=5"),
        ({"key_dim": 16}, "mha/query/w of shape [32, 32] (expected [32, 64])"),
        ({"ffn_embed_dim": 10**20}, "fc2/w of shape [64, 32] (expected [1" + 20 * "0"),
        ({"max_positions": 64}, "embed/embeddings of shape [34, 32] (expected [66, 32])"),
        ({"use_glu_in_ffn": True}, "fc1/w of shape [32, 64] (expected [32, 128])"),
        ({"add_bias_ffn": False}, "unexpected esm_transformer/attention_layer_{0-"),
        (
            {"positional_embedding": None, "use_rotary_embedding": True},
            "unexpected esm_transformer/~/esm_learned_positional_embeddings",
        ),
    ],
)
def test_contradictions_between_the_files(folder, values, reason):
    change(folder, **values)
    assert reason in refusal(folder)


def test_weights_of_something_else(folder):
    joblib.dump({"resnet/conv": {"w": np.ones((3, 3), np.float32)}}, folder / CHECKPOINT)
    assert f"{CHECKPOINT}: holds no token embedding {EMBED}" in refusal(folder)
    joblib.dump({EMBED.rpartition("/")[0]: {"embeddings": np.ones(3)}}, folder / CHECKPOINT)
    assert "holds no token embedding" in refusal(folder)


def test_tensors_of_other_types_are_named(folder):
    tree = joblib.load(folder / CHECKPOINT)
    tree["esm_transformer/~/embed"]["embeddings"] = np.zeros((4105, 32), np.float64)
    joblib.dump(tree, folder / CHECKPOINT)
    assert f"wrong {EMBED} of type float64 (expected float32)" in refusal(folder)
