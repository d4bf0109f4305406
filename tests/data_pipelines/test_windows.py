"""The window plan: recipes, starts, and splits that share not one base."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines import windows
from data_pipelines.windows import (
    BOUNDARY,
    ContigSize,
    Recipe,
    count_n,
    plan_windows,
    recipe,
    split_by_blocks,
    split_by_name,
)
from nt_jax.errors import InputError

CUTTINGS = st.builds(
    lambda length, stride: Recipe("any", length, stride, jitter=0, tokens=2),
    st.integers(1, 60),
    st.integers(1, 60),
)


@pytest.mark.parametrize(
    ("name", "length", "stride", "tokens"),
    [("paper6100", 6100, 6050, 1000), ("hf6200", 6200, 6000, 1000), ("hf12k", 12200, 12000, 2017)],
)
def test_published_recipes(name, length, stride, tokens):
    found = recipe(name)
    assert (found.name, found.length, found.stride, found.tokens) == (name, length, stride, tokens)
    assert found.jitter == 100


@pytest.mark.parametrize("name", windows.RECIPES)
def test_named_windows_fill_their_context_from_every_offset(name):
    found = recipe(name)
    assert (found.tokens - 1) * 6 + found.jitter - 1 <= found.length


def test_paper12k_fills_2048_tokens():
    assert recipe("paper12k").tokens == 2048
    assert recipe("paper12k").length >= 12_282


def test_general_recipe_from_text():
    assert recipe("window=1536,stride=1536,jitter=0") == Recipe(
        "window=1536,stride=1536,jitter=0,tokens=257", 1536, 1536, 0, 257
    )
    assert recipe("jitter=5, window=600, stride=300, tokens=50").tokens == 50
    again = recipe("window=600,stride=300,jitter=5,tokens=50")
    assert recipe(again.name) == again


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf620", "did you mean 'hf6200'"),
        ("papr6100", "did you mean 'paper6100'"),
        ("windw=10,stride=10,jitter=0", "did you mean 'window'"),
        ("window=10,stride=10", "jitter is missing"),
        ("window=ten,stride=10,jitter=0", "window=ten is no whole number"),
        ("window=10,window=10,stride=1,jitter=0", "twice"),
        ("window=0,stride=10,jitter=0", "length=0 is below 1"),
        ("window=10,stride=0,jitter=0", "stride=0 is below 1"),
        ("window=10,stride=1,jitter=11", "jitter=11 exceeds"),
        ("window=10,stride=1,jitter=0,tokens=12", "12 tokens"),
    ],
)
def test_bad_recipes_are_refused_in_one_line(text, expected):
    with pytest.raises(InputError, match=expected) as caught:
        recipe(text)
    assert "\n" not in str(caught.value)


@settings(deadline=None)
@given(st.integers(0, 500), CUTTINGS)
def test_windows_lie_in_bounds_and_leave_only_a_remainder(length, cutting):
    starts = plan_windows(length, cutting)
    assert starts.dtype == np.int64
    assert (starts == np.arange(len(starts)) * cutting.stride).all()
    if len(starts):
        assert starts[-1] + cutting.length <= length
    assert len(starts) * cutting.stride + cutting.length > length
    if cutting.stride <= cutting.length:
        covered = np.zeros(length, bool)
        for start in starts:
            covered[start : start + cutting.length] = True
        end = starts[-1] + cutting.length if len(starts) else 0
        assert covered[:end].all()
        assert length - end < cutting.stride or not len(starts)


@settings(deadline=None)
@given(st.text("ACGTN", max_size=80), st.integers(1, 20))
def test_count_n_is_the_count(text, length):
    bases = np.frombuffer(text.encode(), np.uint8)
    starts = np.arange(0, len(text) - length + 1)
    expected = [text[start : start + length].count("N") for start in starts]
    assert count_n(bases, starts, length).tolist() == expected


def sizes(lengths):
    return [ContigSize("genome", f"c{i}", 0, length) for i, length in enumerate(lengths)]


def test_named_contigs_go_to_their_split_whole():
    contigs = [ContigSize("a", "x", 0, 100), ContigSize("a", "y", 0, 100)]
    contigs += [ContigSize("b", "x", 0, 100), ContigSize("b", "z", 0, 100)]
    splits = split_by_name(contigs, ["x"], ["b:z"])
    starts = np.array([0, 50, 90])
    assert [split.of(starts, 10).tolist() for split in splits] == [
        [1] * 3,
        [0] * 3,
        [1] * 3,
        [2] * 3,
    ]
    assert [s.codes[0] for s in split_by_name(contigs, ["b:x"], [])] == [0, 0, 1, 0]


def test_unknown_and_twice_named_contigs_are_refused():
    contigs = [ContigSize("a", "chr20", 0, 10), ContigSize("a", "chr21", 0, 10)]
    with pytest.raises(InputError, match=r"--validation chr2l.*did you mean 'chr21'"):
        split_by_name(contigs, ["chr2l"], [])
    with pytest.raises(InputError, match="--test chr21: this contig is in --validation too"):
        split_by_name(contigs, ["chr21"], ["chr21"])


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 600), min_size=1, max_size=6),
    st.builds(
        lambda length, stride: Recipe("any", length, stride, jitter=0, tokens=2),
        st.integers(1, 40),
        st.integers(1, 40),
    ),
    st.integers(0, 5),
    st.sampled_from([0.05, 0.3]),
)
def test_block_splits_never_share_a_base(lengths, cutting, seed, share):
    contigs = sizes(lengths)
    starts = [plan_windows(length, cutting) for length in lengths]
    splits = split_by_blocks(contigs, starts, cutting, seed, share)
    for contig, own, split in zip(contigs, starts, splits, strict=True):
        codes = split.of(own, cutting.length)
        owner = np.full(contig.length, -1)
        for start, code in zip(own.tolist(), codes.tolist(), strict=True):
            if code == BOUNDARY:
                continue
            window = owner[start : start + cutting.length]
            assert np.isin(window, (-1, code)).all()
            window[:] = code


def test_block_split_takes_about_its_share_in_long_blocks():
    cutting = recipe("hf6200")
    contigs = sizes([12_000_000, 40_000_000, 3_000])
    starts = [plan_windows(contig.length, cutting) for contig in contigs]
    splits = split_by_blocks(contigs, starts, cutting, seed=0)
    assert splits[0].block == 50 * cutting.stride
    codes = np.concatenate([s.of(own, 6200) for s, own in zip(splits, starts, strict=True)])
    assert 0.05 <= np.mean(codes == 1) <= 0.07
    assert np.mean(codes == BOUNDARY) < 0.01


def test_block_split_depends_on_the_seed_but_not_on_the_order_of_files():
    cutting = recipe("window=60,stride=60,jitter=0")
    contigs = [ContigSize(source, "c", 0, 60_000) for source in "abc"]
    starts = [plan_windows(60_000, cutting)] * 3

    def chosen(order, seed):
        splits = split_by_blocks([contigs[i] for i in order], starts, cutting, seed)
        return {contigs[i].source: s.codes.tolist() for i, s in zip(order, splits, strict=True)}

    assert chosen([0, 1, 2], seed=0) == chosen([2, 0, 1], seed=0)
    assert chosen([0, 1, 2], seed=0) != chosen([0, 1, 2], seed=1)


def test_blocks_without_windows_are_never_the_validation_split():
    """The first blocks of many chromosomes are nothing but N."""
    cutting = recipe("window=60,stride=60,jitter=0")
    starts = plan_windows(60_000, cutting)[900:]
    for seed in range(20):
        (split,) = split_by_blocks(sizes([60_000]), [starts], cutting, seed)
        assert (split.of(starts, 60) == 1).sum() > 0


def test_a_tiny_genome_still_gets_a_validation_block():
    cutting = recipe("hf6200")
    starts = plan_windows(48_502, cutting)  # phage lambda
    (split,) = split_by_blocks(sizes([48_502]), [starts], cutting, seed=0)
    codes = split.of(starts, cutting.length).tolist()
    assert codes.count(1) >= 1
    assert codes.count(0) >= 1
