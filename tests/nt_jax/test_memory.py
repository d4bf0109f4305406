"""What a process does with the memory of its steps."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, resource, sys
import jax, jax.numpy as jnp
from nt_jax import memory

PR_SET_THP_DISABLE = 41
ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)  # small pages can be counted
if "keep" in sys.argv:
    memory.keep()


def product(x):
    y = x @ x.T  # 64 MB of temporary memory; malloc itself keeps up to 32
    return (y @ x).sum()


step = jax.jit(product)
x = jnp.ones((4096, 16))


def touched():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        step(x).block_until_ready()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * 4096 / 4


def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096


touched()
found = [touched(), resident()]
memory.release()
print(*found, resident(), float(step(x)))
"""
SIZE = 4096 * 4096 * 4


def _run(*arguments: str, devices: int = 1) -> list[float]:
    """Bytes that a step touches for the first time, resident ones before and after a release."""
    env = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "GLIBC_TUNABLES": "",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], env=env, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    return [float(word) for word in found.stdout.split()]


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_memory_of_a_step_is_kept_for_the_next_until_it_is_released() -> None:
    as_it_comes, _, _, value = _run()
    touched, before, after, same = _run("keep")
    assert as_it_comes > 0.9 * SIZE
    assert touched < 0.01 * SIZE
    assert before - after > 0.9 * SIZE
    assert value == same


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_several_devices_give_their_memory_back() -> None:
    # Their programs run on threads, where malloc would keep several such memories.
    assert _run("keep", devices=2)[0] > 0.9 * SIZE
