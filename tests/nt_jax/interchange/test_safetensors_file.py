"""Safetensors: the library is the independent reader and writer of what we write and read."""

import json
import pathlib
import tempfile
import tracemalloc
import weakref

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nt_jax.config import MaskingConfig
from nt_jax.errors import InputError
from nt_jax.interchange.config_file import NAME
from nt_jax.interchange.safetensors_file import (
    MODEL_FILE,
    Tensor,
    float_tensors,
    read_flat,
    read_safetensors,
    write_flat,
    write_safetensors,
)
from nt_jax.interchange.weights import to_params
from tests.nt_jax.interchange.conftest import EMBED

FORMAT_TYPES = ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?"]


def held(arrays):
    return {name: Tensor(x.dtype, x.shape, lambda x=x: x) for name, x in arrays.items()}


@st.composite
def any_arrays(draw):
    shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
    names = draw(st.lists(st.text(max_size=8), unique=True, min_size=1, max_size=5))
    kinds = st.sampled_from(FORMAT_TYPES)
    return {name: draw(hnp.arrays(draw(kinds), draw(shapes))) for name in names}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()


@settings(max_examples=60, deadline=None)
@given(any_arrays(), st.dictionaries(st.text(max_size=5), st.text(max_size=5)))
def test_the_library_reads_what_we_write_and_we_read_both(arrays, metadata):
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = (pathlib.Path(folder) / name for name in ("ours", "theirs"))
        write_safetensors(ours, held(arrays), metadata)
        with safetensors.safe_open(ours, framework="numpy") as file:
            assert_same({name: file.get_tensor(name) for name in file.keys()}, arrays)  # noqa: SIM118
            assert (file.metadata() or {}) == metadata
        safetensors.numpy.save_file(arrays, theirs, metadata)
        for path in (ours, theirs):
            found, said = read_safetensors(path)
            assert_same(found, arrays)
            assert said == metadata


def test_bfloat16_is_what_torch_says_it_is(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    values = np.random.default_rng(0).normal(size=(5, 3)).astype(ml_dtypes.bfloat16)
    write_safetensors(tmp_path / "ours", held({"x": values, "y": np.float32([1, 2])}))
    loaded = load_file(tmp_path / "ours")
    assert loaded["x"].dtype == torch.bfloat16
    np.testing.assert_array_equal(loaded["x"].float().numpy(), values.astype(np.float32))
    save_file(loaded, tmp_path / "theirs")
    assert_same(read_safetensors(tmp_path / "theirs")[0], read_safetensors(tmp_path / "ours")[0])


def test_layout_of_the_bytes(tmp_path):
    path = tmp_path / "x.safetensors"
    small, large = np.arange(3, dtype=np.int8), np.arange(4, dtype=np.float32).reshape(2, 2).T
    write_safetensors(path, held({"small": small, "large": large}), {"format": "np"})
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    # The wider type first, everything on 8 bytes: both are aligned.
    assert size % 8 == 0
    assert json.loads(data[8 : 8 + size]) == {
        "__metadata__": {"format": "np"},
        "large": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
        "small": {"dtype": "I8", "shape": [3], "data_offsets": [16, 19]},
    }
    assert data[8 + size :] == np.float32([0, 2, 1, 3]).tobytes() + bytes([0, 1, 2])
    assert [path.name] == [entry.name for entry in tmp_path.iterdir()]
    assert not read_safetensors(path)[0]["large"].flags.writeable


def test_tensors_of_unaligned_files_are_read(tmp_path):
    path = tmp_path / "x"
    text = json.dumps({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    text += b" " * (1 - len(text) % 2)
    path.write_bytes(len(text).to_bytes(8, "little") + text + np.float32([1.5, -2]).tobytes())
    assert read_safetensors(path)[0]["x"].tolist() == [1.5, -2.0]


def test_one_tensor_is_in_memory_at_a_time(tmp_path):
    living, size = [], 1 << 20

    def read():
        assert not any(ref() is not None for ref in living), "the one before is still held"
        array = np.ones(size, np.float32)
        living.append(weakref.ref(array))
        return array

    tensors = {str(i): Tensor(np.float32, (size,), read) for i in range(8)}
    seen = []
    tracemalloc.start()
    write_safetensors(tmp_path / "x", tensors, progress=lambda *done: seen.append(done))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 4 * size <= peak < 1.5 * 4 * size
    assert seen == [(4 * size * i, 4 * size * 8) for i in range(1, 9)]
    tracemalloc.start()
    arrays, _ = read_safetensors(tmp_path / "x")
    assert sum(float(array.sum()) for array in arrays.values()) == 8 * size
    assert tracemalloc.get_traced_memory()[1] < size
    tracemalloc.stop()


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "x"
    write_safetensors(path, held({"x": np.zeros(2)}))
    before = path.read_bytes()
    short = {"x": Tensor(np.float64, (3,), lambda: np.zeros(2))}
    with pytest.raises(ValueError, match=r"x is float64\[2\], announced as float64\[3\]"):
        write_safetensors(path, short)
    for bad in ({"__metadata__": np.zeros(2)}, {"x": np.zeros(2, complex)}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            write_safetensors(path, held(bad))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def damaged(data):
    """(what happened, bytes that are no safetensors file)."""
    size = int.from_bytes(data[:8], "little")
    return {
        "empty": b"",
        "only a length": data[:8],
        "cut in the header": data[: size // 2],
        "cut in the tensors": data[:-1],
        "longer": data + b"\0",
        "pickle": b"\x80\x04\x95" + bytes(100),
        "text": b"version https://git-lfs.github.com/spec/v1\n",
        "gap": data.replace(b"[0, 4]", b"[0, 3]"),
        "shape": data.replace(b"[1]", b"[2]"),
        "type": data.replace(b'"F32"', b'"F33"'),
        "a type without an equal in NumPy": data.replace(b'"F32"', b'"F4" ').replace(
            b"[1]", b"[8]"
        ),
    }


@pytest.mark.parametrize("how", damaged(bytes(8)))
def test_damaged_and_foreign_files_are_refused_in_one_line(tmp_path, how):
    path = tmp_path / "model.safetensors"
    write_safetensors(path, held({"x": np.ones(1, np.float32)}))
    assert read_safetensors(path)[0]["x"] == 1
    content = damaged(path.read_bytes())[how]
    assert content != path.read_bytes()
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"model\.safetensors: ") as caught:
        read_safetensors(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(InputError, match=f"{path}: no such file"):
            read_safetensors(path)


def test_flat_folder_there_and_back_bit_by_bit(published, tmp_path):
    folder = tmp_path / "new" / "folder"
    write_flat(published.weights(), MaskingConfig(ratio=0.2), folder)
    back = read_flat(folder)
    assert (back.model, back.tokenizer) == (published.model, published.tokenizer)
    assert_same(dict(back), published.arrays)
    with safetensors.safe_open(folder / MODEL_FILE, framework="numpy") as file:
        assert set(file.keys()) == set(published.arrays)
        assert file.metadata() == {"format": "nt-jax/safetensors", "version": "1"}
    config = json.loads((folder / NAME).read_text())
    assert config["masking"]["ratio"] == 0.2
    write_flat(back, None, folder)
    assert_same(dict(read_flat(folder)), published.arrays)
    assert "masking" not in json.loads((folder / NAME).read_text())


def test_bfloat16_folder_is_the_rounded_one(published, tmp_path):
    write_flat(published.weights(), None, tmp_path, dtype="bfloat16")
    back = read_flat(tmp_path)
    rounded = {n: x.astype(ml_dtypes.bfloat16) for n, x in published.arrays.items()}
    assert_same(dict(back), rounded)
    # Rounded once: from here on nothing changes any more.
    write_flat(back, None, tmp_path / "again", dtype="bfloat16")
    assert_same(dict(read_flat(tmp_path / "again")), rounded)
    wide = to_params(back)["nt/embed/token"]["embeddings"]
    np.testing.assert_array_equal(wide, rounded[EMBED].astype(np.float32))


def test_special_values_survive(published, tmp_path):
    bits = np.array(published.arrays[EMBED])
    bits.view(np.uint32)[0, :5] = [0x7FC00001, 0xFF800000, 0x80000000, 0x00000001, 0x7F7FFFFF]
    write_flat(published.weights(**{EMBED: bits}), None, tmp_path)
    assert read_flat(tmp_path).read(EMBED).tobytes() == bits.tobytes()
    params = to_params(read_flat(tmp_path))
    assert params["nt/embed/token"]["embeddings"].tobytes() == bits.tobytes()


def test_other_types_are_refused(published, tmp_path):
    with pytest.raises(InputError, match=r"type 'float16'; known: float32, bfloat16"):
        float_tensors(published.weights(), "float16")
    integers = published.weights(**{EMBED: published.arrays[EMBED].astype(np.int32)})
    with pytest.raises(InputError, match=rf"ckpt\.joblib: {EMBED} of type int32"):
        write_flat(integers, None, tmp_path)
    assert not list(tmp_path.iterdir())


def edited(folder, **changes):
    path = folder / NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / NAME).unlink(), r"config\.json: No such file.*nt-jax export"),
        (lambda f: (f / MODEL_FILE).unlink(), r"model\.safetensors: no such file"),
        (lambda f: (f / NAME).write_text("{"), r"config\.json: damaged, not JSON"),
        (lambda f: (f / NAME).write_bytes(b"\xff\xfe"), r"config\.json: damaged, not JSON"),
        (lambda f: (f / NAME).write_text("[]"), r"format is None, not 'nt-jax/safetensors'"),
        (lambda f: edited(f, format="pt"), r"format is 'pt', not 'nt-jax/safetensors'"),
        (lambda f: edited(f, version=2), r"version 2 of nt-jax/safetensors; this nt-jax reads 1"),
        (lambda f: edited(f, model={"depth": 2}), r"config\.json: model: unknown field 'depth'"),
        (lambda f: edited(f, tokenizer=None), r"config\.json: tokenizer: None is not a table"),
        (lambda f: edited(f, tokenizer={"k": 3}), rf"wrong {EMBED} of shape \[410\d, 32\]"),
    ],
)
def test_incomplete_and_foreign_folders_are_refused(published, tmp_path, damage, message):
    write_flat(published.weights(), None, tmp_path)
    damage(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        read_flat(tmp_path)
    assert "\n" not in str(caught.value)


def test_parameters_from_a_mapped_file_are_copies(published, tmp_path):
    write_flat(published.weights(), None, tmp_path)
    params = to_params(read_flat(tmp_path))
    (tmp_path / MODEL_FILE).unlink()
    same = to_params(published.weights())
    assert jax.tree.all(jax.tree.map(np.array_equal, params, same))
