"""Studies whose runs fail, or that are killed."""

import os
import random
import signal
import subprocess
import time

import pytest

from tests.nt_jax.studies.small import (
    DATA,
    make_study,
    processes,
    start,
    states,
    study,
    table,
    wait_for,
)

# --- What fails -------------------------------------------------------------------------------


FAILING = """ + (
    StudyRun(name="lost", experiment=experiment(8, 1), source="gone", data="/nowhere"),
    StudyRun(name="dies", experiment=experiment(8, 2), source="flat"),
    StudyRun(name="last", experiment=experiment(8, 3), source="flat"),
)"""


@pytest.mark.slow
def test_a_run_that_fails_is_told_and_the_rest_goes_on(datasets, tmp_path):
    path = make_study(tmp_path, more=FAILING)
    text = path.read_text()
    path.write_text(text.replace("train=TrainConfig(", "train=TrainConfig(steps=40, ").replace(
        "peak_lr=3e-3", "peak_lr=3e-3, warmup_steps=4"))  # fmt: skip
    words = ["run", str(path), "--out", str(tmp_path / "out"), "--max-restarts", "0"]
    running = start(datasets, *words, *DATA[:2], "--jobs", "2")
    workdir = str(tmp_path / "out" / "runs" / "dies")

    def killed() -> bool:
        found = list(processes(workdir))
        for pid in found:
            os.kill(pid, signal.SIGKILL)
        return bool(found)

    wait_for(killed, running)
    out, err = running.communicate(timeout=600)
    assert running.returncode == 1, err
    told = [line for line in err.splitlines() if " failed: " in line]
    root = tmp_path / "out"
    assert len(told) == 2
    lost, dies = sorted(told, reverse=True)
    assert lost.startswith("nt-jax: lost: training failed: exit code 2 (/nowhere: no such folder")
    assert lost.endswith(f"; see {root / 'runs' / 'lost.log'}")
    assert dies == (
        f"nt-jax: dies: training failed: ended by SIGKILL; see {root / 'runs' / 'dies.log'}"
    )
    found = states(datasets, path, str(root))
    assert {name: one["state"] for name, one in found.items()} == {
        "w8-flat-10.56K-s0": "done", "w16-flat-10.56K-s0": "waiting",
        "lost": "failed", "dies": "failed", "last": "done",
    }  # fmt: skip
    assert "ended by SIGKILL" in found["dies"]["why"]
    assert "2 done" in out
    assert "w16-flat-10.56K-s0: held out, and not trained yet of the runs that predict: dies" in err
    # What died is tried again, what is lost as well, once it is found.
    code, out, err = study(datasets, "run", str(path), "--out", str(root), "--data", "gone=skewed")
    assert code == 0, err
    assert "5 done" in out
    assert not list(root.glob("runs/*.failed"))


@pytest.mark.slow
def test_an_evaluation_that_fails_is_told_and_the_training_stays(datasets, tmp_path):
    path = make_study(tmp_path, probes='(Probe(task="/nowhere.csv"),)')
    root = tmp_path / "out"
    words = ["run", str(path), "--out", str(root), *DATA[:2], "--only", "w8-flat-10.56K-s0"]
    code, _, err = study(datasets, *words)
    assert code == 1
    assert "w8-flat-10.56K-s0: probe /nowhere.csv failed: exit code 2 (" in err
    assert f"see {root}/evaluations/w8-flat-10.56K-s0/probes/nowhere.csv.log" in err
    (root / "runs" / "w8-flat-10.56K-s0" / "DONE").stat()
    assert study(datasets, "report", str(path), "--out", str(root))[0] == 0
    assert [row["state"] for row in table(root)] == ["trained", "open"]


# --- Killed -----------------------------------------------------------------------------------


def descendants(pid: int) -> list[int]:
    listed = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True)
    children = [int(line) for line in listed.stdout.split()]
    return [one for child in children for one in (child, *descendants(child))]


@pytest.mark.slow
def test_killed_three_times_it_ends_with_the_same_table(datasets, tmp_path):
    path = make_study(
        tmp_path, sources=("flat", "skewed"), losses='(LossOn(source="skewed", windows=8),)'
    )
    words = ["run", str(path), *DATA, "--jobs", "2"]
    began = time.monotonic()
    assert study(datasets, *words, "--out", str(tmp_path / "calm"))[0] == 0
    whole = time.monotonic() - began

    draw = random.Random(time.time_ns())
    # The command alone leaves its children to the kernel; a machine that dies takes all.
    kinds = draw.sample(["alone", "all", draw.choice(["alone", "all"])], 3)
    for kind in kinds:
        running = start(datasets, *words, "--out", str(tmp_path / "killed"))
        moment = draw.uniform(0.05, 0.3) * whole
        try:
            running.communicate(timeout=moment)
            pytest.fail(f"ended before it was killed ({kind}), {moment:.1f} of {whole:.1f} s")
        except subprocess.TimeoutExpired:
            victims = [running.pid, *(descendants(running.pid) if kind == "all" else [])]
        for pid in victims:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        running.communicate()
        print(f"killed {len(victims)} processes after {moment:.1f} of {whole:.1f} s")
    code, out, err = study(datasets, *words, "--out", str(tmp_path / "killed"))
    assert code == 0, err
    assert "4 done" in out
    for name in ("calm", "killed"):
        assert study(datasets, "report", str(path), "--out", str(tmp_path / name))[0] == 0
    for name in ("table.tsv", "table.json"):
        calm = (tmp_path / "calm" / name).read_text()
        assert (tmp_path / "killed" / name).read_text() == calm
    assert all(row["state"] == "done" for row in table(tmp_path / "calm"))
