"""Hostile and damaged files: nothing of them runs, and the answer is one line.

The attacks are proved on the usual reader: there each of them makes a file.
"""

import contextlib
import copyreg
import functools
import io
import lzma
import os
import pathlib
import pickle
import struct
import time
import tracemalloc

import jax.numpy as jnp
import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nt_jax.errors import InputError
from nt_jax.interchange import joblib_file
from nt_jax.interchange.joblib_file import read_tree

TREE = {"m/~/a": {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(3, np.float16)}}


class Runs:
    """Makes a file when it is unpickled."""

    def __init__(self, sentinel: pathlib.Path) -> None:
        self.command = f"touch {sentinel}"

    def __reduce__(self):
        return os.system, (self.command,)


def refusal(path: pathlib.Path) -> str:
    """The one line with which a file is refused."""
    with pytest.raises(InputError) as caught:
        read_tree(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def dumped(value, **options) -> bytes:
    buffer = io.BytesIO()
    joblib.dump(value, buffer, **options)
    return buffer.getvalue()


def inner(value) -> bytes:
    """Instructions that put a value on the stack."""
    return pickle.dumps(value, 2)[2:-1]


def call(function: str, *arguments: bytes, before: bytes = b"", by: bytes = b"R") -> bytes:
    """A pickle of one call; the function as `MODULE NAME`."""
    module, name = map(inner, function.split())
    return b"\x80\x04" + before + module + name + b"\x93(" + b"".join(arguments) + b"t" + by + b"."


def touch(sentinel) -> bytes:
    return inner(f"touch {sentinel}")


SYSTEM = b"cposix\nsystem\n"
# What it is -> (file for a sentinel, what the refusal names).
ATTACKS = {
    "reduce": (lambda s: dumped({"m": {"w": Runs(s)}}), "'posix.system'"),
    "after an array": (lambda s: dumped(TREE | {"n": {"w": Runs(s)}}), "'posix.system'"),
    "compressed": (lambda s: dumped({"m": {"w": Runs(s)}}, compress=3), "'posix.system'"),
    "protocol 2": (lambda s: pickle.dumps({"m": Runs(s)}, 2), "'posix.system'"),
    "eval": (
        lambda s: call("builtins eval", inner(f"open({str(s)!r}, 'w').close()")),
        "'builtins.eval'",
    ),
    "object array, joblib": (
        lambda s: dumped({"m": {"w": np.array([Runs(s)], object)}}),
        "elements of 'O8'",
    ),
    "object array, NumPy": (
        lambda s: pickle.dumps({"m": {"w": np.array([Runs(s)], object)}}),
        "elements of 'O8'",
    ),
    "object scalar": (
        lambda s: call("numpy._core.multiarray scalar", inner(np.dtype(object)), inner(Runs(s))),
        "elements of 'O8'",
    ),
    "structured type": (
        lambda s: dumped({"m": {"w": np.array([(Runs(s), 1)], [("a", object), ("b", "i4")])}}),
        "elements of 'V12'",
    ),
    "dotted name": (
        lambda s: call("numpy f2py.os.system", touch(s)),
        "'numpy.f2py.os.system'",
    ),
    "other function of NumPy": (
        lambda s: call("numpy save", inner(str(s)), inner(1)),
        "'numpy.save'",
    ),
    "function for JAX to call": (
        lambda s: call("jax._src.array _reconstruct_array", SYSTEM, inner((f"touch {s}",)), b"N}"),
        "'posix.system'",
    ),
    "subclass of the array": (
        lambda s: dumped({"m": {"w": TREE["m/~/a"]["w"]}}, protocol=2).replace(
            b"cnumpy\nndarray\n", SYSTEM + touch(s) + b"\x85R"
        ),
        "'posix.system'",
    ),
    "state": (
        lambda s: call("numpy dtype", inner("f4"))[:-1] + SYSTEM + touch(s) + b"\x85Rb.",
        "'posix.system'",
    ),
    "INST": (lambda s: b"\x80\x02(" + touch(s) + b"iposix\nsystem\n.", "instruction b'i'"),
    "OBJ": (lambda s: b"\x80\x02(" + SYSTEM + touch(s) + b"o.", "'posix.system'"),
    "NEWOBJ_EX": (
        lambda s: b"\x80\x04cposix\nsystem\n" + touch(s) + b"\x85}\x92.",
        "'posix.system'",
    ),
    "class": (lambda s: call("subprocess Popen", inner(["touch", str(s)])), "'subprocess.Popen'"),
    "extension registry": (
        lambda s: b"\x80\x02\x82\xf0" + touch(s) + b"\x85R.",
        r"instruction b'\x82'",
    ),
}
# Instructions whose attack needs a reader that is prepared for it.
HARMLESS = {"NEWOBJ_EX"}


@pytest.fixture
def extension():
    copyreg.add_extension("subprocess", "getoutput", 0xF0)
    yield
    copyreg.remove_extension("subprocess", "getoutput", 0xF0)


@pytest.mark.usefixtures("extension")
@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_runs(tmp_path, name):
    path = tmp_path / "pytree_ckpt.joblib"
    make, reason = ATTACKS[name]
    path.write_bytes(make(tmp_path / "sentinel"))
    assert reason in refusal(path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("extension")
@pytest.mark.parametrize("name", sorted(set(ATTACKS) - HARMLESS))
def test_the_attacks_are_real(tmp_path, name):
    path = tmp_path / "pytree_ckpt.joblib"
    path.write_bytes(ATTACKS[name][0](tmp_path / "sentinel"))
    with contextlib.suppress(Exception):  # most readers fail, but after they have run it
        joblib.load(path)
    for _ in range(100):  # Popen does not wait
        if list(tmp_path.glob("sentinel*")):
            return
        time.sleep(0.05)
    pytest.fail("did not run")


DTYPE = inner(np.dtype(np.float32))
NESTED = inner(functools.reduce(lambda nested, _: (nested, nested), range(100), ()))
# What it is -> (file, what the refusal says).
MALFORMED = {
    "nothing": (b"", "is empty"),
    "text": (b"weights\n", "starts like no joblib file"),
    "protocol 0": (pickle.dumps({"m": {"w": 1}}, 0), "starts like no joblib file"),
    "protocol 1": (b"\x80\x01}.", "no pickle of protocol 2 to 5"),
    "protocol 6": (b"\x80\x06}.", "no pickle of protocol 2 to 5"),
    "trailing bytes": (dumped(TREE) + b"x", "goes on after its end"),
    "trailing bytes, compressed": (dumped(TREE, compress=1) + b"x", "goes on after its end"),
    "lz4": (b"\x04\x22\x4d\x18....", "compressed with lz4; load it where it was written"),
    "old joblib": (b"ZF0x12 ", "joblib before 0.10"),
    "empty stack": (b"\x80\x04.", "is damaged"),
    "two objects": (b"\x80\x04}}.", "is damaged"),
    "unclosed mark": (b"\x80\x04(}.", "is damaged"),
    "short stack": (b"\x80\x04}\x86.", "is damaged"),
    "fields of a number": (
        call("numpy dtype", inner("f4"))[:-1]
        + inner((3, "<", None, ("a",), {"a": 1}, 4, 4, 0))
        + b"b.",
        "elements of several fields",
    ),
    "below the mark": (b"\x80\x04}(\x85.", "is damaged"),
    "no mark": (b"\x80\x04}u.", "is damaged"),
    "missing memo": (b"\x80\x04h\x07.", "is damaged"),
    "huge memo index": (b"\x80\x04}r\xff\xff\xff\xff0.", "instruction b'0'"),
    "persistent id": (b"\x80\x04Pname\n.", "instruction b'P'"),
    "binary persistent id": (b"\x80\x04NQ.", "instruction b'Q'"),
    "out-of-band buffer": (b"\x80\x05\x97.", r"instruction b'\x97'"),
    "number as a name": (b"\x80\x04K\x01K\x02\x93.", "is damaged"),
    "endless name": (b"\x80\x04c" + b"a" * 10_000, "has too long a name"),
    "call of a text": (b"\x80\x04" + inner("os.system") + b")R.", "calls what is no function"),
    "call of a type": (call("numpy ndarray"), "calls what is no function"),
    "arguments in a list": (b"\x80\x04cnumpy\ndtype\n]R.", "calls what is no function"),
    "state of a class": (
        b"\x80\x04cjoblib.numpy_pickle\nNumpyArrayWrapper\n" + inner({"read": 1}) + b"b.",
        "changes what is neither array nor type",
    ),
    "attributes of a class": (
        b"\x80\x04cnumpy\ndtype\nN" + inner({"__name__": "x"}) + b"\x86b.",
        "changes what is neither array nor type",
    ),
    "state of a dictionary": (b"\x80\x04}}b.", "changes what is neither array nor type"),
    "array defined twice": (
        pickle.dumps(TREE["m/~/a"]["w"], 4)[:-1] + b"NNNNNtb.",
        "is damaged",
    ),
    "function in JAX's array": (
        call("jax._src.array _reconstruct_array", b"cnumpy\ndtype\n", inner(("f4",)), b"N}"),
        "has no plain bytes",
    ),
    "keys of tuples": (b"\x80\x04}" + NESTED + b"Ns.", "keys other than texts"),
    "tuples for a flag": (
        call("numpy._core.multiarray _reconstruct")[:-1]
        + b"(K\x01)"
        + DTYPE
        + NESTED
        + b"C\x00tb.",
        "is damaged",
    ),
    "huge text": (b"\x80\x04\x8d" + b"\xff" * 8, "ends early"),
    "huge bytes": (b"\x80\x04\x8e" + b"\xff" * 8, "ends early"),
    "huge frame": (b"\x80\x04\x95" + b"\xff" * 8, "ends early"),
    "huge shape": (
        dumped({"m": {"w": TREE["m/~/a"]["w"]}}).replace(
            b"K\x02K\x03\x86", b"K\x02J\xff\xff\xff\x7f\x86"
        ),
        "ends early",
    ),
    "negative shape": (
        dumped({"m": {"w": TREE["m/~/a"]["w"]}}).replace(
            b"K\x02K\x03\x86", b"K\x02J\xff\xff\xff\xff\x86"
        ),
        "no valid shape",
    ),
    "other shape": (
        call("numpy._core.multiarray scalar", DTYPE, b"C\x05abcde"),
        "more or fewer bytes than its shape",
    ),
    "empty but beyond memory": (
        call("numpy._core.multiarray _reconstruct")[:-1]
        + b"(K\x01K\x00"
        + inner(2**62) * 2
        + b"\x87"
        + DTYPE
        + b"\x89C\x00tb.",
        "larger than memory",
    ),
    "33 axes": (
        call("numpy._core.multiarray _reconstruct")[:-1]
        + b"(K\x01"
        + inner((1,) * 33)
        + DTYPE
        + b"\x89C\x04abcdtb.",
        "no valid shape",
    ),
    "flag as a size": (
        call("numpy._core.multiarray _reconstruct")[:-1]
        + b"(K\x01\x88\x85"
        + DTYPE
        + b"\x89C\x04abcdtb.",
        "no valid shape",
    ),
    "array without content": (
        b"\x80\x04}"
        + inner("m")
        + b"}"
        + inner("w")
        + call("numpy._core.multiarray _reconstruct")[2:-1]
        + b"ss.",
        "holds at 'm/w' what is no array",
    ),
    "a list": (pickle.dumps([TREE]), "no dictionary of dictionaries"),
    "one level": (dumped({"w": np.ones(3)}), "no dictionary of dictionaries"),
    "three levels": (dumped({"a": TREE}), "holds at 'a/m/~/a' what is no array"),
    "a number": (dumped({"m": {"w": 1.0}}), "holds at 'm/w' what is no array"),
    "one name twice": (
        dumped({"a/b": {"c": np.ones(1)}, "a": {"b/c": np.ones(1)}}),
        "holds 'a/b/c' twice",
    ),
    "a name of two lines": (dumped({"a\nb": {"c": np.ones(1)}}), "name is no short line"),
    "a name that colours": (dumped({"a": {"\x1b[31m": np.ones(1)}}), "name is no short line"),
    "a long name": (dumped({"a": {"b" * 1000: np.ones(1)}}), "name is no short line"),
    "xz that asks for 1.5 GB": (
        lzma.compress(dumped(TREE), lzma.FORMAT_ALONE)[:1]
        + b"\x00\x00\x00\x60"
        + lzma.compress(dumped(TREE), lzma.FORMAT_ALONE)[5:],
        "is damaged",
    ),
    "complex numbers": (dumped({"m": {"w": np.ones(3, complex)}}), "elements of 'c16'"),
    "texts": (dumped({"m": {"w": np.array(["a"])}}), "elements of 'U1'"),
    "dates": (dumped({"m": {"w": np.zeros(1, "M8[s]")}}), "no plain numbers"),
    "a matrix": (dumped({"m": {"w": np.ones((2, 2)).view(np.matrix)}}), "matrix"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_files_are_refused(tmp_path, name):
    path = tmp_path / "pytree_ckpt.joblib"
    content, reason = MALFORMED[name]
    path.write_bytes(content)
    tracemalloc.start()
    try:
        assert reason in refusal(path)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_more_instructions_than_any_checkpoint_has(tmp_path, monkeypatch):
    monkeypatch.setattr("nt_jax.interchange.pickled._MOST_INSTRUCTIONS", 1000)
    path = tmp_path / "pytree_ckpt.joblib"
    path.write_bytes(b"\x80\x04}" + b"\x94" * 2000 + b".")
    assert "more instructions" in refusal(path)


@pytest.mark.parametrize("method", ["zlib", "gzip", "bz2", "lzma", "xz"])
def test_a_small_file_does_not_fill_the_disk(tmp_path, monkeypatch, method):
    monkeypatch.setattr(joblib_file, "_ALWAYS_ALLOWED", 1 << 20)
    path = tmp_path / "pytree_ckpt.joblib"
    joblib.dump({"m": {"w": np.zeros(30_000_000, np.int8)}}, path, compress=(method, 3))
    tracemalloc.start()
    try:
        assert "unpacks to more than 100 times its size" in refusal(path)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


SMALL = {
    "joblib": dumped(TREE),
    "zlib": dumped(TREE, compress=("zlib", 3)),
    "gzip": dumped(TREE, compress=("gzip", 3)),
    "bz2": dumped(TREE, compress=("bz2", 3)),
    "xz": dumped(TREE, compress=("xz", 3)),
    "jax": dumped({"m": {"w": jnp.arange(6.0), "b": jnp.ones(3, jnp.bfloat16)}}),
    "pickle 2": pickle.dumps(TREE, 2),
    "pickle 5": pickle.dumps(TREE, 5),
}


@pytest.mark.parametrize("kind", SMALL)
def test_truncated_anywhere(tmp_path, kind):
    path = tmp_path / "pytree_ckpt.joblib"
    path.write_bytes(SMALL[kind])
    assert len(read_tree(path)) == 2
    every = 1 if kind == "joblib" else 3
    for length in range(len(SMALL[kind]) - 1, -1, -every):
        os.truncate(path, length)
        refusal(path)


def read_or_refuse(path):
    """Reads everything or refuses: nothing else may happen."""
    with contextlib.suppress(InputError):
        for array in read_tree(path).values():
            assert array.read().dtype == array.dtype


@given(data=st.data())
@settings(deadline=None, max_examples=300)
def test_damaged_anywhere(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "damaged.joblib"
    content = bytearray(SMALL[data.draw(st.sampled_from(sorted(SMALL)))])
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    read_or_refuse(path)


@given(st.binary(max_size=200), st.sampled_from([b"", b"\x80\x04", b"\x78\x9c", b"BZh9"]))
@settings(deadline=None, max_examples=300)
def test_garbage(tmp_path_factory, content, start):
    path = tmp_path_factory.getbasetemp() / "garbage.joblib"
    path.write_bytes(start + content)
    read_or_refuse(path)


def test_messages_never_print_what_would_take_forever(tmp_path):
    # A text as long as the file would be a long line, nested lists an endless one.
    path = tmp_path / "pytree_ckpt.joblib"
    path.write_bytes(b"\x80\x04" + struct.pack("<BI", 0x58, 10**6) + b"a" * 10**6 + b")\x93.")
    assert len(refusal(path)) < 500
