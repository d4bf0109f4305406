"""Processes of this machine: environment, restarts, signals, no orphans; a real run at the end."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from nt_jax.errors import InputError
from nt_jax.launch import local
from nt_jax.launch.jobs import Outcome, Run
from nt_jax.launch.local import Layout
from nt_jax.saved_steps import committed_steps
from tests.nt_jax.runs import environment, make_dataset, make_experiment

SMALL = pathlib.Path(__file__).with_name("small_pretrain.py")
ROOT = pathlib.Path(__file__).parents[3]
PARENT = """
import pathlib, sys
from nt_jax.launch import jobs, local
runs = [
    jobs.Run(name, "e", pathlib.Path(name), (name, *words.split()))
    for name, words in (text.split(":") for text in sys.argv[3:])
]
done = local.launch(
    runs, local.Layout(int(sys.argv[1])), int(sys.argv[2]),
    command=lambda run: [sys.executable, "-S", {small!r}, *run.arguments], grace=0.5,
)
print(jobs.table(done))
sys.exit(jobs.worst(done))
"""


def small(run: Run) -> list[str]:
    return [sys.executable, "-S", str(SMALL), *run.arguments]


def launch(folder: pathlib.Path, *words: str, processes: int = 1, restarts: int = 3) -> Outcome:
    """One run in this process, whose attempts go as `words` say."""
    run = Run("one", "e", folder / "one", (str(folder / "one"), *words))
    layout = Layout(processes)
    (outcome,) = local.launch([run], layout, 1, restarts, command=small, grace=0.3)
    return outcome


def seen(folder: pathlib.Path, index: int = 0) -> list[dict]:
    """What process `index` saw in each attempt."""
    lines = (folder / "one" / f"log-{index}").read_text().splitlines()
    return [json.loads(line) for line in lines]


def alive(pid: int) -> bool:
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def start(folder: pathlib.Path, *runs: str, processes: int = 1, parallel: int = 1):
    """A launcher in a process of its own; `runs` are NAME:WORDS."""
    program = PARENT.format(small=str(SMALL))
    return subprocess.Popen(
        [sys.executable, "-c", program, str(processes), str(parallel), *runs],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for(condition, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


def test_every_process_knows_who_it_is(tmp_path, capfd):
    assert launch(tmp_path, "ok", processes=3).code == 0
    rows = [seen(tmp_path, index)[0] for index in range(3)]
    assert {row["NT_JAX_PROCESS_COUNT"] for row in rows} == {"3"}
    assert len({row["NT_JAX_COORDINATOR"] for row in rows}) == 1
    assert len({row["pid"] for row in rows}) == 3
    err = capfd.readouterr().err
    assert "\nprocess 0 attempt 0" in "\n" + err
    assert "[2] process 2 attempt 0" in err


def test_one_process_is_a_plain_run(tmp_path):
    assert launch(tmp_path, "ok").code == 0
    assert seen(tmp_path)[0]["NT_JAX_COORDINATOR"] is None


@pytest.mark.parametrize(
    ("layout", "cards", "expected"),
    [
        (Layout(1, None), [], {}),
        (Layout(1, 4), [], {"XLA_FLAGS": "--mine --xla_force_host_platform_device_count=4"}),
        (Layout(1, None), ["0", "1"], {}),
        (Layout(1, 1), ["0", "1"], {"CUDA_VISIBLE_DEVICES": "0"}),
        (Layout(2, None), ["0", "1", "2", "3"], {"CUDA_VISIBLE_DEVICES": "2,3"}),
        (Layout(2, 1), ["4", "5", "6"], {"CUDA_VISIBLE_DEVICES": "5"}),
    ],
)
def test_devices_of_a_process(layout, cards, expected, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=8 --mine")
    found = local.variables(layout, layout.processes - 1, 1234, cards)
    assert {k: v for k, v in found.items() if not k.startswith("NT_JAX")} == expected


def test_more_gpus_than_there_are():
    with pytest.raises(InputError, match="this machine has 2"):
        local.check(Layout(3, None), ["0", "1"])
    with pytest.raises(InputError, match="--processes 2: 2 GPU each"):
        local.check(Layout(2, 2), ["0", "1"])


@pytest.mark.parametrize("end", ["kill@1", "1@0", "75", "0@0"])
def test_one_process_that_ends_takes_the_others_into_the_next_attempt(end, tmp_path, monkeypatch):
    # The others are deaf to SIGTERM: only SIGKILL ends them.
    monkeypatch.setattr(local, "SAVING_SECONDS", 2.0)
    assert launch(tmp_path, end, "ok", processes=2).code == 0
    first, second = seen(tmp_path, 0)
    assert first["NT_JAX_COORDINATOR"] != second["NT_JAX_COORDINATOR"]
    assert not alive(first["pid"])
    assert len(seen(tmp_path, 1)) == 2


def test_it_gives_up_when_failures_bring_no_checkpoint(tmp_path, capfd):
    outcome = launch(tmp_path, "1", restarts=1)
    assert (outcome.state, outcome.code) == ("failed", 1)
    assert len(seen(tmp_path)) == 2
    line = capfd.readouterr().err.splitlines()[-1]
    assert "exit code 1; gave up after 1 restarts without a new checkpoint" in line


def test_failures_that_bring_checkpoints_do_not_tire_it(tmp_path):
    outcome = launch(tmp_path, *["saved+1"] * 3, "ok", restarts=1)
    assert (outcome.state, outcome.step) == ("done", 30)
    assert len(seen(tmp_path)) == 4


def test_bad_input_is_said_once_and_never_tried_again(tmp_path, capfd):
    assert launch(tmp_path, "2", processes=3).code == 2
    assert all(len(log.read_text().splitlines()) == 1 for log in tmp_path.glob("one/log-*"))
    assert capfd.readouterr().err.count("nt-jax: no such data") == 1


def test_bad_input_of_one_process_ends_all_at_once(tmp_path):
    began = time.monotonic()
    assert launch(tmp_path, "2@1", processes=2).code == 2
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_passed_on_and_the_same_command_goes_on(number, tmp_path):
    runs = ("one:until-term ok", "two:ok")
    launcher = start(tmp_path, *runs, processes=2)
    wait_for(lambda: (tmp_path / "one" / "log-1").exists())
    time.sleep(0.3)
    launcher.send_signal(number)
    out, err = launcher.communicate(timeout=60)
    assert launcher.returncode == 75, err
    assert "one  stopped             75    10" in out
    assert "two  not started          -     -" in out
    again = start(tmp_path, *runs, processes=2)
    out, err = again.communicate(timeout=60)
    assert again.returncode == 0, err
    assert out.count(" done ") == 2


def test_a_second_signal_kills(tmp_path):
    launcher = start(tmp_path, "one:deaf")
    wait_for(lambda: (tmp_path / "one" / "log-0").exists())
    launcher.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert launcher.poll() is None
    launcher.send_signal(signal.SIGTERM)
    assert launcher.wait(timeout=60) == 1
    assert not alive(seen(tmp_path)[0]["pid"])


def test_no_process_outlives_a_launcher_that_is_killed(tmp_path):
    launcher = start(tmp_path, "one:deaf", processes=3)
    logs = [tmp_path / "one" / f"log-{index}" for index in range(3)]
    wait_for(lambda: all(log.exists() and log.read_text() for log in logs))
    pids = [seen(tmp_path, index)[0]["pid"] for index in range(3)]
    assert all(map(alive, pids))
    launcher.kill()
    launcher.wait()
    wait_for(lambda: not any(map(alive, pids)), 10.0)


def test_a_sweep_goes_on_past_failures_and_skips_what_is_done(tmp_path):
    runs = ("bad:2", "broken:1", "good:ok")
    first = start(tmp_path, *runs, parallel=3)
    out, err = first.communicate(timeout=90)
    assert first.returncode == 1, err
    assert [line.split()[:3] for line in out.splitlines()[1:]] == [
        ["bad", "bad", "input"], ["broken", "failed", "1"], ["good", "done", "0"],
    ]  # fmt: skip
    assert "[good] process 0 attempt 0" in err
    second = start(tmp_path, "good:1", "late:ok")
    out, err = second.communicate(timeout=60)
    assert second.returncode == 0, err
    assert "done before" in out


# --- The real thing ---------------------------------------------------------------------------


@pytest.mark.slow
def test_two_real_processes_give_the_curve_of_one_and_go_on_after_one_is_killed(tmp_path):
    make_experiment(tmp_path)
    make_dataset(tmp_path)

    def start(workdir: str, processes: int, devices: int) -> subprocess.Popen[str]:
        words = ["launch", "local", "tiny.py", "--data", "data", "--workdir", workdir]
        words += ["--processes", str(processes), "--devices-per-process", str(devices)]
        return subprocess.Popen(
            [sys.executable, "-m", "nt_jax.cli", *words, "--train.steps", "60"],
            cwd=tmp_path, env={**environment(), "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def losses(workdir: str) -> list[float]:
        rows = map(json.loads, (tmp_path / workdir / "metrics.jsonl").read_text().splitlines())
        return [row["loss"] for row in rows if "split" not in row]

    one = start("one", 1, 2)
    _, err = one.communicate(timeout=300)
    assert one.returncode == 0, err
    two = start("two", 2, 1)
    wait_for(lambda: 20 in committed_steps(tmp_path / "two" / "checkpoints"), 200)
    listed = subprocess.run(["pgrep", "-P", str(two.pid)], capture_output=True, text=True)
    os.kill(int(listed.stdout.split()[-1]), signal.SIGKILL)
    _, err = two.communicate(timeout=400)
    assert two.returncode == 0, err
    assert "starts again" in err
    # Float32: gloo adds in another order than one process with two devices.
    assert losses("two") == pytest.approx(losses("one"), rel=1e-5)


def real(folder: pathlib.Path, *more: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "nt_jax.cli", "launch", "local", "tiny.py", "--data", "data"]
    return subprocess.Popen(
        [*words, "--workdir", "sweep", "--sweep", "train.seed=0,1", "--train.steps", "60", *more],
        cwd=folder, env={**environment(), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_a_real_sweep_stopped_killed_and_resumed(tmp_path):
    make_experiment(tmp_path)
    make_dataset(tmp_path)
    first = tmp_path / "sweep" / "train.seed=0"
    stopped = real(tmp_path)
    wait_for(lambda: 20 in committed_steps(first / "checkpoints"), 120)
    stopped.terminate()
    out, err = stopped.communicate(timeout=120)
    # On a fast machine the first run may just have finished.
    assert stopped.returncode == 75, err
    assert "train.seed=1  not started" in out
    again = real(tmp_path)
    out, err = again.communicate(timeout=300)
    assert again.returncode == 0, err
    assert [line.split()[1:4] for line in out.splitlines()[1:]] == [["done", "0", "60"]] * 2
    for seed in (0, 1):
        rows = (tmp_path / "sweep" / f"train.seed={seed}" / "metrics.jsonl").read_text()
        steps = [json.loads(row)["step"] for row in rows.splitlines() if "split" not in row]
        assert steps == list(range(3, 61, 3))
