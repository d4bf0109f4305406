"""Shared paths. Real data is read from ../shared (or NT_JAX_DATA_MIRROR), never copied."""

import os
import pathlib

import pytest

# Eight fake devices, before anything imports JAX; libtpu must not look for a TPU.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Most of the time goes into compiling the same small models again and again, here and in the
# processes that tests start.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".pytest_cache" / "xla"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")


def _shared(name: str) -> pathlib.Path:
    folder = ROOT.parent / "shared" / name
    if name == "data":
        folder = pathlib.Path(os.environ.get("NT_JAX_DATA_MIRROR", folder))
    if not folder.is_dir():
        message = f"{folder} is missing: real data for the tests is expected there"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return folder


@pytest.fixture(scope="session")
def real_data() -> pathlib.Path:
    """Folder with real genomes and labelled tasks."""
    return _shared("data")


@pytest.fixture(scope="session")
def fixtures() -> pathlib.Path:
    """Folder with tiny published-layout checkpoints and their outputs."""
    return _shared("fixtures")
