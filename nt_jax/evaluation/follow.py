"""Probing beside training: every committed checkpoint of a run, once, until the run has ended."""

import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

from nt_jax.checkpoint import FOLDER, committed_steps, parse_checkpoint
from nt_jax.errors import InputError
from nt_jax.evaluation.loading import load
from nt_jax.evaluation.probe import probe_model
from nt_jax.evaluation.tasks.find import find_task
from nt_jax.progress import say
from nt_jax.workdir import CONFIG, DONE

SECONDS_BETWEEN_LOOKS = 5.0


def follow(
    workdir: str | pathlib.Path,
    tasks: Sequence[str | pathlib.Path],
    out: pathlib.Path,
    *,
    data_dirs: Sequence[pathlib.Path] = (),
    progress: Callable[[str], None] = say,
    wait: Callable[[float], None] = time.sleep,
    **choices: Any,
) -> int:
    """Probes the committed checkpoints of `workdir`, oldest first, until DONE is there.

    A process of its own, started before, beside or after training: it waits for the workdir, and
    reads checkpoints that carry their commit marker only. Results are on disk task by task, so
    that a killed follower goes on where it was. A run deletes its older checkpoints
    (`--checkpoint.keep`), and one that has gone before its turn is reported. Returns how many
    checkpoints were taken. Raises InputError as `probe` does, and at the end when checkpoints
    were damaged. `choices` are those of `probe_model`; embeddings are not kept.
    """
    workdir, step = parse_checkpoint(workdir)
    if step is not None:
        raise InputError(f"{workdir}@{step}: --follow takes a workdir, without a step")
    parts = [find_task(task, data_dirs) for task in tasks]
    taken: list[int] = []
    passed: dict[int, str] = {}
    idle = False
    while True:
        # Asked first: whatever was committed before the end is in the list below.
        finished = (workdir / DONE).exists()
        steps = committed_steps(workdir / FOLDER)
        waiting = [step for step in steps if step not in taken and step not in passed]
        if not waiting:
            if finished:
                break
            if not idle:
                there = (workdir / CONFIG).exists()
                progress(f"{workdir}: waiting for {'a checkpoint' if there else 'the run'}")
            idle = True
            wait(SECONDS_BETWEEN_LOOKS)
            continue
        idle, step = False, waiting[0]
        try:
            loaded = load(f"{workdir}@{step}")
        except InputError as error:
            gone = step not in committed_steps(workdir / FOLDER)
            passed[step] = "" if gone else str(error)
            progress(
                f"step {step}: deleted by the run before its turn; --checkpoint.keep keeps more"
                if gone
                else f"step {step}: {error}"
            )
            continue
        progress(f"step {step}: {len(waiting) - 1} more committed")
        probe_model(
            loaded,
            parts,
            pathlib.Path(out),
            checkpoint=f"{workdir}@{step}",
            progress=progress,
            **choices,
        )
        taken.append(step)
    _close(workdir, taken, passed, progress)
    return len(taken)


def _close(
    workdir: pathlib.Path,
    taken: Sequence[int],
    passed: dict[int, str],
    progress: Callable[[str], None],
) -> None:
    damaged = [step for step, reason in passed.items() if reason]
    if damaged:
        raise InputError(f"{workdir}: damaged and not probed: steps {damaged}")
    missed = f", {len(passed)} deleted before their turn: {list(passed)}" if passed else ""
    progress(f"{workdir}: the run has ended; {len(taken)} checkpoints probed{missed}")
