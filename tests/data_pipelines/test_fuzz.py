"""A seeded part of benchmarks/fuzz.py: damaged real files are refused, or nothing is lost."""

import dataclasses
import itertools
import json
import os
import time

import fuzz
import numpy as np
import pytest
from fuzzing import genomes, panels
from fuzzing.mutants import generator, mutant
from fuzzing.seeds import CONTAINERS, seeds
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_pipelines.fasta import read_fasta
from data_pipelines.survey import Plan
from data_pipelines.windows import recipe
from nt_jax.errors import InputError

SEED = 2


@pytest.fixture(scope="module")
def excerpts(real_data):
    return seeds(real_data)


def unharmed(excerpts, family: str):
    """Every excerpt as it is, in every container."""
    for number, own in enumerate(excerpts[family == "vcf"]):
        for container in (*CONTAINERS, "bcf") if own.bcf else CONTAINERS:
            made = mutant(excerpts, generator(0, number), number)
            yield dataclasses.replace(made, seed=own, container=container, data=own.file(container))


def test_the_excerpts_themselves_are_read(excerpts, tmp_path, monkeypatch):
    # None of its windows is longer than the excerpts.
    short = recipe("window=300,stride=200,jitter=0")
    monkeypatch.setattr(genomes, "drawn_recipe", lambda rng: short)
    for family, check in fuzz.CHECKS.items():
        for number, whole in enumerate(unharmed(excerpts, family)):
            assert whole.unharmed
            assert check(whole, generator(SEED, number), tmp_path) == "accepted"


def test_two_thousand_mutants(real_data):
    rows = list(fuzz.run(real_data, SEED, fuzz.chunks(list(range(2_000))), workers=1))
    assert [row for row in rows if row["outcome"] == "failed"] == []
    assert sorted(row["number"] for row in rows) == list(range(2_000))
    for family in fuzz.CHECKS:
        kinds = {row["kind"] for row in rows if row["family"] == family}
        assert len(kinds) > 25
        read = [row for row in rows if row["family"] == family and row["outcome"] == "accepted"]
        assert sum(not row["unharmed"] for row in read) > 100


def test_builds_of_mutants_are_read_back_from_disk(excerpts, tmp_path, monkeypatch):
    monkeypatch.setattr(genomes, "BUILDS", 1)
    outcomes = []
    for number in range(0, 80, 2):
        rng = generator(SEED, number)
        outcomes.append(genomes.check(mutant(excerpts, rng, number), rng, tmp_path))
    assert outcomes.count("accepted") > 10


def losing_a_base(path):
    for contig in read_fasta(path):
        yield dataclasses.replace(contig, bases=contig.bases[:-1])


def reading_a_letter_wrongly(path):
    for contig in read_fasta(path):
        yield dataclasses.replace(contig, bases=np.where(contig.bases == 84, 65, contig.bases))


def losing_a_count(path):
    for contig in read_fasta(path):
        yield dataclasses.replace(contig, soft_masked=contig.soft_masked + 1)


@pytest.mark.parametrize("reader", [losing_a_base, reading_a_letter_wrongly, losing_a_count])
def test_a_reader_that_loses_something_is_found_out(excerpts, tmp_path, monkeypatch, reader):
    monkeypatch.setattr(genomes, "read_fasta", reader)
    with pytest.raises(AssertionError, match="than the naive parser"):
        genomes.check(next(unharmed(excerpts, "fasta")), generator(0, 0), tmp_path)


def test_a_plan_that_drops_a_window_is_found_out(excerpts, tmp_path, monkeypatch):
    whole = Plan.kept
    monkeypatch.setattr(Plan, "kept", lambda *of: tuple(column[1:] for column in whole(*of)))
    with pytest.raises(AssertionError, match="windows kept"):
        genomes.check(next(unharmed(excerpts, "fasta")), generator(0, 0), tmp_path)


def test_alleles_that_are_lost_or_moved_are_found_out(excerpts, tmp_path, monkeypatch):
    whole = panels.read_alleles
    made = next(unharmed(excerpts, "vcf"))

    def lost(*of):
        return itertools.islice(whole(*of), 1, None)

    def moved(*of):
        return ((name, own._replace(alt=own.alt + b"A")) for name, own in whole(*of))

    for reader, message in ((lost, "counted"), (moved, "instead of")):
        monkeypatch.setattr(panels, "read_alleles", reader)
        with pytest.raises(AssertionError, match=message):
            check_often(made, tmp_path)


def check_often(made, folder):
    """Windows are drawn: not all of them have alleles."""
    for number in range(50):
        panels.check(made, generator(0, number), folder)


def test_a_malformed_file_that_is_read_is_found_out(excerpts, tmp_path, monkeypatch):
    made = next(unharmed(excerpts, "fasta"))
    contigs = [
        dataclasses.replace(contig)
        for contig in read_fasta(_written(tmp_path / "whole.fa", made.data))
    ]
    monkeypatch.setattr(genomes, "read_fasta", lambda path: contigs)
    with pytest.raises(AssertionError, match="read, though it is malformed"):
        genomes.check(dataclasses.replace(made, data=made.data + b"!"), generator(0, 0), tmp_path)


def _written(path, data):
    path.write_bytes(data)
    return path


def dying(data, seed, pipe, current):
    """A worker that one mutant kills and another one stops."""
    while (chunk := pipe.recv()) is not None:
        for number in range(*chunk):
            if number == 3:
                os.abort()
            if number == 7:
                time.sleep(600)
            pipe.send({"number": number, "outcome": "accepted", "error": ""})


def test_mutants_that_kill_or_stop_a_worker_are_failures(real_data, monkeypatch):
    monkeypatch.setattr(fuzz, "worker", dying)
    monkeypatch.setattr(fuzz, "HANG", 5.0)
    rows = list(fuzz.run(real_data, SEED, [range(0, 10)], workers=1))
    assert sorted(row["number"] for row in rows) == list(range(10))
    failed = {row["number"]: row["error"] for row in rows if row["outcome"] == "failed"}
    assert failed == {3: "process ended with -6", 7: "hangs"}


def test_a_run_goes_on_where_it_was_stopped(tmp_path):
    state = tmp_path / "state.jsonl"
    rows = [(1, 0, "refused"), (2, 1, "refused"), (1, 3, "accepted"), (1, 4, "failed")]
    keys = ("seed", "number", "outcome")
    lines = [json.dumps(dict(zip(keys, row, strict=True))) for row in rows]
    state.write_text("\n".join([*lines, lines[0][:9]]))
    assert set(fuzz.finished(state, 1, 10)) == {0, 3}
    assert set(fuzz.finished(state, 1, 3)) == {0}
    assert fuzz.chunks([1, 2, 4, 5, 6, 9]) == [range(1, 3), range(4, 7), range(9, 10)]


@settings(max_examples=500, deadline=None)
@given(st.text(">ACGTacgtnNUuRry \t\r\n:-19*e\0é", max_size=60).map(str.encode))
@example(b">c:1-4\nACGT\n>c:5-6\nAC")
@example(b">a\rACGT\r")
def test_any_text_is_refused_or_read_as_the_naive_parser_reads_it(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.fa"
    path.write_bytes(text)
    try:
        contigs = list(read_fasta(path))
    except InputError as error:
        genomes.one_line(error, path)
    else:
        genomes.same_contigs(contigs, genomes.parse(text))
