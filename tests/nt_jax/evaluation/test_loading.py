import jax
import numpy as np
import pytest

import nt_jax
from nt_jax.checkpoint import Checkpoints
from nt_jax.errors import InputError
from nt_jax.evaluation.loading import LoadedModel, random_like
from nt_jax.optim import optimizer
from nt_jax.step import TrainState


def test_apply_gives_what_is_asked_for(loaded: LoadedModel):
    tokens = loaded.tokenizer.encode_batch(["ACGTACGTAA", "ACG"], 6)
    found = loaded.apply(tokens, layers=(1, 2), attention=True)
    assert found["logits"].shape == (2, 6, loaded.tokenizer.vocab_size)
    assert {k: v.shape for k, v in found["embeddings"].items()} == {1: (2, 6, 16), 2: (2, 6, 16)}
    assert {k: v.shape for k, v in found["attention"].items()} == {1: (2, 2, 6, 6), 2: (2, 2, 6, 6)}
    plain = loaded.apply(tokens)
    assert plain["embeddings"] == {}
    np.testing.assert_allclose(plain["logits"], found["logits"], atol=1e-5)


def test_heads_have_their_own_numbers_unless_the_reference_ones_are_asked_for(loaded: LoadedModel):
    tokens = loaded.tokenizer.encode_batch(["ACGTACGTAA", "ACGGT"], 6)
    true = loaded.apply(tokens, layers=(2,), attention=True)
    assert np.abs(true["attention"][2][:, 0] - true["attention"][2][:, 1]).max() > 1e-3
    found = loaded.apply(tokens, layers=(2,), attention=True, heads="reference")
    # Of two heads, both numbers give the second.
    for number in (0, 1):
        given = found["attention"][2][:, number]
        np.testing.assert_allclose(given, true["attention"][2][:, 1], atol=1e-6)
    np.testing.assert_allclose(found["logits"], true["logits"], atol=1e-6)
    assert loaded.apply(tokens, heads="reference")["attention"] == {}


@pytest.mark.parametrize(
    ("tokens", "layers", "message"),
    [
        (np.zeros(4, np.int32), (), "one sequence is tokens"),
        (np.zeros((1, 4)), (), "must be integers"),
        (np.zeros((1, 41), np.int32), (), "at most 40"),
        (np.full((1, 4), 75, np.int32), (), "token id 75"),
        (np.full((1, 4), -1, np.int32), (), "token id -1"),
        (np.zeros((1, 4), np.int32), (3,), r"layer 3: the model has layers 1\.\.2"),
        (np.zeros((1, 4), np.int32), (0,), "layer 0"),
    ],
)
def test_apply_refuses(loaded: LoadedModel, tokens: np.ndarray, layers: tuple, message: str):
    with pytest.raises(InputError, match=message):
        loaded.apply(tokens, layers=layers)


def test_context_is_the_trained_length(loaded: LoadedModel):
    assert loaded.context == 24


def test_random_like_keeps_the_architecture_and_nothing_learned(loaded: LoadedModel):
    first, again, other = (random_like(loaded, seed) for seed in (1, 1, 2))
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), loaded.params)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), first.params) == shapes
    assert first.config == loaded.config
    key = "nt/embed/token"
    tables = [m.params[key]["embeddings"] for m in (loaded, first, again, other)]
    assert np.array_equal(tables[1], tables[2])
    assert not np.allclose(tables[0], tables[1])
    assert not np.allclose(tables[1], tables[3])


def test_load_restores_a_committed_step(tmp_path, loaded: LoadedModel):
    saver = Checkpoints(tmp_path, loaded.config.checkpoint)
    opt_state = optimizer(loaded.config.optim, 10).init(loaded.params)
    for step, model in ((3, loaded), (6, random_like(loaded, 9))):
        state = TrainState(jax.numpy.int32(step), model.params, opt_state)
        saver.save(state, loaded.config, {})
    saver.wait()
    saver.close()
    newest, older = nt_jax.load(tmp_path), nt_jax.load(f"{tmp_path}@3")
    assert (newest.step, older.step) == (6, 3)
    assert older.config == loaded.config
    assert np.array_equal(older.embed(["ACGTA"]), loaded.embed(["ACGTA"]))
    assert not np.array_equal(newest.embed(["ACGTA"]), loaded.embed(["ACGTA"]))
    with pytest.raises(InputError, match="no such checkpoint"):
        nt_jax.load(f"{tmp_path}@4")
