"""The published layout: fixtures give the stored outputs, arrays go there and back bit by bit."""

import copy
import dataclasses
import json
import logging

import jax
import joblib
import numpy as np
import pytest

from nt_jax.config import MaskingConfig, ModelConfig, TokenizerConfig
from nt_jax.errors import InputError
from nt_jax.interchange.nt import config_from_hyperparams, from_nt, hyperparams_from_config, to_nt
from nt_jax.model.factory import build_model
from nt_jax.model.presets import PRESETS
from nt_jax.tokenizers import KmerTokenizer

EMBED = "esm_transformer/~/embed"


@dataclasses.dataclass(frozen=True)
class Published:
    hyperparams: dict
    arrays: dict
    outputs: dict
    model: ModelConfig
    tokenizer: TokenizerConfig


@pytest.fixture(scope="module", params=["v1_tiny", "v2_tiny"])
def published(request, fixtures) -> Published:
    folder = fixtures / request.param
    hyperparams = json.loads((folder / "hyperparams.json").read_text())
    arrays = joblib.load(folder / "pytree_ckpt.joblib")
    outputs = dict(np.load(folder / "outputs.npz"))
    rows = arrays[EMBED]["embeddings"].shape[0]
    model, tokenizer = config_from_hyperparams(hyperparams, rows)
    assert tokenizer == TokenizerConfig(k=6, vocabulary=request.param[:2])
    return Published(hyperparams, arrays, outputs, model, tokenizer)


def test_outputs_equal_the_stored_ones(published):
    tokenizer = KmerTokenizer(published.tokenizer.k, published.tokenizer.vocabulary)
    model = build_model(published.model, tokenizer)
    params = from_nt(published.arrays, published.model, published.tokenizer)
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


def test_arrays_survive_there_and_back_bit_by_bit(published):
    params = from_nt(published.arrays, published.model, published.tokenizer)
    back = to_nt(params)
    assert {m: set(n) for m, n in back.items()} == {m: set(n) for m, n in published.arrays.items()}
    for module, named in published.arrays.items():
        for name, array in named.items():
            assert back[module][name].dtype == array.dtype
            assert back[module][name].tobytes() == array.tobytes()
    again = from_nt(back, published.model, published.tokenizer)
    assert jax.tree.all(jax.tree.map(np.array_equal, params, again))


def test_parameters_of_our_own_survive_too(published):
    tokenizer = KmerTokenizer(published.tokenizer.k, published.tokenizer.vocabulary)
    model = dataclasses.replace(published.model, embed_layer_norm=True, ffn_bias=True)
    abstract = jax.eval_shape(build_model(model, tokenizer).init, jax.random.key(0))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), abstract)
    arrays = to_nt(params)
    assert "esm_transformer/~/emb_layer_norm_before" in arrays
    back = from_nt(arrays, model, published.tokenizer)
    assert jax.tree.structure(back) == jax.tree.structure(params)
    assert jax.tree.all(jax.tree.map(np.array_equal, params, back))


def test_hyperparams_there_and_back(published):
    written = hyperparams_from_config(published.model, published.tokenizer)
    for key, value in published.hyperparams.items():
        if key not in ("masking_ratio", "masking_prob") or published.model.token_dropout:
            assert written[key] == value, key
    rows = published.arrays[EMBED]["embeddings"].shape[0]
    assert config_from_hyperparams(json.loads(json.dumps(written)), rows) == (
        published.model,
        published.tokenizer,
    )


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_be_written_and_read(name):
    model, tokenizer = PRESETS[name]
    rows = KmerTokenizer(tokenizer.k, tokenizer.vocabulary).vocab_size
    assert rows == 4**tokenizer.k + {"v1": 9, "v2": 11}[tokenizer.vocabulary]
    written = hyperparams_from_config(model, tokenizer)
    # How parameters start is no part of a published checkpoint.
    expected = dataclasses.replace(model, embed_init_std=1.0)
    assert config_from_hyperparams(written, rows) == (expected, tokenizer)


@pytest.mark.parametrize("masking", [MaskingConfig(), MaskingConfig(ratio=0.3, mask=0.5)])
def test_token_dropout_keeps_the_product(masking):
    model, tokenizer = PRESETS["nt_v1_500m_1000g"]
    for share in (0.12, masking.ratio * masking.mask, 0.07):
        changed = dataclasses.replace(model, token_dropout=share, key_size=32)
        written = hyperparams_from_config(changed, tokenizer, masking)
        assert config_from_hyperparams(written, 4105)[0] == changed


def test_absent_keys_mean_the_published_defaults(fixtures):
    hyperparams = json.loads((fixtures / "v1_tiny" / "hyperparams.json").read_text())
    model, _ = config_from_hyperparams(hyperparams, 4105)
    assert model.positions == "learned"
    assert (model.ffn_activation, model.ffn_gated, model.ffn_bias) == ("gelu", False, True)
    assert model.layer_norm_epsilon == 1e-5
    assert model.key_size is None
    assert model.token_dropout == pytest.approx(0.12)
    more = {"key_dim": 12, "layer_norm_eps": 1e-12, "rescaling_factor": 4.0}
    model, _ = config_from_hyperparams(hyperparams | more, 4105)
    assert (model.key_size, model.layer_norm_epsilon, model.rope_rescale) == (12, 1e-12, 4.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"add_bias_kv": True}, "add_bias_kv=True is not supported"),
        ({"pre_layer_norm": False}, "pre_layer_norm=False is not supported"),
        ({"ffn_activation_name": "relu"}, "'relu'.*gelu-no-approx.*swish"),
        ({"positional_embedding": "alibi"}, "'alibi' with use_rotary_embedding=False"),
        ({"use_rotary_embedding": True}, "'learned' with use_rotary_embedding=True"),
        ({"token_dropout": 1}, "token_dropout=1 is not supported"),
        ({"masking_prob": "high"}, "masking_prob are shares"),
        ({"num_layers": "two"}, "num_layers: 'two' is not a"),
        ({"k_for_kmers": 3}, "4105 rows fits no vocabulary of k_for_kmers=3.*73.*75"),
        ({"k_for_kmers": "6"}, "k: '6' is not a"),
    ],
)
def test_refuses_what_the_model_has_not(fixtures, change, message):
    hyperparams = json.loads((fixtures / "v1_tiny" / "hyperparams.json").read_text())
    with pytest.raises(InputError, match=message) as caught:
        config_from_hyperparams(hyperparams | change, 4105)
    assert "\n" not in str(caught.value)


def test_missing_keys_are_named_and_unknown_ones_logged(fixtures, caplog):
    hyperparams = json.loads((fixtures / "v1_tiny" / "hyperparams.json").read_text())
    with caplog.at_level(logging.WARNING):
        config_from_hyperparams(hyperparams | {"dropout": 0.1}, 4105)
    assert "ignored keys: dropout" in caplog.text
    del hyperparams["num_layers"], hyperparams["embed_dim"]
    with pytest.raises(InputError, match=r"file\.json: missing num_layers, embed_dim"):
        config_from_hyperparams(hyperparams, 4105, where="file.json")


@pytest.mark.parametrize(
    "change", [{"rope_base": 500.0}, {"rope_rescale": 2.0}, {"layer_norm_epsilon": 1e-12}]
)
def test_refuses_to_write_what_the_published_loader_would_ignore(change):
    model, tokenizer = PRESETS["nt_v2_nano"]
    with pytest.raises(InputError, match=next(iter(change))):
        hyperparams_from_config(dataclasses.replace(model, **change), tokenizer)


def test_one_line_lists_every_problem(published):
    arrays = copy.copy({module: dict(named) for module, named in published.arrays.items()})
    query = "esm_transformer/attention_layer_1/~/mha/query"
    del arrays[query]["b"]
    arrays[f"{query}_a"] = arrays.pop("esm_transformer/attention_layer_0/~/mha_layer_norm")
    arrays[query]["w"] = arrays[query]["w"][:, :-1]
    arrays[EMBED]["embeddings"] = arrays[EMBED]["embeddings"].astype(np.float64)
    with pytest.raises(InputError) as caught:
        from_nt(arrays, published.model, published.tokenizer, where="ckpt.joblib")
    message = str(caught.value)
    assert message.startswith("ckpt.joblib: missing esm_transformer/attention_layer_0/~/mha_layer")
    assert f"{query}/b; unexpected {query}_a/offset, {query}_a/scale; wrong" in message
    assert f"{query}/w of shape [32, 31] (expected [32, 32])" in message
    assert f"{EMBED}/embeddings of type float64 (expected float32)" in message
    assert "\n" not in message


def test_object_arrays_are_refused(published):
    arrays = {module: dict(named) for module, named in published.arrays.items()}
    arrays[EMBED]["embeddings"] = np.array([[object()]], dtype=object)
    with pytest.raises(InputError, match="of type object"):
        from_nt(arrays, published.model, published.tokenizer)


def test_half_precision_is_widened_exactly(published):
    half = {m: {n: x.astype(np.float16) for n, x in d.items()} for m, d in published.arrays.items()}
    params = from_nt(half, published.model, published.tokenizer)
    assert {str(x.dtype) for x in jax.tree.leaves(params)} == {"float32"}
    np.testing.assert_array_equal(params["nt/embed/token"]["embeddings"], half[EMBED]["embeddings"])
