"""The process of a contestant: answers the requests of `contest.py`, one line of JSON each.

A request names a method in `do` and its arguments; the first one, `begin`, names the kind of
contestant. What libraries print goes to standard error, which is the log. Imports no framework.
"""

import contextlib
import gc
import json
import os
import pathlib
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from nt_jax import memory

_NO_MEMORY = ("RESOURCE_EXHAUSTED", "out of memory")


def serve(kinds: Mapping[str, Callable[..., Any]]) -> None:
    """Answers until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    contestant: Any = None
    for line in sys.stdin:
        request = json.loads(line)
        method = request.pop("do")
        try:
            if method == "begin":
                contestant = kinds[request.pop("kind")](**request)
                result = contestant.about()
            else:
                result = getattr(contestant, method)(**request)
            answer = {"result": result}
        except Exception as error:
            traceback.print_exc()
            text = " ".join(str(error).split())
            answer = {
                "error": f"{type(error).__name__}: {text[:300]}",
                "no_memory": any(word in text for word in _NO_MEMORY),
            }
            del error
            gc.collect()
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


class Resident:
    """Host memory that this process takes beyond what it has now: its libraries, started."""

    def __init__(self) -> None:
        memory.collect()
        self._before = _status("VmRSS")

    def restart(self) -> None:
        """Forgets the peak so far: compilers take more than what they compile."""
        memory.collect()
        with contextlib.suppress(OSError):  # sandboxes have no such file
            pathlib.Path("/proc/self/clear_refs").write_text("5")

    def peak(self) -> int:
        """Most bytes since `restart`."""
        return _status("VmHWM") - self._before


def _status(name: str) -> int:
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    found = dict(line.split(":", 1) for line in lines if ":" in line)
    return 1024 * int(found.get(name, "0").split()[0])
