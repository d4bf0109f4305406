"""TensorBoard's files. Written in this thread: tensorboardX's own writer ends when a disk is full,
and the training then waits for it forever."""

import contextlib
import os
import pathlib
import socket
import struct
import sys
import time
from collections.abc import Iterator

from nt_jax.appender import Appender


@contextlib.contextmanager
def _absent(name: str) -> Iterator[None]:
    """Meanwhile a module cannot be imported, as if it were not installed."""
    known = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
        if known is not None:
            sys.modules[name] = known


# tensorboardX imports torch where there is one, for a type: half of the time of all our imports.
with _absent("torch"):
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.record_writer import masked_crc32c
    from tensorboardX.summary import scalar


class Board:
    """One event file of a run; steps from `purge_step` on replace those of older files."""

    def __init__(self, folder: pathlib.Path, purge_step: int):
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        self._file = Appender(folder / f"{name}.{purge_step}")
        self._add(Event(wall_time=time.time(), file_version="brain.Event:2"))
        start = SessionLog(status=SessionLog.START)
        self._add(Event(wall_time=time.time(), step=purge_step, session_log=start))

    def write(self, values: dict[str, int | float], step: int) -> None:
        """Adds scalars by tag."""
        now = time.time()
        for tag, value in values.items():
            self._add(Event(wall_time=now, step=step, summary=scalar(tag, value)))

    def _add(self, event: Event) -> None:
        data = event.SerializeToString()
        length = struct.pack("<Q", len(data))
        self._file.write(
            length
            + struct.pack("<I", masked_crc32c(length))
            + data
            + struct.pack("<I", masked_crc32c(data))
        )

    def close(self) -> None:
        """Closes the file; what found no room is lost, metrics.jsonl has it all."""
        self._file.flush()
        self._file.close()
