"""metrics.jsonl on a disk that is full for a while; TensorBoard's file is read back."""

import contextlib
import json
import os
import pathlib
import resource
import struct
import subprocess
import sys
import time

import pytest
from tensorboardX.proto.event_pb2 import Event

from nt_jax import metrics
from nt_jax.appender import UnwrittenError
from nt_jax.metrics import MetricsWriter, cut_back, read_metrics
from tests.nt_jax.runs import command, environment, make_dataset, make_experiment, rows, run


@contextlib.contextmanager
def no_room(bytes_in_all: int):
    """The system refuses to let any file grow beyond this."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_in_all, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def row(step: int) -> dict[str, float]:
    return {"step": step, "loss": 1.0 / step}


def test_rows_wait_for_room_and_none_is_lost_or_torn(tmp_path, caplog):
    writer = MetricsWriter(tmp_path, 0)
    writer.write(row(1))
    size = (tmp_path / "metrics.jsonl").stat().st_size
    with no_room(size + 10):  # the next row is torn in the middle
        for step in range(2, 40):
            writer.write(row(step))
        assert not writer.all_on_disk()
    assert caplog.text.count("rows wait in memory") == 1
    assert read_metrics(tmp_path) == [row(1)]
    assert writer.all_on_disk()
    assert caplog.text.count("there is room again") == 1
    writer.write(row(40))
    writer.close()
    assert read_metrics(tmp_path) == [row(step) for step in range(1, 41)]


def test_a_run_cannot_end_with_rows_that_are_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(metrics, "_PAUSES", (0.0, 0.01))
    writer = MetricsWriter(tmp_path, 0)
    with no_room(0):
        writer.write(row(1))
        writer.write(row(2))
        with pytest.raises(UnwrittenError, match=r"metrics.jsonl: 2 rows could not be written"):
            writer.sync()


def test_memory_for_waiting_rows_is_bounded(tmp_path):
    writer = MetricsWriter(tmp_path, 0)
    writer._file._limit = 1000
    long = {"step": 1, "text": "x" * 2000}
    with no_room(0), pytest.raises(UnwrittenError, match="no memory to wait in"):
        writer.write(long)


def test_rows_that_need_no_cut_are_not_written_again(tmp_path):
    writer = MetricsWriter(tmp_path, 0)
    for step in (1, 2, 3):
        writer.write(row(step))
    writer.close()
    before = (tmp_path / "metrics.jsonl").stat().st_ino
    cut_back(tmp_path, 3)
    assert (tmp_path / "metrics.jsonl").stat().st_ino == before
    cut_back(tmp_path, 2)
    assert read_metrics(tmp_path) == [row(1), row(2)]


def events(folder: pathlib.Path) -> list[Event]:
    found = []
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            found.append(Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return found


def test_tensorboard_gets_every_number_of_a_row_once(tmp_path):
    writer = MetricsWriter(tmp_path, 4)
    with no_room(60):
        writer.write({**row(5), "mfu": None, "goodput": {"share": 0.5}})
    writer.write({"split": "validation", "step": 5, "loss": 2.0})
    writer.close()
    version, start, *scalars = events(tmp_path / "tensorboard")
    assert version.file_version == "brain.Event:2"
    assert start.step == 5
    found = [(e.step, v.tag, v.simple_value) for e in scalars for v in e.summary.value]
    assert found == [(5, "train/loss", pytest.approx(0.2)), (5, "validation/loss", 2.0)]


@pytest.fixture
def small_disk(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)]
    mounted = subprocess.run(words, capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"no small disk can be mounted: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.slow
def test_a_run_on_a_disk_that_is_full_for_a_while_loses_nothing(tmp_path, small_disk):
    make_dataset(tmp_path)
    experiment = make_experiment(tmp_path)
    more = ["--train.steps", 900, "--train.eval-every", 300, "--train.global-batch", 32]

    def words(workdir: pathlib.Path) -> list[object]:
        return ["pretrain", experiment, "--data", tmp_path / "data", "--workdir", workdir, *more]

    undisturbed = run(*words(tmp_path / "reference"))
    assert undisturbed.returncode == 0, undisturbed.stderr
    process = subprocess.Popen(
        command(*words(small_disk / "run")), env=environment(), stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 200
    while not (small_disk / "run" / "checkpoints" / "40").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with (small_disk / "filler").open("wb", buffering=0) as filler:
        for size in (1 << 16, 1):
            with contextlib.suppress(OSError):
                while True:
                    filler.write(bytes(size))
    logged = (small_disk / "run" / "metrics.jsonl").read_bytes()
    time.sleep(1.5)
    torn = (small_disk / "run" / "metrics.jsonl").read_bytes()
    assert len(torn) < len(logged) + 8192
    assert process.poll() is None, process.communicate()
    (small_disk / "filler").unlink()
    _, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert err.count("rows wait in memory") == 1, err
    assert err.count("there is room again, all rows are written") == 1, err
    assert rows(small_disk / "run") == rows(tmp_path / "reference")
    json.loads((small_disk / "run" / "goodput.jsonl").read_text().splitlines()[-1])


def test_training_does_not_wait_for_imports_that_it_has_no_use_for():
    """Torch and scikit-learn are there, and take longer than all the rest."""
    program = (
        "import sys, nt_jax.train, nt_jax.report.page; "
        "assert not {'torch', 'sklearn', 'scipy.stats'} & set(sys.modules); "
        "import torch.nn, sklearn.metrics"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
