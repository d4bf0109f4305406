"""`nt-jax finetune`: results beside controls, restarts after any kill, errors of one line."""

import json
import pathlib
import random
import signal
import subprocess
import time

import numpy as np
import pytest

from nt_jax.evaluation.results import read_rows
from tests.nt_jax.evaluation.finetune.conftest import make_task, write_task
from tests.nt_jax.runs import command, environment, run

FILES = ("result.json", "adapter.safetensors", "adapter.json", "metrics.jsonl")


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> pathlib.Path:
    """A task without splits."""
    task = make_task("classes", train=80, test=0)
    return write_task(tmp_path_factory.mktemp("task") / "toy.csv", task)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """A task with a given split."""
    folder = tmp_path_factory.mktemp("task") / "given"
    folder.mkdir()
    task = make_task("classes")
    for part in ("train", "test"):
        write_task(folder / f"{part}.csv", task, part)
    return folder


def finetuning(checkpoint, task, out, *more) -> list[object]:
    where = ["--checkpoint", checkpoint, "--task", task, "--out", out]
    return ["finetune", *where, "--method", "ia3", "--batch", 8, *more]


@pytest.mark.slow
def test_folds_give_every_sequence_one_prediction_beside_controls(checkpoint, table, tmp_path):
    out = tmp_path / "out"
    more = ["--folds", 2, "--epochs", 1, "--random-init", "--json"]
    done = run(*finetuning(checkpoint, table, out, *more))
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result == json.loads((out / "result.json").read_text())
    names = [family["name"] for family in result["families"]]
    assert names == ["ia3", "frozen head", "probe", "k-mers", "CNN", "ia3, random init"]
    assert (result["split"], result["scored"], len(result["curves"])) == ("2-fold", 80, 2)
    for entry in result["differences"]:
        score = entry["scores"]["mcc"]
        assert score["low"] <= score["value"] <= score["high"]
    rows = [row for row in read_rows(out / "results.parquet") if row.metric == "mcc"]
    assert [(row.method, row.control, row.fold) for row in rows] == [
        (name, name != "ia3", fold) for name in names for fold in (-1, 0, 1)
    ]
    assert (out / "finetune.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.parent.name for path in out.glob("*/adapter.json")) == ["fold_0", "fold_1"]
    assert not list(out.rglob("checkpoints"))
    # Again: nothing is trained, the same result.
    again = run(*finetuning(checkpoint, table, out, *more))
    assert again.stdout == done.stdout
    for work in ("step", "inner"):
        assert work in done.stderr
        assert work not in again.stderr


@pytest.mark.slow
def test_killed_anywhere_and_started_again_it_gives_the_same_bits(checkpoint, folder, tmp_path):
    settings = ["--epochs", 6, "--patience", 6]
    reference, killed = tmp_path / "reference", tmp_path / "killed"
    done = run(*finetuning(checkpoint, folder, reference, *settings))
    assert done.returncode == 0, done.stderr
    rows = len((reference / "metrics.jsonl").read_text().splitlines())
    assert rows == 7
    moments = sorted(random.sample(range(rows), 3))
    signals = [signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]
    print("killed after rows", moments)
    arguments = finetuning(checkpoint, folder, killed, *settings)
    codes = [interrupt(arguments, killed, *pair) for pair in zip(moments, signals, strict=True)]
    assert codes[:2] == [-signal.SIGKILL] * 2
    # Before its handler stands, SIGTERM ends a process like any other.
    assert codes[2] in (0, 75, -signal.SIGTERM)
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    for name in FILES:
        assert (killed / name).read_bytes() == (reference / name).read_bytes(), name
    for name in ("predictions", "frozen"):
        arrays = [np.load(path / "held_out.npz")[name] for path in (reference, killed)]
        np.testing.assert_array_equal(*arrays)


def interrupt(arguments, out: pathlib.Path, rows: int, sign: signal.Signals) -> int:
    """Starts it, sends the signal once `metrics.jsonl` has so many rows; the exit code."""
    process = subprocess.Popen(
        command(*arguments), env=environment(), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    path, deadline = out / "metrics.jsonl", time.monotonic() + 400
    while process.poll() is None and time.monotonic() < deadline:
        if path.exists() and len(path.read_text().splitlines()) >= rows:
            time.sleep(random.random() * 0.3)
            process.send_signal(sign)
            break
        time.sleep(0.01)
    return process.wait(timeout=400)


def test_another_setting_in_the_same_folder_is_refused(checkpoint, table, tmp_path):
    (tmp_path / "finetune.json").write_text('{"parameters": "another"}')
    done = run(*finetuning(checkpoint, table, tmp_path))
    assert done.returncode == 2
    assert done.stderr.strip().endswith(
        "holds a fine-tuning with other parameters; give the same to go on, or another --out"
    )


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--method", "loar"], "finetune: unknown 'loar'; did you mean 'lora'?"),
        (["--layer", 3], "--layer 3: the model has layers 1..2"),
        (["--patience", 0], "--patience 0: 1 or more"),
        (["--learning-rate", -1], "--learning-rate -1.0: 0 or more"),
        (["--method", "head", "--merge"], "--merge: the head alone leaves the encoder as it is"),
        (["--mesh", "2by2"], "--mesh '2by2': three numbers, as in 8x1x1"),
    ],
)
def test_bad_options_are_errors_of_one_line(checkpoint, table, tmp_path, more, message):
    from nt_jax import cli

    arguments = finetuning(checkpoint, table, tmp_path / "out", *more)
    lines, code = said(cli.main, [str(word) for word in arguments])
    assert code == 2
    assert lines.startswith(f"nt-jax: {message}")
    assert lines.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_sequence_beyond_the_context_is_refused_before_any_training(checkpoint, tmp_path):
    from nt_jax import cli

    rows = [f"{'ACGT' * 10},{label}" for label in (0, 1, 0)] + [f"{'ACG' * 40},1"]
    path = tmp_path / "long.csv"
    rows = [f"{row[:-2]}{'ACGT'[n]},{row[-1]}" for n, row in enumerate(rows)]
    path.write_text("\n".join(["sequence,label", *rows]) + "\n")
    arguments = [str(word) for word in finetuning(checkpoint, path, tmp_path / "out")]
    lines, code = said(cli.main, arguments)
    assert code == 2
    assert "long: training sequence 3 has 42 tokens (121 bases)" in lines
    assert "crop the sequences to 69 bases" in lines


def said(function, arguments) -> tuple[str, int]:
    """What it wrote to standard error, and its exit code."""
    import contextlib
    import io

    error = io.StringIO()
    with contextlib.redirect_stderr(error):
        code = function(arguments)
    return error.getvalue(), code
