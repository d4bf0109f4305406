"""A hung process: stacks, exit code, and what does not count as hanging. Nothing is mocked."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from disasters import loaders

from tests.nt_jax.runs import command, environment, make_dataset, make_experiment, rows, run

WAITING = """
import pathlib, sys, threading, time
from nt_jax.watchdog import Watchdog

class Loop:
    phase, step, beats = {phase!r}, 57, 0

loop = Loop()
dog = Watchdog(pathlib.Path(sys.argv[1]), 1.0, 3, loop)

def never_ends():
    threading.Event().wait()

for _ in range(15):
    time.sleep(0.1)
    loop.beats += 1
print("worked", flush=True)
{then}
"""


def start(folder: pathlib.Path, phase: str, then: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WAITING.format(phase=phase, then=then), str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_step_that_never_ends_shows_its_stacks_and_exits_with_1(tmp_path):
    process = start(tmp_path, "step", "never_ends()")
    out, err = process.communicate(timeout=30)
    assert (out, process.returncode) == ("worked\n", 1)
    (report,) = (tmp_path / "logs").iterdir()
    assert report.name.startswith("hang-0003-")
    text = report.read_text()
    assert text.startswith("process 3: no sign of life for 1 s in phase 'step' at step 57")
    assert "in never_ends" in text
    assert str(report) in err
    assert "in never_ends" in err


def test_a_loop_that_works_and_a_slow_compilation_are_left_alone(tmp_path):
    process = start(tmp_path, "compile", "time.sleep(2.5); dog.stop()")
    assert process.wait(timeout=30) == 0
    assert not (tmp_path / "logs").exists()


def test_time_in_which_the_process_itself_was_stopped_does_not_count(tmp_path):
    process = start(tmp_path, "step", "time.sleep(0.3); loop.beats += 1; dog.stop()")
    assert process.stdout.readline() == "worked\n"
    process.send_signal(signal.SIGSTOP)
    time.sleep(3)
    process.send_signal(signal.SIGCONT)
    assert process.wait(timeout=30) == 0


def test_a_watchdog_that_is_off_has_no_thread(tmp_path):
    code = WAITING.format(phase="step", then="print(threading.active_count()); dog.stop()")
    done = subprocess.run(
        [sys.executable, "-c", code.replace("1.0, 3", "0, 3"), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.stdout == "worked\n1\n"


@pytest.mark.slow
def test_a_run_whose_loader_hangs_ends_and_goes_on_from_its_checkpoint(tmp_path):
    make_dataset(tmp_path)
    experiment = make_experiment(tmp_path)
    words = ["pretrain", experiment, "--data", tmp_path / "data", "--workdir", tmp_path / "run"]
    words += ["--train.steps", 480, "--train.eval-every", 480, "--train.global-batch", 64]
    hanging = subprocess.Popen(
        command(*words, "--data.workers", 1, "--train.watchdog-seconds", 5),
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 200
    while not (tmp_path / "run" / "checkpoints" / "20").exists():
        assert hanging.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    stopped = loaders(hanging.pid)
    assert stopped
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    _, err = hanging.communicate(timeout=100)
    assert hanging.returncode == 1
    assert "in phase 'input'" in err
    assert not any(pathlib.Path(f"/proc/{pid}/cwd").exists() for pid in stopped)
    (report,) = (tmp_path / "run" / "logs").glob("hang-*.txt")
    assert "in feeding" in report.read_text()
    again = run(*words)
    assert again.returncode == 0, again.stderr
    assert "resumes at step" in again.stderr
    steps = [row["step"] for row in rows(tmp_path / "run") if "split" not in row]
    assert steps == list(range(3, 481, 3))
