"""Published weights: fixtures give the stored outputs, tensors go there and back bit by bit."""

import dataclasses

import jax
import ml_dtypes
import numpy as np
import pytest

from nt_jax.errors import InputError
from nt_jax.interchange.weights import (
    expected_tensors,
    of_params,
    report_faults,
    stacked,
    to_params,
)
from nt_jax.model.factory import build_model
from tests.nt_jax.interchange.conftest import EMBED


def test_outputs_equal_the_stored_ones(published):
    tokenizer = published.tokenizer.make()
    model = build_model(published.model, tokenizer)
    params = to_params(published.weights())
    tokens = published.outputs["tokens"]
    layers = tuple(range(1, published.model.num_layers + 1))
    run = jax.jit(lambda p, t: model.apply(p, t, layers=layers, attention=True))
    out = jax.tree.map(np.asarray, run(params, tokens))

    real = tokens != tokenizer.pad_id
    assert (tokens == tokenizer.mask_id).any()
    assert not real.all()
    found = {"logits": out["logits"]}
    for layer in layers:
        found[f"embeddings_{layer}"] = out["embeddings"][layer]
        # Query axis in second place, so that one mask selects the real queries.
        found[f"attention_{layer}"] = out["attention"][layer].swapaxes(1, 2)
    assert set(found) == set(published.outputs) - {"tokens"}
    for name, value in found.items():
        stored = published.outputs[name]
        stored = stored.swapaxes(1, 2) if name.startswith("attention") else stored
        error = np.abs(value - stored)[real].max()
        assert error <= 2e-5 * np.abs(stored).max(), name
    assert not out["logits"][~real].any()


def test_tensors_survive_there_and_back_bit_by_bit(published):
    params = to_params(published.weights())
    back = of_params(params, published.model, published.tokenizer, "ours")
    assert set(back.tensors) == set(published.arrays)
    assert back.tensors == expected_tensors(published.model, published.tokenizer)
    for name, array in back:
        assert back.tensors[name] == array.shape
        assert array.dtype == published.arrays[name].dtype
        assert array.tobytes() == published.arrays[name].tobytes()
    assert jax.tree.all(jax.tree.map(np.array_equal, params, to_params(back)))


def test_parameters_of_our_own_survive_too(published):
    model = dataclasses.replace(published.model, embed_layer_norm=True, ffn_bias=True)
    init = build_model(model, published.tokenizer.make()).init
    abstract = jax.eval_shape(init, jax.random.key(0))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), abstract)
    weights = of_params(params, model, published.tokenizer, "ours")
    assert "esm_transformer/~/emb_layer_norm_before/scale" in weights.tensors
    back = to_params(weights)
    assert jax.tree.structure(back) == jax.tree.structure(params)
    assert jax.tree.all(jax.tree.map(np.array_equal, params, back))


def test_parameters_one_at_a_time_are_the_same(published):
    params = to_params(published.weights())
    one_by_one = stacked(published.weights())
    expected = {f"{m}/{name}": x for m, named in params.items() for name, x in named.items()}
    assert one_by_one.keys() == expected.keys()
    for name, parameter in one_by_one.items():
        found = parameter.read()
        assert parameter.shape == found.shape == expected[name].shape
        assert found.dtype == np.float32
        assert found.tobytes() == expected[name].tobytes()
    with pytest.raises(InputError, match=f"missing {EMBED}$"):
        stacked(published.weights(**{EMBED: None}))
    wide = published.weights(**{EMBED: published.arrays[EMBED].astype(np.float64)})
    with pytest.raises(InputError, match=rf"ckpt\.joblib: {EMBED} of type float64"):
        stacked(wide)["nt/embed/token/embeddings"].read()


def test_progress_ends_at_the_size_of_the_parameters(published):
    seen = []
    params = to_params(published.weights(), lambda done, total: seen.append((done, total)))
    total = sum(x.nbytes for x in jax.tree.leaves(params))
    assert seen[-1] == (total, total)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_one_line_lists_every_problem(published):
    layer = "esm_transformer/attention_layer_{}/~/"
    query, norm = layer.format(1) + "mha/query", layer.format(0) + "mha_layer_norm"
    changed = published.weights(
        **{
            f"{query}/b": None,
            f"{norm}/scale": None,
            f"{norm}_a/scale": np.ones(3, np.float32),
            f"{query}/w": published.arrays[f"{query}/w"][:, :-1],
        }
    )
    with pytest.raises(InputError) as caught:
        to_params(changed)
    assert str(caught.value) == (
        f"ckpt.joblib: missing {norm}/scale, {query}/b; unexpected {norm}_a/scale; "
        f"wrong {query}/w of shape [32, 31] (expected [32, 32])"
    )


@pytest.mark.parametrize("dtype", [object, np.float64, np.int32])
def test_other_types_are_refused(published, dtype):
    weights = published.weights(**{EMBED: published.arrays[EMBED].astype(dtype)})
    with pytest.raises(InputError, match=rf"{EMBED} of type {np.dtype(dtype)}"):
        to_params(weights)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_is_widened_exactly(published, dtype):
    half = {name: array.astype(dtype) for name, array in published.arrays.items()}
    params = to_params(published.weights(**half))
    assert {str(x.dtype) for x in jax.tree.leaves(params)} == {"float32"}
    np.testing.assert_array_equal(
        params["nt/embed/token"]["embeddings"], half[EMBED].astype(np.float32)
    )


def test_faults_of_many_layers_are_all_named_in_short():
    layers = [f"esm.layer.{i}.x of shape [1]" for i in (0, 1, 2, 5, 10, 11)]
    faults = {
        "missing": [*layers, "esm.norm", "esm.layer.7.x of shape [1]", "esm.layer.3.y"],
        "unexpected": [f"esm_transformer/attention_layer_{i}/~/fc1/w" for i in (1, 0)],
        "wrong": [],
    }
    with pytest.raises(InputError) as caught:
        report_faults(faults, "here")
    assert str(caught.value) == (
        "here: missing esm.layer.{0-2,5,7,10-11}.x of shape [1], esm.layer.3.y, esm.norm; "
        "unexpected esm_transformer/attention_layer_{0-1}/~/fc1/w"
    )
    report_faults({"missing": []}, "here")
