"""The ONNX folder: one graph for every batch and length, run by onnxruntime alone."""

import dataclasses
import importlib.util
import json
import pathlib
import re
import tracemalloc

import numpy as np
import pytest

from nt_jax.config import ModelConfig, TokenizerConfig
from nt_jax.errors import InputError
from nt_jax.interchange import runtimes
from nt_jax.interchange.onnx_file import DATA_FILE, GRAPH_FILE, read_onnx, write_onnx
from nt_jax.interchange.proof import example_tokens
from nt_jax.interchange.weights import Weights, expected_tensors, to_params
from tests.nt_jax.interchange import hf_cases
from tests.nt_jax.interchange.conftest import EMBED, run_alone

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def folder(published, tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx") / "new"
    write_onnx(published.weights(), folder)
    return folder


@pytest.fixture
def copy(published, tmp_path):
    """A folder that a test may spoil."""
    write_onnx(published.weights(), tmp_path / "copy")
    return tmp_path / "copy"


def by_layer(found):
    embeddings = {int(name.partition("_")[2]): x for name, x in found.items() if name != "logits"}
    return {"logits": found["logits"], "embeddings": embeddings}


def graph_of(folder):
    return onnx.load(folder / GRAPH_FILE, load_external_data=False)


def entries(tensor):
    return {entry.key: entry.value for entry in tensor.external_data}


def assert_like_ours(folder, weights, tokens):
    """Every output at every position, those of pads included."""
    found = runtimes.run_onnx(folder, tokens)
    expected = runtimes.run_params(to_params(weights), weights.model, weights.tokenizer, tokens)
    assert list(found) == ["logits", *(f"embedding_{i + 1}" for i in range(len(found) - 1))]
    assert found.keys() == {name for name in expected if not name.startswith("attention")}
    for name, value in found.items():
        assert value.dtype == np.float32
        assert value.shape == expected[name].shape
        error = np.abs(value - expected[name]).max()
        assert error <= 1e-5 * np.abs(expected[name]).max(), name


def test_outputs_equal_the_stored_ones(published, folder):
    published.assert_stored(by_layer(runtimes.run_onnx(folder, published.outputs["tokens"])))


def test_one_graph_for_every_batch_and_length(published, folder):
    tokenizer = published.tokenizer.make()
    for batch, length in ((1, 1), (3, 7), (2, published.model.max_positions)):
        tokens = example_tokens(tokenizer, length, batch, seed=length)
        tokens[-1, 5:] = tokenizer.pad_id
        assert_like_ours(folder, published.weights(), tokens)


OWN, STOCK = hf_cases.OWN, hf_cases.STOCK
BASE = ModelConfig(**hf_cases.SMALL)
VARIATIONS = {
    "own": OWN,
    "stock": STOCK,
    "base": BASE,
    "gated gelu": dataclasses.replace(BASE, ffn_activation="gelu", ffn_bias=True, num_layers=1),
    "swish": dataclasses.replace(BASE, ffn_gated=False, embed_scale=3.0, rope_rescale=4.0),
    "masks": dataclasses.replace(STOCK, token_dropout=0.12, key_size=6, embed_layer_norm=False),
    "one position": dataclasses.replace(BASE, max_positions=1),
}


@pytest.mark.parametrize("name", VARIATIONS)
def test_every_option_of_the_config(name, tmp_path):
    vocabulary = "v1" if name in ("own", "masks") else "v2"  # other pad and mask ids
    model = VARIATIONS[name]
    weights = hf_cases.random_weights(model, TokenizerConfig(k=2, vocabulary=vocabulary))
    tokenizer = weights.tokenizer.make()
    tokens = example_tokens(tokenizer, model.max_positions)
    tokens[2, 1:] = tokenizer.mask_id  # nothing but masks
    tokens[3] = tokenizer.pad_id  # nothing at all
    write_onnx(weights, tmp_path)
    assert_like_ours(tmp_path, weights, tokens)


def test_tokens_beyond_the_context_are_refused(published, folder, capfd):
    longest = published.model.max_positions
    tokenizer = published.tokenizer.make()
    tokens = np.full((1, longest + 1), tokenizer.pad_id)  # a row that no position table would stop
    tokens[0, 0] = tokenizer.cls_id
    with pytest.raises(Exception, match=rf"input_must_have_at_most_{longest}_tokens"):
        runtimes.run_onnx(folder, tokens)


def test_the_graph_tells_what_it_is(published, folder):
    found = graph_of(folder)
    assert [(entry.domain, entry.version) for entry in found.opset_import] == [("", 17)]
    assert (found.ir_version, found.producer_name) == (8, "nt-jax")
    properties = {entry.key: entry.value for entry in found.metadata_props}
    assert properties == {"format": "nt-jax/onnx", "version": "1"}
    (tokens,) = found.graph.input
    assert tokens.name == "tokens"
    assert f"at most {published.model.max_positions}" in tokens.doc_string
    assert all(value.doc_string for value in (found, found.graph, *found.graph.output))
    shapes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (tokens, *found.graph.output)
    }
    sizes = {"logits": published.tokenizer.make().vocab_size}
    sizes |= {f"embedding_{i + 1}": 32 for i in range(published.model.num_layers)}
    expected = {name: ["batch", "length", size] for name, size in sizes.items()}
    assert shapes == {"tokens": ["batch", "length"]} | expected


def test_everything_is_float32_but_ids_and_conditions(folder):
    onnx.checker.check_model(str(folder / GRAPH_FILE), full_check=True)
    graph = onnx.shape_inference.infer_shapes(graph_of(folder), strict_mode=True).graph
    values = [*graph.value_info, *graph.input, *graph.output]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    assert {name for node in graph.node for name in node.output} <= types.keys()
    assert set(types.values()) == {
        onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.BOOL
    }  # fmt: skip
    assert not {node.domain for node in graph.node} - {""}


def test_layer_norms_get_centred_vectors(published, folder):
    """Older runtimes lose digits on others (docstring of `onnx_graph._layer_norm`)."""
    nodes = {node.output[0]: node for node in graph_of(folder).graph.node}
    norms = [node for node in nodes.values() if node.op_type == "LayerNormalization"]
    assert len(norms) == 2 * published.model.num_layers + 2
    for node in norms:
        centred = nodes[node.input[0]]
        assert centred.op_type == "Sub"
        mean = nodes[centred.input[1]]
        assert (mean.op_type, mean.input[0]) == ("ReduceMean", centred.input[0])


def test_weights_lie_where_they_can_be_mapped(published, folder):
    found = {x.name: x for x in graph_of(folder).graph.initializer if x.external_data}
    tables = {"rotary/cosines", "rotary/sines"} & found.keys()
    assert bool(tables) == (published.model.positions == "rotary")
    assert found.keys() - tables == published.arrays.keys()
    content, end = (folder / DATA_FILE).read_bytes(), 0
    for name, tensor in found.items():
        where = entries(tensor)
        offset, length = int(where["offset"]), int(where["length"])
        assert offset % 4096 == 0
        assert offset >= end
        end = offset + length
        if name in published.arrays:
            assert content[offset:end] == published.arrays[name].tobytes()
    assert end == len(content)
    # The graph itself holds constants alone.
    assert (folder / GRAPH_FILE).stat().st_size < 60_000


def test_large_tensors_start_at_64_kilobytes(tmp_path):
    model = ModelConfig(num_layers=1, num_heads=4, embed_dim=512, ffn_dim=8, max_positions=8)
    weights = hf_cases.random_weights(model, TokenizerConfig(k=1))
    write_onnx(weights, tmp_path)
    offsets = {
        x.name: int(entries(x)["offset"])
        for x in graph_of(tmp_path).graph.initializer
        if x.external_data
    }
    large = {name for name, shape in weights.tensors.items() if 4 * np.prod(shape) >= 1 << 20}
    assert len(large) == 5
    assert all(offsets[name] % 65_536 == 0 for name in large)


def test_what_a_model_trains_in_does_not_change_its_graph(published, folder, tmp_path):
    half = dataclasses.replace(published.model, compute_dtype="bfloat16", remat="dots")
    write_onnx(dataclasses.replace(published.weights(), model=half), tmp_path)
    for name in (GRAPH_FILE, DATA_FILE):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_run_py_needs_onnxruntime_alone(published, folder, tmp_path):
    np.save(tmp_path / "tokens.npy", published.outputs["tokens"].astype(np.int64))
    code = f"""
        import runpy
        found = runpy.run_path({str(folder / "run.py")!r})
        import numpy as np
        names, tokens = found["names"], np.load("tokens.npy")
        values = found["session"].run(names, dict(tokens=tokens))
        np.savez("found.npz", **dict(zip(names, values)))
    """
    forbidden = {"jax", "haiku", "nt_jax", "torch", "flax", "onnx", "safetensors", "ml_dtypes"}
    printed = run_alone(code, tmp_path, forbidden)
    sizes = {"logits": published.tokenizer.make().vocab_size}
    sizes |= {f"embedding_{i + 1}": 32 for i in range(published.model.num_layers)}
    assert printed.splitlines() == [
        f"{name} [batch, tokens, values]: (1, 4, {size})" for name, size in sizes.items()
    ]
    published.assert_stored(by_layer(dict(np.load(tmp_path / "found.npz"))))


def test_folder_holds_what_it_says(published, folder):
    names = {GRAPH_FILE, DATA_FILE, "vocab.txt", "run.py", "config.json"}
    assert {path.name for path in folder.iterdir()} == names
    tokenizer = published.tokenizer.make()
    assert tuple((folder / "vocab.txt").read_text().splitlines()) == tokenizer.tokens


def test_weights_are_read_back_bit_by_bit(published, folder):
    back = read_onnx(folder)
    assert (back.model, back.tokenizer) == (published.model, published.tokenizer)
    assert back.tensors.keys() == published.arrays.keys()
    for name, array in back:
        assert array.dtype == np.float32
        assert array.shape == back.tensors[name]
        assert array.tobytes() == published.arrays[name].tobytes()
        while isinstance(array.base, np.ndarray):
            array = array.base
        assert isinstance(array, np.memmap)


def test_writing_holds_one_tensor_at_a_time(tmp_path):
    model = ModelConfig(num_layers=16, num_heads=4, embed_dim=128, ffn_dim=512, max_positions=64)
    shapes = expected_tensors(model, TokenizerConfig(k=2))
    reads, seen = [], []

    def read(name):
        reads.append(name)
        return np.full(shapes[name], 0.5, np.float32)

    weights = Weights(model, TokenizerConfig(k=2), shapes, read, "ours")
    largest = max(4 * np.prod(shape) for shape in shapes.values())
    write_onnx(weights, tmp_path / "warm")  # modules that are imported on the way
    reads.clear()
    tracemalloc.start()
    write_onnx(weights, tmp_path / "out", lambda done, total: seen.append((done, total)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    size = (tmp_path / "out" / DATA_FILE).stat().st_size
    # The tensor and the next one, and the graph, which does not grow with the width.
    assert peak < 3 * largest < size / 4
    assert reads == list(shapes)
    assert seen[-1] == (size, size)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def anonymous_bytes() -> int:
    """Memory of this process that no file backs."""
    status = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"RssAnon:\s*(\d+) kB", status)[1])


def test_running_copies_no_weights(tmp_path):
    if not pathlib.Path("/proc/self/status").is_file():
        pytest.skip("tells memory apart by /proc")
    model = ModelConfig(num_layers=4, num_heads=8, embed_dim=512, ffn_dim=2048, max_positions=16)
    weights = hf_cases.random_weights(model, TokenizerConfig(k=2))
    write_onnx(weights, tmp_path)
    size = (tmp_path / DATA_FILE).stat().st_size
    tokens = example_tokens(weights.tokenizer.make(), 8).astype(np.int64)
    del weights
    before = anonymous_bytes()
    session = runtimes.onnx_session(tmp_path)
    session.run(["logits"], {"tokens": tokens})
    assert anonymous_bytes() - before < 0.3 * size


def test_faults_are_one_line(published, copy, tmp_path):
    with pytest.raises(InputError, match=rf"ckpt\.joblib: missing {EMBED}$"):
        write_onnx(published.weights(**{EMBED: None}), tmp_path / "new")
    assert not (tmp_path / "new").exists()

    def refused(message):
        for use in (read_onnx, lambda folder: runtimes.run(folder, published.outputs["tokens"])):
            with pytest.raises(InputError, match=message) as caught:
                use(copy)
            assert str(copy) in str(caught.value)
            assert "\n" not in str(caught.value)

    data, graph = copy / DATA_FILE, copy / GRAPH_FILE
    content, nodes = data.read_bytes(), graph.read_bytes()
    data.write_bytes(content[:-1])
    refused(r"model\.onnx\.data: truncated: .* ends at [\d,]+; get it again")
    data.unlink()
    refused(r"model\.onnx\.data: no such file, or empty")
    data.write_bytes(content)
    graph.write_bytes(b"no protobuf")
    refused(r"model\.onnx: damaged, no ONNX graph")
    graph.write_bytes(b"")
    refused(r"model\.onnx: no such file, or empty")

    for entry, value in ((0, "../model.onnx.data"), (1, "-4096"), (1, "first")):
        changed = onnx.ModelProto.FromString(nodes)
        changed.graph.initializer[0].external_data[entry].value = value
        graph.write_bytes(changed.SerializeToString())
        refused(rf"model\.onnx: {EMBED} is no float32 tensor in model\.onnx\.data")
    changed = onnx.ModelProto.FromString(nodes)
    del changed.graph.initializer[1:3]
    graph.write_bytes(changed.SerializeToString())
    refused(r"model\.onnx: missing esm_transformer/")

    graph.write_bytes(nodes)
    config = copy / "config.json"
    values = json.loads(config.read_text())
    values["model"]["embed_dim"] *= 2
    config.write_text(json.dumps(values))
    refused(r"model\.onnx: wrong esm_transformer/.* of shape")


def test_a_graph_that_onnxruntime_refuses(copy):
    changed = graph_of(copy)
    changed.graph.node[3].op_type = "Unheard"
    (copy / GRAPH_FILE).write_bytes(changed.SerializeToString())
    with pytest.raises(InputError, match=r"model\.onnx: refused by onnxruntime .*Unheard") as error:
        runtimes.run_onnx(copy, np.zeros((1, 2), np.int32))
    assert "\n" not in str(error.value)


def test_without_onnx_the_extra_is_named(published, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for use in (
        lambda: write_onnx(published.weights(), tmp_path / "new"),
        lambda: read_onnx(folder),
    ):
        with pytest.raises(InputError, match=r"needs onnx: pip install 'nt-jax\[export\]'$"):
            use()
    assert not (tmp_path / "new").exists()
