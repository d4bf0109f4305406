"""Training through the command line: bitwise resume after kills, meshes, init-from, divergence."""

import json
import pathlib
import shutil
import signal
import subprocess
import time
from collections.abc import Callable

import jax
import numpy as np
import pytest

from nt_jax.checkpoint import committed_steps, restore_params
from tests.nt_jax.runs import command, environment, make_dataset, make_experiment, rows, run


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("training")
    make_dataset(folder)
    make_experiment(folder)
    return folder


def train(folder: pathlib.Path, workdir: str, *more: object) -> list[object]:
    data = ["--data", folder / "data", "--workdir", folder / workdir]
    return ["pretrain", folder / "tiny.py", *data, *more]


@pytest.fixture(scope="module")
def reference(folder) -> pathlib.Path:
    """A run that nothing disturbed."""
    done = run(*train(folder, "reference"))
    assert done.returncode == 0, done.stderr
    assert (folder / "reference" / "DONE").exists()
    assert (folder / "reference" / "report.html").exists()
    return folder / "reference"


def interrupt(arguments: list[object], when: Callable[[], bool], sign: signal.Signals) -> int:
    """Starts a run, sends the signal as soon as `when` holds, returns the exit code."""
    process = subprocess.Popen(
        command(*arguments), env=environment(), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 200
    while process.poll() is None and time.monotonic() < deadline:
        if when():
            process.send_signal(sign)
            break
        time.sleep(0.004)
    return process.wait(timeout=200)


def assert_same_parameters(one: pathlib.Path, two: pathlib.Path) -> None:
    for a, b in zip(
        jax.tree.leaves(restore_params(one)[0]), jax.tree.leaves(restore_params(two)[0]),
        strict=True,
    ):  # fmt: skip
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_killed_anywhere_and_resumed_gives_the_same_bits(folder, reference):
    workdir = folder / "killed"
    saves = workdir / "checkpoints"

    def lines() -> int:
        path = workdir / "metrics.jsonl"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def saving() -> bool:
        # A step directory without its marker is a save in progress.
        beyond = {str(step) for step in committed_steps(saves)}
        return saves.is_dir() and any(
            entry.name not in beyond for entry in saves.iterdir() if lines() > 40
        )

    random = np.random.default_rng()
    early = int(random.integers(5, 30))
    plan = [
        (lambda: lines() >= early, signal.SIGKILL, ()),
        (saving, signal.SIGKILL, ("--data.workers", "1")),
        (lambda: lines() >= 65, signal.SIGTERM, ()),
        (lambda: lines() >= 75, signal.SIGKILL, ("--data.workers", "2")),
    ]
    codes = []
    for when, sign, more in plan:
        codes.append(interrupt(train(folder, "killed", *more), when, sign))
        assert not (workdir / "DONE").exists(), f"the run ended before its interruption: {codes}"
    assert codes == [-signal.SIGKILL, -signal.SIGKILL, 75, -signal.SIGKILL]
    last = run(*train(folder, "killed", "--data.workers", "1"))
    assert last.returncode == 0, last.stderr
    assert "resumes at step" in last.stderr
    assert rows(workdir) == rows(reference), f"killed after {early} rows"
    assert_same_parameters(workdir, reference)


SHORT = ("--train.steps", 60, "--train.eval-every", 1000, "--checkpoint.every", 30)


@pytest.fixture(scope="module")
def short(folder) -> list[dict]:
    """Rows of a short run on one device."""
    done = run(*train(folder, "short", *SHORT))
    assert done.returncode == 0, done.stderr
    return rows(folder / "short")


def mesh(data: int, fsdp: int, tensor: int) -> list[object]:
    return ["--mesh.data", data, "--mesh.fsdp", fsdp, "--mesh.tensor", tensor]


def assert_same_curve(found: list[dict], expected: list[dict]) -> None:
    assert [row["step"] for row in found] == [row["step"] for row in expected]
    # Float32: sums taken in another order, fed back through 60 optimizer steps.
    np.testing.assert_allclose(
        [row["loss"] for row in found], [row["loss"] for row in expected], rtol=1e-4
    )


@pytest.mark.slow
@pytest.mark.parametrize("axes", [(8, 1, 1), (2, 4, 1), (2, 2, 2)])
def test_meshes_give_one_loss_curve(folder, short, axes):
    name = "mesh" + "x".join(map(str, axes))
    done = run(*train(folder, name, *SHORT, *mesh(*axes)), devices=8)
    assert done.returncode == 0, done.stderr
    assert_same_curve(rows(folder / name), short)


@pytest.mark.slow
def test_a_checkpoint_of_one_mesh_resumes_on_another(folder, short):
    workdir = folder / "moving"

    def halfway() -> bool:
        return bool(committed_steps(workdir / "checkpoints"))

    arguments = train(folder, "moving", *SHORT)
    assert interrupt(arguments, halfway, signal.SIGKILL) == -signal.SIGKILL
    arguments += mesh(1, 4, 2)
    done = run(*arguments, devices=8)
    assert done.returncode == 0, done.stderr
    assert "resumes at step 30" in done.stderr
    assert_same_curve(rows(workdir), short)


def test_done_runs_stay_done(folder, reference):
    before = (reference / "metrics.jsonl").read_bytes()
    again = run(*train(folder, "reference"))
    assert again.returncode == 0, again.stderr
    assert (reference / "metrics.jsonl").read_bytes() == before


def test_the_workdir_keeps_the_data_card(folder, reference):
    card = (reference / "datacard.json").read_text()
    assert json.loads(card) == json.loads((folder / "data" / "datacard.json").read_text())


def test_training_lowers_the_loss_below_the_unigram_start(reference):
    evaluations = [row for row in rows(reference) if "split" in row]
    assert evaluations[-1]["step"] == 240
    assert evaluations[-1]["mask_loss"] < evaluations[0]["mask_loss"]
    # The genome is random: nothing beats its base composition, and 3-mer counts know it.
    assert evaluations[-1]["mask_difference_high"] > -0.05


def test_init_from_starts_with_the_weights_of_another_run(folder, reference):
    done = run(
        *train(folder, "continued", "--init-from", f"{reference}@240", "--train.steps", "20")
    )
    assert done.returncode == 0, done.stderr
    curve = rows(folder / "continued")
    assert curve[0]["loss"] < rows(reference)[0]["loss"] - 0.05
    # As if killed before its first checkpoint, and started again without the flag.
    (folder / "continued" / "DONE").unlink()
    shutil.rmtree(folder / "continued" / "checkpoints")
    again = run(*train(folder, "continued", "--train.steps", "20"))
    assert again.returncode == 0, again.stderr
    assert rows(folder / "continued") == curve
    wrong = run(*train(folder, "wrong", "--init-from", reference, "--model.embed-dim", "32"))
    assert wrong.returncode == 2
    assert "model.embed_dim is 16 there, 32 here" in wrong.stderr


def test_divergence_stops_the_run_and_spares_the_parameters(folder):
    done = run(
        *train(folder, "diverged", "--optim.peak-lr", "1e38", "--optim.nonfinite-limit", "5")
    )
    assert done.returncode == 1
    assert "5 non-finite steps in a row" in done.stderr
    assert "step skipped" in done.stderr


def test_no_tensorflow(folder, reference):
    code = (
        "import sys, nt_jax.cli as cli; "
        f"assert cli.main(['evaluate', '--checkpoint', {str(reference)!r}, "
        f"'--data', {str(folder / 'data')!r}]) == 0; "
        "import nt_jax.train, data_pipelines.builders; "
        "assert 'tensorflow' not in sys.modules"
    )
    done = subprocess.run(
        [command()[0], "-c", code], env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "difference to unigram" in done.stdout


def test_importing_the_package_does_not_import_jax():
    code = "import sys, nt_jax, nt_jax.tokenizers; assert 'jax' not in sys.modules"
    assert subprocess.run([command()[0], "-c", code]).returncode == 0
