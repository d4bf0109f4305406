"""Apache Beam as the one that works: the same bytes, and errors that arrive."""

import functools
import os

import pytest

from data_pipelines.beam import on_beam
from data_pipelines.builders import build
from nt_jax.errors import InputError
from tests.data_pipelines.test_builders import contents, simulated, write_fasta

TWO = "--runner=DirectRunner --direct_running_mode=multi_processing --direct_num_workers=2"
build_small = functools.partial(
    build, recipe="window=60,stride=50,jitter=10,tokens=9", kind="simulated", shard_windows=100
)


def where(number):
    """Runs in a worker."""
    if number == 3:
        raise InputError("three: no such number; name another")
    return number, os.getpid()


@pytest.mark.slow
def test_beam_writes_the_same_bytes(tmp_path):
    genomes = [
        write_fasta(tmp_path / f"{i}.fa", a=simulated(20_000, i), b=simulated(500, 9 + i))
        for i in range(2)
    ]
    here = build_small(genomes, tmp_path / "here").path
    scratch = tmp_path / "scratch"
    there = build_small(genomes, tmp_path / "there", spread=on_beam(TWO, scratch)).path
    assert contents(there) == contents(here)
    assert not scratch.exists()


@pytest.mark.slow
def test_jobs_run_in_other_processes_and_their_errors_arrive(tmp_path):
    spread = on_beam(TWO, tmp_path / "scratch")
    done = dict(spread(where, [(i,) for i in (0, 1, 2)]))
    assert sorted(done) == [0, 1, 2]
    assert os.getpid() not in done.values()
    with pytest.raises(InputError, match="three: no such number"):
        list(spread(where, [(i,) for i in range(4)]))
    assert list(spread(where, [])) == []
    assert not (tmp_path / "scratch").exists()


def test_unknown_options_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"no pipeline option .* is named --direct_num_wrokers=2"):
        on_beam("--runner=DirectRunner --direct_num_wrokers=2", tmp_path)
