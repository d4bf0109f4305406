"""Planted near-duplicates are found in either direction of either strand, and nothing else is."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines import near
from data_pipelines.builders import build
from data_pipelines.leaks import Sampling
from data_pipelines.near import Labelled, Near
from data_pipelines.similarity import reverse_complement
from data_pipelines.sources import fasta_sources
from data_pipelines.verify import Report, most_near, verify
from tests.data_pipelines.planted import mutated, simulated
from tests.data_pipelines.test_builders import write_fasta

RECIPE = "window=600,stride=550,jitter=10,tokens=90"
AT, FROM, LENGTH = 9_900, 50_050, 4_450
"""Where the leak is in validation, where it is from, both at the start of a window; 8 windows."""


def verified(tmp_path, labelled=(), **contigs: bytes) -> Report:
    """A report on a simulated dataset whose contig b is validation, and c test."""
    path = write_fasta(tmp_path / "g.fa", **contigs)
    held_out = {"validation": ["b"], "test": [name for name in contigs if name == "c"]}
    built = build([path], tmp_path / "out", recipe=RECIPE, kind="simulated", **held_out)
    return verify(built.path, labelled)


def with_leak(tmp_path, leak: bytes) -> Report:
    other = simulated(60_000, 1)
    return verified(tmp_path, a=simulated(120_000), b=other[:AT] + leak + other[AT + len(leak) :])


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("offset", [0, 137, 300])
@pytest.mark.parametrize("identity", [1.0, 0.98])
def test_planted_leaks_are_found(tmp_path, identity: float, offset: int, reverse: bool):
    leak = mutated(simulated(120_000)[FROM + offset :][:LENGTH], identity)
    report = with_leak(tmp_path, reverse_complement(leak) if reverse else leak)
    found = report.near["validation/train"]
    assert found.looked_up == found.windows == report.windows["validation"]
    assert 8 <= found.near <= 9
    assert found.seen is not None
    assert found.seen >= 8 * (identity == 1)
    for example in found.examples:
        assert example.identity == pytest.approx(identity, abs=0.015)
        assert AT - 300 < int(example.here.split(":")[1]) < AT + LENGTH
        assert FROM - 300 < int(example.there.split(":")[1]) < FROM + offset + LENGTH
        assert example.strand == ("-" if reverse else "+")
    assert report.shared == {
        "validation/train": 8 * (identity == 1 and offset == 0 and not reverse)
    }
    leaks = [line for line in report.problems if "leakage" in line]
    assert len(leaks) == len(report.problems) == 1
    assert report.near["train/train"].near == report.near["validation/validation"].near == 0


def test_reverse_complements_of_whole_windows_are_counted_and_a_problem(tmp_path):
    windows = simulated(120_000)
    leak = reverse_complement(windows[FROM : FROM + 600])
    report = with_leak(tmp_path, leak)
    assert report.shared == {"validation/train": 0}
    assert report.shared_reversed == {"validation/train": 1}
    assert "reverse complement" in report.problems[0]
    assert "g b:9901 and g a:50051" in report.problems[0]


def test_every_pair_of_splits_is_looked_at(tmp_path):
    a, b, c = simulated(120_000), simulated(60_000, 1), simulated(60_000, 2)
    b = b[:20_000] + mutated(c[7_000:10_000], 0.98) + b[23_000:40_000] + b[1_111:21_111]
    c = c[:30_000] + mutated(a[5_000:8_000], 0.98) + c[33_000:]
    report = verified(tmp_path, a=a, b=b, c=c)
    counts = {pair: found.near for pair, found in report.near.items()}
    assert 4 <= counts["test/validation"] <= 6
    assert 4 <= counts["test/train"] <= 6
    assert counts["validation/train"] == counts["test/test"] == counts["train/train"] == 0
    assert counts["validation/validation"] >= 60


def test_repeats_of_train_excuse_as_many_in_validation(tmp_path):
    """A genome with a repeat everywhere is no leak: train has it as often as validation."""
    unit = simulated(500, 9)

    def genome(seed: int, copies: int) -> bytes:
        return b"".join(simulated(9_500, 100 * seed + i) + unit for i in range(copies))

    report = verified(tmp_path, a=genome(1, 40), b=genome(2, 10))
    assert report.near["validation/train"].near >= 5
    assert report.near["train/train"].near >= 20
    assert report.problems == ()


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**31))
def test_unrelated_sequences_give_no_alarm(tmp_path_factory, seed: int):
    labelled = [Labelled("t", "test", tuple(simulated(200, seed + i).decode() for i in range(50)))]
    report = verified(
        tmp_path_factory.mktemp("d"),
        labelled,
        a=simulated(100_000, seed + 1_000),
        b=simulated(50_000, seed + 2_000),
    )
    assert report.problems == ()
    assert [found.near for found in report.near.values()] == [0, 0, 0]
    assert (report.tasks[0].near, report.tasks[0].exact, report.tasks[0].seen) == (0, 0, 0)


def test_leaks_into_a_labelled_set_are_found(tmp_path):
    train, held_out = simulated(60_000), simulated(30_000, 1)
    exact = [train[low : low + 300] for low in (0, 437, 500, 59_000)]
    exact.append(reverse_complement(train[7_000:7_300]))
    alike = [mutated(train[low : low + 300], 0.98, low) for low in (333, 10_000, 20_001)]
    alike.append(reverse_complement(alike[0]))
    alike.append(train[30_000:30_200] + simulated(100, 5))
    other = [held_out[:300], simulated(300, 6), train[40_000:40_100] + simulated(200, 7), b"ACGT"]
    sequences = tuple(bases.decode() for bases in [*exact, *alike, *other])
    labelled = [Labelled("t", "test", sequences), Labelled("t", "train", sequences[-1:])]
    report = verified(tmp_path, labelled, a=train, b=held_out)
    test, too_short = report.tasks
    assert (test.exact, test.near) == (5, 10)
    assert test.seen >= 6
    assert (test.sequences, test.looked_up) == (14, 13)
    assert test.contigs == {"g a": 10}
    assert {example.identity for example in test.examples} == {1.0}
    assert (too_short.sequences, too_short.looked_up, too_short.near) == (1, 0, 0)
    assert report.problems == ()


def test_of_very_many_windows_some_are_looked_up(tmp_path, monkeypatch):
    monkeypatch.setattr(near, "sampling", lambda windows, length: Sampling(4, 3))
    leak = mutated(simulated(120_000)[FROM:][:LENGTH], 0.98)
    found = with_leak(tmp_path, leak).near["validation/train"]
    assert found.looked_up == -(-found.windows // 3)
    assert 2 <= found.near <= 3


@pytest.mark.parametrize("window", [20, 30])
def test_windows_too_short_for_kmers_are_no_trouble(tmp_path, window: int):
    path = write_fasta(tmp_path / "g.fa", a=simulated(3_000), b=simulated(2_000, 1))
    recipe = f"window={window},stride={window},jitter=0"
    built = build([path], tmp_path / "out", recipe=recipe, kind="simulated", validation=["b"])
    assert verify(built.path).problems == ()


def test_one_split_is_compared_with_itself(tmp_path):
    path = write_fasta(tmp_path / "g.fa", a=simulated(3_000))
    (source,) = fasta_sources([path])
    source = dataclasses.replace(source, split="train")
    built = build([source], tmp_path / "out", recipe=RECIPE, kind="simulated")
    report = verify(built.path)
    assert list(report.near) == ["train/train"]
    assert report.problems == ()


def test_what_repeats_explain():
    def train(count: int, looked_up: int) -> Near:
        return Near(looked_up, looked_up, count, None, (), (), ())

    assert most_near(train(0, 2_000)) == pytest.approx(0.0045)
    assert most_near(train(47, 2_000)) == pytest.approx(0.075)
    assert most_near(train(500, 2_000)) == most_near(train(0, 5)) == 0.25
