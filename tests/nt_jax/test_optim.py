"""Schedules, weight-decay mask, skipping of non-finite steps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nt_jax.config import ConfigError, OptimConfig
from nt_jax.optim import applied, is_decayed, learning_rate, optimizer, skips


def test_published_schedule():
    rate = learning_rate(OptimConfig(), 300_000)
    assert float(rate(0)) == pytest.approx(5e-5)
    assert float(rate(8_000)) == pytest.approx(7.5e-5)
    assert float(rate(16_000)) == pytest.approx(1e-4)
    for step in (20_000, 64_000, 300_000):
        assert float(rate(step)) == pytest.approx(1e-4 * (16_000 / step) ** 0.5)


def test_cosine_and_wsd_end_where_they_should():
    cosine = learning_rate(
        OptimConfig(schedule="cosine", warmup_steps=10, init_lr=0.0, end_lr=1e-6), 100
    )
    assert float(cosine(10)) == pytest.approx(1e-4)
    assert float(cosine(100)) == pytest.approx(1e-6)
    wsd = learning_rate(OptimConfig(schedule="wsd", warmup_steps=10, decay_share=0.2), 100)
    assert float(wsd(10)) == float(wsd(80)) == pytest.approx(1e-4)
    assert float(wsd(90)) == pytest.approx(5e-5)
    assert float(wsd(100)) == pytest.approx(0.0, abs=1e-9)


def test_warmup_longer_than_the_run_is_refused():
    with pytest.raises(ConfigError, match="warmup_steps=50"):
        learning_rate(OptimConfig(schedule="cosine", warmup_steps=50), 10)


PARAMS = {
    "nt/block/query": {"w": jnp.ones((2, 3, 3)), "b": jnp.ones((2, 3))},
    "nt/embed/token": {"embeddings": jnp.ones((5, 3))},
    "nt/head/layer_norm": {"scale": jnp.ones(3)},
}


def test_weight_decay_touches_projection_matrices_only():
    decayed = {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_leaves_with_path(PARAMS)
        if is_decayed(path)
    }
    assert decayed == {"nt/block/query/w"}
    rule = optimizer(
        OptimConfig(name="adamw", weight_decay=0.5, schedule="constant", warmup_steps=0), 10
    )
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    updates, _ = rule.update(zeros, rule.init(PARAMS), PARAMS)
    assert float(jnp.abs(updates["nt/block/query"]["w"]).max()) > 0
    assert float(jnp.abs(updates["nt/embed/token"]["embeddings"]).max()) == 0


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_a_non_finite_step_never_reaches_parameters_or_moments(bad):
    rule = optimizer(OptimConfig(clip=1.0), 100)
    state = rule.init(PARAMS)
    good = jax.tree.map(lambda x: 0.1 * jnp.ones_like(x), PARAMS)
    _, state = rule.update(good, state, PARAMS)
    poisoned = jax.tree.map(jnp.copy, good)
    poisoned["nt/block/query"]["b"] = poisoned["nt/block/query"]["b"].at[0, 0].set(bad)
    before = state.inner_state
    for count in range(1, 40):
        updates, state = rule.update(poisoned, state, PARAMS)
        assert float(optax.global_norm(updates)) == 0
        assert int(state.total_notfinite) == int(state.notfinite_count) == count
    jax.tree.map(np.testing.assert_array_equal, before, state.inner_state)
    updates, state = rule.update(good, state, PARAMS)
    assert float(optax.global_norm(updates)) > 0
    assert int(state.notfinite_count) == 0
    assert int(state.total_notfinite) == 39


SPIKES = OptimConfig(spike_factor=3.0, spike_window=4, clip=1.0)


def gradients(size: float):
    return jax.tree.map(lambda x: size * jnp.ones_like(x), PARAMS)


def test_a_spike_never_reaches_parameters_or_moments_and_is_counted():
    rule = optimizer(SPIKES, 100)
    state = rule.init(PARAMS)
    for size in (0.1, 0.9, 0.1, 0.1):  # while the mean has few steps nothing is a spike
        _, state = rule.update(gradients(size), state, PARAMS)
    assert {name: int(count) for name, count in skips(state).items()} == {
        "skipped": 0, "spikes": 0, "skipped_in_a_row": 0,
    }  # fmt: skip
    mean = np.mean([float(optax.global_norm(gradients(size))) for size in (0.1, 0.9, 0.1, 0.1)])
    assert float(state.inner_state.mean) == pytest.approx(mean, rel=1e-5)
    before = state.inner_state
    for count in (1, 2):
        updates, state = rule.update(gradients(1.0), state, PARAMS)
        assert float(optax.global_norm(updates)) == 0
        assert int(skips(state)["spikes"]) == int(skips(state)["skipped_in_a_row"]) == count
    jax.tree.map(np.testing.assert_array_equal, before.inner_state, state.inner_state.inner_state)
    assert float(state.inner_state.mean) == float(before.mean)
    updates, state = rule.update(gradients(0.8), state, PARAMS)  # below three times the mean
    assert float(optax.global_norm(updates)) > 0
    assert int(skips(state)["skipped_in_a_row"]) == 0
    assert int(applied(jnp.int32(7), state)) == 5


def test_spikes_and_non_finite_steps_are_told_apart():
    rule = optimizer(SPIKES, 100)
    state = rule.init(PARAMS)
    for size in (0.1, 0.1, 0.1, 0.1, jnp.nan, 9.0):
        _, state = rule.update(gradients(size), state, PARAMS)
    counts = skips(state)
    assert int(counts["skipped"]) == int(counts["spikes"]) == 1
    assert int(applied(jnp.int32(6), state)) == 4


def test_without_spikes_the_state_is_the_one_of_older_checkpoints():
    state = optimizer(OptimConfig(), 100).init(PARAMS)
    assert isinstance(state.inner_state, tuple)
    assert not hasattr(state.inner_state, "mean")
    assert "spikes" not in skips(state)


def test_a_spike_factor_that_skips_everything_is_refused():
    with pytest.raises(ConfigError, match="spike_factor is above 1"):
        optimizer(OptimConfig(spike_factor=0.5), 10)
