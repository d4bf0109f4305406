"""Training: what moves and what does not, when it ends, and that a mesh changes nothing."""

import pathlib

import jax
import numpy as np
import pytest

from nt_jax.checksums import checksums
from nt_jax.evaluation import metrics
from nt_jax.evaluation.finetune import examples, training
from nt_jax.evaluation.finetune.head import HEAD
from nt_jax.evaluation.finetune.objectives import OBJECTIVES
from nt_jax.evaluation.finetune.problem import Problem
from tests.nt_jax.evaluation.finetune.conftest import make_task


def problem_of(encoder, task):
    fit, validation = examples.carve(task, np.arange(len(task.train)), 0)
    width = OBJECTIVES[task.kind].outputs(task)
    return Problem(encoder, task.kind, width, task.train.take(fit), task.train.take(validation))


def run(encoder, task, folder: pathlib.Path, asked_to_stop=lambda: False):
    return training.train(problem_of(encoder, task), folder, asked_to_stop, lambda text: None)


def test_only_adapters_and_head_move(loaded, encoder, tmp_path):
    before = checksums(loaded.params)
    found = run(encoder("ia3"), make_task("classes"), tmp_path)
    assert checksums(loaded.params) == before
    assert set(found.trained) == {
        "nt/block/attention/key", "nt/block/attention/value", "nt/block/ffn/fc2",
    }  # fmt: skip
    assert all(set(arrays) == {"ia3"} for arrays in found.trained.values())
    state = problem_of(encoder("ia3"), make_task("classes")).start()
    moved = jax.tree.map(lambda x: float(np.abs(np.asarray(x) - 1).max()), found.trained)
    assert all(max(arrays.values()) > 0 for arrays in moved.values()) or not found.best["step"]
    assert set(state.params) == {*found.trained, HEAD}


@pytest.mark.parametrize(
    ("kind", "metric", "least"),
    [("classes", "mcc", 0.5), ("multilabel", "mcc", 0.4), ("values", "spearman", 0.6)],
)
def test_every_kind_learns_what_can_be_learnt(encoder, tmp_path, kind, metric, least):
    task = make_task(kind, train=140, test=60)
    settings = encoder("lora", rank=2, epochs=4, learning_rate=3e-3)
    found = run(settings, task, tmp_path)
    predicted = OBJECTIVES[kind].predict(
        settings.predict(found.trained, found.head, task.test.sequences)
    )
    scores = metrics.SCORERS[kind].scores(task.test.labels, predicted)
    assert scores[metric] > least
    if kind == "values":
        # In the units of the labels, not of the loss.
        assert np.abs(predicted - task.test.labels).mean() < 3.0
    assert found.best == min(found.rows, key=lambda row: row["validation_loss"])
    assert found.best["step"] > 0


def test_training_ends_when_nothing_is_gained_and_the_best_is_kept(encoder, tmp_path):
    """Labels that follow from nothing: full fine-tuning learns them by heart and gets worse."""
    task = make_task("classes", shuffled=True)
    chosen = encoder("full", learning_rate=1e-2, epochs=60, patience=3)
    found = run(chosen, task, tmp_path)
    steps = [row["step"] for row in found.rows]
    assert steps[-1] < problem_of(chosen, task).steps
    assert len(steps) - 1 - steps.index(found.best["step"]) == 3
    assert found.rows[-1]["loss"] < found.rows[1]["loss"]
    assert found.rows[-1]["validation_loss"] > found.best["validation_loss"]


def test_the_head_alone_takes_no_step_and_is_where_all_others_start(encoder, tmp_path):
    task = make_task("classes")
    head = run(encoder("head"), task, tmp_path / "head")
    other = run(encoder("ia3", epochs=1), task, tmp_path / "ia3")
    assert [row["step"] for row in head.rows] == [0]
    assert head.trained == {}
    assert head.rows[0] == other.rows[0]
    for name, array in head.head.items():
        np.testing.assert_array_equal(array, other.start[name])


@pytest.mark.parametrize("method", ["ia3", "full"])
def test_eight_devices_give_the_loss_of_one(encoder, tmp_path, method: str):
    task = make_task("classes")
    one, eight = (
        run(
            encoder(method, devices, epochs=2, learning_rate=1e-3), task, tmp_path / str(devices)
        ).rows
        for devices in (1, 8)
    )
    for name in ("step", "loss", "validation_loss"):
        values = [[row[name] or 0.0 for row in rows] for rows in (one, eight)]
        # float32 rounding of sums in another order, fed back through the steps.
        np.testing.assert_allclose(values[1], values[0], rtol=2e-4)


def test_a_stopped_training_goes_on_to_the_same_bits(encoder, tmp_path):
    """In the middle of an epoch, where no evaluation has just been saved."""
    task = make_task("classes")
    whole = run(encoder("lora", epochs=2), task, tmp_path / "whole")

    asked = iter([False] * 6 + [True])
    parts = tmp_path / "parts"
    assert run(encoder("lora", epochs=2), task, parts, lambda: next(asked)) is None
    resumed = run(encoder("lora", epochs=2), task, parts)
    assert resumed.rows == whole.rows
    for ours, theirs in zip(
        jax.tree.leaves((resumed.trained, resumed.head)),
        jax.tree.leaves((whole.trained, whole.head)),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)
