"""What `study plan` says of runs, against the formulas and against `nt-jax plan`."""

import json
import math
import re

import pytest

from nt_jax import cli
from nt_jax.config import to_dict
from nt_jax.plan import prediction, topology
from nt_jax.registry import find_experiment
from nt_jax.studies import plan
from nt_jax.studies.find import find_study


def planned(capfd, *words: str) -> tuple[int, str, str]:
    code = cli.main(["study", "plan", *words])
    out, err = capfd.readouterr()
    return code, out, err


def test_the_table_of_the_paper_lines_up(capfd):
    code, out, _ = planned(capfd, "nt_paper")
    assert code == 0
    header, *rows, total = out.split("\n\n")[0].splitlines()
    assert len(rows) == 11
    assert rows[4].split() == [
        "nt_v1_2b5_1000g", "2,547,800,585", "2,517,647,360", "300B", "292,969", "4.83e+21",
        "28.5", "382",
    ]  # fmt: skip
    ends = [match.end() for match in re.finditer(r"\S+( \S+)*", header)]
    for row in rows:
        assert [match.end() for match in re.finditer(r"\S+", row)][1:] == ends[1:], row
    assert total.split()[:2] == ["11", "runs"]


def test_numbers_for_programs_are_those_of_the_formulas(capfd):
    code, out, _ = planned(capfd, "miniature", "--json")
    assert code == 0
    shown = json.loads(out)
    study = find_study("miniature")
    assert [one["run"] for one in shown["runs"]] == [run.name for run in study.runs]
    for one, run in zip(shown["runs"], study.runs, strict=True):
        train, length = run.experiment.train, run.experiment.data.sequence_length
        assert (length, run.experiment.tokenizer.k) == (512, 3)
        assert one["tokens"] == train.steps * train.global_batch * 512
        assert one["bases"] == train.steps * train.global_batch * 511 * 3
        # Parameters and two moments, and a few counters.
        assert one["state_bytes"] == pytest.approx(12 * one["parameters"], abs=256)
        assert one["memory_bytes"] > one["state_bytes"]
    assert shown["totals"]["tokens"] == sum(one["tokens"] for one in shown["runs"])
    assert shown["totals"]["flops"] == pytest.approx(sum(one["flops"] for one in shown["runs"]))


def test_an_estimate_for_a_topology_is_that_of_nt_jax_plan(capfd):
    words = ["--topology", "h200-8", "v5p-64", "--estimate", "--price", "2", "--json"]
    code, out, err = planned(capfd, "nt_paper", *words, "--only", "nt_v2_500m_multispecies")
    assert code == 0
    assert err.splitlines() == [
        "nt_v2_500m_multispecies on h200-8", "nt_v2_500m_multispecies on v5p-64"
    ]  # fmt: skip
    shown = json.loads(out)
    (one,) = shown["runs"]
    experiment = find_experiment("nt_v2_500m_multispecies")
    for name, found in zip(("h200-8", "v5p-64"), one["plans"], strict=True):
        expected = prediction.by_formula(experiment, topology.parse(name), 2.0)
        assert found == json.loads(json.dumps(expected.to_dict()))
    sums = shown["totals"]["topologies"]
    fits = [found for found in one["plans"] if found["fits"]]
    assert fits, "nothing fits: the comparison below would hold for any sums"
    for found, total in zip(one["plans"], sums, strict=True):
        assert total["days"] == pytest.approx(found["days"] if found["fits"] else 0.0)
        assert total["cost"] == pytest.approx(found["cost"] if found["fits"] else 0.0)


def test_runs_that_cannot_be_laid_out_say_why_and_are_not_counted(capfd):
    only = ["--only", "w32-species-1M-s0", "w64-species-1M-s0"]
    code, out, _ = planned(capfd, "miniature", "--topology", "h200-3", "--estimate", *only)
    assert code == 0
    assert "w32-species-1M-s0: " in out
    assert "0 runs one after the other: 0.0 days, $0; 2 do not fit and are not counted" in out


def test_what_is_compiled_is_asked_of_the_compiler_once_for_equal_programs(tmp_path):
    """GPU meshes are planned by formula, also here: what counts is that numbers stay each run's."""
    first, *_ = find_study("nt_paper").runs
    card = find_study("nt_paper").run("nt_v1_500m_human_ref")
    assert to_dict(plan.program(first.experiment)) == to_dict(plan.program(card.experiment))
    predict = plan.compiled(tmp_path, None)
    where = topology.parse("h200-8")
    short, long = (predict(run.experiment, where) for run in (first, card))
    assert short.step_seconds == long.step_seconds
    assert math.isclose(long.days / short.days, 292_969 / 48_828)
    other = find_study("nt_paper").run("nt_v1_500m_1000g")
    assert to_dict(plan.program(other.experiment)) != to_dict(plan.program(card.experiment))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nt_papr"], "did you mean 'nt_paper'"),
        (["nt_paper", "--only", "nt_v1_2b5_1000"], "did you mean 'nt_v1_2b5_1000g'"),
        (["nt_paper", "--topology", "v5q-64"], "no topology 'v5q-64'"),
        (["nt_paper", "--topologi", "v5p-64"], "did you mean '--topology'"),
    ],
)
def test_bad_input_is_one_line(words, message, capfd):
    code, out, err = planned(capfd, *words)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert message in err
