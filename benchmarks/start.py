"""From the start of `nt-jax pretrain` to its first step, without and with compiled programs kept.

    python benchmarks/start.py [--repeats 3] [--out docs/results/start] [EXPERIMENT ...]

Each start is a new process in an empty workdir on a small random genome, with one window a step so
that compiling, not computing, is what the first step takes. The cold ones have an empty
compilation cache, the warm ones that of the cold start before; they alternate, and medians are
shown. Seconds are those of the run's own ledger (goodput.jsonl). Writes OUT.md and OUT.json.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from nt_jax import environment  # noqa: E402

environment.quiet()

from nt_jax.ledger import read_lives  # noqa: E402
from tests.nt_jax.runs import command, make_dataset  # noqa: E402

EXPERIMENTS = ("nt_v2_nano", "nt_v2_50m_multispecies")
SHORT = (
    "--data.sequence-length", 22, "--data.recipe", "window=128,stride=100,jitter=8,tokens=33",
    "--train.global-batch", 1, "--train.steps", 2, "--train.eval-every", 1000,
    "--optim.warmup-steps", 1,
)  # fmt: skip


def start(folder: pathlib.Path, experiment: str, name: str, cache: pathlib.Path) -> dict:
    """Seconds by phase of one start."""
    workdir = folder / name
    arguments = ("pretrain", experiment, "--data", folder / "data", "--workdir", workdir, *SHORT)
    env = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)}
    done = subprocess.run(command(*arguments), env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return read_lives(workdir)[-1]["seconds"]


def measure(experiment: str, repeats: int) -> dict:
    """Medians of cold and warm starts."""
    found: dict[str, list[dict]] = {"cold": [], "warm": []}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        make_dataset(folder)
        for number in range(repeats):
            for kind, starts in found.items():
                starts.append(start(folder, experiment, f"{kind}{number}", folder / f"{number}"))
                print(f"{experiment}: {kind} start {number + 1} of {repeats}", file=sys.stderr)
    row: dict = {"experiment": experiment, "repeats": repeats}
    for kind, starts in found.items():
        for phase in ("start_up", "compile"):
            row[f"{kind}_{phase}"] = statistics.median(one[phase] for one in starts)
        row[f"{kind}_all"] = statistics.median(one["start_up"] + one["compile"] for one in starts)
    return row


def markdown(rows: list[dict]) -> str:
    """The table."""
    lines = [
        "# Start to first step",
        "",
        "`python benchmarks/start.py`, CPU, one window of 22 tokens a step; medians of seconds. "
        "Without and with the compiled programs of an earlier start.",
        "",
        "| experiment | | before the first step | first step | both |",
        "|---|---|---:|---:|---:|",
    ]
    for row in rows:
        for kind in ("cold", "warm"):
            cells = (f"{row[f'{kind}_{name}']:.1f}" for name in ("start_up", "compile", "all"))
            lines.append(f"| {row['experiment']} | {kind} | {' | '.join(cells)} |")
        ratios = (row[f"cold_{n}"] / row[f"warm_{n}"] for n in ("start_up", "compile", "all"))
        shown = " | ".join(f"{ratio:.1f}x" for ratio in ratios)
        lines.append(f"| {row['experiment']} | ratio | {shown} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("experiments", nargs="*", default=EXPERIMENTS, metavar="EXPERIMENT")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "docs" / "results" / "start")
    options = parser.parse_args()
    rows = [measure(experiment, options.repeats) for experiment in options.experiments]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
    options.out.with_suffix(".md").write_text(markdown(rows))


if __name__ == "__main__":
    main()
