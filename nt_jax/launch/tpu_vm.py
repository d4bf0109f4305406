"""`launch tpu-vm`: a Cloud TPU slice through `gcloud`: made, filled, run, made again, given back.

The slice is a queued resource with one node, both of the same name. Credentials are gcloud's own
business: none is read here.
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Callable, Sequence

from nt_jax.launch import tpu_remote
from nt_jax.launch.jobs import (
    BAD_INPUT,
    FAILED,
    FINISHED,
    PREEMPTED,
    Outcome,
    Patience,
    Run,
    state_of,
)  # fmt: skip
from nt_jax.launch.revision import Revision
from nt_jax.launch.shell import Result, Shell, say

_DEAD = ("FAILED", "SUSPENDING", "SUSPENDED", "DELETING")
_ACTIVE = '{"state": {"state": "ACTIVE"}}'


class LaunchError(RuntimeError):
    """The cloud refused, or did not answer as it should; what to do is in the one line."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a slice is."""

    name: str
    """Of the queued resource and of its node."""
    zone: str
    """Such as `us-west4-a`."""
    project: str | None = None
    """None: gcloud's own setting."""

    def flags(self) -> list[str]:
        """For every gcloud command."""
        return [f"--zone={self.zone}", *([f"--project={self.project}"] if self.project else [])]


@dataclasses.dataclass(frozen=True)
class Request:
    """What is asked for when the slice does not exist."""

    accelerator: str
    """`--accelerator-type`."""
    runtime: str
    """`--runtime-version`."""
    spot: tuple[str, ...] = ()
    """`("--spot",)` for capacity that may be taken away at any time, at a lower price."""
    more: tuple[str, ...] = ()
    """Further flags of `queued-resources create`."""
    wait: int = 120
    """Minutes until the slice must be there; the request lapses then."""


class Slice:
    """One slice, driven by commands of gcloud."""

    def __init__(self, shell: Shell, place: Place, poll: float):
        """`poll` is the pause between two looks, in seconds."""
        self._shell, self._place, self._poll = shell, place, poll

    def state(self, dry: str = "{}") -> tuple[str | None, str]:
        """(state, explanation) of the queued resource; None where there is none."""
        found = self._queued("describe", self._place.name, "--format=json", dry=dry)
        if found.code:
            if "NOT_FOUND" in found.errors:
                return None, ""
            raise LaunchError(f"{self._place.name}: {found.reason()}")
        state = json.loads(found.output or "{}").get("state", {})
        why = state.get("failedData", {}).get("error", {}).get("message", "")
        return state.get("state"), why

    def ensure(self, request: Request) -> None:
        """Returns once the slice is ACTIVE; a dead one is deleted and asked for again."""
        state, _ = self.state()
        if state in _DEAD:
            say(f"{self._place.name}: {state}; deleted and asked for again")
            self.delete()
            state = None
        if state is None:
            self._create(request)
            state, _ = self._seen(None)
        for _ in range(max(1, math.ceil(request.wait * 60 / max(self._poll, 1e-3)))):
            if state == "ACTIVE":
                return
            self._shell.wait(self._poll)
            state, why = self._seen(state)
            if state in _DEAD or state is None:
                raise LaunchError(f"{self._place.name}: {state or 'gone'} {why}".strip())
        raise LaunchError(
            f"{self._place.name}: still {state} after {request.wait} minutes; the same command "
            "waits on, tpu-vm-stop --delete gives it up"
        )

    def _seen(self, before: str | None) -> tuple[str | None, str]:
        state, why = self.state(dry=_ACTIVE)
        if state != before:
            say(f"{self._place.name}: {state}")
        return state, why

    def _create(self, request: Request) -> None:
        say(f"{self._place.name}: asks for {request.accelerator} in {self._place.zone}")
        done = self._queued(
            "create", self._place.name,
            f"--node-id={self._place.name}",
            f"--accelerator-type={request.accelerator}",
            f"--runtime-version={request.runtime}",
            f"--valid-until-duration={request.wait * 60}s",
            *request.spot, *request.more, "--quiet",
        )  # fmt: skip
        if done.code:
            raise LaunchError(f"{self._place.name}: {done.reason()}")

    def delete(self) -> None:
        """Gives it back with all that is on it."""
        done = self._queued("delete", self._place.name, "--force", "--quiet")
        if done.code and "NOT_FOUND" not in done.errors:
            raise LaunchError(f"{self._place.name}: {done.reason()}")

    def copy(self, file: pathlib.Path, name: str) -> Result:
        """Copies a file to the home folder of each worker."""
        return self._shell.run([
            "gcloud", "compute", "tpus", "tpu-vm", "scp", str(file), f"{self._place.name}:{name}",
            "--worker=all", *self._place.flags(), "--quiet",
        ])  # fmt: skip

    def on_all(self, text: str, line: Callable[[str], None], dry: str = "") -> int:
        """Runs a shell text on every worker at once and hands over what they print."""
        return self._shell.stream([
            "gcloud", "compute", "tpus", "tpu-vm", "ssh", self._place.name, "--worker=all",
            *self._place.flags(), "--quiet", f"--command={text}",
        ], line, dry)  # fmt: skip

    def wait(self) -> None:
        """Until the next look."""
        self._shell.wait(self._poll)

    def _queued(self, action: str, *arguments: str, dry: str = "") -> Result:
        return self._shell.run(
            ["gcloud", "compute", "tpus", "queued-resources", action, *arguments,
             *self._place.flags()], dry,
        )  # fmt: skip


def install(shell: Shell, tpu: Slice, revision: Revision, setup: str, tries: int = 3) -> None:
    """Puts the revision on every worker; LaunchError after some attempts.

    A slice that is ACTIVE may not answer at once.
    """
    bundle = revision.bundle()
    shell.make_folder(bundle.parent)
    made = shell.run(["git", "-C", str(revision.root), "bundle", "create", str(bundle), "HEAD"])
    if made.code:
        raise LaunchError(f"{revision.root}: {made.reason()}")
    for attempt in range(tries):
        if attempt:
            say("nt-jax: installed not everywhere; tried again")
            tpu.wait()
        copied = tpu.copy(bundle, "nt-jax.bundle")
        if copied.code:
            say(copied.reason())
        elif tpu.on_all(tpu_remote.install(revision.commit, setup), say) == 0:
            return
    raise LaunchError(f"{revision.commit[:12]}: cannot be installed on all workers; see above")


def launch(
    shell: Shell,
    place: Place,
    request: Request,
    runs: Sequence[Run],
    revision: Revision,
    setup: str = "",
    max_restarts: int = 3,
    poll: float = 20.0,
) -> list[Outcome]:
    """Runs all of them on the slice, one after the other.

    A slice that is taken away is asked for again, and the run goes on from its newest checkpoint.
    The slice stays. Raises LaunchError where it cannot be had or filled.
    """
    tpu = Slice(shell, place, poll)

    def prepare() -> None:
        tpu.ensure(request)
        install(shell, tpu, revision, setup)

    prepare()
    outcomes: list[Outcome] = []
    for run in runs:
        if any(outcome.code == PREEMPTED for outcome in outcomes):
            outcomes.append(Outcome(run, "not started", None, None))
            continue
        code, step = _until_finished(tpu, run, revision, prepare, Patience(max_restarts))
        outcomes.append(Outcome(run, state_of(code), code, step))
    return outcomes


def _until_finished(
    tpu: Slice, run: Run, revision: Revision, prepare: Callable[[], None], patience: Patience
) -> tuple[int, int | None]:
    """Attempts until the run is finished, stopped or hopeless; (exit code, newest step)."""
    attempt, step = 1, None
    while True:
        workers = tpu_remote.Workers()

        def show(line: str, workers: tpu_remote.Workers = workers) -> None:
            text = workers.line(line)
            if text is not None:
                say(text)

        text = tpu_remote.train(revision.commit, run.name, attempt, run.arguments, str(run.workdir))
        code = tpu.on_all(text, show, dry=tpu_remote.FINISHED_LINE)
        codes = set(workers.codes.values())
        step = max(filter(None, (step, workers.step)), default=None)
        if BAD_INPUT in codes:
            return BAD_INPUT, step
        if codes == {FINISHED} and workers.all_ended():
            return FINISHED, step
        if workers.stopped:
            return PREEMPTED, step
        state, _ = tpu.state(dry=_ACTIVE)
        where = "no checkpoint yet" if step is None else f"newest checkpoint {step}"
        if state != "ACTIVE":
            what = f"the slice is {state or 'gone'}"
        elif workers.all_ended():
            what = f"exit codes {', '.join(map(str, sorted(codes)))}"
        else:
            what = f"connection lost (gcloud: exit code {code})"
        if not patience.again(step):
            say(
                f"nt-jax: {run.name}: {what}; gave up after {patience.restarts} restarts without "
                f"a new checkpoint ({where})"
            )
            return FAILED, step
        say(f"nt-jax: {run.name}: {what}; goes on ({where})")
        if state != "ACTIVE":
            prepare()
        else:
            tpu.wait()
        # Who only lost the connection joins the same attempt again.
        attempt += state != "ACTIVE" or workers.all_ended()
