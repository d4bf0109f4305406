"""`study run --launcher`: trainings through `nt-jax launch`."""

import pathlib
import subprocess
import sys

import pytest

from nt_jax import cli
from tests.nt_jax.launch import stand_in
from tests.nt_jax.runs import environment
from tests.nt_jax.studies.small import DATA, make_study, study


@pytest.mark.slow
def test_trained_through_launch_local(datasets, tmp_path):
    path = make_study(tmp_path)
    root = tmp_path / "out"
    words = ["run", str(path), "--out", str(root), *DATA[:2], "--only", "w8-flat-10.56K-s0"]
    code, out, err = study(datasets, *words, "--launcher", "local --processes 2")
    assert code == 0, err
    assert "1 done" in out
    assert "slices 1 x data 2 x" in (root / "runs" / "w8-flat-10.56K-s0.log").read_text()
    assert not list(root.glob("runs/*.launched"))


@pytest.mark.slow
def test_handed_to_slurm_evaluated_here_and_held_out_until_then(
    datasets, tmp_path, monkeypatch, capfd
):
    slurm = stand_in.put_on_path(tmp_path / "slurm", monkeypatch)
    monkeypatch.setenv("PYTHONPATH", str(pathlib.Path(__file__).parents[3]))
    monkeypatch.chdir(datasets)
    path = make_study(tmp_path, sources=("flat",), losses='(LossOn(source="flat", windows=8),)')
    root = tmp_path / "out"
    run = ["study", "run", str(path), "--out", str(root), *DATA[:2]]
    run += ["--launcher", "slurm --nodes 2 --time 1:00:00"]
    small, large = "w8-flat-10.56K-s0", "w16-flat-10.56K-s0"

    def submitted() -> list[str]:
        return [pathlib.Path(call[-1]).name for call in stand_in.calls(slurm)]

    stand_in.plan(slurm, srun="0")  # the job is gone before it has trained
    assert cli.main(run) == 75
    out, err = capfd.readouterr()
    assert f"[1/2] {small}: launched\n" in err
    assert f"{large}: held out, and not trained yet of the runs that predict: {small}\n" in err
    assert "1 waiting, 1 launched" in out
    assert submitted() == [f"{small}.slurm.sh"]
    script = (root / "runs" / f"{small}.slurm.sh").read_text()
    assert "#SBATCH --nodes=2" in script
    assert f"pretrain {root}/experiments/{small}.json --workdir {root}/runs/{small}" in script
    assert cli.main(run) == 75
    assert "launched before" in capfd.readouterr().err
    assert submitted() == [f"{small}.slurm.sh"]

    def trained_there(name: str) -> None:
        config = root / "experiments" / f"{name}.json"
        words = [sys.executable, "-m", "nt_jax.cli", "pretrain", config]
        words += ["--workdir", root / "runs" / name, "--data", datasets / "flat"]
        subprocess.run(words, env=environment(), check=True)

    trained_there(small)
    assert cli.main(run) == 75
    err = capfd.readouterr().err
    assert f"{small}: loss on flat done" in err
    assert "nothing is predicted: 1 runs" in err
    assert (root / "prediction.json").exists()
    assert submitted() == [f"{small}.slurm.sh", f"{large}.slurm.sh"]
    trained_there(large)
    assert cli.main(run) == 0
    assert "2 done" in capfd.readouterr().out


def test_a_launcher_that_does_not_exist(datasets, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(datasets)
    words = ["study", "run", "nt_paper", "--out", str(tmp_path / "out"), "--launcher", "pbs -n 1"]
    assert cli.main(words) == 2
    assert (
        "--launcher 'pbs -n 1': begins with one of local, slurm, tpu-vm" in capfd.readouterr().err
    )
