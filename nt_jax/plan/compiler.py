"""Compiles the real train step for a topology, in a process of its own, once.

libtpu wants an environment of its own and a process that touches no device, so a worker
(`nt_jax/plan/worker.py`) compiles; the result, with the text of the program, is kept on disk under
a key of everything that it depends on. One compilation runs at a time.
"""

import ast
import dataclasses
import functools
import gzip
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

from nt_jax import config, files
from nt_jax.config import Experiment
from nt_jax.errors import InputError
from nt_jax.plan.topology import Topology

CACHE = pathlib.Path.home() / ".cache" / "nt-jax" / "plan"
_RECORD, _PROGRAM = "record.json", "program.hlo.gz"


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What the compiler says of a train step; bytes of one JAX device."""

    seconds: float
    """Processor time of lowering and compiling, on this machine."""
    mesh: dict[str, int]
    """Size of each axis, in the order in which devices are numbered."""
    arguments: int
    """State and batch."""
    temporaries: int
    outputs: int
    aliased: int
    """Outputs that lie where arguments lay."""
    code: int
    program: str
    """Text of the program, empty where it is too large."""
    needed: float | None
    """Bytes of temporaries that the compiler could not place, where it gave up."""
    available: float | None
    """Bytes that it had for them."""
    cached: bool

    @property
    def peak(self) -> float:
        """Bytes that the program takes while it runs."""
        temporaries = self.temporaries if self.needed is None else self.needed
        return float(self.arguments + self.outputs - self.aliased + temporaries + self.code)


def compile_step(experiment: Experiment, topology: Topology, cache: pathlib.Path) -> Compiled:
    """Compiles, or reads what was compiled before.

    Raises InputError without libtpu and for an experiment that cannot run on the topology.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise InputError(
            f"{topology.name}: compiling for a TPU needs libtpu: pip install 'nt-jax[plan]'"
        )
    request = {"experiment": config.to_dict(experiment), "topology": topology.description()}
    folder = cache / _key(experiment, topology)
    record = _read(folder / _RECORD)
    if record is not None:
        program = gzip.decompress((folder / _PROGRAM).read_bytes()).decode()
        return Compiled(**record, program=program, cached=True)
    record, program = work(request, tpu_environment())
    folder.mkdir(parents=True, exist_ok=True)
    files.write_atomically(folder / _PROGRAM, gzip.compress(program.encode(), 6))
    files.write_atomically(folder / _RECORD, json.dumps(record, indent=1))
    return Compiled(**record, program=program, cached=False)


def work(request: dict[str, Any], environment: dict[str, str]) -> tuple[dict[str, Any], str]:
    """Runs the worker: (record, text of the program). Raises InputError for a bad experiment."""
    with tempfile.TemporaryDirectory(prefix="nt-jax-plan-") as name:
        folder = pathlib.Path(name)
        (folder / "request.json").write_text(json.dumps(request))
        done = subprocess.run(
            [sys.executable, "-m", "nt_jax.plan.worker", name],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        record = _read(folder / "result.json")
        if record is None:
            last = [line for line in done.stderr.splitlines() if line.strip()][-1:]
            raise RuntimeError(f"the compiling process ended with {done.returncode}: {last}")
        if "input_error" in record:
            raise InputError(record["input_error"])
        program = folder / "program.hlo"
        return record, program.read_text() if program.is_file() else ""


def tpu_environment() -> dict[str, str]:
    """Of a process that compiles for an absent TPU."""
    kept = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    return {
        **kept,
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }


def _read(path: pathlib.Path) -> dict[str, Any] | None:
    return json.loads(path.read_text()) if path.is_file() else None


def _key(experiment: Experiment, topology: Topology) -> str:
    """Digest of all that the compiled program depends on."""
    fields = config.to_dict(experiment)
    # None of these enters the train step.
    for name in ("name", "checkpoint"):
        del fields[name]
    fields["data"] = fields["data"]["sequence_length"]
    for name in ("log_every", "eval_every", "eval_windows"):
        del fields["train"][name]
    versions = [importlib.metadata.version(name) for name in ("jax", "jaxlib", "libtpu")]
    flags = os.environ.get("LIBTPU_INIT_ARGS", "")
    everything = [fields, topology.description(), versions, flags, source_digest()]
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()[:24]


@functools.cache
def source_digest() -> str:
    """Digest of the modules that the train step is made by: the worker and what it imports."""
    package = pathlib.Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    waiting, seen = ["nt_jax.plan.worker"], set[str]()
    while waiting:
        name = waiting.pop()
        path = package.joinpath(*name.split(".")[1:])
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if name in seen or not path.is_file():
            continue
        seen.add(name)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nt_jax"):
                waiting += [str(node.module), *(f"{node.module}.{a.name}" for a in node.names)]
            elif isinstance(node, ast.Import):
                waiting += [a.name for a in node.names if a.name.startswith("nt_jax")]
    for name in sorted(seen):
        path = package.joinpath(*name.split(".")[1:])
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        digest.update(name.encode() + path.read_bytes())
    return digest.hexdigest()
