"""Verification finds the planted fault and names it."""

import json

import numpy as np
import pytest

from data_pipelines.builders import build
from data_pipelines.verify import verify
from nt_jax.errors import InputError
from tests.data_pipelines.test_builders import RECIPE, simulated, write_fasta


@pytest.fixture
def make(tmp_path):
    """Builds a simulated dataset from named contigs."""

    def _make(validation=(), **contigs):
        path = write_fasta(tmp_path / "g.fa", **contigs)
        return build(
            [path], tmp_path / "out", recipe=RECIPE, kind="simulated", validation=validation
        ).path

    return _make


def test_a_sound_dataset_has_no_problems(make):
    path = make(a=simulated(20_000) + b"N" * 20 + simulated(5_000, 1))
    report = verify(path)
    card = json.loads((path / "datacard.json").read_text())
    assert report.problems == ()
    assert report.windows == card["splits"]
    assert report.shards == len(card["shards"])
    assert report.overlapping == {"validation/train": 0}
    assert 0 < max(report.n_share.values()) < 0.01
    assert report.kind == "simulated"


@pytest.mark.parametrize("position", [0.1, 0.5, 0.99])
def test_one_flipped_bit_is_found_and_named(make, position):
    path = make(a=simulated(20_000))
    shard = sorted(path.glob("*train*"))[0]
    content = bytearray(shard.read_bytes())
    content[int(len(content) * position)] ^= 1
    shard.write_bytes(content)
    report = verify(path)
    assert [line for line in report.problems if shard.name in line and "damaged" in line]
    assert report.shards == len(json.loads((path / "datacard.json").read_text())["shards"]) - 1


def test_a_missing_and_a_foreign_shard_are_named(make):
    path = make(a=simulated(20_000))
    shard = sorted(path.glob("*validation*"))[0]
    shard.rename(path / "genome_windows-train.array_record-00007-of-00008")
    report = verify(path)
    assert any(shard.name in line and "missing" in line for line in report.problems)
    assert any("00007-of-00008" in line for line in report.problems)


def test_the_same_bases_in_two_splits_are_leakage(make):
    bases = simulated(3_000)
    report = verify(make(a=bases, b=bases[:1_000], validation=["b"]))
    assert report.shared == {"validation/train": 19}
    assert report.overlapping == {"validation/train": 0}
    (problem,) = report.problems
    assert "19 windows have the same bases" in problem
    assert "g b:1 and g a:1" in problem


def test_repeats_within_a_split_are_counted_only(make):
    report = verify(make(a=simulated(3_000) * 2, b=simulated(600, 1), validation=["b"]))
    assert report.duplicates == {"train": 59, "validation": 0}
    assert report.problems == ()


def test_splits_that_overlap_are_found(make):
    """A datacard that calls a train shard validation stands for a faulty split."""
    path = make(a=simulated(20_000))
    card = json.loads((path / "datacard.json").read_text())
    report = verify(path)
    for shard in card["shards"]:
        shard["split"] = {"train": "validation", "validation": "train"}[shard["split"]]
    card["shards"].append({**card["shards"][0], "split": "train"})
    (path / "datacard.json").write_text(json.dumps(card))
    again = verify(path)
    assert again.overlapping["validation/train"] >= report.windows["train"]
    assert any("overlap" in line for line in again.problems)


def test_letters_lengths_and_counts_are_checked(make):
    path = make(a=simulated(20_000))
    card = json.loads((path / "datacard.json").read_text())
    card["recipe"]["length"] = 61
    card["splits"]["train"] += 1
    (path / "datacard.json").write_text(json.dumps(card))
    problems = verify(path).problems
    assert any("record 0 has 60 bases, not 61" in line for line in problems)
    assert any(line.startswith("train: ") for line in problems)
    assert any("more problems" in line for line in problems)


def test_what_is_no_dataset_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        verify(tmp_path / "none")
    with pytest.raises(InputError, match=r"no datacard\.json"):
        verify(tmp_path)
    (tmp_path / "datacard.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        verify(tmp_path)


def test_the_report_is_plain_data(make):
    import dataclasses

    report = verify(make(a=simulated(9_000)))
    assert json.loads(json.dumps(dataclasses.asdict(report)))["problems"] == []
    assert not any(isinstance(v, np.generic) for v in dataclasses.asdict(report).values())
