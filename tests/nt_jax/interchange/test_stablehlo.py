"""The StableHLO folder: one program for every batch and length, run by a program without us."""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from nt_jax.errors import InputError
from nt_jax.interchange.safetensors_file import read_safetensors
from nt_jax.interchange.stablehlo import (
    PROGRAM_FILE,
    WEIGHTS_FILE,
    export_forward,
    read_stablehlo,
    write_stablehlo,
)
from nt_jax.interchange.weights import of_params, to_params
from nt_jax.model.factory import build_model
from tests.nt_jax.interchange.conftest import EMBED, run_alone


@pytest.fixture(scope="module")
def folder(published, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stablehlo") / "new"
    write_stablehlo(published.weights(), folder)
    return folder


@pytest.fixture(scope="module")
def program(folder):
    return export.deserialize(bytearray((folder / PROGRAM_FILE).read_bytes()))


@pytest.fixture(scope="module")
def forward(folder, program):
    weights, _ = read_safetensors(folder / WEIGHTS_FILE)
    run = jax.jit(program.call)
    return lambda tokens: jax.tree.map(np.asarray, run(weights, tokens))


def by_layer(outputs):
    return outputs | {"embeddings": dict(enumerate(outputs["embeddings"], 1))}


def test_outputs_equal_the_stored_ones(published, forward):
    published.assert_stored(by_layer(forward(published.outputs["tokens"])))


def test_one_program_for_every_batch_and_length(published, forward):
    tokenizer = published.tokenizer.make()
    model = build_model(published.model, tokenizer)
    params = to_params(published.weights())
    layers = tuple(range(1, published.model.num_layers + 1))
    ours = jax.jit(lambda params, tokens: model.apply(params, tokens, layers))
    rng = np.random.default_rng(0)
    for batch, length in ((1, 1), (1, 7), (3, 7), (2, published.model.max_positions)):
        tokens = rng.integers(*tokenizer.kmer_ids, (batch, length)).astype(np.int32)
        tokens[:, 0] = tokenizer.cls_id
        tokens[-1, 5:] = tokenizer.pad_id
        tokens[0, 1:3] = tokenizer.mask_id
        found, expected = forward(tokens), jax.tree.map(np.asarray, ours(params, tokens))
        assert found["embeddings"].shape == (len(layers), batch, length, published.model.embed_dim)
        np.testing.assert_allclose(found["logits"], expected["logits"], atol=2e-5)
        for layer in layers:
            np.testing.assert_allclose(
                found["embeddings"][layer - 1], expected["embeddings"][layer], atol=2e-5
            )


def test_tokens_beyond_the_context_are_refused(published, forward):
    longest = published.model.max_positions
    with pytest.raises(ValueError) as caught:
        forward(np.zeros((1, longest + 1), np.int32))
    # JAX tells the reason in the error below its own.
    assert f"symbolic shape constraint t <= {longest}" in str(caught.value.__cause__)


def test_signature_and_platforms(published, program):
    assert program.platforms == ("cpu", "cuda", "tpu")
    (weights, tokens), _ = jax.tree.unflatten(program.in_tree, program.in_avals)
    assert str(tokens.shape) == "(b, t)"
    assert tokens.dtype == jnp.int32
    params = to_params(published.weights())
    expected = {f"{m}/{n}": x.shape for m, named in params.items() for n, x in named.items()}
    assert {name: x.shape for name, x in weights.items()} == expected
    out = jax.tree.unflatten(program.out_tree, program.out_avals)
    sizes = (published.model.num_layers, published.model.embed_dim)
    assert str(out["embeddings"].shape) == f"({sizes[0]}, b, t, {sizes[1]})"
    assert str(out["logits"].shape) == f"(b, t, {published.tokenizer.make().vocab_size})"
    assert {x.dtype for x in out.values()} == {np.dtype(np.float32)}


def test_the_program_holds_neither_weights_nor_paths(published, folder, program):
    content = (folder / PROGRAM_FILE).read_bytes()
    # 4 bytes for each of them would not fit: they are arguments.
    assert len(content) < 0.1 * (folder / WEIGHTS_FILE).stat().st_size
    # Source locations would tell where it was made, and no two machines would make the same one.
    assert b"nt_jax/" in pathlib.Path(__file__).as_posix().encode()
    assert b"nt_jax/" not in content
    assert b".py" not in content
    again = export_forward(published.model, published.tokenizer).serialize()
    assert bytes(again) == content


def test_what_a_model_trains_in_does_not_change_its_program(published, folder):
    half = dataclasses.replace(
        published.model, compute_dtype="bfloat16", rotary_angles="compute_dtype", remat="dots"
    )
    program = export_forward(half, published.tokenizer).serialize()
    assert bytes(program) == (folder / PROGRAM_FILE).read_bytes()


def test_run_py_needs_neither_haiku_nor_us(published, folder, tmp_path):
    np.save(tmp_path / "tokens.npy", published.outputs["tokens"])
    code = f"""
        import runpy
        found = runpy.run_path({str(folder / "run.py")!r})
        import numpy as np
        np.savez("found.npz", **found["forward"](found["weights"], np.load("tokens.npy")))
    """
    printed = run_alone(code, tmp_path, {"haiku", "nt_jax", "jmp", "flax", "torch"})
    model, vocabulary = published.model, published.tokenizer.make().vocab_size
    assert printed.splitlines() == [
        f"logits [batch, tokens, vocabulary]: (1, 4, {vocabulary})",
        f"embeddings [layers, batch, tokens, width]: ({model.num_layers}, 1, 4, {model.embed_dim})",
    ]
    published.assert_stored(by_layer(dict(np.load(tmp_path / "found.npz"))))


def test_vocabulary_lists_the_ids(published, folder):
    tokens = (folder / "vocab.txt").read_text().splitlines()
    tokenizer = published.tokenizer.make()
    assert tuple(tokens) == tokenizer.tokens
    ids = tokenizer.encode("ATTCTGATTCTGTTGCAA")
    assert [tokens[i] for i in ids] == ["<cls>", "ATTCTG", "ATTCTG", "TTGCAA"]


def test_weights_are_read_back_bit_by_bit(published, folder):
    back = read_stablehlo(folder)
    assert (back.model, back.tokenizer) == (published.model, published.tokenizer)
    assert set(back.tensors) == set(published.arrays)
    for name, array in back:
        assert array.dtype == np.float32
        assert array.shape == back.tensors[name]
        assert array.tobytes() == published.arrays[name].tobytes()


def test_folder_of_a_model_with_every_optional_part(published, tmp_path):
    model = dataclasses.replace(published.model, embed_layer_norm=True, ffn_bias=True, num_layers=1)
    abstract = jax.eval_shape(
        build_model(model, published.tokenizer.make()).init, jax.random.key(0)
    )
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), abstract)
    seen = []
    write_stablehlo(
        of_params(params, model, published.tokenizer, "ours"),
        tmp_path,
        lambda done, total: seen.append((done, total)),
    )
    assert jax.tree.all(jax.tree.map(np.array_equal, params, to_params(read_stablehlo(tmp_path))))
    total = sum(x.nbytes for x in jax.tree.leaves(params))
    assert seen[-1] == (total, total)


def test_faults_are_one_line(published, tmp_path):
    with pytest.raises(InputError, match=rf"ckpt\.joblib: missing {EMBED}$"):
        write_stablehlo(published.weights(**{EMBED: None}), tmp_path / "new")
    assert not (tmp_path / "new").exists()
    write_stablehlo(published.weights(), tmp_path)
    config = tmp_path / "config.json"
    values = json.loads(config.read_text())
    values["model"]["num_layers"] += 1
    config.write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"weights\.safetensors: wrong nt/block/.* of shape"):
        read_stablehlo(tmp_path)
    values["format"] = "nt-jax/safetensors"
    config.write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"not 'nt-jax/stablehlo'; this is another layout"):
        read_stablehlo(tmp_path)
