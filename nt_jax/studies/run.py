"""`nt-jax study run`: every run and what follows it, side by side, here or through `nt-jax launch`.

State is what lies in the folder, so the same call again goes on wherever it was stopped. Each job
is a process that writes to a log which is locked as long as it lives: no job is ever started
beside one of a call before.
"""

import dataclasses
import json
import pathlib
import queue
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from nt_jax.errors import InputError
from nt_jax.files import write_atomically
from nt_jax.launch import local
from nt_jax.launch.jobs import FAILED, FINISHED, PREEMPTED, Patience, state_of
from nt_jax.launch.processes import StillWrittenError, Stop, writing
from nt_jax.launch.shell import quoted, say
from nt_jax.studies.folder import TRAINING, Folder, Job
from nt_jax.studies.grid import Study, StudyRun
from nt_jax.studies.status import duration


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a study is run."""

    parallel: int = 1
    """Runs at a time; where there are GPUs, each has its share of them."""
    max_restarts: int = 3
    """Restarts of a training in a row without a new checkpoint before it is given up."""
    train: bool = True
    """Whether to train; otherwise only what is trained is evaluated."""
    task_folders: tuple[pathlib.Path, ...] = ()
    """Where tasks known by name are looked for first."""
    launcher: tuple[str, ...] = ()
    """Words of `nt-jax launch` that each training goes through, such as `("slurm", "--nodes",
    "4")`; `{slot}` in them is the number, from 0, of what goes on side by side. Empty: none."""


@dataclasses.dataclass(frozen=True)
class Slot:
    """One of the runs that go on side by side."""

    number: int
    cards: tuple[str, ...]
    """Its GPUs."""


@dataclasses.dataclass(frozen=True)
class Ended:
    """How one run ended."""

    run: StudyRun
    state: str
    """done, done before, stopped, killed (by a second signal), failed, not started, not trained,
    launched (it trains elsewhere, or is waiting for it), waits (held out, and what would predict it
    is not trained)."""


def where(study: Study, runs: Sequence[StudyRun], places: Mapping[str, str]) -> dict[str, str]:
    """Folder of every dataset that these runs need; InputError for one that is named nowhere."""
    for run in runs:
        for source in run.sources():
            if source not in places:
                raise InputError(
                    f"study {study.name}: where is the dataset {source!r} of {run.name}? Give "
                    f"--data {source}=DIR (`nt-jax data build`)"
                )
    return dict(places)


def carry_out(
    runs: Sequence[StudyRun],
    folder: Folder,
    data: Mapping[str, str],
    settings: Settings,
    foretell: Callable[[Sequence[StudyRun]], Sequence[StudyRun]],
) -> list[Ended]:
    """Runs all of them; one that fails leaves the others alone. The caller holds the folder's lock.

    Held-out runs come last; `foretell` is given them and returns those that may begin.

    SIGTERM and SIGINT are passed on once; then nothing is started any more.
    """
    slots: queue.SimpleQueue[Slot] = queue.SimpleQueue()
    cards = local.gpus()
    if settings.launcher and len(cards) < settings.parallel:
        cards = []  # trainings go on elsewhere
    for number, share in enumerate(shares(cards, settings.parallel)):
        slots.put(Slot(number, share))
    ordered = sorted(runs, key=lambda run: run.held_out)
    numbers = {run.name: f"[{number}/{len(runs)}]" for number, run in enumerate(ordered, 1)}

    def one(run: StudyRun, stop: Stop) -> Ended:
        jobs = folder.jobs(run, settings.task_folders)
        if all(job.is_done() for job in jobs):
            return Ended(run, "done before")
        if not (settings.train or jobs[0].is_done()):
            return Ended(run, "not trained")
        if folder.launched(run).exists() and not jobs[0].is_done():
            say(
                f"{numbers[run.name]} {run.name}: launched before, and not trained yet; "
                f"to submit it again: rm {folder.launched(run)}"
            )
            return Ended(run, "launched")
        mine = slots.get()
        try:
            return _carry_out(run, jobs, stop, mine)
        finally:
            slots.put(mine)

    def _carry_out(run: StudyRun, jobs: Sequence[Job], stop: Stop, slot: Slot) -> Ended:
        folder.failed(run).unlink(missing_ok=True)
        failures: list[dict[str, object]] = []
        for job in jobs:
            if job.is_done():
                continue
            if failures and not jobs[0].is_done():
                break
            if stop.received:
                return Ended(run, "not started" if job is jobs[0] else "stopped")
            say(f"{numbers[run.name]} {run.name}: {job.stage}")
            began = time.monotonic()
            words = command(job, data, settings.launcher, slot.number)
            code, how = _process(job, words, folder.workdir(run), settings, stop, slot)
            took = duration(time.monotonic() - began)
            left = stop.received == 1 and settings.launcher and job is jobs[0]
            if code == PREEMPTED or (left and code != FINISHED):
                say(f"{numbers[run.name]} {run.name}: {job.stage} stopped, saved")
                return Ended(run, "stopped")
            if stop.received > 1:
                say(f"{numbers[run.name]} {run.name}: {job.stage} killed")
                return Ended(run, "killed")
            if code == FINISHED and job.is_done():
                say(f"{numbers[run.name]} {run.name}: {job.stage} done in {took}")
                continue
            if code == FINISHED and job is jobs[0] and settings.launcher:
                folder.launched(run).write_text(quoted(words) + "\n")
                say(f"{numbers[run.name]} {run.name}: launched")
                return Ended(run, "launched")
            if code == FINISHED:
                how = f"ended well, but left no {job.result.name}"
            say(f"nt-jax: {run.name}: {job.stage} failed: {how}; see {job.log}")
            failures.append({"stage": job.stage, "code": code, "how": how, "log": str(job.log)})
        if failures:
            write_atomically(folder.failed(run), json.dumps(failures, indent=1) + "\n")
            return Ended(run, state_of(FAILED))
        return Ended(run, state_of(FINISHED))

    held_out = [run for run in ordered if run.held_out]
    others = ordered[: len(runs) - len(held_out)]
    with Stop() as stop:
        ended = local.side_by_side(others, one, settings.parallel, stop)
        ready = foretell(held_out) if held_out and not stop.received else ()
        left = "not started" if stop.received else "waits"
        ended += local.side_by_side(ready, one, settings.parallel, stop)
    return ended + [Ended(run, left) for run in held_out if run not in ready]


def _process(
    job: Job,
    words: Sequence[str],
    workdir: pathlib.Path,
    settings: Settings,
    stop: Stop,
    slot: Slot,
) -> tuple[int, str]:
    """(exit code, how it ended) of a job, started again while that brings checkpoints."""
    job.log.parent.mkdir(parents=True, exist_ok=True)
    devices = len(slot.cards) or None
    layout = local.Layout(1, devices) if settings.parallel > 1 else local.Layout()

    def attempt() -> dict[int, int]:
        with writing(job.log) as log:
            return local.attempt(words, layout, slot.cards, stop, log=log)

    # What evaluates has no checkpoints: what fails twice would fail again.
    restarts = settings.max_restarts if job.stage == TRAINING else min(1, settings.max_restarts)
    if job.stage == TRAINING and settings.launcher:
        restarts = 0  # the launcher's own business
    try:
        code, how = local.until_finished(workdir, attempt, Patience(restarts), stop)
    except StillWrittenError as error:
        return FAILED, str(error)
    last = _complaint(job.log) if code not in (FINISHED, PREEMPTED) else ""
    return code, f"{how} ({last})" if last else how


def command(
    job: Job, data: Mapping[str, str], launcher: Sequence[str] = (), slot: int = 0
) -> list[str]:
    """`nt-jax ...` in this interpreter's environment; a training through `nt-jax launch`."""
    words = job.arguments(data)
    if job.stage == TRAINING and launcher:
        named = [word.replace("{slot}", str(slot)) for word in launcher]
        words = ["launch", named[0], *words[1:], *named[1:]]
    return [sys.executable, "-m", "nt_jax.cli", *words]


def script(
    runs: Sequence[StudyRun], folder: Folder, data: Mapping[str, str], settings: Settings
) -> str:
    """What `carry_out` would start, as lines for a shell; launched runs are all in slot 0."""
    jobs = [
        job
        for run in sorted(runs, key=lambda run: run.held_out)
        for job in folder.jobs(run, settings.task_folders)
        if not job.is_done() and (settings.train or job.stage != TRAINING)
    ]
    return "\n".join(quoted(command(job, data, settings.launcher)) for job in jobs)


def exit_code(ended: Sequence[Ended]) -> int:
    """75 where a signal stopped anything or a run is launched and not trained: again = go on.

    Else 1 where anything failed or waits for others, else 0;
    1 as well where a second signal killed what was to be saved.
    """
    states = {one.state for one in ended}
    if (was_stopped(ended) or "launched" in states) and "killed" not in states:
        return PREEMPTED
    return FAILED if states & {state_of(FAILED), "killed", "waits"} else FINISHED


def was_stopped(ended: Sequence[Ended]) -> bool:
    """Whether a signal kept anything from being done."""
    return bool({one.state for one in ended} & {"stopped", "not started", "killed"})


def shares(cards: Sequence[str], parallel: int) -> list[tuple[str, ...]]:
    """GPUs of each of the runs that go on at a time, in even parts; InputError for too few."""
    if not cards:
        return [()] * parallel
    if len(cards) < parallel:
        raise InputError(f"--jobs {parallel}: {len(cards)} GPUs here, and a run needs one")
    each = len(cards) // parallel
    return [tuple(cards[n * each : (n + 1) * each]) for n in range(parallel)]


def _complaint(log: pathlib.Path) -> str:
    """The last line of ours in a log."""
    lines = log.read_text(errors="replace").splitlines()
    ours = [line for line in lines if line.startswith("nt-jax: ")]
    return ours[-1].removeprefix("nt-jax: ") if ours and lines[-1] == ours[-1] else ""
