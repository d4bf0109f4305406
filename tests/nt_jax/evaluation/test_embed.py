import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nt_jax.config import TokenizerConfig
from nt_jax.errors import InputError
from nt_jax.evaluation import embed
from nt_jax.evaluation.embed import bucket
from nt_jax.evaluation.loading import LoadedModel, from_params


def close(a: np.ndarray, b: np.ndarray) -> None:
    np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("layer", [1, 2])
def test_mean_leaves_out_cls_and_pads(loaded: LoadedModel, layer: int):
    given = ["ACGTNACG", "ACGTTGACTNN", "TTG"]
    found = loaded.embed(given, layer=layer)
    assert found.dtype == np.float32
    for row, sequence in enumerate(given):
        # One sequence without any pad: whatever pads did would show.
        ids = loaded.tokenizer.encode(sequence)[None]
        tokens = np.asarray(loaded.apply(ids, layers=(layer,))["embeddings"][layer][0])
        close(found[row], tokens[1:].mean(axis=0))
        assert not np.allclose(found[row], tokens.mean(axis=0), atol=1e-4)


def test_published_letters_are_asked_of_every_sequence(loaded: LoadedModel):
    strict = dataclasses.replace(
        loaded.config, tokenizer=TokenizerConfig(k=3, letters="upper_acgtn")
    )
    model = from_params(loaded.params, 0, strict)
    np.testing.assert_array_equal(model.embed(["ACGTNACG"]), loaded.embed(["acgtnacg"]))
    with pytest.raises(KeyError, match="sequence 1: character 'a' at position 2"):
        model.embed(["ACGT", "ACaT"])


def test_cls_and_max(loaded: LoadedModel):
    ids = loaded.tokenizer.encode("ACGTNACGTA")[None]
    tokens = np.asarray(loaded.apply(ids, layers=(1,))["embeddings"][1][0])
    close(loaded.embed(["ACGTNACGTA"], layer=1, pooling="cls")[0], tokens[0])
    close(loaded.embed(["ACGTNACGTA"], layer=1, pooling="max")[0], tokens[1:].max(axis=0))


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_company_order_and_batch_size_change_nothing(loaded: LoadedModel, pooling: str):
    # Lengths of one, two and three windows; few shapes, each of which is compiled.
    given = [(text * 40)[:size] for text in ("ACGGT", "TTGCA") for size in (40, 61, 110, 160)]
    together = loaded.embed(given, pooling=pooling)
    alone = np.concatenate([loaded.embed([sequence], pooling=pooling) for sequence in given])
    small = loaded.embed(given, pooling=pooling, batch_tokens=30)
    backwards = loaded.embed(given[::-1], pooling=pooling)[::-1]
    for other in (alone, small, backwards):
        close(other, together)


def test_long_sequences_are_windowed_and_weighted_by_tokens(loaded: LoadedModel):
    # 55 tokens do not fit into 23 beside <cls>: three windows of 19, 18 and 18 tokens.
    sequence = "G" + "ACGTTGCAAC" * 16 + "ACGT"
    body = loaded.tokenizer.encode(sequence)[1:]
    assert len(body) == 55
    parts, pooled = np.split(body, [19, 37]), {"mean": [], "cls": [], "max": []}
    for part in parts:
        window = np.concatenate([[loaded.tokenizer.cls_id], part]).astype(np.int32)
        tokens = np.asarray(loaded.apply(window[None], layers=(2,))["embeddings"][2][0])
        pooled["mean"].append(tokens[1:].mean(axis=0))
        pooled["cls"].append(tokens[0])
        pooled["max"].append(tokens[1:].max(axis=0))
    weights = [len(part) for part in parts]
    for pooling in ("mean", "cls"):
        expected = np.average(pooled[pooling], axis=0, weights=weights)
        close(loaded.embed([sequence], pooling=pooling)[0], expected)
    close(loaded.embed([sequence], pooling="max")[0], np.max(pooled["max"], axis=0))


def test_layers_of_one_pass_equal_layers_alone(loaded: LoadedModel):
    given = ["ACGTTGAC", "ACGTTGACCC", "TTGAC"]
    both = loaded.embed_layers(given, (2, 1))
    close(both[1], loaded.embed(given, layer=1))
    close(both[2], loaded.embed(given, layer=2))
    assert not np.allclose(both[1], both[2], atol=1e-3)


def test_progress_ends_with_all_windows(loaded: LoadedModel):
    heard: list[tuple[int, int]] = []
    loaded.embed_layers(
        ["ACGT" * 40, "ACG"], (1,), batch_tokens=24, progress=lambda *pair: heard.append(pair)
    )
    assert heard[-1] == (4, 4)
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)


@pytest.mark.parametrize(
    ("given", "pooling", "message"),
    [
        (["ACGT", ""], "mean", "sequence 1 is empty"),
        (["ACGT", "ACXT"], "mean", "sequence 1: character 'X' at position 2"),
        ([], "mean", "no sequence"),
        ("ACGT", "mean", "a list of sequences"),
    ],
)
def test_bad_input_is_refused(loaded: LoadedModel, given: list[str], pooling: str, message: str):
    with pytest.raises(InputError, match=message):
        loaded.embed(given, pooling=pooling)


@given(st.integers(1, 5000), st.integers(5000, 12000))
def test_buckets_waste_little(length: int, context: int):
    padded = bucket(length, context)
    assert length <= padded <= context
    assert padded <= max(length * 1.25, length + 8)


def test_buckets_are_few():
    assert len({bucket(length, 2048) for length in range(1, 2049)}) <= 4 * 8


def test_the_rows_of_a_batch_are_spread_over_all_devices(loaded: LoadedModel, monkeypatch):
    pooled, shards = embed.embed_batch, []

    def watched(model, params, tokens, *rest):
        shards.append({shard.data.shape for shard in tokens.addressable_shards})
        assert len(tokens.sharding.device_set) == jax.device_count() == 8
        return pooled(model, params, tokens, *rest)

    monkeypatch.setattr(embed, "embed_batch", watched)
    found = loaded.embed(["ACGTAC" * 5] * 11)
    assert shards == [{(2, 16)}]
    assert np.ptp(found, axis=0).max() == 0
