"""The published sizes, to the digit."""

import dataclasses

import jax
import pytest

from nt_jax.errors import InputError
from nt_jax.model.factory import build_model
from nt_jax.model.presets import PRESETS, parameter_count, preset
from nt_jax.tokenizers import KmerTokenizer

PUBLISHED = {
    "nt_v1_500m_human_ref": 485_698_825,
    "nt_v1_500m_1000g": 485_698_825,
    "nt_v1_2b5_1000g": 2_547_800_585,
    "nt_v1_2b5_multispecies": 2_547_800_585,
    "nt_v2_50m_multispecies": 54_855_179,
    "nt_v2_100m_multispecies": 96_839_179,
    "nt_v2_250m_multispecies": 233_545_995,
    "nt_v2_500m_multispecies": 496_245_771,
    "agro_nt_1b": 991_260_405,
    "codon_nt_50m": 50_722_379,
}
OURS = {"nt_v2_nano": 2_125_195, "nt_v2_micro": 10_578_699}


def build(name):
    model, tokenizer = preset(name)
    tokenizer = KmerTokenizer(k=tokenizer.k, vocabulary=tokenizer.vocabulary)
    return model, tokenizer, build_model(model, tokenizer)


def test_every_preset_is_counted():
    assert set(PRESETS) == set(PUBLISHED) | set(OURS)


@pytest.mark.parametrize(("name", "count"), (PUBLISHED | OURS).items())
def test_parameter_count(name, count):
    model, tokenizer, built = build(name)
    params = jax.eval_shape(built.init, jax.random.key(0))
    assert sum(x.size for x in jax.tree.leaves(params)) == count
    assert parameter_count(model, tokenizer.vocab_size) == count


@pytest.mark.parametrize(
    "change", [{"key_size": 24}, {"ffn_bias": True}, {"embed_layer_norm": True}]
)
def test_formula_follows_the_options(change):
    model, tokenizer, _ = build("nt_v2_nano")
    model = dataclasses.replace(model, **change)
    params = jax.eval_shape(build_model(model, tokenizer).init, jax.random.key(0))
    counted = sum(x.size for x in jax.tree.leaves(params))
    assert parameter_count(model, tokenizer.vocab_size) == counted


def test_learned_tables_have_the_published_rows():
    for name, rows in {"nt_v1_500m_1000g": 1002, "agro_nt_1b": 1026}.items():
        _, _, built = build(name)
        params = jax.eval_shape(built.init, jax.random.key(0))
        assert params["nt/embed/position"]["embeddings"].shape[0] == rows


def test_vocabularies():
    sizes = {name: build(name)[1].vocab_size for name in PRESETS}
    assert {size for name, size in sizes.items() if "v1" in name or "agro" in name} == {4105}
    assert {size for name, size in sizes.items() if "v2" in name} == {4107}
    assert sizes["codon_nt_50m"] == 75


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(InputError, match=r"nt_v2_nanno.*did you mean 'nt_v2_nano'"):
        preset("nt_v2_nanno")
