"""hyperparams.json, both ways."""

import dataclasses
import json
import logging

import pytest

from nt_jax.config import MaskingConfig
from nt_jax.errors import InputError
from nt_jax.interchange.hyperparams import config_from_hyperparams, hyperparams_from_config
from nt_jax.model.presets import PRESETS
from nt_jax.tokenizers import KmerTokenizer
from tests.nt_jax.interchange.conftest import EMBED


def test_hyperparams_there_and_back(published):
    written = hyperparams_from_config(published.model, published.tokenizer)
    for key, value in published.hyperparams.items():
        if key not in ("masking_ratio", "masking_prob") or published.model.token_dropout:
            assert written[key] == value, key
    rows = published.arrays[EMBED].shape[0]
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


def test_compatibility_settings_are_kept_beside_the_published_keys():
    model, tokenizer = PRESETS["nt_v2_nano"]
    plain = hyperparams_from_config(model, tokenizer)
    assert not {"rotary_angles", "letters"} & plain.keys()
    changed = dataclasses.replace(model, rotary_angles="compute_dtype", embed_init_std=1.0)
    strict = dataclasses.replace(tokenizer, letters="upper_acgtn")
    written = hyperparams_from_config(changed, strict)
    assert plain.items() <= written.items()
    assert config_from_hyperparams(written, 4107) == (changed, strict)


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
        ({"letters": "lower"}, "letters: 'lower' is not a"),
        ({"rotary_angles": 16}, "rotary_angles: 16 is not a"),
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
