"""`launch local`: the processes of a run on this machine, restarted until the run has finished."""

import concurrent.futures
import contextlib
import dataclasses
import glob
import os
import pathlib
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import BinaryIO, TypeVar

from nt_jax.errors import InputError
from nt_jax.launch.jobs import (
    BAD_INPUT,
    FAILED,
    FINISHED,
    PREEMPTED,
    Outcome,
    Patience,
    Run,
    newest_step,
    state_of,
)  # fmt: skip
from nt_jax.launch.processes import Group, Stop
from nt_jax.launch.shell import quoted, say

GRACE_SECONDS, SAVING_SECONDS = 10.0, 600.0
_FAKE_DEVICES = "--xla_force_host_platform_device_count"

T = TypeVar("T")
R = TypeVar("R")


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a run is spread over this machine."""

    processes: int = 1
    """Processes of one run."""
    devices: int | None = None
    """Devices of each: fake ones on CPU, GPUs where there are any. None: one on CPU, an even
    share of the GPUs."""


def command(run: Run) -> list[str]:
    """`nt-jax pretrain ...` in this interpreter's environment."""
    return [sys.executable, "-m", "nt_jax.cli", *run.arguments]


def gpus() -> list[str]:
    """The NVIDIA GPUs that JAX would use here."""
    if os.environ.get("JAX_PLATFORMS", "").startswith("cpu"):
        return []
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [card for card in chosen.split(",") if card]
    return sorted(path.removeprefix("/dev/nvidia") for path in glob.glob("/dev/nvidia[0-9]*"))


def check(layout: Layout, cards: Sequence[str]) -> None:
    """Raises InputError where this machine has fewer GPUs than `layout` asks for."""
    each = layout.devices or 1
    if cards and layout.processes * each > len(cards):
        raise InputError(
            f"--processes {layout.processes}: {each} GPU each, and this machine has {len(cards)}; "
            "take fewer, or set JAX_PLATFORMS=cpu to try it on fake devices"
        )


def variables(layout: Layout, index: int, port: int, cards: Sequence[str]) -> dict[str, str]:
    """Environment of process `index` of a run: who it is and which devices are its own."""
    settings = {}
    if layout.processes > 1:
        settings["NT_JAX_COORDINATOR"] = f"127.0.0.1:{port}"
        settings["NT_JAX_PROCESS_COUNT"] = str(layout.processes)
        settings["NT_JAX_PROCESS_ID"] = str(index)
    if cards and (layout.processes > 1 or layout.devices):
        each = layout.devices or len(cards) // layout.processes
        settings["CUDA_VISIBLE_DEVICES"] = ",".join(cards[index * each : (index + 1) * each])
    if not cards and layout.devices:
        flags = os.environ.get("XLA_FLAGS", "").split()
        others = [flag for flag in flags if not flag.startswith(_FAKE_DEVICES)]
        settings["XLA_FLAGS"] = " ".join([*others, f"{_FAKE_DEVICES}={layout.devices}"])
    return settings


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def script(runs: Sequence[Run], layout: Layout) -> str:
    """What `launch` would start, as lines for a shell."""
    cards = gpus()
    check(layout, cards)
    lines = []
    for run in runs:
        port = free_port() if layout.processes > 1 else 0
        several = " &" if layout.processes > 1 else ""
        for index in range(layout.processes):
            settings = variables(layout, index, port, cards)
            lines.append(quoted(command(run), settings) + several)
        lines += ["wait"] if several else []
    return "\n".join(lines)


def launch(
    runs: Sequence[Run],
    layout: Layout,
    parallel: int = 1,
    max_restarts: int = 3,
    command: Callable[[Run], Sequence[str]] = command,
    grace: float = GRACE_SECONDS,
) -> list[Outcome]:
    """Runs all of them, `parallel` at a time; a run that fails leaves the others alone.

    A run of several that has finished before is not started again. `command` gives what each
    process of a run executes, `grace` the seconds between SIGTERM and SIGKILL for the processes
    that another one has left alone. SIGTERM and SIGINT are passed on; then nothing is started
    any more.
    """
    cards = gpus()
    check(layout, cards)

    def carry_out(run: Run, stop: Stop) -> Outcome:
        if stop.received:
            return Outcome(run, "not started", None, newest_step(run.workdir))
        if len(runs) > 1 and run.is_done():
            return Outcome(run, "done before", FINISHED, newest_step(run.workdir))
        if len(runs) > 1:
            say(f"--- {run.name}")
        label = None if parallel == 1 and layout.processes == 1 else ""
        if parallel > 1:
            label = run.name
        code, _ = until_finished(
            run.workdir,
            lambda: attempt(command(run), layout, cards, stop, label=label, grace=grace),
            Patience(max_restarts),
            stop,
        )
        return Outcome(run, state_of(code), code, newest_step(run.workdir))

    with Stop() as stop:
        return side_by_side(runs, carry_out, parallel, stop)


def side_by_side(
    items: Sequence[T], carry_out: Callable[[T, Stop], R], parallel: int, stop: Stop
) -> list[R]:
    """`carry_out` of each item, `parallel` at a time, in threads; results in the items' order.

    SIGTERM and SIGINT go to the processes that `stop`, which the caller has entered, watches.
    """
    # The threads outlive the processes that they start, as Group demands; signals come here.
    with concurrent.futures.ThreadPoolExecutor(parallel) as pool:
        futures = [pool.submit(carry_out, item, stop) for item in items]
        for future in futures:
            while not future.done():
                with contextlib.suppress(TimeoutError):
                    future.exception(timeout=1.0)
        return [future.result() for future in futures]


def attempt(
    words: Sequence[str],
    layout: Layout,
    cards: Sequence[str],
    stop: Stop,
    *,
    label: str | None = None,
    log: BinaryIO | None = None,
    grace: float = GRACE_SECONDS,
) -> dict[int, int]:
    """Starts the processes of a run once; their exit codes, the first to end first."""
    port = free_port() if layout.processes > 1 else 0
    group = Group(
        [(words, variables(layout, i, port, cards)) for i in range(layout.processes)], label, log
    )
    stop.watch(group)
    try:
        return group.wait(grace, SAVING_SECONDS)
    finally:
        stop.forget(group)


def until_finished(
    workdir: pathlib.Path,
    attempt: Callable[[], dict[int, int]],
    patience: Patience,
    stop: Stop,
) -> tuple[int, str]:
    """Attempts until what `attempt` runs is finished, stopped or hopeless.

    Returns its exit code and how the last attempt ended, in words.
    """
    while True:
        ended = attempt()
        codes, how = set(ended.values()), _said(ended)
        if BAD_INPUT in codes:
            return BAD_INPUT, how
        if codes == {FINISHED}:
            return FINISHED, how
        if stop.received:
            # -SIGTERM: it came before there was anything to save.
            calm = codes <= {FINISHED, PREEMPTED, -signal.SIGTERM}
            return (PREEMPTED if calm else FAILED), how
        step = newest_step(workdir)
        where = "no checkpoint yet" if step is None else f"newest checkpoint {step}"
        if not patience.again(step):
            say(
                f"nt-jax: {workdir}: {how}; gave up after {patience.restarts} restarts without a "
                f"new checkpoint ({where})"
            )
            return FAILED, how
        say(f"nt-jax: {workdir}: {how}; starts again ({where})")
        stop.pause(min(2.0 ** (patience.restarts - 1), 30.0))
        if stop.received:
            return PREEMPTED, how


def _said(ended: Mapping[int, int]) -> str:
    """How the first process ended that did not end well; the others were ended after it."""
    bad = [item for item in ended.items() if item[1] not in (FINISHED, PREEMPTED)]
    if not bad:
        return "saved and stopped" if PREEMPTED in ended.values() else "done"
    index, code = bad[0]
    how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return f"process {index}: {how}" if len(ended) > 1 else how
