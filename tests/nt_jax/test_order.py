"""The order of training: every window once an epoch, the same in every release."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.windows import Recipe
from nt_jax.order import TrainOrder, count_offsets, locate

POSITIONS = [(0, 0), (20, 5), (1_000_000, 63)]
GOLDEN = [
    (463, 0, 98, False, 1610199388),
    (967, 1, 51, True, 4074086357),
    (407, 64000, 84, False, 2794655580),
]


@settings(max_examples=30, deadline=None)
@given(
    windows=st.integers(1, 40),
    batch=st.integers(1, 9),
    seed=st.integers(0, 2**64),
    epoch=st.integers(0, 3),
)
def test_every_epoch_reads_every_window_once(windows, batch, seed, epoch):
    order = TrainOrder(windows, batch, seed, offsets=5, reverse_complement=0.5)
    positions = range(epoch * windows, (epoch + 1) * windows)
    refs = [locate(order, *divmod(position, batch)) for position in positions]
    assert sorted(ref.index for ref in refs) == list(range(windows))
    assert {ref.epoch for ref in refs} == {epoch}
    assert all(0 <= ref.offset < 5 for ref in refs)


def test_epochs_and_seeds_have_different_orders():
    def epoch(number, seed):
        order = TrainOrder(100, 100, seed, 1, 0.5)
        return tuple(locate(order, number, row).index for row in range(100))

    assert len({epoch(number, seed) for number in range(3) for seed in range(3)}) == 9


def test_offsets_and_strands_are_drawn_evenly():
    order = TrainOrder(50, 2000, seed=1, offsets=10, reverse_complement=0.25)
    refs = [locate(order, 3, row) for row in range(2000)]
    counts = np.bincount([ref.offset for ref in refs], minlength=10)
    assert counts.min() > 150
    assert np.mean([ref.reverse for ref in refs]) == pytest.approx(0.25, abs=0.04)
    by_offset = [np.mean([r.reverse for r in refs if r.offset == o]) for o in range(10)]
    assert np.ptp(by_offset) < 0.2
    for share, kind in ((0.0, {False}), (1.0, {True})):
        fixed = dataclasses.replace(order, reverse_complement=share)
        assert {locate(fixed, 0, row).reverse for row in range(50)} == kind


def test_the_order_is_that_of_every_earlier_release():
    """Golden values: a change here changes the windows of every run that is resumed."""
    order = TrainOrder(1000, 64, seed=7, offsets=100, reverse_complement=0.5)
    found = [dataclasses.astuple(locate(order, step, row)) for step, row in POSITIONS]
    assert found == GOLDEN


@pytest.mark.parametrize(
    ("recipe", "length", "offsets"),
    [
        (Recipe("hf6200", 6200, 6000, 100, 1000), 1000, 100),
        (Recipe("hf6200", 6200, 6000, 100, 1000), 1020, 87),
        (Recipe("hf6200", 6200, 6000, 100, 1000), 1034, 3),
        (Recipe("hf6200", 6200, 6000, 100, 1000), 500, 6200 - 499 * 6 + 1),
        (Recipe("x", 1536, 1536, 0, 257), 257, 1),
        (Recipe("x", 1540, 1536, 0, 257), 257, 1),
    ],
)
def test_offset_rule(recipe, length, offsets):
    assert count_offsets(recipe, 6, length) == offsets
