"""The lowest and the highest supported transformers, each in an environment of its own.

An environment is `.venv-transformers-VERSION` at the root of the repository, made from
requirements-VERSION.txt beside this file and kept until that file changes. Neither has this
project or JAX, so exported folders are seen to need nothing of them.
"""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.nt_jax.interchange import hf_cases

HERE = pathlib.Path(__file__).parent
VERSIONS = sorted(path.stem.removeprefix("requirements-") for path in HERE.glob("*.txt"))


def environment(version):
    """Python of the environment; made when it is absent or its requirements have changed."""
    folder = ROOT / f".venv-transformers-{version}"
    python, stamp = folder / "bin" / "python", folder / "requirements.txt"
    requirements = HERE / f"requirements-{version}.txt"
    if stamp.is_file() and stamp.read_text() == requirements.read_text():
        return python
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    install = [python, "-m", "pip", "install", "--quiet", "--requirement", requirements]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode:
        message = f"transformers {version} cannot be installed: {done.stderr[-500:]}"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    shutil.copyfile(requirements, stamp)
    return python


def test_both_ends_are_tested():
    assert VERSIONS == ["4.40", "5.23"]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("version", VERSIONS)
def test_exports_work_on(version, tmp_path, fixtures):
    python = environment(version)
    for name in hf_cases.CASES:
        hf_cases.make_case(name, tmp_path / name, fixtures)
    command = [python, HERE / "hf_check.py", *(tmp_path / name for name in hf_cases.CASES)]
    settings = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"transformers {version}." in done.stdout
