"""muP and CompleteP as factors: the same training as with multipliers in the forward pass, and
changes of the outputs that do not grow with the width."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nt_jax import optim, transfer
from nt_jax.config import ConfigError, Experiment, ModelConfig, OptimConfig
from nt_jax.model.factory import build_model
from nt_jax.step import init_state, make_train_step
from nt_jax.tokenizers import KmerTokenizer

TOKENIZER = KmerTokenizer(k=2, vocabulary="v2")


def experiment(width, layers, **rule):
    model = ModelConfig(
        num_layers=layers, num_heads=width // 8, embed_dim=width, ffn_dim=4 * width,
        max_positions=32, embed_init_std=0.02,
    )  # fmt: skip
    rates = OptimConfig(
        schedule="constant", init_lr=0.0, warmup_steps=0, peak_lr=2e-2, eps=1e-20, **rule
    )
    return Experiment(name="test", model=model, optim=rates)


def tokens():
    first, end = TOKENIZER.kmer_ids
    return jnp.asarray(np.random.default_rng(0).integers(first, end, (4, 24)), jnp.int32)


def losses(experiment, model, rates, params=None, steps=4):
    """Loss of each step, and the last parameters."""
    rule = optim.optimizer(experiment.optim, 10, rates)
    state = init_state(model, rule, 0)
    if params is not None:
        state = state._replace(params=params, opt_state=rule.init(params))
    schedule = optim.learning_rate(experiment.optim, 10)
    step = jax.jit(make_train_step(model, rule, schedule, TOKENIZER, experiment))
    found = []
    for _ in range(steps):
        state, metrics = step(state, tokens())
        found.append(float(metrics["loss"]))
    return found, state.params


def test_factors_train_as_multipliers_in_the_forward_pass_do():
    one = experiment(16, 2, base_width=16, base_depth=1)
    mine, trained = losses(
        one, transfer.starting(build_model(one.model, TOKENIZER), one), transfer.rates(one)
    )

    def halved(call, args, kwargs, context):
        y = call(*args, **kwargs)
        inner = context.method_name == "__call__" and context.module.name in ("out", "fc2")
        return 0.5 * y if inner else y

    multiplied, plain = losses(one, build_model(one.model, TOKENIZER, intercept=halved), None)
    np.testing.assert_allclose(mine, multiplied, rtol=2e-4)
    np.testing.assert_allclose(
        trained["nt/block/ffn/fc2"]["w"], 0.5 * plain["nt/block/ffn/fc2"]["w"], atol=1e-4
    )
    without, _ = losses(one, build_model(one.model, TOKENIZER), None)
    assert np.abs(np.subtract(mine, without)).max() > 1e-2


def test_without_a_base_and_at_the_base_nothing_changes():
    for rule in ({}, {"base_width": 16, "base_depth": 2}):
        one = experiment(16, 2, **rule)
        params = build_model(one.model, TOKENIZER).init(jax.random.key(0))
        jax.tree.map(np.testing.assert_array_equal, params, transfer.started(params, one))
    assert transfer.rates(experiment(16, 2)) is None
    rates = transfer.rates(experiment(16, 2, base_width=16))(params)
    assert set(jax.tree.leaves(rates)) == {1.0}


def test_the_table_of_factors():
    one = experiment(32, 4, base_width=8, base_depth=2)
    expected = {
        "nt/block/attention/query/w": (1, 1 / 4),
        "nt/block/ffn/fc1/w": (1, 1 / 4),
        "nt/head/transform/w": (1, 1 / 4),
        "nt/block/attention/out/w": (1 / 2, 1 / 8),
        "nt/block/ffn/fc2/w": (1 / 2, 1 / 8),
        "nt/block/attention/out/b": (1 / 2, 1 / 2),
        "nt/block/attention/query/b": (1, 1),
        "nt/head/logits/w": (1 / 2, 1 / 4),
        "nt/head/logits/b": (1, 1),
        "nt/embed/token/embeddings": (1, 1),
        "nt/block/ffn_norm/scale": (1, 1),
    }
    assert {path: transfer.factors(path, one.model, one.optim) for path in expected} == expected


@pytest.mark.parametrize("carried", [True, False], ids=["muP", "one rate"])
def test_changes_of_the_outputs_do_not_grow_with_the_width(carried):
    """The "coordinate check" of Yang et al. 2022, section F.1, after a few steps."""
    moved = []
    for width in (16, 128):
        one = experiment(width, 2, base_width=16 if carried else 0)
        one = dataclasses.replace(one, optim=dataclasses.replace(one.optim, peak_lr=2e-3))
        model = transfer.starting(build_model(one.model, TOKENIZER), one)
        start = init_state(model, optim.optimizer(one.optim, 10), 0).params
        _, end = losses(one, model, transfer.rates(one), steps=3)
        before, after = (model.encode(params, tokens()) for params in (start, end))
        moved.append(float(jnp.sqrt(jnp.mean(jnp.square(after - before)))))
    growth = moved[1] / moved[0]
    assert growth < 1.5 if carried else growth > 1.8, growth


def test_decay_of_a_matrix_does_not_depend_on_its_factor():
    one = experiment(32, 2, base_width=8)
    rule = dataclasses.replace(one.optim, name="adamw", weight_decay=0.1)
    params = build_model(one.model, TOKENIZER).init(jax.random.key(0))
    chain = optim.optimizer(rule, 10, transfer.rates(one))
    zeros = optax.tree.zeros_like(params)
    updates, _ = chain.update(zeros, chain.init(params), params)
    for name in ("nt/block/attention/query", "nt/head/logits"):
        np.testing.assert_allclose(updates[name]["w"], -2e-3 * params[name]["w"], rtol=1e-5)


def test_a_base_below_zero_is_refused():
    with pytest.raises(ConfigError, match="base_depth=-1"):
        transfer.rates(experiment(16, 2, base_depth=-1))
