"""A study of tiny models on two random genomes, and ways to run it as people do."""

import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np

from data_pipelines.builders import build
from tests.nt_jax.runs import environment

DATA = ["--data", "flat=flat", "skewed=skewed"]
"""Where its datasets are, from the folder that they were made in."""
ROOT = pathlib.Path(__file__).parents[3]
STUDY = """
from nt_jax.config import *
from nt_jax.studies.grid import *


def experiment(width, seed=0):
    return Experiment(
        name="tiny",
        model=ModelConfig(
            num_layers=2, num_heads=2, embed_dim=width, ffn_dim=2 * width, max_positions=64
        ),
        tokenizer=TokenizerConfig(k=3),
        data=DataConfig(sequence_length=33),
        optim=OptimConfig(schedule="cosine", peak_lr=3e-3),
        train=TrainConfig(
            seed=seed, global_batch=8, log_every=2, eval_every=10, eval_windows=16
        ),
        checkpoint=CheckpointConfig(every=5, keep=2),
    )


def study():
    grid = Grid(
        sizes={{"w8": experiment(8), "w16": experiment(16)}},
        sources={sources},
        budgets=(Tokens({steps} * 8 * 33),),
        seeds={seeds},
        warmup_share=0.1,
        losses_on={losses},
        probes={probes},
        held_out=({{"size": "w16"}},),
    )
    return Study(name="small", question="Is more better?", runs=expand(grid){more})
"""


def make_study(
    folder: pathlib.Path,
    *,
    sources: tuple[str, ...] = ("flat",),
    steps: int = 40,
    seeds: tuple[int, ...] = (0,),
    losses: str = "()",
    probes: str = "()",
    more: str = "",
) -> pathlib.Path:
    """Writes the study's file; `more` is added to its runs."""
    path = folder / "small.py"
    path.write_text(
        STUDY.format(
            sources=sources, steps=steps, seeds=seeds, losses=losses, probes=probes, more=more
        )
    )
    return path


def make_datasets(folder: pathlib.Path, bases: int = 20_000) -> None:
    """Datasets flat and skewed: random genomes of two compositions, second contigs held out."""
    rng = np.random.default_rng(0)
    for name, shares in (("flat", [0.25] * 4), ("skewed", [0.4, 0.1, 0.2, 0.3])):
        with (folder / f"{name}.fa").open("w") as fasta:
            for contig, length in (("one", bases), ("two", bases // 4)):
                fasta.write(f">{contig}\n{''.join(rng.choice(list('ACGT'), length, p=shares))}\n")
        recipe = "window=128,stride=100,jitter=8,tokens=33"
        build([folder / f"{name}.fa"], folder / name, recipe=recipe, validation=["two"])


def start(folder: pathlib.Path, *words: str) -> subprocess.Popen[str]:
    """`nt-jax study WORDS` in `folder`."""
    return subprocess.Popen(
        [sys.executable, "-m", "nt_jax.cli", "study", *words],
        cwd=folder, env={**environment(), "PYTHONPATH": str(ROOT)}, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def study(folder: pathlib.Path, *words: str) -> tuple[int, str, str]:
    """The same to its end: exit code and both outputs."""
    process = start(folder, *words)
    out, err = process.communicate(timeout=900)
    return process.returncode, out, err


def processes(of: str) -> Iterator[int]:
    """Processes with this text in a word of their command line."""
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if any(of.encode() in word for word in words) and int(path.parent.name) != os.getpid():
            yield int(path.parent.name)


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    """Until `condition()`; fails after five minutes, and where `process` ends before."""
    end = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < end, "it did not come"
        assert process is None or process.poll() is None, process.communicate()[1]
        time.sleep(0.02)


def table(root: pathlib.Path) -> list[dict[str, str]]:
    """Rows of the report's table, as text."""
    header, *lines = (root / "table.tsv").read_text().splitlines()
    return [dict(zip(header.split("\t"), line.split("\t"), strict=True)) for line in lines]


def states(folder: pathlib.Path, path: pathlib.Path, out: str) -> dict[str, dict]:
    """What `study status` says of each run, by name."""
    code, shown, err = study(folder, "status", str(path), "--out", out, "--json")
    assert code == 0, err
    return {one["run"]: one for one in json.loads(shown)}
