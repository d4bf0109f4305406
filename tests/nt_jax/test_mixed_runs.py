"""Runs on several sources at once: people, a genome, a species of its own; weights that change."""

import dataclasses
import json
import signal

import numpy as np
import pytest

from data_pipelines.builders import build
from data_pipelines.genotypes import open_panel
from data_pipelines.sources import fasta_sources
from nt_jax import cli, workdir
from nt_jax.config import Experiment
from nt_jax.errors import InputError
from tests.nt_jax import runs
from tests.nt_jax.test_train import assert_same_parameters, interrupt

WEIGHTS = "random=1,GRCh38_chr22_16600000-16800000=2,other=1"
CHANGED = f"{WEIGHTS};equal@120"


@pytest.fixture(scope="module")
def folder(real_data, tmp_path_factory):
    """200 kb of chromosome 22 with forty people, and two made-up species."""
    folder = tmp_path_factory.mktemp("mixed")
    rng = np.random.default_rng(0)
    for name in ("random", "other"):
        letters = "".join(rng.choice(list("ACGT"), 20_000))
        (folder / f"{name}.fa").write_text(f">{name}\n{letters}\n")
    human = real_data / "genomes" / "human" / "GRCh38_chr22_16600000-16800000.fa.gz"
    panel = real_data / "variants" / "1kg30x_chr22_16.6-16.8Mb_3202samples_GRCh38.vcf.gz"
    sources = fasta_sources([folder / "random.fa", human, folder / "other.fa"])
    people = open_panel(panel, open_panel(panel).samples[:40])
    sources[1] = dataclasses.replace(sources[1], panels=(people,))
    build(sources, folder / "data", recipe="window=128,stride=100,jitter=8,tokens=33")
    runs.make_experiment(folder)
    return folder


def train(folder, name, *more):
    where = ["--data", folder / "data", "--workdir", folder / name]
    return ["pretrain", folder / "tiny.py", *where, *more]


def traced(folder, name, step, capsys):
    assert cli.main(["data", "trace", str(folder / name), "--step", str(step), "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.slow
def test_a_mixture_killed_and_resumed_gives_the_same_bits(folder, capsys):
    """SIGKILL, another number of workers, and weights that change in between."""
    whole = runs.run(*train(folder, "whole", "--data.weights", CHANGED))
    assert whole.returncode == 0, whole.stderr
    killed = folder / "killed"

    def lines():
        path = killed / "metrics.jsonl"
        return len(path.read_text().splitlines()) if path.exists() else 0

    first = train(folder, "killed", "--data.weights", WEIGHTS)
    assert interrupt(first, lambda: lines() >= 20, signal.SIGKILL) == -signal.SIGKILL
    then = train(folder, "killed", "--data.weights", CHANGED, "--data.workers", "2")
    assert interrupt(then, lambda: lines() >= 55, signal.SIGKILL) == -signal.SIGKILL
    last = runs.run(*then)
    assert last.returncode == 0, last.stderr
    assert runs.rows(killed) == runs.rows(folder / "whole")
    assert_same_parameters(killed, folder / "whole")
    (event,) = workdir.read_config(killed)[1]["lineage"]
    assert event["data.weights"] == [WEIGHTS, CHANGED]
    assert 0 < event["step"] <= 120
    early = [row for step in range(1, 121, 8) for row in traced(folder, "killed", step, capsys)]
    sources = [row["source"] for row in early]
    shares = [sources.count(name) / len(sources) for name in ("random", "other")]
    assert np.abs(np.array(shares) - 0.25).max() < 0.12
    rows = [row for step in range(121, 241, 8) for row in traced(folder, "killed", step, capsys)]
    people = {row["sample"] for row in rows}
    assert None in people
    assert len(people) > 10
    assert all((row["sample"] is None) == (row["source"] in ("random", "other")) for row in rows)


def test_bad_weights_leave_nothing_behind(folder, capsys):
    arguments = [str(part) for part in train(folder, "bad", "--data.weights", "random=1")]
    assert cli.main(arguments) == 2
    assert "is not named; give every source its weight" in capsys.readouterr().err
    assert not (folder / "bad").exists()


def claim(folder, weights, step):
    experiment = Experiment(name="x")
    data = dataclasses.replace(experiment.data, weights=weights)
    workdir.claim(folder, dataclasses.replace(experiment, data=data), "abc", None, step)


def test_only_weights_of_steps_to_come_may_change(tmp_path):
    claim(tmp_path, "equal", 0)
    claim(tmp_path, "equal;group@100", 60)
    claim(tmp_path, "equal;group@80", 60)
    with pytest.raises(InputError, match=r"add ';RULE@STEP' with a step from 90 on"):
        claim(tmp_path, "equal", 90)
    with pytest.raises(InputError, match=r"data\.weights=equal;group@80, this one has group"):
        claim(tmp_path, "group;group@80", 90)
    claim(tmp_path, "equal;group@80;equal@90", 90)
    steps = [event["step"] for event in workdir.read_config(tmp_path)[1]["lineage"]]
    assert steps == [60, 60, 90]
