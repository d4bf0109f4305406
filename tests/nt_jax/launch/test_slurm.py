"""The batch script is really run by bash; sbatch and its kin are stand-ins on PATH."""

import json
import pathlib
import sys

import pytest

from nt_jax import cli
from tests.nt_jax.launch import stand_in
from tests.nt_jax.runs import make_dataset, make_experiment


@pytest.fixture
def slurm(tmp_path, monkeypatch) -> pathlib.Path:
    return stand_in.put_on_path(tmp_path / "slurm", monkeypatch)


def submit(folder: pathlib.Path, *more: str) -> int:
    words = ["launch", "slurm", "nt_v2_nano", "--workdir", f"{folder}/runs/one", "--data", "d"]
    return cli.main([*words, *more])


def log(folder: pathlib.Path, job: int = 42) -> str:
    return (folder / "runs" / f"one.slurm-{job}.log").read_text()


def test_what_is_asked_for(slurm, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    more = ["--nodes", "4", "--gpus-per-node", "8", "--time", "24:00:00", "--partition", "gpu"]
    more += ["--account", "dna", "--notice", "300", "--sbatch=--qos=long", "--optim.clip", "1.0"]
    stand_in.plan(slurm, srun="0")
    assert submit(tmp_path, *more) == 0
    workdir = tmp_path / "runs" / "one"
    script = tmp_path / "runs" / "one.slurm.sh"
    assert capfd.readouterr().out == f"42 {workdir}\n"
    assert stand_in.calls(slurm) == [["sbatch", "--parsable", str(script)]]
    options = [line.removeprefix("#SBATCH --") for line in script.read_text().splitlines()]
    assert set(options) >= {
        "nodes=4", "ntasks-per-node=8", "gpus-per-node=8", "time=24:00:00", "partition=gpu",
        "account=dna", "qos=long", "requeue", "open-mode=append", "dependency=singleton",
        "signal=TERM@300", f"output={workdir}.slurm-%j.log",
    }  # fmt: skip
    ((_, *srun),) = stand_in.calls(slurm, "srun")
    pretrain = ["pretrain", "nt_v2_nano", "--workdir", str(workdir), "--data", f"{tmp_path}/d"]
    assert srun == [
        "--kill-on-bad-exit=0", "--wait=120",
        sys.executable, "-m", "nt_jax.cli", *pretrain, "--optim.clip", "1.0",
    ]  # fmt: skip
    assert not workdir.exists()


def test_a_dry_run_prints_what_a_real_one_does(slurm, tmp_path, capfd):
    assert submit(tmp_path, "--dry-run") == 0
    shown = capfd.readouterr().out
    assert not (tmp_path / "runs").exists()
    assert not (slurm / "calls.jsonl").exists()
    stand_in.plan(slurm, srun="0")
    assert submit(tmp_path) == 0
    script = tmp_path / "runs" / "one.slurm.sh"
    ((*call,),) = stand_in.calls(slurm)
    assert shown == (
        f"mkdir -p {script.parent}\ncat > {script} <<'END_OF_FILE'\n{script.read_text()}"
        f"END_OF_FILE\n{' '.join(call)}\n"
    )


def test_each_run_of_a_sweep_is_a_job_and_what_is_done_is_not_submitted(slurm, tmp_path, capfd):
    stand_in.plan(slurm, srun="0")
    done = tmp_path / "runs" / "one" / "train.seed=1"
    done.mkdir(parents=True)
    (done / "DONE").touch()
    assert submit(tmp_path, "--sweep", "train.seed=0,1,2") == 0
    out, err = capfd.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == ["42", "43"]
    assert "train.seed=1: done before" in err
    names = [
        line for script in tmp_path.glob("runs/one/*.sh")
        for line in script.read_text().splitlines() if "job-name" in line
    ]  # fmt: skip
    assert len(set(names)) == 2


@pytest.mark.parametrize(
    ("plans", "code", "attempts", "message"),
    [
        ({"srun": "75 0"}, 0, 2, "requeued"),
        ({"srun": "75", "squeue": "COMPLETING"}, 75, 1, "saved; cancelled"),
        ({"srun": "75", "scontrol": "refuse"}, 75, 1, "cannot be requeued"),
        ({"srun": "2 0"}, 2, 1, "bad input: not tried again"),
        ({"srun": "137 1 0"}, 0, 3, "exit code 137; starts again"),
        ({"srun": "1"}, 1, 3, "gave up after 2 restarts"),
        ({"srun": "saved saved saved saved saved 0"}, 0, 6, "newest checkpoint 5"),
    ],
)
def test_how_the_script_takes_the_end_of_a_step(plans, code, attempts, message, slurm, tmp_path):
    stand_in.plan(slurm, **plans)
    assert submit(tmp_path, "--max-restarts", "2") == 0
    assert int((slurm / "exit").read_text()) == code
    assert len(stand_in.calls(slurm, "srun")) == attempts
    assert message in log(tmp_path)
    requeued = [["scontrol", "requeue", "42"]] if "requeued" in message else []
    if "refuse" not in plans.values():
        assert stand_in.calls(slurm, "scontrol") == requeued


def test_refused_jobs_and_missing_programs(slurm, tmp_path, capfd, monkeypatch):
    stand_in.plan(slurm, sbatch="refuse")
    assert submit(tmp_path) == 2
    assert "invalid partition specified: gpu" in capfd.readouterr().err
    monkeypatch.setenv("PATH", str(tmp_path))
    assert submit(tmp_path) == 2
    assert "sbatch: no such program on PATH" in capfd.readouterr().err


def test_status(slurm, tmp_path, capfd):
    workdir = str(tmp_path / "runs" / "one")
    assert cli.main(["launch", "slurm-status", workdir]) == 0
    assert "42   RUNNING  1:02:03  node[1-2]" in capfd.readouterr().out
    stand_in.plan(slurm, squeue="gone")
    assert cli.main(["launch", "slurm-status", workdir]) == 0
    assert "42   COMPLETED  0:10:00" in capfd.readouterr().out
    stand_in.plan(slurm, squeue="gone", sacct="gone")
    assert cli.main(["launch", "slurm-status", workdir]) == 2
    assert "neither squeue nor sacct" in capfd.readouterr().err


@pytest.mark.slow
def test_a_real_run_reaches_its_limit_and_goes_on_in_the_next_job(slurm, tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    make_experiment(tmp_path)
    make_dataset(tmp_path)
    stand_in.plan(slurm, srun="limit run")
    words = ["launch", "slurm", f"{tmp_path}/tiny.py", "--workdir", f"{tmp_path}/runs/one"]
    assert cli.main([*words, "--data", f"{tmp_path}/data", "--train.steps", "60"]) == 0
    text = log(tmp_path)
    assert "requeued" in text
    assert "resumes at step" in text
    assert (tmp_path / "runs" / "one" / "DONE").exists()
    rows = (tmp_path / "runs" / "one" / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(row)["step"] for row in rows if "split" not in row]
    assert steps == list(range(3, 61, 3))
