"""One log for each process of a run: WORKDIR/logs/process-NNNN.log."""

import logging
import os
import pathlib
import socket
import sys

FOLDER = "logs"


def open_log(workdir: pathlib.Path, index: int, count: int) -> None:
    """From here on what this package has to say is kept, with the time, in this process's file.

    Errors of process 0 are shown on standard error as well: all processes meet the same ones.
    """
    folder = workdir / FOLDER
    folder.mkdir(exist_ok=True)
    path = folder / f"process-{index:04d}.log"
    file = logging.FileHandler(path)
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    log = logging.getLogger("nt_jax")
    log.setLevel(logging.INFO)
    log.addHandler(file)
    log.propagate = False
    if index == 0:
        shown = logging.StreamHandler(sys.stderr)
        shown.setLevel(logging.WARNING)
        log.addHandler(shown)
    # What libraries write to standard output (gloo does) is no result of a run.
    sys.stdout.flush()
    with path.open("a") as output:
        os.dup2(output.fileno(), 1)
    log.info("process %d of %d, pid %d on %s", index, count, os.getpid(), socket.gethostname())
