"""`nt-jax plan` as people run it."""

import importlib.util
import json

import pytest

from nt_jax import cli
from nt_jax.plan.worker import too_large
from tests.nt_jax import runs

KEYS = {
    "fits", "peak_hbm_bytes", "hbm_bytes", "compile_seconds", "flops_per_step", "step_seconds",
    "mfu", "tokens_per_s", "days", "cost", "mesh", "remat", "collectives",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _platforms(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")


def test_json_has_the_keys_of_the_contract(capsys):
    assert cli.main(["plan", "nt_v1_2b5_multispecies", "--topology", "h200-128", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.keys() >= KEYS
    assert found["source"] == "formula"
    assert found["compile_seconds"] is None
    assert found["mesh"] == {"slices": 1, "data": 16, "fsdp": 8, "sequence": 1, "tensor": 1}
    assert found["tokens_per_s"] == pytest.approx(1024 * 1000 / found["step_seconds"])
    assert found["days"] == pytest.approx(found["step_seconds"] * 292_969 / 86_400)
    # 6 N D, and what attention adds.
    assert found["flops_per_step"] == pytest.approx(6 * 2.5e9 * 1024 * 1000, rel=0.15)


def test_a_price_gives_the_cost_and_several_topologies_a_table(capsys):
    arguments = ["plan", "nt_v1_500m_human_ref", "--price", "2"]
    assert cli.main([*arguments, "--topology", "h200-64", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["cost"] == pytest.approx(found["days"] * 24 * 64 * 2)
    assert cli.main([*arguments, "--topology", "h200-64", "--topology", "a100-80g-128"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["topology", "h200-64", "a100-80g-128"]
    assert len({line.index("yes") for line in lines[1:]}) == 1


def test_what_does_not_fit_comes_with_the_nearest_that_does(capsys):
    arguments = ["plan", "nt_v2_500m_multispecies", "--topology", "a100-40g-8", "--json"]
    assert cli.main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert not found["fits"]
    near = found["nearest"]
    assert near["fits"]
    assert near["peak_hbm_bytes"] < found["hbm_bytes"] < found["peak_hbm_bytes"]
    assert near["accumulate"] > 1
    assert cli.main([*arguments, *near["flags"].split()]) == 0
    assert json.loads(capsys.readouterr().out)["fits"]


def test_a_search_ranks_what_fits(capsys):
    arguments = ["plan", "nt_v1_2b5_1000g", "--topology", "a100-40g-8", "--search", "--json"]
    assert cli.main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found) == 4
    assert all(one["fits"] for one in found)
    assert [one["step_seconds"] for one in found] == sorted(one["step_seconds"] for one in found)


def test_the_page_stands_alone(tmp_path, capsys):
    page = tmp_path / "plan.html"
    arguments = ["plan", "nt_v2_nano", "--topology", "h200-1", "--html", page]
    assert cli.main([*map(str, arguments)]) == 0
    text = page.read_text()
    assert text.count("<svg") == 2
    assert "http" not in text
    assert "nt_v2_nano on h200-1: fits" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nt_v2_nano", "--topology", "v5e-17"], "did you mean 'v5e-16'?"),
        (["nt_v2_nano", "--topology", "v5e-16", "--mesh.fsdp", "3"], "does not cover its 16"),
        (["nt_v2_nano", "--topology", "v5e-16", "--mesh.fspd", "3"], "did you mean '--mesh.fsdp'"),
        (["nt_v2_nano", "--topology", "v5e-16"], "does not divide"),
        (["nt_v2_nano", "--topology", "here", "--search"], "do not go together"),
        (["nt_v2_nano", "--topology", "h200-8", "--compiles", "0"], "at least 1"),
        (["nt_v2_nano"], "--topology"),
        (["nt_v2_nan", "--topology", "h200-8"], "did you mean 'nt_v2_nano'"),
    ],
)
def test_bad_input_is_one_line(arguments, said, capsys):
    assert cli.main(["plan", *arguments]) == cli.BAD_INPUT
    lines = capsys.readouterr().err.strip().splitlines()
    assert said in lines[-1]
    assert sum(line.startswith("nt-jax:") for line in lines) == 1


def test_without_libtpu_the_way_out_is_named(monkeypatch, capsys):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "libtpu" else found(name, *a)
    )
    assert cli.main(["plan", "nt_v2_nano", "--topology", "v5e-8"]) == cli.BAD_INPUT
    assert "pip install 'nt-jax[plan]'" in capsys.readouterr().err


def test_what_libtpu_says_of_a_program_too_large_is_understood():
    said = (
        "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory "
        "required for HLO temporaries (23.17G) exceeds available HBM (15.75G). HLO module: x."
    )
    assert too_large(said) == (23.17 * 2**30, 15.75 * 2**30)
    assert too_large("INVALID_ARGUMENT: something else") is None


def test_a_slice_that_is_not_there_is_compiled_for_once(tmp_path):
    experiment = runs.make_experiment(tmp_path)
    arguments = ("plan", experiment, "--topology", "v5e-4", "--cache", tmp_path / "cache", "--json")
    flags = ["--mesh.fsdp", "4", "--train.accumulate", "2", "--model.compute-dtype", "bfloat16"]
    # The kernel would multiply 128 tokens for each of these short sequences.
    flags += ["--model.attention", "dense"]
    # bfloat16, shards and micro-batches together are what libtpu once stopped at.
    first = runs.run(*arguments, *flags)
    assert first.returncode == 0, first.stderr
    found = json.loads(first.stdout)
    assert found.keys() >= KEYS
    assert found["fits"]
    assert found["source"] == "compiled"
    assert found["hbm_bytes"] == 15.75 * 2**30
    assert 0 < found["state_bytes"] < found["peak_hbm_bytes"] < 2**30
    assert {axis for one in found["collectives"] for axis in one["axes"]} == {"fsdp"}
    assert found["executed_flops_per_step"] == pytest.approx(found["flops_per_step"], rel=0.2)
    again = runs.run(*arguments, *flags)
    assert json.loads(again.stdout) == found
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_here_predicts_runs_and_compares(tmp_path):
    done = runs.run(
        "plan", runs.make_experiment(tmp_path), "--topology", "here", "--json", devices=2
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["source"] == "measured"
    assert found["mesh"]["data"] == 2
    measured = found["measured"]
    assert measured["device"]["count"] == 2
    assert measured["step_error"] == pytest.approx(
        found["step_seconds"] / measured["step_seconds"] - 1
    )
    assert found["step_seconds"] > 0
    assert measured["peak_bytes"] > 0


@pytest.mark.slow
def test_too_large_for_the_slice_is_said_by_the_compiler(tmp_path):
    done = runs.run(
        "plan", runs.make_experiment(tmp_path), "--topology", "v5e-1", "--json",
        "--cache", tmp_path / "cache", "--train.global-batch", 2**20,
        "--compiles", 1,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert not found["fits"]
    assert found["step_seconds"] is None
    assert found["source"] == "compiled"
    assert found["peak_hbm_bytes"] > found["hbm_bytes"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("experiment", "topology", "flags", "axis"),
    [
        (
            "nt_v1_500m_human_ref",
            "v5e-16",
            "--mesh.fsdp 16 --train.accumulate 8 --model.remat full",
            "fsdp",
        ),
        (
            "nt_v2_500m_multispecies",
            "v4-64",
            "--mesh.fsdp 32 --train.accumulate 4 --model.remat full",
            "fsdp",
        ),
    ],
)
def test_the_large_experiments_fit_slices_that_are_not_there(
    experiment, topology, flags, axis, tmp_path
):
    done = runs.run(
        "plan", experiment, "--topology", topology, "--json", "--cache", tmp_path, *flags.split()
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["fits"]
    assert found["mfu"] > 0.1
    assert found["executed_flops_per_step"] == pytest.approx(
        1.25 * found["flops_per_step"], rel=0.1
    )
    # Weights are gathered and gradients scattered; both take turns with nothing but each other.
    sent = {tuple(one["axes"]): 0.0 for one in found["collectives"]}
    for one in found["collectives"]:
        sent[tuple(one["axes"])] += one["sent"]
    assert sent[(axis,)] > 0.99 * sum(sent.values())
    assert found["estimated_hbm_bytes"] == pytest.approx(found["peak_hbm_bytes"], rel=0.15)
