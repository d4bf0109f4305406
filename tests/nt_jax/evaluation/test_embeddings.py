"""Embeddings on disk: the cache gives back what was computed, and knows when to compute anew."""

import dataclasses

import numpy as np
import pyarrow.parquet as pq
import pytest

from nt_jax.errors import InputError
from nt_jax.evaluation.embeddings import cached_layers, parquet_bytes, read_vectors
from nt_jax.evaluation.loading import LoadedModel, random_like

SEQUENCES = ["ACGTACGTACGTACGT" * 2, "TTTTGGGGCCCCAAAA" * 3, "ACACACACAC"]


def test_the_cache_gives_back_what_was_computed(loaded: LoadedModel, tmp_path, monkeypatch):
    first = cached_layers(loaded, SEQUENCES, [1], tmp_path)
    both = cached_layers(loaded, SEQUENCES, [1, 2], tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    monkeypatch.setattr(type(loaded), "embed_layers", lambda *a, **k: pytest.fail("computed"))
    again = cached_layers(loaded, SEQUENCES, [2, 1], tmp_path)
    assert list(again) == [2, 1]
    assert np.array_equal(again[1], first[1])
    assert np.array_equal(again[2], both[2])
    table = pq.read_table(next(iter(tmp_path.iterdir())))
    assert table.num_rows == 3


def test_whatever_the_vectors_depend_on_is_in_the_name(loaded: LoadedModel, tmp_path):
    shorter = dataclasses.replace(
        loaded,
        config=dataclasses.replace(
            loaded.config, data=dataclasses.replace(loaded.config.data, sequence_length=12)
        ),
    )
    for model, sequences, pooling in [
        (loaded, SEQUENCES, "mean"),
        (loaded, SEQUENCES, "mean"),
        (loaded, SEQUENCES[::-1], "mean"),
        (loaded, SEQUENCES, "max"),
        (random_like(loaded, 9), SEQUENCES, "mean"),
        (shorter, SEQUENCES, "mean"),
    ]:
        cached_layers(model, sequences, [1], tmp_path, pooling)
    assert len(list(tmp_path.iterdir())) == 5


def test_a_damaged_file_is_named(loaded: LoadedModel, tmp_path):
    cached_layers(loaded, SEQUENCES, [1], tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"damaged .*; delete it to embed again"):
        cached_layers(loaded, SEQUENCES, [1], tmp_path)


def test_columns_stand_beside_the_vectors(tmp_path):
    vectors = np.arange(6, dtype=np.float32).reshape(3, 2)
    path = tmp_path / "x.parquet"
    path.write_bytes(parquet_bytes(vectors, {"name": ["a", "b", "c"]}, {"layer": 1}))
    assert np.array_equal(read_vectors(path), vectors)
    table = pq.read_table(path)
    assert table.column_names == ["name", "embedding"]
    assert table.schema.metadata[b"nt-jax"] == b'{"layer": 1}'
