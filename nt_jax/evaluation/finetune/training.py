"""One fine-tuning, from its start to its best evaluation; the same call again goes on.

The data order is a pure function of the step, and all else that changes is saved at every
evaluation, after the row of it is on disk. Rows beyond the restored step are cut, so they also
tell which evaluation was the best and how long nothing has been gained.
"""

import math
import pathlib
import shutil
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from nt_jax import checkpoint, memory
from nt_jax.config import CheckpointConfig
from nt_jax.evaluation.finetune.head import Head
from nt_jax.evaluation.finetune.problem import Problem, split_head
from nt_jax.metrics import MetricsWriter, ProgressBar, read_metrics
from nt_jax.model.factory import Params
from nt_jax.step import TrainState

_STEPS_BETWEEN_LOOKS = 10

Row = dict[str, Any]


class Outcome(NamedTuple):
    """The best evaluation of a training."""

    trained: Params
    """Adapters or encoder parameters, without the head."""
    head: Head
    start: Head
    """The head that was fitted to the frozen embeddings."""
    rows: list[Row]
    """All evaluations: step, epoch, loss, validation_loss and a score."""
    best: Row


def train(
    problem: Problem,
    folder: pathlib.Path,
    asked_to_stop: Callable[[], bool],
    say: Callable[[str], None],
) -> Outcome | None:
    """Trains in `folder`, or goes on there; None when it was asked to stop and has saved all."""
    folder.mkdir(parents=True, exist_ok=True)
    settings, steps = problem.encoder.settings, problem.steps
    saver = checkpoint.Checkpoints(folder, CheckpointConfig(every=1, keep=1))
    state = saver.restore(problem.abstract)
    first = 0 if state is None else int(state.step)
    saver.drop_after(first)
    writer = MetricsWriter(folder, first if state is not None else -1)
    try:
        with ProgressBar(steps, first, steps + 1) as bar:

            def save(state: TrainState) -> None:
                saver.save(state, problem.encoder.experiment, {})

            def record(row: Row) -> None:
                writer.write(row)
                writer.sync()
                bar.say(_line(row, problem))

            if state is None:
                state = problem.start()
                record(_row(problem, state, None))
                save(state)
            elif first:
                say(f"goes on at step {first} of {steps}")
            rows = read_metrics(folder)
            step, began, moved = first, time.perf_counter(), True
            while step < steps and _fruitless(rows) < settings.patience:
                state = problem.advance(state)
                step += 1
                if moved:  # by what ran before; a save holds on to the former state
                    memory.release()
                evaluate = step % problem.every == 0 or step == steps
                stopped = asked_to_stop()
                if evaluate:
                    mean = float(state.opt_state.loss) / (step - rows[-1]["step"])
                    row = _row(problem, state, mean)
                    better = _watched(row) < _watched(_best(rows))
                    state = problem.close_interval(state, better)
                    rows.append(row)
                    record(row)
                elif step % _STEPS_BETWEEN_LOOKS == 0:
                    mean = float(state.opt_state.loss) / (step - rows[-1]["step"])
                    rate = (step - first) * settings.batch / (time.perf_counter() - began)
                    bar.show(step, f"loss {mean:.4f}  {rate:,.0f} sequences/s")
                moved = evaluate or stopped
                if moved:
                    save(state)
                    memory.release()
                if stopped:
                    saver.commit(state, problem.encoder.experiment, {})
                    bar.say(f"stopped by a signal at step {step}; saved. The same command goes on")
                    return None
            saver.commit(state, problem.encoder.experiment, {})
    finally:
        writer.close()
        saver.close()
    rest = state.opt_state
    trained, head = split_head(rest.best, rest.constants)
    _, start = split_head(rest.start, rest.constants)
    return Outcome(trained, head, start, rows, _best(rows))


def forget_state(folder: pathlib.Path) -> None:
    """Deletes what only a resumed training needs."""
    shutil.rmtree(folder / checkpoint.FOLDER, ignore_errors=True)


def _row(problem: Problem, state: TrainState, loss: float | None) -> Row:
    validation_loss, score = problem.evaluate(state)
    step = int(state.step)
    return {
        "step": step,
        "epoch": problem.epoch(step),
        "loss": loss,
        "validation_loss": validation_loss,
        f"validation_{problem.metric}": score,
    }


def _watched(row: Row) -> float:
    loss = row["validation_loss"]
    return loss if loss is not None and math.isfinite(loss) else math.inf


def _best(rows: list[Row]) -> Row:
    return min(rows, key=_watched)


def _fruitless(rows: list[Row]) -> int:
    """Evaluations since the best one."""
    return len(rows) - 1 - rows.index(_best(rows))


def _line(row: Row, problem: Problem) -> str:
    loss = "" if row["loss"] is None else f"loss {row['loss']:.4f}  "
    score = row[f"validation_{problem.metric}"]
    return (
        f"step {row['step']}/{problem.steps}  epoch {row['epoch']:.1f}  {loss}"
        f"validation loss {row['validation_loss']:.4f}, {problem.metric} {score:.3f}"
    )
