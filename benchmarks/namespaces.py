"""Two processes in network namespaces of their own, with their own addresses, against one process.

    python benchmarks/namespaces.py EXPERIMENT DATA --out DIR [overrides]

Needs root and iproute2: it joins two namespaces by a veth pair, runs `nt-jax pretrain` in each
(process 0 at 10.77.0.1, process 1 at 10.77.0.2, one fake device each), then once more as a single
process with two devices, compares the curves and removes the namespaces. Exits with 0 when the
losses agree within 1e-5, 1 when they do not, 77 where namespaces cannot be made.
"""

import argparse
import contextlib
import json
import math
import os
import pathlib
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator

SKIPPED = 77
PORT = 8476
NAMES = [f"nt-jax-{os.getpid()}-{i}" for i in range(2)]
ADDRESSES = ["10.77.0.1", "10.77.0.2"]


def ip(*words: str) -> None:
    """Runs `ip`; CalledProcessError with what it said."""
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@contextlib.contextmanager
def namespaces() -> Iterator[None]:
    """Two namespaces that see each other and nothing else."""
    with contextlib.ExitStack() as stack:
        for name in NAMES:
            ip("netns", "add", name)
            stack.callback(ip, "netns", "del", name)
        ends = [f"nt{os.getpid()}x{i}" for i in range(2)]
        ip("link", "add", ends[0], "netns", NAMES[0], "type", "veth",
           "peer", "name", ends[1], "netns", NAMES[1])  # fmt: skip
        for name, end, address in zip(NAMES, ends, ADDRESSES, strict=True):
            # Gloo listens where the host's name leads to, which is not the loopback of each.
            hosts = pathlib.Path("/etc/netns", name, "hosts")
            hosts.parent.mkdir(parents=True)
            stack.callback(shutil.rmtree, hosts.parent)
            hosts.write_text(f"127.0.0.1 localhost\n{address} {socket.gethostname()}\n")
            ip("-n", name, "addr", "add", f"{address}/24", "dev", end)
            ip("-n", name, "link", "set", end, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield


def pretrain(options: argparse.Namespace, workdir: pathlib.Path) -> list[str]:
    """The command that is run."""
    words = ["pretrain", options.experiment, "--data", options.data, "--workdir", str(workdir)]
    return [sys.executable, "-m", "nt_jax.cli", *words, *options.rest]


def environment(devices: int, **more: str) -> dict[str, str]:
    """CPU and so many fake devices."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    return {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, **more}


def together(options: argparse.Namespace, workdir: pathlib.Path) -> None:
    """One process in each namespace; SystemExit unless all end well."""
    with namespaces():
        running = []
        for i, name in enumerate(NAMES):
            places = {
                "NT_JAX_COORDINATOR": f"{ADDRESSES[0]}:{PORT}",
                "NT_JAX_PROCESS_COUNT": "2",
                "NT_JAX_PROCESS_ID": str(i),
            }
            words = ["ip", "netns", "exec", name, *pretrain(options, workdir)]
            running.append(subprocess.Popen(words, env=environment(1, **places)))
        codes = [process.wait() for process in running]
    if codes != [0, 0]:
        sys.exit(f"the processes ended with {codes}")


def losses(workdir: pathlib.Path) -> dict[tuple[int, bool], float]:
    """Loss by step, apart for validation."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return {(row["step"], "split" in row): row["loss"] for row in map(json.loads, lines)}


def main() -> int:
    """See the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("experiment")
    parser.add_argument("data")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    options, options.rest = parser.parse_known_args()
    try:
        with namespaces():
            pass
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"skipped: no namespaces here ({getattr(error, 'stderr', None) or error})")
        return SKIPPED
    together(options, options.out / "two")
    subprocess.run(pretrain(options, options.out / "one"), env=environment(2), check=True)
    two, one = losses(options.out / "two"), losses(options.out / "one")
    assert two.keys() == one.keys(), "rows differ"
    worst = max(abs(two[key] - one[key]) / one[key] for key in one)
    print(f"{len(one)} rows, largest relative difference of a loss {worst:.1e}")
    return 0 if worst < 1e-5 and not math.isnan(worst) else 1


if __name__ == "__main__":
    sys.exit(main())
