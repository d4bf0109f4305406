"""Which runs a command line means, and what its overrides are checked for."""

import pathlib

import pytest

from nt_jax import registry
from nt_jax.config import to_json
from nt_jax.errors import InputError
from nt_jax.launch.jobs import Outcome, Patience, Run, plan_runs, table, worst

ROOT = pathlib.Path("runs")


def test_one_run_has_the_workdir_itself():
    (run,) = plan_runs(["nt_v2_nano"], ROOT / "one", "data", ["--optim.peak-lr", "3e-4"])
    assert run.workdir == ROOT / "one"
    assert run.name == "one"
    given = "pretrain nt_v2_nano --workdir runs/one --data data --optim.peak-lr 3e-4"
    assert " ".join(run.arguments) == given


def test_a_sweep_is_a_cross_product_named_by_what_differs():
    sweeps = ["optim.peak_lr=1e-4,3e-4", "--train.seed=0,1"]
    runs = plan_runs(["nt_v2_nano", "nt_v2_micro"], ROOT, "d", ["--train.steps=9999999"], sweeps)
    assert len(runs) == 8
    assert runs[0].name == "nt_v2_nano,optim.peak-lr=1e-4,train.seed=0"
    assert runs[-1].workdir == ROOT / "nt_v2_micro,optim.peak-lr=3e-4,train.seed=1"
    assert len({run.workdir for run in runs}) == 8
    assert runs[-1].arguments[6:] == (
        "--optim.peak-lr", "3e-4", "--train.seed", "1", "--train.steps=9999999",
    )  # fmt: skip


def test_a_comma_in_a_value():
    runs = plan_runs(["nt_v2_nano"], ROOT, "d", [], [r"data.weights=equal,human=2\,mouse=1"])
    assert [run.arguments[-1] for run in runs] == ["equal", "human=2,mouse=1"]
    assert [run.workdir.name for run in runs] == [
        "data.weights=equal", "data.weights=human=2,mouse=1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("experiments", "overrides", "sweeps", "message"),
    [
        (["nt_v2_nan"], [], [], "did you mean 'nt_v2_nano'"),
        (["nt_v2_nano"], ["--optim.peak-lrr", "1"], [], "did you mean '--optim.peak-lr'"),
        (["nt_v2_nano"], [], ["optim.peak-lrr=1,2"], "did you mean '--optim.peak-lr'"),
        (["nt_v2_nano"], [], ["train.seed=0,x"], "--train.seed: 'x' is not an integer"),
        (["nt_v2_nano"], [], ["train.seed"], "needs GROUP.FIELD=VALUE,VALUE"),
        (["nt_v2_nano"], [], ["train.seed=0,,1"], "needs GROUP.FIELD=VALUE,VALUE"),
        (["nt_v2_nano"], [], ["train.seed=0", "train.seed=1"], "given twice"),
        (["nt_v2_nano"], ["--train.seed=3"], ["train.seed=0,1"], "given twice"),
        (["nt_v2_nano"], [], ["optim.peak-lr=1e-4,0.0001"], "are the same run"),
        (["nt_v2_nano", "nt_v2_nano"], [], [], "would share runs/nt_v2_nano"),
        (["nt_v2_nano"], [], ["data.recipe=a/b,a:b"], "would share runs/data.recipe=a-b"),
    ],
)
def test_nothing_is_launched_that_pretrain_would_refuse(experiments, overrides, sweeps, message):
    with pytest.raises(InputError, match=message):
        plan_runs(experiments, ROOT, "d", overrides, sweeps)


def test_data_must_be_named():
    with pytest.raises(InputError, match="which data"):
        plan_runs(["nt_v2_nano"], ROOT, None, [])
    (run,) = plan_runs(["nt_v2_nano"], ROOT, None, ["--data.path", "here"])
    assert run.arguments[-2:] == ("--data.path", "here")


def test_the_text_of_an_experiment_is_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    nano = registry.find_experiment("nt_v2_nano")
    (tmp_path / "mine.json").write_text(to_json(nano))
    assert registry.find_experiment("mine.json") == nano
    (run,) = plan_runs(["mine.json"], ROOT / "one", "data", [])
    # A job may start in another folder than this one.
    assert run.arguments[:2] == ("pretrain", str(tmp_path / "mine.json"))
    for text, message in (("{", "not the text"), ('{"nam": "x"}', "unknown field 'nam'")):
        (tmp_path / "mine.json").write_text(text)
        with pytest.raises(InputError, match=f"mine.json.*{message}"):
            registry.find_experiment("mine.json")
    with pytest.raises(InputError, match=r"no\.json: no such experiment file"):
        registry.find_experiment("no.json")


def test_patience_counts_restarts_since_the_last_checkpoint():
    patience = Patience(2)
    answers = [patience.again(step) for step in (None, None, 10, 10, 20, 20, 20)]
    assert answers == [True, True, True, True, True, True, False]
    assert not Patience(0).again(10)


def outcome(name: str, state: str, code: int | None, step: int | None) -> Outcome:
    return Outcome(Run(name, "e", ROOT / name, ()), state, code, step)


def test_the_table_lines_up_and_the_worst_counts():
    done = outcome("a", "done", 0, 1200)
    failed = outcome("much-longer", "failed", 1, None)
    bad, stopped = outcome("b", "bad input", 2, None), outcome("c", "stopped", 75, 40)
    assert table([done, failed]).splitlines() == [
        "run          state   exit code  step  workdir",
        "a            done            0  1200  runs/a",
        "much-longer  failed          1     -  runs/much-longer",
    ]
    assert worst([done]) == 0
    assert worst([done, bad]) == 2
    assert worst([done, bad, failed]) == 1
    assert worst([failed, stopped]) == 75
    assert worst([failed, outcome("d", "not started", None, None)]) == 75
