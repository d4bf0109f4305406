"""A tiny experiment on a tiny random genome, and ways to run it as people do."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np

from data_pipelines.builders import build

EXPERIMENT = """
from nt_jax.config import *

def config():
    return Experiment(
        name="tiny",
        model=ModelConfig(num_layers=2, num_heads=2, embed_dim=16, ffn_dim=32, max_positions=64),
        tokenizer=TokenizerConfig(k=3),
        data=DataConfig(sequence_length=33),
        optim=OptimConfig(schedule="cosine", peak_lr=3e-3, warmup_steps=10),
        train=TrainConfig(steps=240, global_batch=8, log_every=3, eval_every=40, eval_windows=16),
        checkpoint=CheckpointConfig(every=20, keep=2),
    )
"""
# A process compiles its tiny programs once and runs them for a moment: a third less time.
_QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
TIMINGS = ("tokens_per_s", "mfu", "seconds", "input_wait", "goodput")


def make_experiment(folder: pathlib.Path) -> pathlib.Path:
    """Writes the experiment file."""
    path = folder / "tiny.py"
    path.write_text(EXPERIMENT)
    return path


def make_dataset(folder: pathlib.Path, bases: int = 40_000, n_every: int = 0) -> pathlib.Path:
    """Builds a dataset from a random genome with two contigs, the second for validation.

    With `n_every` there is an N at so many bases of the first.
    """
    rng = np.random.default_rng(0)
    with (folder / "random.fa").open("w") as fasta:
        for name, length in (("one", bases), ("two", bases // 4)):
            letters = rng.choice(list("ACGT"), length, p=[0.4, 0.1, 0.2, 0.3])
            if n_every and name == "one":
                letters[n_every::n_every] = "N"
            fasta.write(f">{name}\n{''.join(letters)}\n")
    recipe = "window=128,stride=100,jitter=8,tokens=33"
    build([folder / "random.fa"], folder / "data", recipe=recipe, validation=["two"])
    return folder / "data"


def environment(devices: int = 1) -> dict[str, str]:
    """Environment of a run of its own, with so many fake devices."""
    flags = f"{_QUICK} --xla_force_host_platform_device_count={devices}"
    return {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}


def command(*arguments: object) -> list[str]:
    """`nt-jax ...` in this interpreter's environment."""
    return [sys.executable, "-m", "nt_jax.cli", *map(str, arguments)]


def run(*arguments: object, devices: int = 1) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end."""
    return subprocess.run(
        command(*arguments), env=environment(devices), capture_output=True, text=True, timeout=900
    )


def rows(workdir: pathlib.Path) -> list[dict]:
    """Rows of metrics.jsonl without their timings."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMINGS} for line in lines]


def make_poisoned(folder: pathlib.Path) -> pathlib.Path:
    """A workdir for --init-from whose embedding of N is infinite: a batch with an N is not finite.

    Every other batch is sound, and nothing but data and weights is needed for it.
    """
    import jax

    from nt_jax import workdir
    from nt_jax.checkpoint import save_params
    from nt_jax.model.factory import build_model

    name: dict = {}
    exec((folder / "tiny.py").read_text(), name)
    experiment = name["config"]()
    tokenizer = experiment.tokenizer.make()
    params = jax.tree.map(
        np.array, build_model(experiment.model, tokenizer).init(jax.random.key(5))
    )
    params["nt/embed/token"]["embeddings"][tokenizer.tokens.index("N")] = np.inf
    workdir.create(folder / "poisoned", experiment, {"dataset": "none", "init_from": None})
    save_params(folder / "poisoned", params, experiment, {"tokens": 0})
    return folder / "poisoned"
