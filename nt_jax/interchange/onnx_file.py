"""ONNX: the model for onnxruntime and whatever else reads ONNX, weights beside the graph.

Batch and length stay open. The graph is a protobuf, which ends at 2 GB, so the weights lie in a
file of their own: raw float32 (little-endian), each at an offset that can be memory-mapped.

| file | what it is |
|---|---|
| model.onnx | the graph (`nt_jax.interchange.onnx_graph`) |
| model.onnx.data | the weights, named as in the published layout, and the rotary tables |
| vocab.txt | a token a line, in the order of the ids |
| run.py | the smallest program that runs it |
| config.json | configs of the model and the tokenizer |
"""

import importlib.resources
import importlib.util
import math
import pathlib
from typing import Any

import numpy as np

from nt_jax.errors import InputError
from nt_jax.files import replacing, write_atomically
from nt_jax.interchange.config_file import read_config, write_config, write_vocabulary
from nt_jax.interchange.weights import Weights, check_tensors, expected_tensors, read_as
from nt_jax.model.rotary import rotary_tables
from nt_jax.progress import Progress, silent

LAYOUT, VERSION = "nt-jax/onnx", 1
GRAPH_FILE, DATA_FILE, EXAMPLE_FILE = "model.onnx", "model.onnx.data", "run.py"
_FLOAT32 = np.dtype("<f4")


def write_onnx(
    weights: Weights,
    folder: pathlib.Path,
    progress: Progress = silent,
) -> None:
    """Writes the folder described above, one tensor in memory at a time, and checks the graph.

    `progress` gets (bytes done, bytes in all). Raises InputError where the tensors are not those
    of the model, or where onnx is not installed.
    """
    _require("onnx", folder)
    import onnx

    from nt_jax.interchange import onnx_graph

    model, tokenizer = weights.model, weights.tokenizer
    expected = expected_tensors(model, tokenizer)
    check_tensors(weights.tensors, expected, weights.source)
    tables = {}
    if model.positions == "rotary":
        sizes = model.max_positions, model.head_size
        cosines, sines = rotary_tables(*sizes, model.rope_base, model.rope_rescale)
        tables = {onnx_graph.COSINES: cosines, onnx_graph.SINES: sines}
    shapes = expected | {name: table.shape for name, table in tables.items()}
    places = onnx_graph.place_tensors(shapes)
    metadata = {"format": LAYOUT, "version": str(VERSION)}
    graph = onnx_graph.make_model(model, tokenizer, places, DATA_FILE, metadata)
    example = importlib.resources.files(__package__) / "onnx_code" / EXAMPLE_FILE

    folder.mkdir(parents=True, exist_ok=True)
    last = list(places.values())[-1]
    with replacing(folder / DATA_FILE) as file:
        for name, place in places.items():
            array = tables[name] if name in tables else read_as(weights, name)
            file.write(bytes(place.offset - file.tell()))
            file.write(np.ascontiguousarray(array, _FLOAT32).data)
            progress(file.tell(), last.offset + last.length)
    write_atomically(folder / GRAPH_FILE, graph.SerializeToString())
    # By path, for then the weights are looked for but not read.
    onnx.checker.check_model(str(folder / GRAPH_FILE), full_check=True)
    write_atomically(folder / EXAMPLE_FILE, example.read_bytes())
    write_vocabulary(folder, tokenizer)
    write_config(folder, LAYOUT, VERSION, weights)


def read_onnx(folder: pathlib.Path) -> Weights:
    """Weights that read a folder of `write_onnx` where it lies: its graph says where they are.

    Raises InputError when a file is missing or damaged, when the tensors are not those of the
    model that `config.json` describes, or when onnx is not installed.
    """
    model, tokenizer = read_config(folder, LAYOUT, VERSION)
    _require("onnx", folder)
    import onnx
    from google.protobuf.message import DecodeError

    from nt_jax.interchange import onnx_graph

    path, data = folder / GRAPH_FILE, folder / DATA_FILE
    for file in (path, data):
        if not file.is_file() or not file.stat().st_size:
            raise InputError(f"{file}: no such file, or empty; export the model again")
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except DecodeError:
        raise InputError(f"{path}: damaged, no ONNX graph; export the model again") from None
    content = np.memmap(data, np.uint8, mode="r")
    arrays = {
        tensor.name: _array(tensor, content, path)
        for tensor in graph.initializer
        if tensor.external_data
    }
    for table in (onnx_graph.COSINES, onnx_graph.SINES):
        arrays.pop(table, None)
    expected = expected_tensors(model, tokenizer)
    check_tensors({name: array.shape for name, array in arrays.items()}, expected, str(path))
    return Weights(model, tokenizer, expected, arrays.__getitem__, str(data))


def _array(tensor: Any, content: np.ndarray, path: pathlib.Path) -> np.ndarray:
    """View of an initializer in the bytes of the data file."""
    where = {entry.key: entry.value for entry in tensor.external_data}
    place, offset = where.get("location"), where.get("offset", "0")
    shape = tuple(tensor.dims)
    good = place == DATA_FILE and offset.isdecimal() and min(shape, default=0) > 0
    if not good or tensor.data_type != tensor.FLOAT:
        raise InputError(f"{path}: {tensor.name} is no float32 tensor in {DATA_FILE}")
    end = int(offset) + 4 * math.prod(shape)
    if end > content.size:
        raise InputError(
            f"{path.with_name(DATA_FILE)}: truncated: {content.size:,} bytes, and {tensor.name} "
            f"ends at {end:,}; get it again"
        )
    return np.ndarray(shape, _FLOAT32, content, int(offset))


def _require(package: str, folder: pathlib.Path) -> None:
    if importlib.util.find_spec(package) is None:
        raise InputError(f"{folder}: ONNX needs {package}: pip install 'nt-jax[export]'")
