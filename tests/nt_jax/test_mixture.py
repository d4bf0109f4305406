"""Mixtures of sources: exact shares, no window skipped, changes at a step."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nt_jax import mixture
from nt_jax.errors import InputError
from nt_jax.mixture import Component, Part
from nt_jax.order import TrainOrder, locate

CARD = {
    "sources": [
        {
            "name": "human",
            "windows": {"train": 5000, "test": 10},
            "group": "mammals",
            "weight": 3.0,
        },
        {"name": "empty", "windows": {"train": 0, "test": 5}, "group": "mammals", "weight": 1.0},
        {"name": "mouse", "windows": {"train": 3000, "test": 0}, "group": "mammals", "weight": 1.0},
        {"name": "yeast", "windows": {"train": 200, "test": 0}, "group": "fungi", "weight": 1.0},
    ]
}
BLOCK = 4096


@pytest.fixture(scope="module", autouse=True)
def small_blocks():
    """Blocks of 4,096 rows: the same with less to count."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mixture, "BLOCK", BLOCK)
        yield


SOURCES = mixture.components(CARD, "train")
BATCH = 64
GOLDEN = [(8187, 0), (8196, 106), (7861, 7), (1664, 2000)]


def make(text: str, sources=SOURCES, batch: int = BATCH, seed: int = 5) -> TrainOrder:
    total = sum(source.windows for source in sources)
    phases = mixture.phases(text, sources, batch, seed)
    return TrainOrder(total, batch, seed, 1, 0.0, phases)


def indexes(order: TrainOrder, start: int, stop: int) -> np.ndarray:
    """Record numbers of the rows from position `start` to `stop`."""
    refs = (locate(order, *divmod(p, order.global_batch)) for p in range(start, stop))
    return np.array([ref.index for ref in refs])


def by_source(found: np.ndarray, sources=SOURCES) -> list[int]:
    edges = [source.first for source in sources] + [sources[-1].first + sources[-1].windows]
    return np.histogram(found, edges)[0].tolist()


def test_sources_follow_one_another_in_the_records():
    assert [(c.source, c.first, c.windows) for c in SOURCES] == [
        ("human", 0, 5000),
        ("mouse", 5000, 3000),
        ("yeast", 8000, 200),
    ]
    assert [(c.source, c.first) for c in mixture.components(CARD, "test")] == [
        ("human", 0),
        ("empty", 10),
    ]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("proportional", [5000 / 8200, 3000 / 8200, 200 / 8200]),
        ("equal", [1 / 3, 1 / 3, 1 / 3]),
        ("group", [0.5 * 5 / 8, 0.5 * 3 / 8, 0.5]),
        ("manifest", [0.6, 0.2, 0.2]),
        ("temperature=1", [5000 / 8200, 3000 / 8200, 200 / 8200]),
        ("temperature=2", np.sqrt([5000, 3000, 200]) / np.sqrt([5000, 3000, 200]).sum()),
        ("human=2,mouse=1,yeast=1", [0.5, 0.25, 0.25]),
        ("mammals=1,yeast=3", [0.25 * 5 / 8, 0.25 * 3 / 8, 0.75]),
    ],
)
def test_rules(rule, expected):
    np.testing.assert_allclose(mixture.shares(rule, SOURCES), expected, rtol=1e-12)
    found = mixture.quotas(rule, SOURCES)
    assert found.sum() == BLOCK
    assert np.abs(found / BLOCK - expected).max() <= 1 / BLOCK


def test_every_block_has_the_exact_shares():
    order = make("equal")
    quotas = mixture.quotas("equal", SOURCES).tolist()
    found = indexes(order, 0, 2 * BLOCK)
    assert by_source(found[:BLOCK]) == by_source(found[BLOCK:]) == quotas
    assert not np.array_equal(found[:BLOCK], found[BLOCK:])
    # Not one source after the other: any thousand rows have about their shares.
    assert max(abs(count - 333) for count in by_source(found[:1000])) < 80


def test_every_window_of_a_source_is_read_before_any_again():
    found = indexes(make("group"), 0, 8 * BLOCK)
    yeast = found[found >= 8000]
    for epoch in range(70):
        assert sorted(yeast[epoch * 200 : (epoch + 1) * 200]) == list(range(8000, 8200))
    assert yeast[:200].tolist() != yeast[200:400].tolist()
    human = found[found < 5000]
    assert len(set(human[:5000].tolist())) == 5000


@settings(max_examples=25, deadline=None)
@given(
    windows=st.lists(st.integers(1, 300), min_size=1, max_size=6),
    change=st.integers(1, 40),
    batch=st.integers(1, 50),
    seed=st.integers(0, 2**40),
)
def test_a_change_of_weights_skips_nothing_and_repeats_nothing(windows, change, batch, seed):
    """Each source's rows are one endless sequence of epochs, whatever the weights."""
    firsts = np.cumsum([0, *windows[:-1]]).tolist()
    sources = [
        Component(f"s{i}", first, count, {})
        for i, (first, count) in enumerate(zip(firsts, windows, strict=True))
    ]
    order = make(f"equal;temperature=3@{change}", sources, batch, seed)
    found = indexes(order, 0, 1500)
    for source in sources:
        own = found[(found >= source.first) & (found < source.first + source.windows)]
        for epoch in range(len(own) // source.windows):
            part = own[epoch * source.windows : (epoch + 1) * source.windows]
            assert len(set(part.tolist())) == source.windows
    before = make("equal", sources, batch, seed)
    end = min(1500, change * batch)
    np.testing.assert_array_equal(found[:end], indexes(before, 0, end))


def test_proportional_is_the_order_without_a_mixture():
    order = make("proportional")
    assert order.phases == ()
    assert indexes(order, 0, 50).tolist() == indexes(make(" proportional"), 0, 50).tolist()


def test_parts_and_their_steps():
    assert mixture.parse("equal; group@100 ;temperature=2@2000") == (
        Part(0, "equal"),
        Part(100, "group"),
        Part(2000, "temperature=2"),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("eqal", r"'eqal' is no rule; did you mean 'equal'\?"),
        ("", "'' is no rule"),
        ("species", "the data card says nothing of the species of human; build the dataset from"),
        ("temperature=0", "'0' is no positive number"),
        ("temperature=warm", "'warm' is no positive number"),
        ("human=1,mouse=1", "yeast is not named; give every source its weight"),
        ("human=1,mouse=nan,yeast=1", "'nan' is no positive number"),
        ("human=1,mose=1,yeast=1", r"'mose' is no source and no group; did you mean 'mouse'"),
        ("human=1,mammals=1,yeast=1", "mammals is named twice, or its group is"),
        ("human=1,mouse=1,yeast=1e-9", "yeast would be read less than once in 4,096 rows"),
        ("equal;group", "'group' needs its step: RULE@STEP"),
        ("equal;group@x", "'group@x' needs its step"),
        ("equal;group@9;equal@9", "'equal@9' begins at step 9, the part before it at 9"),
        ("equal;group@0", "begins at step 0, the part before it at 0"),
    ],
)
def test_bad_weights_are_one_clear_line(text, message):
    with pytest.raises(InputError, match=message):
        mixture.phases(text, SOURCES, BATCH, 0)


def test_the_order_of_a_mixture_is_that_of_every_earlier_release(monkeypatch):
    """Golden values: a change here changes the windows of every run that is resumed."""
    monkeypatch.setattr(mixture, "BLOCK", 1 << 16)
    order = make("equal;group@1000", seed=7)
    positions = [(0, 0), (999, 63), (1000, 0), (500_000, 17)]
    found = [dataclasses.astuple(locate(order, *place))[:2] for place in positions]
    assert found == GOLDEN
