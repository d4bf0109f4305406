"""Several processes of one run: start, barriers with names, and a common end.

What the processes say to each other goes through the key-value store of JAX's coordination
service, which runs in process 0: no word of it waits for a device. A process that fails writes it
there, and all others, which may be waiting for it in a collective, end within a second.
With a single process everything here does nothing.
"""

import contextlib
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from nt_jax.errors import InputError
from nt_jax.places import barrier_seconds, find_place
from nt_jax.rendezvous import LateError, Place, meet

STOPPED, FAILED, BAD_INPUT = 75, 1, 2

_POLL = 0.25
# How long process 0, which carries the key-value store, waits for the others to end before it.
_FAREWELL = 10.0
_log = logging.getLogger("nt_jax.distributed")
_rounds: Counter[str] = Counter()
_failing = threading.Lock()
_unwound = threading.Event()


# --- Start ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def session() -> Iterator[None]:
    """Connects the processes of this run, and ends them together.

    Must be entered before anything asks JAX for its devices. An exception inside ends all
    processes: with exit code 2 for InputError, 75 for a SIGTERM that comes before the training
    loop listens for it, and 1 else.
    """
    place = find_place()
    if place is None:
        yield
        return
    _connect(*place)
    previous = signal.signal(signal.SIGTERM, _stop_at_once)
    # A process does not know that its run is over while another still trains.
    done = threading.Event()
    threading.Thread(target=_watch_others, args=(done,), daemon=True).start()
    try:
        yield
        barrier("end of the run")
    except BaseException as error:
        fail(error)
        _unwound.set()
        raise
    finally:
        done.set()
        signal.signal(signal.SIGTERM, previous)
    import jax

    jax.distributed.shutdown()


def _stop_at_once(number: int, frame: object) -> None:
    # Nothing is lost before the first step: what is saved is saved.
    raise SystemExit(STOPPED)


def _connect(place: Place, devices: list[int] | None) -> None:
    import jax

    seconds = barrier_seconds()
    meet(place, seconds)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        place.address,
        place.count,
        place.index,
        local_device_ids=devices,
        cluster_detection_method="deactivate",
        initialization_timeout=int(seconds) + 1,
        # A barrier or a pulse names who is silent; this ends what waits for a silent process 0.
        # A heartbeat comes at half of the time only, so it counts from up to that much earlier.
        heartbeat_timeout_seconds=2 * int(seconds) + 60,
        shutdown_timeout_seconds=int(seconds) + 1,
    )
    _client().key_value_set(f"nt-jax/hosts/{index()}", socket.gethostname())


def _client() -> Any:
    from jax._src import distributed  # the key-value store has no public name

    return distributed.global_state.client


def _look_up(key: str) -> str | None:
    try:
        return _client().key_value_try_get(key)
    except Exception as error:
        if "NOT_FOUND" in str(error):
            return None
        raise


# --- What the processes say to each other ---------------------------------------------------------


def count() -> int:
    """Processes of the run."""
    import jax

    return jax.process_count()


def index() -> int:
    """Number of this process."""
    import jax

    return jax.process_index()


def leads() -> bool:
    """Whether this is the process that writes what a run writes once."""
    return index() == 0


def gather(name: str, value: str = "") -> list[str]:
    """The `value` of every process by its number: a barrier as well.

    All processes call it in the same order with the same names. Raises LateError, which names the
    barrier and the processes that have not come within `barrier_seconds`.
    """
    if count() == 1:
        return [value]
    client, seconds = _client(), barrier_seconds()
    key = f"nt-jax/round/{name}/{_rounds[name]}/"
    _rounds[name] += 1
    client.key_value_set(f"{key}{index()}", value)
    try:
        client.wait_at_barrier(key, int(seconds * 1000))
    except Exception as error:
        here = {int(path.rpartition("/")[2]) for path, _ in client.key_value_dir_get(key)}
        late = [_host(number) for number in range(count()) if number not in here]
        if not late:  # it came just now, to a barrier that had been given up
            raise LateError(f"barrier {name!r}: {error}") from error
        raise LateError(
            f"barrier {name!r}: {', '.join(late)} did not come within {seconds:.0f} s"
        ) from error
    found = {int(path.rpartition("/")[2]): text for path, text in client.key_value_dir_get(key)}
    return [found[number] for number in range(count())]


def barrier(name: str) -> None:
    """Waits for all processes; see `gather`."""
    gather(name)


def from_leader(name: str, value: Callable[[], str]) -> str:
    """What `value` gives on process 0, on all of them."""
    return gather(name, value() if leads() else "")[0]


def agree(name: str, complaint: str = "") -> None:
    """Raises InputError with the first `complaint` of any process, on all of them."""
    for found in gather(name, complaint):
        if found:
            raise InputError(found)


def _host(number: int) -> str:
    return f"process {number} ({_look_up(f'nt-jax/hosts/{number}') or 'host unknown'})"


# --- One end for all ------------------------------------------------------------------------------


def fail(error: BaseException, silent: int = 0) -> None:
    """Tells all other processes to end, since this one cannot go on; does not raise.

    So many of them are `silent` and will not answer. This process ends soon after, however long its
    threads would wait for the others.
    """
    if count() == 1 or not _failing.acquire(blocking=False):
        return
    code = _exit_code(error)
    text = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, InputError | SystemExit):
        text = f"{type(error).__name__}: {text}"
    _log.info("ends: %s", text, exc_info=error)
    with contextlib.suppress(Exception):
        _client().key_value_set(
            "nt-jax/failed",
            json.dumps(
                {"process": index(), "host": socket.gethostname(), "code": code, "text": text}
            ),
        )
    _see_off(count() - 1 - silent)

    def leave() -> None:
        # Time to close files and to print the line; then nothing may hold this process back, not
        # even threads of a save that wait for other processes.
        _unwound.wait(_FAREWELL)
        time.sleep(0.5)
        _leave(code)

    threading.Thread(target=leave, daemon=True).start()


def failed() -> bool:
    """Whether this run is ending by `fail`."""
    return _failing.locked()


def _exit_code(error: BaseException) -> int:
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        return error.code
    return BAD_INPUT if isinstance(error, InputError) else FAILED


def _leave(code: int) -> NoReturn:
    with contextlib.suppress(Exception):
        _client().key_value_set(f"nt-jax/ended/{index()}", "")
    logging.shutdown()
    sys.stderr.flush()
    os._exit(code)


def _see_off(others: int) -> None:
    """Who carries the key-value store leaves last: JAX aborts those that lose it."""
    from jax._src import distributed

    if distributed.global_state.service is None:
        return
    deadline = time.monotonic() + _FAREWELL
    with contextlib.suppress(Exception):
        while time.monotonic() < deadline:
            if len(_client().key_value_dir_get("nt-jax/ended/")) >= others:
                time.sleep(0.2)
                return
            time.sleep(0.05)


def _watch_others(done: threading.Event) -> None:
    """Ends this process when another has failed or is silent: its main thread may wait for it."""
    pulses = _Pulses(barrier_seconds())
    while not done.wait(_POLL):
        try:
            found, silent = _look_up("nt-jax/failed"), pulses.silent()
        except Exception:  # process 0 is gone; JAX ends this process
            continue
        if found is None and silent and not done.is_set():
            seconds = barrier_seconds()
            error = LateError(f"{', '.join(silent)} gave no sign of life for {seconds:.0f} s")
            print(f"nt-jax: LateError: {error}", file=sys.stderr)
            fail(error, len(silent))
            _leave(FAILED)
        if found is None or done.is_set():
            continue
        if not _failing.acquire(blocking=False):
            return
        cause = json.loads(found)
        line = f"process {cause['process']} ({cause['host']}): {cause['text']}"
        _log.info("ends, because of %s", line)
        if leads() and cause["code"] != STOPPED:
            print(f"nt-jax: {line}", file=sys.stderr)
        _see_off(count() - 1)
        _leave(cause["code"])


class _Pulses:
    """Who is alive. A process that is frozen, or its host, ends no connection and no barrier of
    others than ours; process 0 notices that its pulse stands still."""

    def __init__(self, seconds: float):
        self._seconds, self._pause = seconds, max(1.0, seconds / 30)
        self._next, self._beats = 0.0, 0
        self._seen: dict[str, tuple[str, float]] = {}

    def silent(self) -> list[str]:
        """Gives this process's sign; on process 0, who has given none for `seconds`."""
        now = time.monotonic()
        if now < self._next:
            return []
        client, self._next, self._beats = _client(), now + self._pause, self._beats + 1
        client.key_value_set(f"nt-jax/pulse/{index()}", str(self._beats), allow_overwrite=True)
        if not leads():
            return []
        for key, beat in client.key_value_dir_get("nt-jax/pulse/"):
            if self._seen.get(key, ("", 0.0))[0] != beat:
                self._seen[key] = (beat, now)
        late = [key for key, (_, since) in self._seen.items() if now - since > self._seconds]
        return [_host(int(key.rpartition("/")[2])) for key in late]


class StopStep:
    """The step after which all processes stop together.

    A notice may reach one process alone, or each at another step. The one that got it says so;
    then each holds its next step back for the moment in which all say where they are, and the stop
    is one step after the furthest. No step waits for anything while there is no notice.
    """

    def __init__(self, asked: Callable[[], bool], step: int):
        self._asked, self._seen = asked, step
        self._at: int | None = None
        self._lock, self._end = threading.Lock(), threading.Event()
        if count() > 1:
            threading.Thread(target=self._agree, daemon=True).start()

    def reached(self, step: int) -> bool:
        """Whether the run stops after `step`; called after every step."""
        if count() == 1:
            return self._asked()
        with self._lock:
            self._seen = step
            return self._at is not None and step >= self._at

    def close(self) -> None:
        """Listens no longer; only when no other process may still ask."""
        self._end.set()

    def _agree(self) -> None:
        while not self._end.wait(_POLL):
            try:
                if self._asked():
                    _client().key_value_set("nt-jax/stop", "", allow_overwrite=True)
                if _look_up("nt-jax/stop") is None:
                    continue
                with self._lock:
                    self._at = max(map(int, gather("stop", str(self._seen)))) + 1
            except Exception as error:
                if not self._end.is_set():
                    fail(error)
            return
