"""joblib files: read as joblib reads them, written so that joblib reads them."""

import collections
import functools
import gc
import pickle
import subprocess
import sys
import textwrap
import types

import jax.numpy as jnp
import joblib
import ml_dtypes
import numpy as np
import pytest
from haiku._src import data_structures
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nt_jax.errors import InputError
from nt_jax.interchange.joblib_file import read_tree, write_tree

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = [*map(np.dtype, ("<f4", ">f4", "<f2", "<f8", "i1", "<i4", ">i8", "u1", "<u2")), BFLOAT16]


def same(left, right) -> bool:
    """Whether type, shape and bits agree; the byte order is the machine's."""
    right = np.asarray(right).astype(np.asarray(right).dtype.newbyteorder("="))
    return (
        left.dtype == right.dtype
        and left.shape == right.shape
        and left.tobytes() == right.tobytes()
    )


def check(path, tree) -> None:
    """The file holds exactly the arrays of a tree."""
    expected = {f"{m}/{n}": x for m, named in tree.items() for n, x in named.items()}
    found = read_tree(path)
    assert list(found) == list(expected)
    for name, stored in found.items():
        array = stored.read()
        assert same(array, expected[name]), name
        assert (stored.shape, stored.dtype) == (array.shape, array.dtype)
        assert array.flags.aligned
        assert not array.flags.writeable


def write(path, tree) -> None:
    write_tree(
        path,
        [f"{module}/{name}" for module, named in tree.items() for name in named],
        lambda name: tree[name.rpartition("/")[0]][name.rpartition("/")[2]],
    )


@st.composite
def any_arrays(draw):
    """Arrays of every type, order and bit pattern, empty ones and those without axes included."""
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    dtype = draw(st.sampled_from(DTYPES))
    size = int(np.prod(shape)) * dtype.itemsize
    raw = draw(st.binary(min_size=size, max_size=size))
    array = np.frombuffer(raw, dtype).reshape(shape, order=draw(st.sampled_from("CF")))
    layout = draw(st.sampled_from(["as it is", "transposed", "strided"]))
    if layout == "strided" and shape:
        return array[::-1]
    return array.T if layout == "transposed" else array


NAMES = st.text(max_size=6).filter(str.isprintable)
TREES = st.dictionaries(
    NAMES, st.dictionaries(NAMES.filter(lambda name: "/" not in name), any_arrays(), max_size=3)
).filter(lambda tree: all(tree.values()))
OPTIONS = st.sampled_from(
    [*({"protocol": p} for p in (2, 3, 4, 5)), *({"compress": c} for c in ("zlib", "gzip", "xz"))]
)


@given(tree=TREES)
@example(tree={})
@settings(deadline=None, max_examples=40)
def test_what_is_written_joblib_reads(tmp_path_factory, tree):
    path = tmp_path_factory.getbasetemp() / "written.joblib"
    write(path, tree)
    check(path, tree)
    loaded = joblib.load(path)
    assert list(loaded) == list(tree)
    for module, named in tree.items():
        assert list(loaded[module]) == list(named)
        for name, array in named.items():
            assert type(loaded[module][name]) is np.ndarray
            assert same(loaded[module][name], array)


@given(tree=TREES, options=OPTIONS)
@settings(deadline=None, max_examples=40)
def test_what_joblib_writes_is_read(tmp_path_factory, tree, options):
    path = tmp_path_factory.getbasetemp() / "dumped.joblib"
    joblib.dump(tree, path, **options)
    check(path, tree)


def test_published_files_are_read_as_joblib_reads_them(fixtures):
    for folder in ("v1_tiny", "v2_tiny"):
        path = fixtures / folder / "pytree_ckpt.joblib"
        check(path, joblib.load(path))


PLAIN = {
    "a/~/b": {
        "w": np.arange(6, dtype=np.float32).reshape(2, 3),
        "f": np.asfortranarray(np.arange(6, dtype=np.float16).reshape(2, 3)),
    },
    "c": {"e": np.zeros((0, 3), np.float32), "s": np.float32(1.5), "i": np.arange(3)},
}
ON_DEVICE = {
    "a/~/b": {
        "w": jnp.arange(6, dtype=jnp.float32).reshape(2, 3),
        "h": jnp.arange(3, dtype=jnp.bfloat16),
        # Larger than a frame of the format.
        "large": jnp.arange(90_000, dtype=jnp.float32).reshape(300, 300),
        "none": jnp.zeros((0, 3)),
    },
    "c": {"s": jnp.float32(1.5)},
}
CONTAINERS = {
    "dict": lambda tree: tree,
    "OrderedDict": lambda tree: collections.OrderedDict(
        (module, collections.OrderedDict(named)) for module, named in tree.items()
    ),
    "FlatMapping": data_structures.to_immutable_dict,
    "frozendict": lambda tree: data_structures.frozendict(
        {module: data_structures.frozendict(named) for module, named in tree.items()}
    ),
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("dump", ["joblib", "pickle"])
@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("tree", [PLAIN, ON_DEVICE], ids=["NumPy", "JAX"])
def test_containers_arrays_and_protocols(tmp_path, tree, container, dump, protocol):
    path = tmp_path / "pytree_ckpt.joblib"
    with path.open("wb") as file:
        (joblib if dump == "joblib" else pickle).dump(
            CONTAINERS[container](tree), file, protocol=protocol
        )
    check(path, tree)


class OldArray:
    """An array as JAX up to 0.4.6 pickled it: the function had another name."""

    def __init__(self, array):
        self.array = array

    def __reduce__(self):
        make = sys.modules["jax._src.device_array"].reconstruct_device_array
        fun, args, state = self.array.__reduce__()
        return make, (fun, args, state, {"weak_type": False, "named_shape": {}})


def test_arrays_of_old_jax_and_numpy(tmp_path, monkeypatch):
    def reconstruct_device_array():
        raise AssertionError

    module = types.ModuleType("jax._src.device_array")
    reconstruct_device_array.__module__ = module.__name__
    reconstruct_device_array.__qualname__ = "reconstruct_device_array"
    module.reconstruct_device_array = reconstruct_device_array
    monkeypatch.setitem(sys.modules, module.__name__, module)
    path = tmp_path / "pytree_ckpt.joblib"
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    # The text form of names has no lengths, so that the old name can stand in for the new one.
    content = pickle.dumps({"m": {"w": OldArray(array), "s": np.float32(2)}}, 3)
    assert content.count(b"numpy._core.multiarray\n") == 2
    path.write_bytes(content.replace(b"numpy._core.multiarray\n", b"numpy.core.multiarray\n"))
    check(path, {"m": {"w": array, "s": np.float32(2)}})


@pytest.mark.parametrize("attribute", ["absent", None])
def test_files_without_alignment(tmp_path, monkeypatch, attribute):
    # joblib before 1.2 had no such attribute; files that cannot tell their position have None.
    wrapper = joblib.numpy_pickle.NumpyPickler._create_array_wrapper

    def unaligned(self, array):
        made = wrapper(self, array)
        del made.numpy_array_alignment_bytes
        if attribute is None:
            made.numpy_array_alignment_bytes = None
        return made

    monkeypatch.setattr(joblib.numpy_pickle.NumpyPickler, "_create_array_wrapper", unaligned)
    path = tmp_path / "pytree_ckpt.joblib"
    joblib.dump(PLAIN, path)
    assert (b"numpy_array_alignment_bytes" in path.read_bytes()) == (attribute is None)
    check(path, PLAIN)


def test_one_array_in_two_places(tmp_path):
    array = np.arange(3, dtype=np.float32)
    path = tmp_path / "pytree_ckpt.joblib"
    path.write_bytes(pickle.dumps({"a": {"w": array}, "b": {"w": array}}))
    check(path, {"a": {"w": array}, "b": {"w": array}})


def test_joblib_can_map_what_is_written(tmp_path):
    path = tmp_path / "pytree_ckpt.joblib"
    write(path, PLAIN)
    mapped = joblib.load(path, mmap_mode="r")["a/~/b"]["w"]
    assert isinstance(mapped, np.memmap)
    assert mapped.offset % 16 == 0
    assert same(np.asarray(mapped), PLAIN["a/~/b"]["w"])


@pytest.mark.parametrize("dtype", [object, [("a", "f4")], "U3", complex, "M8[s]"])
def test_only_numbers_are_written(tmp_path, dtype):
    path = tmp_path / "pytree_ckpt.joblib"
    path.write_bytes(b"before")
    with pytest.raises(ValueError, match=r"a/w is of type .*, not of numbers"):
        write_tree(path, ["a/v", "a/w"], {"a/v": np.ones(3), "a/w": np.zeros(2, dtype)}.get)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_arrays_keep_the_file_open_as_long_as_they_live(tmp_path, recwarn):
    path = tmp_path / "pytree_ckpt.joblib"
    write(path, PLAIN)
    stored = read_tree(path)["a/~/b/w"]
    path.unlink()
    array = stored.read()
    del stored
    gc.collect()
    assert same(array, PLAIN["a/~/b"]["w"])
    assert not [warning for warning in recwarn if warning.category is ResourceWarning]


@pytest.mark.parametrize("kind", ["missing", "folder"])
def test_unreadable_paths(tmp_path, kind):
    path = tmp_path if kind == "folder" else tmp_path / "none.joblib"
    with pytest.raises(InputError, match=rf"^{path}: cannot be read: .*$"):
        read_tree(path)


@pytest.mark.parametrize("fault", ["no folder", "full disk"])
def test_no_room_to_unpack(tmp_path, monkeypatch, fault):
    path = tmp_path / "pytree_ckpt.joblib"
    joblib.dump(PLAIN, path, compress=3)
    monkeypatch.setattr("tempfile.tempdir", str(path / "none"))
    if fault == "full disk":
        monkeypatch.setattr("tempfile.TemporaryFile", functools.partial(open, "/dev/full", "w+b"))
    with pytest.raises(InputError, match=rf"cannot be unpacked in {path}/none: \w.*set TMPDIR to"):
        read_tree(path)


MEMORY = """
    import pathlib, pickle, sys
    import numpy as np
    from nt_jax.interchange.joblib_file import read_tree, write_tree

    def peak():  # of this program; ru_maxrss starts with that of the parent
        status = pathlib.Path("/proc/self/status").read_text()
        return 1024 * int(status.split("VmHWM:")[1].split()[0])

    kind, path = sys.argv[1], pathlib.Path(sys.argv[2])
    make = lambda i: np.full(SIDE * SIDE, i, np.float32).reshape(SIDE, SIDE)
    start = peak()
    if kind == "write":
        write_tree(path, [f"m/{i}" for i in range(COUNT)], lambda name: make(int(name[2:])))
    else:
        arrays = read_tree(path)
        assert len(arrays) == COUNT
        for i, stored in enumerate(arrays.values()):
            array = stored.read()
            assert array.shape == (SIDE, SIDE) and array[0, 0] == array.max() == array.min() == i
            del array
    print(peak() - start)
"""
SIDE, COUNT = 2000, 10


def memory(kind, path) -> int:
    """Bytes by which the peak memory of a program grows that writes or reads the arrays."""
    program = textwrap.dedent(MEMORY).replace("SIDE", str(SIDE)).replace("COUNT", str(COUNT))
    run = subprocess.run(
        [sys.executable, "-c", program, kind, str(path)], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    return int(run.stdout)


def test_memory_is_that_of_one_array(tmp_path):
    one = 4 * SIDE * SIDE
    tree = {"m": {str(i): np.full((SIDE, SIDE), i, np.float32) for i in range(COUNT)}}
    written = tmp_path / "written.joblib"
    assert memory("write", written) < 1.5 * one
    files = {"written": written}
    for name, dump in {
        "dumped": lambda path: joblib.dump(tree, path),
        "compressed": lambda path: joblib.dump(tree, path, compress=1),
        # As the arrays of JAX lie in a file.
        "pickled": lambda path: path.write_bytes(pickle.dumps(tree, 4)),
    }.items():
        files[name] = tmp_path / name
        dump(files[name])
    assert written.stat().st_size > 10 * one
    for name, path in files.items():
        assert memory("read", path) < 1.5 * one, name
