"""Following a run: each committed checkpoint once, whatever is killed, until DONE appears."""

import pathlib
import random
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest

from nt_jax.checkpoint import FOLDER, committed_steps
from nt_jax.errors import InputError
from nt_jax.evaluation import follow as room
from nt_jax.evaluation import search
from nt_jax.evaluation.follow import follow
from nt_jax.evaluation.stored import RESULTS, read_results
from nt_jax.files import owning
from tests.nt_jax.runs import command, environment, make_dataset, make_experiment, run


def write_task(folder: pathlib.Path) -> pathlib.Path:
    """Two classes that differ in their base composition."""
    rng = np.random.default_rng(0)
    rows = ["sequence,label"]
    for label, p in enumerate(([0.4, 0.1, 0.1, 0.4], [0.2, 0.3, 0.3, 0.2])):
        rows += [f"{''.join(rng.choice(list('ACGT'), 60, p=p))},{label}" for _ in range(30)]
    path = folder / "toy.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def pretrain(folder: pathlib.Path, workdir: pathlib.Path, steps: int, every: int) -> list[object]:
    data = ["--data", folder / "data", "--workdir", workdir, "--train.steps", steps]
    keep = ["--checkpoint.every", every, "--checkpoint.keep", 100, "--train.eval-every", steps]
    return ["pretrain", folder / "tiny.py", *data, *keep]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("follow")
    make_dataset(folder)
    make_experiment(folder)
    write_task(folder)
    done = run(*pretrain(folder, folder / "run", steps=60, every=20))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def workdir(folder, tmp_path) -> pathlib.Path:
    """A copy of the finished run that a test may spoil; checkpoints 20, 40 and 60."""
    return shutil.copytree(folder / "run", tmp_path / "run")


def steps_of(out: pathlib.Path) -> list[int]:
    return [result["step"] for result in read_results(out / RESULTS)]


def following(workdir, folder, out, **more):
    lines: list[str] = []
    settings = {"folds": 2, "layers": [1]} | more
    count = follow(workdir, [folder / "toy.csv"], out, progress=lines.append, **settings)
    return count, "\n".join(lines)


def test_controls_are_fitted_once_for_all_checkpoints(workdir, folder, tmp_path, monkeypatch):
    fits = []
    fit_all = search.fit_all

    def counted(*arguments, **keywords):
        fits.append(1)
        return fit_all(*arguments, **keywords)

    monkeypatch.setattr(search, "fit_all", counted)
    out = tmp_path / "probe"
    count, said = following(workdir, folder, out)
    assert count == 3
    assert steps_of(out) == [20, 40, 60]
    assert "the run has ended; 3 checkpoints probed" in said
    # Each checkpoint, and once the random initialisation and the k-mers.
    assert len(fits) == 3 + 2
    first, *others = read_results(out / RESULTS)
    for other in others:
        assert other["families"][1:] == first["families"][1:]
        assert other["families"][0] != first["families"][0]
    # Kept controls are those that would be fitted.
    fresh = tmp_path / "fresh"
    shutil.rmtree(workdir / FOLDER / "20")
    shutil.rmtree(workdir / FOLDER / "40")
    following(workdir, folder, fresh)
    (only,) = read_results(fresh / RESULTS)
    assert only["families"] == others[-1]["families"]
    assert only["differences"] == others[-1]["differences"]
    damaged = next((out / "controls").glob("*.npz"))
    damaged.write_bytes(damaged.read_bytes()[:50])
    (out / RESULTS).unlink()
    with pytest.raises(InputError, match=rf"{damaged.name}: damaged .*delete it to fit again"):
        following(workdir, folder, out)


def test_waits_for_the_run_and_for_its_checkpoints(workdir, folder, tmp_path):
    late, out = tmp_path / "late", tmp_path / "probe"
    hidden = [workdir / "DONE", workdir / FOLDER / "60"]
    for path in hidden:
        path.rename(tmp_path / f"hidden-{path.name}")
    (workdir / FOLDER / "80.orbax-checkpoint-tmp-1").mkdir()
    torn = shutil.copytree(workdir / FOLDER / "40", workdir / FOLDER / "100")
    shutil.rmtree(torn / "params")
    looks = []

    def wait(seconds):
        looks.append(seconds)
        if len(looks) == 2:
            workdir.rename(late)
        if len(looks) == 4:
            (tmp_path / "hidden-60").rename(late / FOLDER / "60")
            (tmp_path / "hidden-DONE").rename(late / "DONE")
        assert len(looks) < 10

    count, said = following(late, folder, out, wait=wait)
    assert count == 3
    assert steps_of(out) == [20, 40, 60]
    assert said.count("waiting for the run") == 1
    assert said.count("waiting for a checkpoint") == 1


def test_a_checkpoint_that_goes_before_its_turn_is_reported(workdir, folder, tmp_path, monkeypatch):
    load = room.load

    def after_it_was_listed(name):
        if name.endswith("@40"):
            shutil.rmtree(workdir / FOLDER / "40")
        return load(name)

    monkeypatch.setattr(room, "load", after_it_was_listed)
    count, said = following(workdir, folder, tmp_path / "probe")
    assert count == 2
    assert steps_of(tmp_path / "probe") == [20, 60]
    assert "step 40: deleted by the run before its turn" in said
    assert "2 checkpoints probed, 1 deleted before their turn: [40]" in said


def test_a_damaged_checkpoint_is_passed_over_and_named_at_the_end(workdir, folder, tmp_path):
    for path in (workdir / FOLDER / "40" / "params").rglob("*"):
        if path.is_file() and path.stat().st_size > 1000:
            path.write_bytes(path.read_bytes()[:-100] + bytes(100))
    with pytest.raises(InputError, match=r"damaged and not probed: steps \[40\]"):
        following(workdir, folder, tmp_path / "probe")
    assert steps_of(tmp_path / "probe") == [20, 60]


def test_bad_input_ends_it_at_once(workdir, folder, tmp_path):
    with pytest.raises(InputError, match="--follow takes a workdir, without a step"):
        following(f"{workdir}@20", folder, tmp_path / "probe")
    with pytest.raises(InputError, match="no such task"):
        follow(workdir, [tmp_path / "none.csv"], tmp_path / "probe")
    with pytest.raises(InputError, match="layer 9"):
        following(workdir, folder, tmp_path / "probe", layers=[9])
    (tmp_path / "probe").mkdir(exist_ok=True)
    with (
        owning(tmp_path / "probe"),
        pytest.raises(InputError, match="another process is writing results here"),
    ):
        following(workdir, folder, tmp_path / "probe")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_both_processes_may_be_killed(folder, tmp_path):
    """SIGKILL three times each, at moments drawn anew; every checkpoint is probed exactly once."""
    workdir, out = tmp_path / "run", tmp_path / "run" / "probe"
    task = ["--task", folder / "toy.csv", "--out", out, "--folds", 2, "--layers", 1]
    commands = {
        "train": command(*pretrain(folder, workdir, steps=600, every=50)),
        "follow": command("probe", "--checkpoint", workdir, *task, "--follow"),
    }

    def done(name: str) -> int:
        return len(committed_steps(workdir / FOLDER) if name == "train" else steps_of(out))

    def start(name: str) -> subprocess.Popen:
        log = (tmp_path / f"{name}.log").open("a")
        return subprocess.Popen(commands[name], env=environment(), stdout=log, stderr=log)

    rng = random.Random(time.time_ns())
    running = {name: start(name) for name in commands}
    moments = {name: sorted(rng.sample(range(8), 3)) for name in commands}
    print("killed after", moments)
    deadline = time.monotonic() + 1000
    while running and time.monotonic() < deadline:
        time.sleep(0.1)
        for name, process in list(running.items()):
            if moments[name] and done(name) >= moments[name][0]:
                moments[name].pop(0)
                time.sleep(rng.random() * 3)
                process.send_signal(signal.SIGKILL)
                assert process.wait(60) == -signal.SIGKILL, (tmp_path / f"{name}.log").read_text()
                running[name] = start(name)
            elif process.poll() is not None:
                assert process.returncode == 0, (tmp_path / f"{name}.log").read_text()
                del running[name]
    assert not running
    assert not any(moments.values())
    assert steps_of(out) == committed_steps(workdir / FOLDER) == list(range(50, 601, 50))
    assert "the run has ended; 12 checkpoints" in (tmp_path / "follow.log").read_text()


def test_sigterm_ends_it_with_75(folder, tmp_path):
    workdir = tmp_path / "never"
    arguments = ["--task", folder / "toy.csv", "--out", tmp_path / "probe", "--follow"]
    process = subprocess.Popen(
        command("probe", "--checkpoint", workdir, *arguments),
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert "waiting for the run" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 75
    assert process.stderr.read() == ""
