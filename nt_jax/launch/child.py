"""Becomes the given command, which the kernel then kills when the launcher dies, however it dies.

Run as a script: `child.py LAUNCHER_PID PROGRAM ARGUMENT...`. The setting outlives `exec`. Elsewhere
than on Linux there is no such setting, and a launcher killed with SIGKILL leaves its processes.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # prctl(2)

if __name__ == "__main__":
    launcher, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # It may have died before the kernel knew.
    if os.getppid() == launcher:
        os.execvp(command[0], command)
