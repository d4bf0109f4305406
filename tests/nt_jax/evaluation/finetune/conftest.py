"""Tiny tasks of every kind, and a checkpoint to fine-tune."""

import pathlib
from collections.abc import Callable

import jax
import numpy as np
import pytest

from nt_jax import sharding, workdir
from nt_jax.checkpoint import save_params
from nt_jax.config import MeshConfig
from nt_jax.evaluation.finetune.problem import Encoder
from nt_jax.evaluation.finetune.saved import open_encoder
from nt_jax.evaluation.finetune.settings import Settings
from nt_jax.evaluation.loading import LoadedModel
from nt_jax.evaluation.tasks import Audit, Kind, Split, Task

BASES = 60
"""21 tokens of 3 bases with `<cls>`; the context is 24."""


def make_task(
    kind: Kind, train: int = 84, test: int = 40, *, shuffled: bool = False, seed: int = 0
) -> Task:
    """Labels that follow from the base composition, or from nothing when `shuffled`."""
    rng = np.random.default_rng(seed)
    share = rng.choice([0.03, 0.35, 0.65, 0.97], train + test)
    weights = np.stack([1 - share, share, share, 1 - share], axis=1) / 2
    sequences = tuple("".join(rng.choice(list("ACGT"), size=BASES, p=p)) for p in weights)
    gc = np.array([(row.count("C") + row.count("G")) / BASES for row in sequences])
    order = rng.permutation(len(gc)) if shuffled else np.arange(len(gc))
    labels = {
        "classes": (share > 0.5).astype(np.int64),
        "multilabel": np.stack([share > 0.2, share > 0.8], axis=1),
        "values": 5.0 + 20.0 * gc,
    }[kind][order]
    parts = Split(sequences[:train], labels[:train]), Split(sequences[train:], labels[train:])
    names = {"classes": ("low", "high"), "multilabel": ("some", "much"), "values": ()}[kind]
    audit = Audit({"toy": train + test}, 0, 0, 0, 0, 0)
    return Task(kind, names, parts[0], parts[1] if test else None, audit, kind=kind)


def write_task(path: pathlib.Path, task: Task, part: str = "train") -> pathlib.Path:
    """A split of a task of classes as a CSV."""
    split = getattr(task, part)
    rows = [f"{s},{label}" for s, label in zip(split.sequences, split.labels, strict=True)]
    path.write_text("\n".join(["sequence,label", *rows]) + "\n")
    return path


@pytest.fixture(scope="session")
def encoder(loaded: LoadedModel) -> Callable[..., Encoder]:
    """`encoder(method, devices=1, **settings)`: the tiny model under a method."""

    def build(method: str, devices: int = 1, **more) -> Encoder:
        keywords = {"layer": 2, "learning_rate": 1e-2, "batch": 16, "epochs": 3, **more}
        mesh = sharding.make_mesh(MeshConfig(), jax.devices()[:devices])
        placed = sharding.state_sharding(loaded.params, mesh)
        settings = Settings(method=method, **keywords)
        return open_encoder(jax.device_put(loaded.params, placed), loaded.config, settings, mesh)

    return build


@pytest.fixture(scope="session")
def checkpoint(loaded: LoadedModel, tmp_path_factory) -> pathlib.Path:
    """The tiny model as a workdir."""
    folder = tmp_path_factory.mktemp("checkpoint") / "run"
    workdir.create(folder, loaded.config, {"imported_from": "a test"})
    loaded.tokenizer.save(folder / workdir.TOKENIZER)
    save_params(folder, jax.tree.map(np.asarray, loaded.params), loaded.config, {"tokens": 0})
    return folder
