"""All processes of a run meet on a socket before JAX starts.

JAX's own start aborts a process (with a stack trace of C++) when another does not come, and names
nobody. Here process 0 listens at the coordinator's address, every other process says who it is,
and either all are there and go on, or each ends with one line that names who is missing.
"""

import contextlib
import dataclasses
import json
import socket
import time
from typing import Any

from nt_jax.errors import InputError

_PAUSE = 0.2
_HELLO_BYTES = 4096


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a process stands among those of its run."""

    address: str
    """HOST:PORT of the coordinator, which is process 0."""
    count: int
    """Processes of the run."""
    index: int
    """This one, from 0."""


class LateError(RuntimeError):
    """A process that did not come in time; the message names it."""


def meet(place: Place, seconds: float) -> None:
    """Returns when all processes have come.

    Raises LateError, on every process that did come, after `seconds`; InputError when two claim
    one number or a different count.
    """
    host, _, port = place.address.rpartition(":")
    if place.index == 0:
        _receive(place, int(port), seconds)
    else:
        _visit(place, host.strip("[]"), int(port), seconds)


def _receive(place: Place, port: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    guests: dict[int, tuple[str, socket.socket]] = {}
    with contextlib.ExitStack() as stack:
        try:
            door = stack.enter_context(_listen(port))
        except OSError as error:
            raise InputError(
                f"process 0 cannot listen at {place.address} ({error.strerror or error}); choose "
                "a free port of this host for the coordinator"
            ) from error
        wrong = ""
        while not wrong and len(guests) < place.count - 1 and time.monotonic() < deadline:
            door.settimeout(max(0.01, deadline - time.monotonic()))
            with contextlib.suppress(OSError):
                guest = stack.enter_context(door.accept()[0])
                wrong = _admit(place, guest, guests)
        missing = [i for i in range(1, place.count) if i not in guests]
        text = wrong
        if missing and not wrong:
            text = (
                f"{_named(missing)} of {place.count} did not come to {place.address} within "
                f"{seconds:.0f} s; see whether they were started and can reach process 0"
            )
        for _, guest in guests.values():
            with contextlib.suppress(OSError):
                guest.sendall((json.dumps({"wrong": wrong, "late": text}) + "\n").encode())
        # The guests close first, so that the port is free at once for JAX's own service.
        for _, guest in guests.values():
            with contextlib.suppress(OSError):
                guest.settimeout(5.0)
                guest.recv(1)
    _judge({"wrong": wrong, "late": text})


def _admit(place: Place, guest: socket.socket, guests: dict[int, tuple[str, socket.socket]]) -> str:
    """Reads who it is; returns what is wrong with it. A stranger to the protocol is ignored."""
    guest.settimeout(5.0)
    try:
        hello = json.loads(guest.makefile().readline(_HELLO_BYTES))
        index, count, name = int(hello["index"]), int(hello["count"]), str(hello["host"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    if index in guests or not 0 < index < place.count:
        other = guests[index][0] if index in guests else socket.gethostname()
        return f"two processes say that they are number {index}: on {other} and on {name}"
    guests[index] = (name, guest)
    if count != place.count:
        return f"process {index} ({name}) counts {count} processes, process 0 {place.count}"
    return ""


def _visit(place: Place, host: str, port: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    hello = {"index": place.index, "count": place.count, "host": socket.gethostname()}
    reason: object = "no answer"
    while time.monotonic() < deadline:
        try:
            with socket.create_connection((host, port), timeout=5.0) as line:
                line.sendall((json.dumps(hello) + "\n").encode())
                # Process 0 answers at its own deadline, which may be a little after this one.
                line.settimeout(deadline - time.monotonic() + 10.0)
                answer = line.makefile().readline()
            if answer:
                return _judge(json.loads(answer))
        except OSError as error:
            reason = error.strerror or error
        time.sleep(_PAUSE)
    raise LateError(
        f"process {place.index} ({hello['host']}) cannot reach the coordinator at {place.address} "
        f"within {seconds:.0f} s ({reason}); see whether process 0 runs there and the port is open"
    )


def _judge(answer: dict[str, Any]) -> None:
    if answer["wrong"]:
        raise InputError(f"{answer['wrong']}; number the processes 0 to N-1, each once")
    if answer["late"]:
        raise LateError(answer["late"])


def _listen(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(
            ("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=4096
        )
    return socket.create_server(("", port), backlog=4096)


def _named(indices: list[int]) -> str:
    shown = ", ".join(map(str, indices[:10])) + (" ..." if len(indices) > 10 else "")
    return f"process{'es' if len(indices) > 1 else ''} {shown}"
