"""Hugging Face folders: PyTorch gives our outputs, and what is written is read bit by bit."""

import dataclasses
import json
import re
import shutil
import tracemalloc

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from nt_jax.config import ModelConfig, TokenizerConfig
from nt_jax.errors import InputError
from nt_jax.interchange.hf import read_hf, write_hf
from nt_jax.interchange.weights import Weights, expected_tensors, to_params
from nt_jax.model.factory import build_model
from tests.nt_jax.interchange import hf_cases

torch = pytest.importorskip("torch")
hf_check = pytest.importorskip("tests.nt_jax.interchange.hf_check")

EMBEDDING = "esm.embeddings.word_embeddings.weight"
DECODER = "lm_head.decoder.weight"
QUERY = "esm.encoder.layer.1.attention.self.query.weight"


@pytest.fixture(scope="module", params=hf_cases.CASES)
def case(request, tmp_path_factory, fixtures):
    folder = tmp_path_factory.mktemp("hf") / request.param
    weights = hf_cases.make_case(request.param, folder, fixtures)
    made = hf_check.Case(folder)
    made.weights = weights
    return made


@pytest.fixture
def folder(case, tmp_path):
    """A copy of the export that a test may spoil."""
    return shutil.copytree(case.export, tmp_path / "copy")


@pytest.fixture(scope="module")
def v2(tmp_path_factory, fixtures):
    folder = tmp_path_factory.mktemp("v2") / "case"
    hf_cases.make_case("v2_tiny", folder, fixtures)
    return folder / "export"


@pytest.fixture
def v2_copy(v2, tmp_path):
    return shutil.copytree(v2, tmp_path / "copy")


@pytest.mark.parametrize("check", hf_check.CHECKS, ids=lambda check: check.__name__)
def test_transformers_gives_our_outputs(case, check):
    check(case)


def assert_same(found, expected):
    assert (found.model, found.tokenizer) == (expected.model, expected.tokenizer)
    assert dict(found.tensors) == dict(expected.tensors)
    for name, array in found:
        original = expected.read(name)
        assert array.dtype == original.dtype
        assert array.shape == found.tensors[name]
        assert array.tobytes() == original.tobytes(), name


def change_config(folder, **changes):
    path = folder / "config.json"
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in values.items() if v is not ...}))


def change_tensors(folder, **changes):
    path = folder / "model.safetensors"
    tensors = safetensors.numpy.load_file(path) | {
        k.replace("__", "."): v for k, v in changes.items()
    }
    tensors = {name: array for name, array in tensors.items() if array is not None}
    safetensors.numpy.save_file(tensors, path, {"format": "pt"})


def state_dict(folder):
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    return {name: torch.tensor(array) for name, array in tensors.items()}


def test_what_is_written_is_read_back_bit_by_bit(case):
    assert_same(read_hf(case.export), case.weights)


def test_shards_hold_the_same(case, tmp_path):
    size = (case.export / "model.safetensors").stat().st_size
    write_hf(case.weights, None, tmp_path / "out", shard_bytes=size // 3)
    names = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert len(names) > 1
    assert names[0] == f"model-00001-of-{len(names):05d}.safetensors"
    assert_same(read_hf(tmp_path / "out"), case.weights)
    logits = case.run(case.masked_lm(folder=tmp_path / "out")).logits
    assert torch.equal(logits, case.run(case.masked_lm()).logits)


def test_what_transformers_saves_is_read(case, tmp_path):
    case.masked_lm().save_pretrained(tmp_path / "saved")
    found = read_hf(tmp_path / "saved")
    # Settings of a run that stay in config.json are kept too.
    assert_same(found, case.weights)


@pytest.mark.parametrize("shards", [1, 2])
def test_pytorch_pickles_are_read(case, folder, shards):
    state = state_dict(folder)
    (folder / "model.safetensors").unlink()
    names = list(state)
    if shards == 1:
        torch.save(state, folder / "pytorch_model.bin")
    else:
        files = [f"pytorch_model-0000{i}-of-00002.bin" for i in (1, 2)]
        for file, part in zip(files, (names[::2], names[1::2]), strict=True):
            torch.save({name: state[name] for name in part}, folder / file)
        places = {name: files[i % 2] for i, name in enumerate(names)}
        index = {"metadata": {}, "weight_map": places}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert_same(read_hf(folder), case.weights)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("container", ["safetensors", "bin"])
def test_half_precision_rounds_once_and_is_read(case, tmp_path, dtype, container):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "half"
    write_hf(case.weights, None, folder, dtype="bfloat16" if dtype == "bfloat16" else "float32")
    path = folder / "model.safetensors"
    state = load_file(path)
    if dtype == "float16":
        state = {name: tensor.half() for name, tensor in state.items()}
        save_file(state, path, {"format": "pt"})
    if container == "bin":
        torch.save(state, folder / "pytorch_model.bin")
        path.unlink()
    found = read_hf(folder)
    assert (found.model, found.tokenizer) == (case.weights.model, case.weights.tokenizer)
    kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float16)
    for name, array in found:
        assert array.dtype == kind
        expected = case.weights.read(name).astype(kind)
        assert array.tobytes() == expected.tobytes(), name
    to_params(found)


def test_the_hub_layout_of_v2_is_read(v2_copy, fixtures):
    # The published config and keys: no sign of ours, position ids kept by old versions.
    published = {
        "model_type": "esm",
        "architectures": ["EsmForMaskedLM"],
        "auto_map": {"AutoModelForMaskedLM": "modeling_esm.EsmForMaskedLM"},
        "layer_norm_eps": 1e-12,
    }
    ours = ("rope_theta", "rope_rescale", "hidden_act", "ffn_gated", "embed_scale")
    gone = dict.fromkeys([*ours, "token_dropout_ratio", "masking"], ...)
    change_config(v2_copy, **published, **gone)
    change_tensors(v2_copy, esm__embeddings__position_ids=np.arange(66)[None])
    expected = hf_cases.published_weights(fixtures / "v2_tiny")
    model = dataclasses.replace(expected.model, layer_norm_epsilon=1e-12)
    expected = dataclasses.replace(expected, model=model)
    assert_same(read_hf(v2_copy), expected)
    # Neither contact head nor position table nor frequencies are needed.
    gone = [k for k in state_dict(v2_copy) if re.search("contact|position|inv_freq", k)]
    change_tensors(v2_copy, **{name.replace(".", "__"): None for name in gone})
    assert_same(read_hf(v2_copy), expected)


def test_old_names_of_layer_norms_are_read(v2, v2_copy):
    norms = {k: v.numpy() for k, v in state_dict(v2).items() if "LayerNorm" in k}
    old = {k.replace(".weight", ".gamma").replace(".bias", ".beta"): v for k, v in norms.items()}
    changes = dict.fromkeys(norms) | old
    change_tensors(v2_copy, **{name.replace(".", "__"): x for name, x in changes.items()})
    assert_same(read_hf(v2_copy), read_hf(v2))
    name = "esm.encoder.layer.0.LayerNorm.weight"
    change_tensors(v2_copy, **{name.replace(".", "__"): norms[name]})
    with pytest.raises(InputError, match=r"unexpected esm\.encoder\.layer\.0\.LayerNorm\.gamma"):
        read_hf(v2_copy)


def test_tensors_read_are_views_of_the_file(case):
    for _, array in read_hf(case.export):
        while isinstance(array.base, np.ndarray):
            array = array.base
        assert isinstance(array, np.memmap)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_writing_holds_one_tensor_at_a_time(tmp_path, dtype):
    # Tensors of 2 MB: what Python and JAX keep of a first call is a quarter of one.
    model = ModelConfig(num_layers=16, num_heads=4, embed_dim=256, ffn_dim=1024, max_positions=64)
    shapes = expected_tensors(model, TokenizerConfig(k=2))

    def read(name):
        return np.full(shapes[name], 0.5, np.float32)

    weights = Weights(model, TokenizerConfig(k=2), shapes, read, "ours")
    largest = max(4 * np.prod(shape) for shape in shapes.values())
    tracemalloc.start()
    write_hf(weights, None, tmp_path / "out", dtype=dtype, shard_bytes=4 * 10**6)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    total = sum(path.stat().st_size for path in (tmp_path / "out").glob("*.safetensors"))
    # The tensor, and its copy in the order or the type of the file.
    assert peak < 3 * largest < total / 4


def test_tied_embeddings(case, folder):
    embedding = case.weights.read("esm_transformer/~/embed/embeddings")
    name = "esm_transformer/~/esm_roberta_lm_head/~/lm_final_fc/w"
    change_config(folder, tie_word_embeddings=True)
    with pytest.raises(InputError, match=r"config\.json: tie_word_embeddings is true.*set it to"):
        read_hf(folder)
    change_config(folder, tie_word_embeddings=...)  # absent: transformers ties
    with pytest.raises(InputError, match="tie_word_embeddings is true"):
        read_hf(folder)
    change_tensors(folder, **{DECODER.replace(".", "__"): None})
    np.testing.assert_array_equal(read_hf(folder).read(name), embedding.T)
    change_tensors(folder, **{DECODER.replace(".", "__"): embedding})
    np.testing.assert_array_equal(read_hf(folder).read(name), embedding.T)
    change_tensors(folder, **{DECODER.replace(".", "__"): None})
    change_config(folder, tie_word_embeddings=False)
    with pytest.raises(InputError, match=f"missing {re.escape(DECODER)}"):
        read_hf(folder)


def test_one_line_lists_every_tensor_at_fault(v2_copy):
    layer = "esm.encoder.layer.{}.output.dense.{}"
    changes = {
        layer.format(0, "weight"): None,
        layer.format(1, "bias"): np.ones(32, np.float32),
        QUERY: np.ones((32, 31), np.float32),
        DECODER: None,
    }
    change_tensors(v2_copy, **{name.replace(".", "__"): x for name, x in changes.items()})
    with pytest.raises(InputError) as caught:
        read_hf(v2_copy)
    assert str(caught.value) == (
        f"{v2_copy}: missing {layer.format(0, 'weight')}, {DECODER}; "
        f"unexpected {layer.format(1, 'bias')}; "
        f"wrong {QUERY} of shape [32, 31] (expected [32, 32])"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 2}, r"unexpected esm\.encoder\.layer\.2\."),
        ({"intermediate_size": 64}, r"expected \[128, 32\]"),
        ({"hidden_size": 64}, r"expected \[64, 64\]"),
        ({"num_attention_heads": 5}, r"config\.json: model\.embed_dim=32 does not divide"),
        ({"vocab_size": 4105}, r"vocab_size=4105, but the token embedding has 4107 rows"),
        ({"position_embedding_type": "absolute"}, "position_embeddings"),
        ({"rope_theta": 500.0}, "frequencies of another base than the config's 500.0"),
        ({"model_type": "bert"}, r"model_type='bert' is not supported \(supported: esm, nt\)"),
    ],
)
def test_a_config_that_contradicts_the_weights_is_refused(v2_copy, changes, message):
    if "position_embedding_type" in changes:
        change_tensors(v2_copy, esm__embeddings__position_embeddings__weight=None)
    change_config(v2_copy, **changes)
    with pytest.raises(InputError, match=message) as caught:
        read_hf(v2_copy)
    assert str(v2_copy) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_types_of_tensors_are_refused(v2_copy):
    name = QUERY.replace(".", "__")
    change_tensors(v2_copy, **{name: np.ones((32, 32), np.float64)})
    with pytest.raises(InputError, match=rf"not of type float32.*: {re.escape(QUERY)} \(float64\)"):
        read_hf(v2_copy)


def test_missing_folders_and_files_are_named(v2_copy, tmp_path):
    with pytest.raises(InputError, match="none: no such folder"):
        read_hf(tmp_path / "none")
    (v2_copy / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"copy: no weights: expected model\.safetensors, pytorch"):
        read_hf(v2_copy)
    (v2_copy / "config.json").unlink()
    with pytest.raises(InputError, match=r"config\.json: No such file"):
        read_hf(v2_copy)


def test_weights_of_another_family_are_refused(v2_copy):
    change_tensors(v2_copy, **{EMBEDDING.replace(".", "__"): None})
    with pytest.raises(InputError, match=f"missing {re.escape(EMBEDDING)}"):
        read_hf(v2_copy)


def test_the_model_read_back_runs(case):
    weights = read_hf(case.export)
    config = dataclasses.replace(weights.model, compute_dtype="float32")
    tokens = case.expected["tokens"]
    model = build_model(config, weights.tokenizer.make())
    logits = jax.jit(lambda p, t: model.apply(p, t)["logits"])(to_params(weights), tokens)
    case.assert_close(torch.tensor(np.asarray(logits)), "logits", 2e-5)
