"""config.json of a Hugging Face folder: published configs, both ways, and what is refused."""

import dataclasses
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nt_jax.config import MaskingConfig, ModelConfig, TokenizerConfig
from nt_jax.errors import InputError
from nt_jax.interchange.hf_config import config_from_hf, hf_from_config, ties_embeddings
from nt_jax.model.presets import PRESETS

V2_50M = {
    "add_bias_fnn": False,
    "attention_probs_dropout_prob": 0.0,
    "emb_layer_norm_before": False,
    "hidden_dropout_prob": 0.0,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "layer_norm_eps": 1e-12,
    "mask_token_id": 2,
    "max_position_embeddings": 2050,
    "model_type": "esm",
    "num_attention_heads": 16,
    "num_hidden_layers": 12,
    "pad_token_id": 1,
    "position_embedding_type": "rotary",
    "tie_word_embeddings": False,
    "token_dropout": False,
    "vocab_size": 4107,
}
V1_500M = {
    "architectures": ["EsmForMaskedLM"],
    "emb_layer_norm_before": None,
    "esmfold_config": None,
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "is_folding_model": False,
    "layer_norm_eps": 1e-12,
    "mask_token_id": 2,
    "max_position_embeddings": 1002,
    "model_type": "esm",
    "num_attention_heads": 20,
    "num_hidden_layers": 24,
    "pad_token_id": 1,
    "position_embedding_type": "absolute",
    "tie_word_embeddings": False,
    "token_dropout": True,
    "vocab_size": 4105,
}
PUBLISHED = {"nt_v2_50m_multispecies": V2_50M, "nt_v1_500m_human_ref": V1_500M}
OWN = hf_from_config(ModelConfig(), TokenizerConfig(), None, "float32", "ours")


def read(values, rows=None):
    return config_from_hf(values, rows or values.get("vocab_size"), "config.json")


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configs_are_our_presets(name):
    preset = PRESETS[name]
    model, tokenizer = read(PUBLISHED[name])
    assert model == dataclasses.replace(preset.model, layer_norm_epsilon=1e-12)
    assert tokenizer == preset.tokenizer


@pytest.mark.parametrize("name", PRESETS)
def test_presets_there_and_back(name):
    model, tokenizer = PRESETS[name]
    values = hf_from_config(model, tokenizer, MaskingConfig(), "float32", name)
    assert values["layer_norm_eps"] == 1e-5
    assert values["masking"] == {"ratio": 0.15, "mask": 0.8, "random": 0.1}
    assert read(values) == (model, tokenizer)
    stock = model.positions == "learned"
    assert values["model_type"] == ("esm" if stock else "nt")
    assert ("auto_map" in values) != stock


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_written_has_the_published_values(name):
    """So that the hub's code reads the folder as it reads its own."""
    model, tokenizer = PRESETS[name]
    values = hf_from_config(model, tokenizer, None, "float32", name)
    published = PUBLISHED[name] | {"layer_norm_eps": 1e-5}
    for key in ("model_type", "esmfold_config", "is_folding_model", "architectures"):
        published.pop(key, None)
    assert {key: values[key] or None for key in published} == {
        key: value or None for key, value in published.items()
    }


ROTARY = st.builds(
    ModelConfig,
    num_layers=st.integers(1, 40),
    num_heads=st.just(4),
    embed_dim=st.sampled_from([32, 64]),
    key_size=st.sampled_from([None, 4, 8, 12]),
    ffn_dim=st.integers(1, 100),
    max_positions=st.integers(1, 9000),
    rope_base=st.floats(1, 1e6),
    rope_rescale=st.floats(1, 100),
    ffn_activation=st.sampled_from(["gelu", "swish"]),
    ffn_gated=st.booleans(),
    ffn_bias=st.booleans(),
    token_dropout=st.floats(0, 0.9),
    embed_scale=st.floats(0.1, 10),
    embed_init_std=st.sampled_from([1.0, 0.02]),
    embed_layer_norm=st.booleans(),
    layer_norm_epsilon=st.sampled_from([1e-5, 1e-12]),
    compute_dtype=st.sampled_from(["float32", "bfloat16"]),
    remat=st.sampled_from(["none", "full"]),
)
TOKENIZERS = st.builds(
    TokenizerConfig, k=st.integers(1, 12), vocabulary=st.sampled_from(["v1", "v2"])
)


@settings(deadline=None)
@given(ROTARY, TOKENIZERS)
def test_every_rotary_model_there_and_back(model, tokenizer):
    values = hf_from_config(model, tokenizer, None, "bfloat16", "ours")
    assert read(values) == (model, tokenizer)
    assert values["torch_dtype"] == "bfloat16"


def test_rows_tell_k_and_vocabulary():
    for k in range(1, 13):
        for vocabulary in ("v1", "v2"):
            tokenizer = TokenizerConfig(k=k, vocabulary=vocabulary)
            rows = tokenizer.make().vocab_size
            assert read(V2_50M | {"vocab_size": rows})[1] == tokenizer
            assert read({**V2_50M, "vocab_size": None}, rows)[1] == tokenizer


def test_absent_flags_have_the_meaning_of_esm():
    optional = ("token_dropout", "position_embedding_type", "emb_layer_norm_before")
    values = {k: v for k, v in V1_500M.items() if k not in (*optional, "layer_norm_eps")}
    model, _ = read(values)
    assert (model.token_dropout, model.positions, model.embed_layer_norm) == (0, "learned", False)
    assert model.layer_norm_epsilon == 1e-12
    assert ties_embeddings({}, "config.json")
    assert not ties_embeddings(V1_500M, "config.json")


def test_stock_esm_may_be_rotary_too():
    model, _ = read(V1_500M | {"position_embedding_type": "rotary", "rope_theta": 500})
    assert (model.positions, model.rope_base, model.ffn_activation) == ("rotary", 500.0, "gelu")
    assert (model.ffn_gated, model.ffn_bias) == (False, True)


def test_every_missing_size_is_listed():
    values = {k: v for k, v in V2_50M.items() if k not in ("hidden_size", "num_hidden_layers")}
    with pytest.raises(InputError, match=r"^config\.json: missing hidden_size, num_hidden_layers$"):
        read(values)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "bert"}, "model_type='bert' is not supported (supported: esm, nt)"),
        ({"model_type": None}, "model_type=None is not supported"),
        (
            {"architectures": ["EsmForSequenceClassification"]},
            "architectures=['EsmForSequenceClassification']: only a masked language model",
        ),
        ({"is_decoder": True}, "not supported: is_decoder=True"),
        ({"add_cross_attention": True}, "not supported: add_cross_attention=True"),
        ({"is_folding_model": True}, "not supported: is_folding_model=True"),
        ({"rope_scaling": {"type": "yarn"}}, "not supported: rope_scaling={'type': 'yarn'}"),
        (
            {"position_embedding_type": "relative_key"},
            "position_embedding_type='relative_key' is not supported (supported: absolute, rotary)",
        ),
        ({"vocab_size": 4108}, "4108 rows fits no vocabulary: 4^k + 9 rows are v1"),
        ({"vocab_size": 33}, "33 rows fits no vocabulary"),
        ({"pad_token_id": 0}, "pad_token_id=0, but this vocabulary has 1"),
        ({"mask_token_id": 4}, "mask_token_id=4, but this vocabulary has 2"),
        ({"hidden_size": "512"}, "hidden_size='512' is no int"),
        ({"num_hidden_layers": True}, "num_hidden_layers=True is no int"),
        ({"token_dropout": 1}, "token_dropout=1 is no bool"),
        ({"layer_norm_eps": "1e-5"}, "layer_norm_eps='1e-5' is no float"),
        ({"nt_jax": {"embed_std": 1}}, "unknown field 'embed_std'"),
    ],
)
@pytest.mark.parametrize("values", [V2_50M, OWN], ids=["hub", "own"])
def test_what_ours_is_not_is_refused(values, changes, message):
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        read(values | changes)
    assert str(caught.value).startswith("config.json: ") or "config.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rows_that_contradict_the_config_are_refused():
    with pytest.raises(InputError, match="vocab_size=4107, but the token embedding has 4105 rows"):
        read(V2_50M, 4105)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"key_size": 32}, "model.key_size=32 (only None or 64)"),
        ({"token_dropout": 0.2}, "model.token_dropout=0.2 (only 0.0 or 0.12)"),
        ({"rope_base": 500.0}, "model.rope_base=500.0 (only 10000.0)"),
        ({"rope_rescale": 2.0}, "model.rope_rescale=2.0 (only 1.0)"),
        ({"embed_scale": 0.5}, "model.embed_scale=0.5 (only 1.0)"),
        ({"ffn_bias": False}, "model.ffn_bias=False (only True)"),
        (
            {"ffn_activation": "swish", "ffn_gated": True},
            "model.ffn_activation=swish (only gelu), model.ffn_gated=True (only False)",
        ),
    ],
)
def test_what_esm_cannot_express_is_refused(changes, message):
    model, tokenizer = PRESETS["nt_v1_500m_human_ref"]
    model = dataclasses.replace(model, **changes)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        hf_from_config(model, tokenizer, None, "float32", "RUN")
    assert str(caught.value).startswith("RUN: learned positions are exported as transformers' own")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("changes", [{"token_dropout": 0.0}, {"key_size": 64}])
def test_what_esm_can_express_is_kept(changes):
    model, tokenizer = PRESETS["nt_v1_500m_human_ref"]
    model = dataclasses.replace(model, **changes)
    assert read(hf_from_config(model, tokenizer, None, "float32", "RUN")) == (model, tokenizer)
