"""`nt-jax study status`: how far every run is, read from the folders alone."""

import dataclasses
import json
import statistics
from collections.abc import Sequence
from typing import Any

from nt_jax.launch.jobs import lined_up
from nt_jax.launch.processes import is_written
from nt_jax.metrics import read_metrics
from nt_jax.studies.folder import Folder
from nt_jax.studies.grid import StudyRun

STATES = ("waiting", "launched", "running", "interrupted", "failed", "done")
_ROWS = 5
"""Newest rows whose speed is that of now."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far one run is."""

    run: str
    state: str
    """One of STATES: waiting (never started), launched (handed to a scheduler, which knows more),
    running (a process lives here), interrupted (started, not ended, and no process lives), failed
    (given up), done (with all its evaluations)."""
    stage: str
    """What comes next, or is being done: training, loss on SOURCE, probe TASK; empty once done."""
    step: int
    """Of the newest row of metrics.jsonl."""
    steps: int
    loss: float | None
    """Training loss of that row, nats a token over all selected positions."""
    mask_loss: float | None
    """Validation loss on `<mask>` positions, nats a token, of the newest validation."""
    tokens_per_s: float | None
    """Of the newest rows."""
    seconds_left: float | None
    """Of training at that speed; None where nothing is known of it, 0 once it is trained."""
    why: str
    """What failed."""


def progress(run: StudyRun, folder: Folder) -> Progress:
    """Reads what a run has left so far."""
    jobs = folder.jobs(run)
    training, workdir = jobs[0], folder.workdir(run)
    rows = _rows(folder, run)
    train = [row for row in rows if "split" not in row]
    validation = [row for row in rows if row.get("split") == "validation"]
    step = train[-1]["step"] if train else 0
    steps = run.experiment.train.steps
    seconds = [row["seconds"] for row in train[-_ROWS:]]
    speeds = [row["tokens_per_s"] for row in train[-_ROWS:]]
    left = statistics.median(seconds) * (steps - step) if seconds else None
    missing = [job for job in jobs if not job.is_done()]
    failed = folder.failed(run)
    if any(is_written(job.log) for job in jobs):
        state = "running"
    elif not missing:
        state = "done"
    elif failed.exists():
        state = "failed"
    elif folder.launched(run).exists() and not training.is_done():
        state = "launched"
    else:
        state = "interrupted" if workdir.exists() or training.log.exists() else "waiting"
    return Progress(
        run=run.name,
        state=state,
        stage=missing[0].stage if missing else "",
        step=step,
        steps=steps,
        loss=train[-1]["loss"] if train else None,
        mask_loss=validation[-1].get("mask_loss") if validation else None,
        tokens_per_s=statistics.median(speeds) if speeds else None,
        seconds_left=0.0 if training.is_done() else left,
        why=_why(failed.read_text()) if state == "failed" else "",
    )


def _rows(folder: Folder, run: StudyRun) -> list[dict[str, Any]]:
    try:
        return read_metrics(folder.workdir(run))
    except ValueError:  # a row in the middle is damaged; `pretrain` says so
        return []


def _why(text: str) -> str:
    try:
        return "; ".join(
            f"{one['stage']}: {one['how']}; see {one['log']}" for one in json.loads(text)
        )
    except (ValueError, TypeError, KeyError):
        return text.strip()


def table(found: Sequence[Progress]) -> str:
    """One line a run, a count of the states, and a line for each that failed."""
    rows: list[tuple[str, ...]] = [
        ("run", "state", "next", "step", "of", "loss", "<mask> loss", "tokens/s", "left")
    ]
    for one in found:
        rows.append(
            (
                one.run,
                one.state,
                one.stage or "-",
                f"{one.step:,}",
                f"{one.steps:,}",
                _number(one.loss, ".4f"),
                _number(one.mask_loss, ".4f"),
                _number(one.tokens_per_s, ",.0f"),
                "-" if one.seconds_left is None else duration(one.seconds_left),
            )
        )
    counts = {state: sum(one.state == state for one in found) for state in STATES}
    lines = [lined_up(rows, right=(3, 4, 5, 6, 7, 8)), ""]
    lines.append(", ".join(f"{number} {state}" for state, number in counts.items() if number))
    lines += [f"{one.run}: {one.why}" for one in found if one.why]
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """0:42, 3:07:00, 12 d 4 h."""
    whole = round(seconds)
    days, hours, minutes = whole // 86_400, whole // 3600, whole // 60 % 60
    if days:
        return f"{days} d {hours % 24} h"
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
