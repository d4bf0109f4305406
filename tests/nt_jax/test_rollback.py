"""Too many skipped steps: back to before them, past the batches, and the same bits after a kill."""

import json
import pathlib
import signal
import subprocess
import time

import jax
import numpy as np
import pytest

from nt_jax import workdir
from nt_jax.checkpoint import Checkpoints, committed_steps, restore_params
from nt_jax.config import CheckpointConfig, Experiment, OptimConfig, to_dict
from nt_jax.order import TrainOrder, left_out, locate
from nt_jax.rollback import DivergedError, roll_back
from tests.nt_jax.runs import (
    command,
    environment,
    make_dataset,
    make_experiment,
    make_poisoned,
    rows,
    run,
)
from tests.nt_jax.test_checkpoint import abstract_and_state

EXPERIMENT = Experiment(
    name="tiny",
    optim=OptimConfig(on_limit="rollback", rollback_limit=2),
    checkpoint=CheckpointConfig(every=10, keep=5),
)


def test_batches_are_left_out_from_a_step_on_and_none_is_read_twice():
    events = ((40, 25), (40, 3), (60, 7))
    assert [left_out(events, step) for step in (0, 39, 40, 59, 60, 99)] == [0, 0, 28, 28, 35, 35]
    plain = TrainOrder(1000, 8, 7, 10, 0.5)
    order = TrainOrder(1000, 8, 7, 10, 0.5, (), events)
    assert locate(order, 39, 3) == locate(plain, 39, 3)
    assert locate(order, 40, 3) == locate(plain, 68, 3)
    assert locate(order, 60, 0) == locate(plain, 95, 0)


def make_run(folder: pathlib.Path, steps: tuple[int, ...]) -> None:
    workdir.create(folder, EXPERIMENT, {"dataset": "x", "init_from": None})
    _, state = abstract_and_state()
    saver = Checkpoints(folder, EXPERIMENT.checkpoint)
    for step in steps:
        saver.save(state._replace(step=np.int32(step)), EXPERIMENT, {})
    saver.close()


def test_the_way_back_depends_on_the_step_and_not_on_the_disk(tmp_path):
    for name, steps in (("whole", (10, 20, 30)), ("preempted", (10, 27)), ("damaged", (10,))):
        folder = tmp_path / name
        make_run(folder, steps)
        text = roll_back(folder, EXPERIMENT, DivergedError("trouble", 33, 5))
        assert "back to step 20, the batches of the 13 steps since are left out" in text
        event = {"step": 20, "rolled_back_from": 33, "batches_left_out": 13}
        assert workdir.read_config(folder)[1]["lineage"] == [event]
        assert all(step <= 20 for step in committed_steps(folder / "checkpoints"))
    assert committed_steps(tmp_path / "whole" / "checkpoints") == [10, 20]


def test_the_number_of_rollbacks_is_limited(tmp_path):
    make_run(tmp_path, (10,))
    roll_back(tmp_path, EXPERIMENT, DivergedError("trouble", 13, 2))
    roll_back(tmp_path, EXPERIMENT, DivergedError("trouble", 15, 2))
    with pytest.raises(DivergedError, match="2 rollbacks did not help"):
        roll_back(tmp_path, EXPERIMENT, DivergedError("trouble", 17, 2))
    assert len(workdir.read_config(tmp_path)[1]["lineage"]) == 2


def test_the_policy_may_change_between_two_starts(tmp_path):
    make_run(tmp_path, ())
    stop = Experiment(name="tiny", checkpoint=EXPERIMENT.checkpoint)
    assert to_dict(stop)["optim"] != to_dict(EXPERIMENT)["optim"]
    workdir.claim(tmp_path, stop, "x", None)


@pytest.mark.slow
def test_a_run_rolls_back_and_a_kill_behind_it_changes_no_bit(tmp_path):
    make_dataset(tmp_path, n_every=800)
    experiment, poisoned = make_experiment(tmp_path), make_poisoned(tmp_path)

    def words(name: str) -> list[object]:
        return [
            "pretrain", experiment, "--data", tmp_path / "data", "--workdir", tmp_path / name,
            "--init-from", poisoned, "--train.steps", 120, "--train.eval-every", 120,
            "--optim.nonfinite-limit", 2, "--optim.on-limit", "rollback",
            "--optim.rollback-limit", 50,
        ]  # fmt: skip

    done = run(*words("whole"))
    assert done.returncode == 0, done.stderr
    assert "steps skipped in a row; back to step" in done.stderr
    lineage = workdir.read_config(tmp_path / "whole")[1]["lineage"]
    events = tuple((event["step"], event["batches_left_out"]) for event in lineage)
    assert len(events) >= 2, done.stderr
    train = [row for row in rows(tmp_path / "whole") if "split" not in row]
    assert [row["step"] for row in train] == list(range(3, 121, 3))
    for row in train:
        assert row.get("batches_left_out", 0) == left_out(events, row["step"] - 1)
    first = events[0][0]
    shifted = run("data", "trace", tmp_path / "whole", "--step", first + 1, "--row", 2, "--json")
    plain = tmp_path / "plain"
    plain.mkdir()
    config = json.loads((tmp_path / "whole" / "config.json").read_text())
    del config["lineage"]
    (plain / "config.json").write_text(json.dumps(config))
    shift = left_out(events, first)
    later = run("data", "trace", plain, "--step", first + 1 + shift, "--row", 2, "--json")
    assert json.loads(shifted.stdout)["tokens"] == json.loads(later.stdout)["tokens"]

    process = subprocess.Popen(
        command(*words("killed")), env=environment(), stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 200
    config_file = tmp_path / "killed" / "config.json"
    while not (config_file.exists() and "lineage" in config_file.read_text()):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    again = run(*words("killed"))
    assert again.returncode == 0, again.stderr
    assert workdir.read_config(tmp_path / "killed")[1]["lineage"] == lineage
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")
    for a, b in zip(
        *(jax.tree.leaves(restore_params(tmp_path / name)[0]) for name in ("killed", "whole")),
        strict=True,
    ):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
