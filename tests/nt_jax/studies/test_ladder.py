"""One rule gives every size: what follows from a width, a budget of parameters or of FLOPs."""

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nt_jax.config import Experiment
from nt_jax.errors import InputError
from nt_jax.studies import ladder
from nt_jax.studies.ladder import Ladder

LADDER = Ladder()
WIDTHS = st.integers(1, 64).map(lambda heads: 32 * heads)


@given(WIDTHS)
def test_a_width_fixes_the_model(width):
    model = ladder.model(LADDER, width)
    assert model.head_size == LADDER.head_size
    assert model.ffn_dim == 4 * width
    assert model.num_layers >= 2
    assert model.num_layers == 2 or abs(width / model.num_layers - 40) <= 40 / model.num_layers


@given(WIDTHS)
def test_a_count_of_parameters_finds_its_width(width):
    assert ladder.width_for_parameters(LADDER, ladder.parameters(LADDER, width)) == width


@given(st.floats(1e6, 3e9))
def test_no_other_width_is_nearer_to_a_count_of_parameters(count):
    def miss(width):
        return abs(math.log(ladder.parameters(LADDER, width) / count))

    width = ladder.width_for_parameters(LADDER, count)
    for other in (width - 32, width + 32):
        assert other < 32 or miss(width) <= miss(other)


@given(WIDTHS, st.floats(1e6, 1e9))
def test_iso_flop_runs_cost_the_same(width, tokens):
    flops = tokens * ladder.flops_per_token(LADDER, width)
    for run in ladder.iso_flop(LADDER, (width, width + 32), flops):
        seen = run.train.steps * run.train.global_batch * LADDER.length
        cost = seen * ladder.flops_per_token(LADDER, run.model.embed_dim)
        # Whole steps: half a step is missing at most.
        assert abs(cost / flops - 1) <= 0.5 / run.train.steps + 1e-9 or run.train.steps == 2


@given(st.floats(1e5, 1e12))
def test_batch_and_rate_follow_the_tokens(tokens):
    batch = ladder.batch_for(LADDER, tokens)
    assert batch & (batch - 1) == 0
    wished = LADDER.base_batch * math.sqrt(tokens / LADDER.base_tokens)
    assert batch == 1 or 2**-0.5 <= batch / wished <= 2**0.5 + 1e-9
    run = ladder.experiment(LADDER, 64, tokens)
    assert run.optim.peak_lr == pytest.approx(1e-3 * math.sqrt(batch / 8))
    assert 0 < run.optim.warmup_steps < run.train.steps


def test_sizes_differ_in_what_the_rule_says_alone():
    small, large = ladder.fixed_tokens(LADDER, (64, 512), 4e6)
    assert (small.train, small.optim, small.data) == (large.train, large.optim, large.data)
    assert small.optim.base_width == 128
    assert small.optim.base_depth == ladder.depth(LADDER, 128) == 3
    assert isinstance(large, Experiment)
    assert large.model.num_layers == 13


def test_flops_budget_finds_its_width():
    tokens = 20 * ladder.parameters(LADDER, 256)
    flops = tokens * ladder.flops_per_token(LADDER, 256)
    assert ladder.width_for_flops(LADDER, flops, 20) == 256


@pytest.mark.parametrize("count", [0, -1, math.nan, math.inf, 10])
def test_budgets_that_make_no_model_are_refused(count):
    with pytest.raises(InputError, match="parameters"):
        ladder.width_for_parameters(LADDER, count)


def test_a_width_between_heads_is_refused():
    with pytest.raises(InputError, match="width 100: multiples of the head size, 32"):
        ladder.model(LADDER, 100)
    with pytest.raises(InputError, match="less than one sequence"):
        ladder.experiment(dataclasses.replace(LADDER, length=512), 64, 100)
