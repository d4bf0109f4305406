"""Several processes are one run: same curve, same windows, one end."""

import concurrent.futures
import pathlib
import re
import signal
import socket
import time
from collections.abc import Callable

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nt_jax.checkpoint import committed_steps
from nt_jax.errors import InputError
from nt_jax.places import find_place
from nt_jax.rendezvous import LateError, Place, meet
from nt_jax.rows import Rows
from tests.nt_jax.runs import make_dataset, make_experiment, rows
from tests.nt_jax.several import Processes, free_port

SHORT = (
    "--train.steps", 16, "--train.eval-every", 1000, "--train.log-every", 1,
    "--checkpoint.every", 6, "--model.num-heads", 4,
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("hosts")
    make_dataset(folder)
    make_experiment(folder)
    return folder


@pytest.fixture
def start(folder) -> Callable[..., Processes]:
    """start(workdir, processes, devices of each, ...)."""

    def started(workdir: str, count: int, devices: int, *more: object, **how: object) -> Processes:
        data = ("--data", folder / "data", "--workdir", folder / workdir)
        words = ("pretrain", folder / "tiny.py", *data, *SHORT, *more)
        return Processes(folder / f"{workdir}-output", count, devices, *words, **how)

    return started


@pytest.fixture(scope="module")
def reference(folder) -> tuple[list[dict], dict]:
    """Rows and windows of one process with four devices."""
    words = ("pretrain", folder / "tiny.py", "--data", folder / "data", "--workdir", folder / "one")
    one = Processes(folder / "one-output", 1, 4, *words, *SHORT)
    assert one.wait() == [0], one.said()
    return rows(folder / "one"), one.windows()


def assert_same_curve(found: list[dict], expected: list[dict]) -> None:
    assert [row["step"] for row in found] == [row["step"] for row in expected]
    # Gloo adds the gradients in another order than the threads of one process do.
    for name in ("loss", "grad_norm"):
        np.testing.assert_allclose(
            [row.get(name, 0.0) for row in found],
            [row.get(name, 0.0) for row in expected],
            rtol=1e-5 if name == "loss" else 1e-4,
        )


def until(condition: Callable[[], object], seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)


def logged(folder: pathlib.Path, process: int) -> str:
    path = folder / "logs" / f"process-{process:04d}.log"
    return path.read_text() if path.exists() else ""


# --- Same numbers ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "devices", "mesh"),
    [
        (2, 2, ()),
        (2, 2, ("--mesh.data", 2, "--mesh.tensor", 2)),
        (2, 2, ("--mesh.tensor", 4)),
    ],
    ids=["data4", "tensor2", "tensor4"],
)
def test_any_number_of_processes_gives_one_loss_curve(
    folder, start, reference, count, devices, mesh, request
):
    name = request.node.callspec.id
    expected, windows = reference
    run = start(name, count, devices, *mesh)
    assert run.wait() == [0] * count, run.said()
    assert_same_curve(rows(folder / name), expected)
    assert run.windows() == windows
    assert (folder / name / "DONE").exists()
    assert (folder / name / "report.html").exists()
    for process in range(count):
        assert f"process {process} of {count}" in logged(folder / name, process)
    assert [run.said(i) for i in range(1, count)] == [""] * (count - 1)


@pytest.mark.slow
def test_the_tokens_of_a_window_may_lie_on_several_processes(folder, start):
    even = ("--data.sequence-length", 32, "--train.steps", 12)
    runs = [
        start("whole", 1, 1, *even),
        start("split", 2, 2, *even, "--mesh.data", 1, "--mesh.sequence", 4),
    ]
    for run in runs:
        assert set(run.wait()) == {0}, run.said()
    assert "sequence 4" in runs[1].said()
    assert_same_curve(rows(folder / "split"), rows(folder / "whole"))
    assert runs[0].windows() == runs[1].windows()


@pytest.mark.slow
def test_a_notice_to_one_process_stops_all_and_fewer_go_on_with_the_same_windows(
    folder, start, reference
):
    expected, windows = reference
    workdir = folder / "moving"

    def steps() -> int:
        return logged(workdir, 0).count("'loss'")

    four = start("moving", 4, 1, "--mesh.data", 2, "--mesh.fsdp", 2)
    until(lambda: steps() > 1)
    four.all[2].send_signal(signal.SIGTERM)
    assert four.wait() == [75] * 4, four.said()
    stopped = committed_steps(workdir / "checkpoints")[-1]
    assert f"stopped by a signal at step {stopped}" in four.said()

    two, before = start("moving", 2, 2), steps()
    until(lambda: steps() > before)
    two.all[0].send_signal(signal.SIGTERM)
    assert two.wait() == [75] * 2, two.said()
    assert f"resumes at step {stopped}" in two.said()

    one = start("moving", 1, 1)
    assert one.wait() == [0], one.said()
    assert_same_curve(rows(workdir), expected)
    # The loader reads ahead: what it read for steps that another start ran is the same as well.
    assert four.windows() | two.windows() | one.windows() == windows
    for run in (four, two, one):
        assert run.windows().items() <= windows.items()


# --- One end for all ------------------------------------------------------------------------------


def test_bad_input_ends_all_processes_with_one_line(folder, start):
    (folder / "foreign").mkdir()
    (folder / "foreign" / "thesis.tex").touch()
    run = start("foreign", 2, 1)
    assert run.wait() == [2, 2]
    assert "not empty and not a workdir" in run.said(0)
    assert len(run.said(0).splitlines()) == 1
    assert run.said(1) == ""


def test_processes_that_would_train_different_things_are_refused(folder, start):
    run = start("differing", 2, 1, own={1: ("--train.seed", 7)})
    assert run.wait() == [2, 2]
    for i in range(2):
        assert len(run.said(i).splitlines()) == 1
        assert "process 1 has train.seed=7, process 0 0" in run.said(i)
    assert not (folder / "differing").exists()


def test_a_workdir_that_the_hosts_do_not_share_is_refused(folder, start):
    run = start("shared", 2, 1, own={1: ("--workdir", folder / "elsewhere")})
    assert run.wait() == [2, 2]
    assert "process 1 on" in run.said(0)
    assert "does not see process 0's files" in run.said(0)
    assert not (folder / "elsewhere").exists()


@pytest.mark.slow
def test_a_process_that_is_frozen_is_named(folder, start):
    run = start("frozen", 2, 1, "--train.steps", 5000, seconds=15)
    until(lambda: "'loss'" in logged(folder / "frozen", 1))
    run.all[1].send_signal(signal.SIGSTOP)
    assert run.all[0].wait(timeout=100) == 1
    run.all[1].kill()
    late = rf"LateError: .*process 1 \({socket.gethostname()}\)( did not come within| gave no) "
    assert re.search(late, run.said(0)), run.said(0)


@pytest.mark.slow
def test_a_process_that_dies_takes_the_others_with_it(folder, start):
    run = start("dying", 2, 1, "--train.steps", 5000, seconds=30)
    until(lambda: "'loss'" in logged(folder / "dying", 1))
    run.all[1].send_signal(signal.SIGKILL)
    assert run.all[0].wait(timeout=100) not in (0, 2, 75)


# --- Meeting --------------------------------------------------------------------------------------


def met(places: list[Place], seconds: float) -> list[BaseException | None]:
    """What each process got from `meet`."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        return [job.exception() for job in [pool.submit(meet, p, seconds) for p in places]]


def test_all_processes_meet_and_the_port_is_free_again():
    address = f"127.0.0.1:{free_port()}"
    for _ in range(2):
        assert met([Place(address, 5, i) for i in range(5)], 20.0) == [None] * 5


def test_a_process_that_never_comes_is_named_by_all_that_did():
    address = f"127.0.0.1:{free_port()}"
    for error in met([Place(address, 4, i) for i in (0, 1, 3)], 2.0):
        assert isinstance(error, LateError)
        assert f"process 2 of 4 did not come to {address} within 2 s" in str(error)


def test_a_coordinator_that_cannot_be_reached_is_named():
    address = f"127.0.0.1:{free_port()}"
    (error,) = met([Place(address, 2, 1)], 1.0)
    assert isinstance(error, LateError)
    assert re.match(rf"process 1 \(.*\) cannot reach the coordinator at {address}", str(error))


def test_two_processes_with_one_number_are_refused():
    address = f"127.0.0.1:{free_port()}"
    errors = met([Place(address, 3, 0), Place(address, 3, 1), Place(address, 3, 1)], 5.0)
    assert all(isinstance(error, InputError | LateError) for error in errors)
    assert "two processes say that they are number 1" in str(errors[0])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("", "2", "0"), "NT_JAX_COORDINATOR is not set"),
        (("a:1", "2", ""), "NT_JAX_PROCESS_ID is not set"),
        (("a", "2", "0"), "'a' is not HOST:PORT"),
        (("a:1", "two", "0"), "'two' is no whole number"),
        (("a:1", "2", "2"), "the 2 processes have the numbers 0 to 1"),
    ],
)
def test_half_a_description_is_refused(monkeypatch, given, message):
    names = ("NT_JAX_COORDINATOR", "NT_JAX_PROCESS_COUNT", "NT_JAX_PROCESS_ID")
    for name, value in zip(names, given, strict=True):
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=message):
        find_place()


SLURM = {
    "SLURM_JOB_ID": "77", "SLURM_STEP_NODELIST": "n[3-4]", "SLURM_NTASKS": "2",
    "SLURM_PROCID": "1", "SLURM_LOCALID": "0",
}  # fmt: skip
MPI = {
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1:34911", "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_LOCAL_RANK": "1",
}  # fmt: skip


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        (SLURM, (Place("n3:61517", 2, 1), [0])),
        ({**SLURM, "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, None),
        (MPI, (Place("10.96.0.1:62624", 4, 3), [1])),
        ({**SLURM, "NT_JAX_PROCESS_COUNT": "1"}, None),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),
    ],
    ids=["alone", "slurm", "slurm with one task", "open mpi", "one process by name", "lone pod"],
)
def test_clusters_are_found_where_they_say_that_there_are_several(monkeypatch, variables, expected):
    for name in [*SLURM, *MPI]:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert find_place() == expected


def test_rows_follow_from_the_sharding():
    # Devices out of order, as a topology gives them, and an axis that splits no batch.
    devices = np.array(jax.devices()[:4])[[2, 0, 3, 1]].reshape(2, 2)
    spec = NamedSharding(Mesh(devices, ("data", "tensor")), PartitionSpec("data"))
    rows = Rows(spec, 6)
    batch = np.arange(12).reshape(6, 2)
    assert rows.own.tolist() == [0, 1, 2, 3, 4, 5]
    np.testing.assert_array_equal(rows.place(batch), batch)
    assert rows.place(batch).sharding.is_equivalent_to(spec, 2)
