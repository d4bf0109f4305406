"""Environment variables that must be set before JAX is imported. Imports nothing of ours."""

import importlib.util
import logging
import os
import sys

_HARDWARE = ("/dev/accel0", "/dev/vfio/0", "/dev/nvidia0", "/dev/nvidiactl")


def quiet() -> None:
    """No library noise around our own lines."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    for name in ("absl", "jax"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # A save that fails is reported once; each of its writers would say it again.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    # libtpu on a machine without a TPU prints warnings and looks for one.
    if importlib.util.find_spec("libtpu") and not accelerated():
        os.environ.setdefault("JAX_PLATFORMS", "cpu")


def huge_pages() -> None:
    """Starts this process anew with glibc's malloc on huge pages, where the CPU computes.

    XLA's CPU client takes its buffers from malloc in every step; in 4-kB pages their first touch
    costs up to a third of a small model's step (docs/performance.md). The setting is read only at
    the start of a process. `GLIBC_TUNABLES` in the environment, even empty, switches this off.
    """
    if sys.platform != "linux" or accelerated() or "GLIBC_TUNABLES" in os.environ:
        return
    os.environ["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def accelerated() -> bool:
    """Whether this machine shows a TPU or an NVIDIA GPU."""
    return any(map(os.path.exists, _HARDWARE))
