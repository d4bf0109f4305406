"""Time and memory of import and export, for models of the published shapes.

    python benchmarks/interchange.py --models nt_v2_50m_multispecies --formats nt safetensors

Writes a checkpoint of random weights in the published layout, then runs the command line as its
users do: import, export to a format, import of the export. Two peaks are taken of each process:
`peak`, the most memory that was resident (ru_maxrss), and `anonymous`, the most of it that was no
page of a file (RssAnon, sampled): pages of a mapped file are the kernel's to take back, the
others are not. The parameters that come back must have the same bits: the checksums in the two
checkpoints are compared. Files go to `--folder`, five times the largest checkpoint at most, and
are deleted as soon as they are not needed.

Writes benchmarks/results/interchange.json and interchange.md; models and formats that are not
asked for keep the rows they have. Expected: peaks of at most 1.3 times the checkpoint where the
checkpoint is much larger than what Python and its libraries take alone.
"""

import argparse
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from nt_jax import environment
from nt_jax.interchange.exporter import WRITERS
from nt_jax.interchange.nt import write_nt
from nt_jax.interchange.weights import Weights, expected_tensors
from nt_jax.model.presets import PRESETS, preset

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
MODELS = (
    "nt_v2_50m_multispecies",
    "nt_v2_500m_multispecies",
    "nt_v1_500m_human_ref",
    "nt_v1_2b5_multispecies",
)
TARGET = 1.3
"""Peak memory over the size of the checkpoint."""
COMMANDS = ("import", "export", "back")


class Usage(NamedTuple):
    """What a process took."""

    seconds: float
    peak: int
    """Bytes resident at most, pages of files among them."""
    anonymous: int
    """Bytes at most that are no pages of a file."""


def random_weights(name: str, seed: int = 0) -> Weights:
    """Weights of a preset's shapes; each tensor is made when it is asked for, from its name."""
    model, tokenizer = preset(name)

    def read(tensor: str) -> np.ndarray:
        shape = shapes[tensor]
        rng = np.random.default_rng([seed, zlib.crc32(tensor.encode())])
        array = rng.standard_normal(shape, np.float32)
        # About as trained weights are, so that numbers stay numbers through all layers.
        if tensor.endswith("/scale"):
            return 1 + 0.02 * array
        return array * np.float32(0.02 if len(shape) == 1 else shape[0] ** -0.5)

    shapes = expected_tensors(model, tokenizer)
    return Weights(model, tokenizer, shapes, read, name)


def measure(arguments: list[str]) -> Usage:
    """Runs a process to its end; raises SystemExit with its last lines where it fails."""
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        process = subprocess.Popen(arguments, stdout=output, stderr=output, cwd=ROOT)
        anonymous, done, status, usage = 0, 0, 0, None
        while not done:
            anonymous = max(anonymous, _anonymous(process.pid))
            time.sleep(0.02)
            done, status, usage = os.wait4(process.pid, os.WNOHANG)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            text = output.read().decode(errors="replace")[-2000:]
            raise SystemExit(f"{' '.join(arguments)}: exit {process.returncode}\n{text}")
    return Usage(seconds, usage.ru_maxrss * 1024, anonymous)


def _anonymous(pid: int) -> int:
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = [line.split()[1] for line in status.splitlines() if line.startswith("RssAnon:")]
    return 1024 * int(found[0]) if found else 0


def nt_jax(*arguments: str | pathlib.Path) -> Usage:
    """The command line, in a process of its own."""
    return measure([sys.executable, "-m", "nt_jax.cli", *map(str, arguments)])


def baseline() -> Usage:
    """What Python and the libraries take, with no model."""
    code = "import nt_jax.interchange.exporter, jax; jax.numpy.ones(1).block_until_ready()"
    return measure([sys.executable, "-c", code])


def checksums(workdir: pathlib.Path) -> dict[str, str]:
    """Checksum of every parameter, from the checkpoint's own record."""
    found = json.loads((workdir / "checkpoints" / "0" / "meta" / "metadata").read_text())
    return found["checksums"]["params"]


def size(folder: pathlib.Path) -> int:
    """Bytes of all files below."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def run_model(name: str, formats: list[str], folder: pathlib.Path) -> Iterator[dict[str, Any]]:
    """A row for every format, as soon as it is there."""
    source, workdir, out, back = (folder / part for part in ("source", "run", "out", "back"))
    weights = random_weights(name)
    write_nt(weights, None, source)
    parameters = sum(math.prod(shape) for shape in weights.tensors.values())
    usage = {"import": nt_jax("import", source, "--workdir", workdir)}
    shutil.rmtree(source)
    for layout in formats:
        usage["export"] = nt_jax(
            "export", "--checkpoint", workdir, "--format", layout, "--out", out
        )
        written = size(out)
        usage["back"] = nt_jax("import", out, "--workdir", back)
        same = checksums(workdir) == checksums(back)
        shutil.rmtree(back)
        shutil.rmtree(out)
        yield {
            "model": name,
            "format": layout,
            "checkpoint_bytes": 4 * parameters,
            "written_bytes": written,
            "same_bits": same,
            **{
                f"{command}_{field}": round(value, 1)
                for command, used in usage.items()
                for field, value in used._asdict().items()
            },
        }


def markdown_row(row: dict[str, Any]) -> str:
    """One line of the table."""
    cells = [row["model"], row["format"], f"{row['checkpoint_bytes'] / 1e9:.2f}"]
    for command in COMMANDS:
        peak, anonymous = (
            row[f"{command}_{kind}"] / row["checkpoint_bytes"] for kind in ("peak", "anonymous")
        )
        cells += [f"{row[f'{command}_seconds']:.0f}", f"{peak:.2f} ({anonymous:.2f})"]
    cells.append("same" if row["same_bits"] else "DIFFERENT")
    return f"| {' | '.join(cells)} |"


def markdown(result: dict[str, Any]) -> str:
    """The table for the documentation."""
    base = result["baseline_bytes"]
    header = ["model", "format", "GB"]
    for command in ("import", "export", "import back"):
        header += [f"{command}, s", "memory"]
    lines = [
        "# Import and export",
        "",
        f"Random weights of the published shapes in float32. {result['cpu_count']} CPU cores "
        f"({result['machine']}), shared with other work, so seconds are upper bounds. Memory: peak "
        "over the bytes of the parameters, in brackets without pages of files, which the kernel "
        f"can take back. Python and its libraries take {base / 1e9:.2f} GB alone, so the figure "
        "says little for models that are not much larger. Bits: of the parameters that come back.",
        "",
        f"| {' | '.join([*header, 'bits'])} |",
        f"|---|---|{'---:|' * 7}---|",
        *map(markdown_row, result["rows"]),
    ]
    return "\n".join(lines) + "\n"


def save(row: dict[str, Any], base: Usage) -> dict[str, Any]:
    """Writes both files with the row in them; those of other models and formats stay."""
    path = RESULTS / "interchange.json"
    before = json.loads(path.read_text())["rows"] if path.is_file() else []
    table = {(row["model"], row["format"]): row for row in [*before, row]}
    models = list(PRESETS)
    result = {
        "benchmark": "interchange",
        "cpu_count": os.cpu_count(),
        "machine": platform.machine(),
        "baseline_bytes": base.peak,
        "baseline_anonymous_bytes": base.anonymous,
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("nt-jax", "jax", "orbax-checkpoint", "tensorstore", "numpy")
        },
        "rows": sorted(
            table.values(),
            key=lambda row: (row["checkpoint_bytes"], models.index(row["model"]), row["format"]),
        ),
    }
    path.write_text(json.dumps(result, indent=2) + "\n")
    (RESULTS / "interchange.md").write_text(markdown(result))
    return result


def main() -> None:
    """Runs the benchmark, writes and prints the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(PRESETS))
    parser.add_argument("--formats", nargs="+", default=list(WRITERS), choices=tuple(WRITERS))
    parser.add_argument("--folder", default=None, help="for files; default: the temporary folder")
    options = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    environment.quiet()
    base = baseline()
    for name in options.models:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            for row in run_model(name, options.formats, pathlib.Path(folder)):
                print(markdown_row(row), flush=True)
                result = save(row, base)
    print(markdown(result))
    for row in result["rows"]:
        worst = max(row[f"{command}_peak"] for command in COMMANDS)
        if worst > TARGET * row["checkpoint_bytes"] + result["baseline_bytes"]:
            over = worst / row["checkpoint_bytes"]
            print(f"{row['model']} {row['format']}: {over:.2f}, target {TARGET}")


if __name__ == "__main__":
    main()
