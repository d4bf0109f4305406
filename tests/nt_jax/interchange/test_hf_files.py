"""Weight files of a folder: which is taken, shards and their index, damaged files."""

import json

import numpy as np
import pytest
import safetensors.numpy

from nt_jax.errors import InputError
from nt_jax.interchange.hf_files import open_weights, read_json, write_weights
from nt_jax.interchange.safetensors_file import Tensor

torch = pytest.importorskip("torch")

ARRAYS = {name: np.full((4, 8), i, np.float32) for i, name in enumerate("abcdef")}
TENSORS = {n: Tensor(x.dtype, x.shape, x.copy) for n, x in ARRAYS.items()}
SIZE = 128
BIN = "pytorch_model.bin"
INDEX = "model.safetensors.index.json"


def assert_complete(folder):
    found = open_weights(folder)
    assert set(found) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert found[name][:2] == TENSORS[name][:2]
        np.testing.assert_array_equal(found[name].read(), array)


@pytest.mark.parametrize(
    ("limit", "files"), [(6 * SIZE, 1), (6 * SIZE - 1, 2), (2 * SIZE, 3), (SIZE, 6), (1, 6)]
)
def test_no_shard_is_larger_than_asked_for(tmp_path, limit, files):
    write_weights(tmp_path, TENSORS, limit)
    paths = sorted(tmp_path.glob("*.safetensors"))
    assert len(paths) == files
    contents = [safetensors.numpy.load_file(path) for path in paths]
    assert all(sum(x.nbytes for x in c.values()) <= max(limit, SIZE) for c in contents)
    assert (tmp_path / INDEX).exists() == (files > 1)
    if files > 1:
        index = json.loads((tmp_path / INDEX).read_text())
        assert index["metadata"] == {"total_size": 6 * SIZE}
        places = {name: p.name for p, c in zip(paths, contents, strict=True) for name in c}
        assert index["weight_map"] == places
    assert_complete(tmp_path)


def test_safetensors_go_before_pickles(tmp_path):
    torch.save({"x": torch.ones(1)}, tmp_path / BIN)
    assert set(open_weights(tmp_path)) == {"x"}
    write_weights(tmp_path, TENSORS, 10**9)
    assert_complete(tmp_path)


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no weights: expected model\.safetensors"):
        open_weights(tmp_path)


def test_missing_shards_are_all_listed(tmp_path):
    write_weights(tmp_path, TENSORS, 2 * SIZE)
    paths = sorted(tmp_path.glob("*.safetensors"))
    paths[0].unlink()
    paths[2].unlink()
    with pytest.raises(InputError) as caught:
        open_weights(tmp_path)
    missing = f"missing files: {paths[0].name}, {paths[2].name}"
    assert str(caught.value) == f"{tmp_path / INDEX}: {missing}"


def test_an_index_that_names_the_wrong_file(tmp_path):
    write_weights(tmp_path, TENSORS, 2 * SIZE)
    index = json.loads((tmp_path / INDEX).read_text())
    places = index["weight_map"]
    places["a"] = places["f"]
    places["g"] = places["f"]
    (tmp_path / INDEX).write_text(json.dumps(index))
    with pytest.raises(InputError, match="not in the file named for them: a, g"):
        open_weights(tmp_path)


@pytest.mark.parametrize("places", [None, [], {"a": 3}, {"a": "../model.safetensors"}])
def test_an_index_without_files_of_the_folder(tmp_path, places):
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": places}))
    with pytest.raises(InputError, match=r"index\.json: weight_map does not name a file"):
        open_weights(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{", "\x00\xff"])
def test_json_that_is_no_object(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"config\.json: not a JSON object"):
        read_json(path)
    path.write_bytes(b"\xff\xff")
    with pytest.raises(InputError, match=r"config\.json: not a JSON object"):
        read_json(path)


@pytest.mark.parametrize("name", ["model.safetensors", BIN])
def test_git_lfs_pointers_are_recognised(tmp_path, name):
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(InputError, match="a pointer to the file, not the file: run `git lfs pull`"):
        open_weights(tmp_path)


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"x": Trap()}, "holds more than tensors, which is never unpickled here"),
        ({"x": [1, 2]}, "not a dictionary of tensors"),
        ([torch.ones(1)], "not a dictionary of tensors"),
        ({"x": torch.ones(1, dtype=torch.complex64)}, "x has type complex64, which is not"),
    ],
)
def test_pickles_of_other_things_are_refused(tmp_path, content, message):
    torch.save(content, tmp_path / BIN)
    with pytest.raises(InputError, match=message) as caught:
        open_weights(tmp_path)
    assert str(tmp_path / BIN) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_parameters_and_strided_tensors_are_read(tmp_path):
    values = torch.arange(6.0).reshape(2, 3)
    torch.save(
        {"p": torch.nn.Parameter(values), "t": values.T, "b": values.T.bfloat16()}, tmp_path / BIN
    )
    found = open_weights(tmp_path)
    np.testing.assert_array_equal(found["p"].read(), values.numpy())
    np.testing.assert_array_equal(found["t"].read(), values.numpy().T)
    np.testing.assert_array_equal(found["b"].read().astype(np.float32), values.numpy().T)


@pytest.mark.parametrize("keep", [1, 100, -20])
def test_truncated_pickles_are_refused(tmp_path, keep):
    torch.save({"x": torch.ones(100)}, tmp_path / BIN)
    (tmp_path / BIN).write_bytes((tmp_path / BIN).read_bytes()[:keep])
    message = "no PyTorch file" if keep == 1 else "truncated or damaged"
    with pytest.raises(InputError, match=message):
        open_weights(tmp_path)


def test_pickles_of_old_versions_are_refused(tmp_path):
    torch.save({"x": torch.ones(1)}, tmp_path / BIN, _use_new_zipfile_serialization=False)
    with pytest.raises(InputError, match=r"one of PyTorch < 1\.6"):
        open_weights(tmp_path)
