"""`nt-jax finetune`: a checkpoint is trained on a task, and its score stands beside controls.

| row | what it is |
|---|---|
| METHOD | the fine-tuned checkpoint |
| frozen head | the same head, layer and validation split, the encoder as it was |
| probe | `nt-jax probe` of the checkpoint on the same folds, its layer chosen within training |
| k-mers | frequencies of k-mers with the head of that probe, k chosen within training |
| CNN | a small convolutional network trained on the same sequences, without pretraining |
| METHOD, random init | a fresh initialisation, fine-tuned in the same way (`--random-init`) |

Training folders keep everything that an interrupted run needs; `held_out.npz` is the last file
that is written into one, and marks it as finished.
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from nt_jax import sharding
from nt_jax.checkpoint import parse_checkpoint
from nt_jax.checksums import checksums
from nt_jax.config import Experiment, MeshConfig
from nt_jax.errors import InputError
from nt_jax.evaluation.embeddings import digest
from nt_jax.evaluation.families import problem_of
from nt_jax.evaluation.finetune import examples, methods, report, training
from nt_jax.evaluation.finetune.controls import controls
from nt_jax.evaluation.finetune.objectives import OBJECTIVES
from nt_jax.evaluation.finetune.problem import Encoder, Problem
from nt_jax.evaluation.finetune.saved import (
    MODEL,
    load_adapter,
    open_encoder,
    read_arrays,
    restore_on,
    save_adapter,
    save_model,
    write_arrays,
)
from nt_jax.evaluation.finetune.settings import Settings
from nt_jax.evaluation.leakage import known_overlap, overlap_line
from nt_jax.evaluation.loading import from_params, random_like
from nt_jax.evaluation.tasks import Fold, Task, make_folds, subsample
from nt_jax.evaluation.tasks.find import find_task
from nt_jax.files import owning, write_atomically
from nt_jax.model.factory import Params
from nt_jax.progress import say
from nt_jax.runtime import StopSignal

CONFIG, HELD_OUT = "finetune.json", "held_out.npz"
RANDOM = "random_init"

Say = Callable[[str], None]


class _Stopped(Exception):
    """A signal came and the state is saved."""


class _Source(NamedTuple):
    """What is fine-tuned."""

    folder: pathlib.Path
    params: Params
    kept: bool
    """Whether adapters are written; those of a control are of no use."""


def finetune(
    checkpoint: str | pathlib.Path,
    task: str | pathlib.Path,
    out: pathlib.Path,
    *,
    method: str,
    layer: int | None = None,
    learning_rate: float | None = None,
    rank: int = methods.RANK,
    epochs: int = Settings.epochs,
    batch: int = Settings.batch,
    patience: int = Settings.patience,
    folds: int = Settings.folds,
    seed: int = 0,
    max_sequences: int = 0,
    random_init: bool = False,
    merge: bool = False,
    mesh: MeshConfig | None = None,
    data_dirs: Sequence[pathlib.Path] = (),
    progress: Say = say,
) -> dict[str, Any] | None:
    """Fine-tunes `DIR[@STEP]` on a task into `out`; the same call again goes on where it was.

    `task` is a path or a registered name, which is looked for in `data_dirs`.

    `layer` is the one that the head reads (default: the last), `learning_rate` the peak rate
    (default: the method's). `random_init` adds that control, at the price of another training;
    `merge` also writes the adapted encoder as a workdir (`full` always does). Returns the result
    (`result.json`), or None when a signal came and the state was saved. Raises InputError.
    """
    chosen = methods.find_method(method, rank)
    if merge and method == "head":
        raise InputError("--merge: the head alone leaves the encoder as it is; nothing to merge")
    labelled = subsample(find_task(task, data_dirs), max_sequences, seed)
    devices = sharding.make_mesh(mesh or MeshConfig())
    params, step, experiment = restore_on(devices, checkpoint)
    settings = Settings(
        method=method,
        layer=experiment.model.num_layers if layer is None else layer,
        learning_rate=chosen.learning_rate if learning_rate is None else learning_rate,
        rank=rank,
        epochs=epochs,
        batch=batch,
        patience=patience,
        folds=folds,
        seed=seed,
        max_sequences=max_sequences,
    )
    job = _Job(
        str(checkpoint), step, experiment, params, labelled, settings, devices,
        pathlib.Path(out), progress,
    )  # fmt: skip
    job.out.mkdir(parents=True, exist_ok=True)
    with owning(job.out):
        job.claim()
        progress(f"{labelled.name}: {labelled.audit.line()}")
        overlap = known_overlap(job.out, experiment.data.path, labelled)
        progress(f"{labelled.name}: {overlap_line(overlap)}")
        stop = StopSignal()
        try:
            return job.run(overlap, random_init, merge, stop)
        except _Stopped:
            return None
        finally:
            stop.restore()


@dataclasses.dataclass(frozen=True)
class _Job:
    checkpoint: str
    step: int
    experiment: Experiment
    params: Params
    task: Task
    settings: Settings
    mesh: Mesh
    out: pathlib.Path
    say: Say

    def __post_init__(self) -> None:
        layers = self.experiment.model.num_layers
        if not 1 <= self.settings.layer <= layers:
            raise InputError(f"--layer {self.settings.layer}: the model has layers 1..{layers}")
        copies = self.mesh.shape["data"] * self.mesh.shape["fsdp"]
        if self.settings.batch % copies:
            raise InputError(
                f"--batch {self.settings.batch} does not divide over {copies} devices; "
                f"nearest: {max(1, round(self.settings.batch / copies)) * copies}"
            )
        tokenizer = self.experiment.tokenizer.make()
        context = min(self.experiment.model.max_positions, self.experiment.data.sequence_length)
        # Everything is read before anything is trained.
        for name, split in (("training", self.task.train), ("test", self.task.test)):
            if split is not None:
                examples.encode(
                    tokenizer, split.sequences, context, f"{self.task.name}: {name} sequence"
                )

    def claim(self) -> None:
        """Makes the folder this fine-tuning's; InputError names the first difference."""
        config = {
            "parameters": digest(checksums(self.params)),
            "fingerprint": self.task.fingerprint,
            **dataclasses.asdict(self.settings),
        }
        path = self.out / CONFIG
        if path.exists():
            try:
                stored = json.loads(path.read_text())
            except ValueError as error:
                raise InputError(f"{path}: damaged ({error}); name another --out") from error
            names = {"parameters": "other parameters", "fingerprint": "another task"}
            for name, value in json.loads(json.dumps(config)).items():
                if stored.get(name) != value:
                    what = names.get(name, f"{name}={stored.get(name)}, this one has {value}")
                    raise InputError(
                        f"{self.out}: holds a fine-tuning with {what}; give the same to go on, or "
                        "another --out"
                    )
        else:
            write_atomically(path, json.dumps(config, indent=2) + "\n")

    def run(
        self, overlap: dict[str, Any], random_init: bool, merge: bool, stop: StopSignal
    ) -> dict[str, Any]:
        """Everything that is missing, then the results."""
        settings = self.settings
        folds = make_folds(self.task, settings.folds, settings.seed)
        sequences, problem = problem_of(self.task, folds, settings.seed)
        source = _Source(self.out, self.params, True)
        ours = self.train_all(source, folds, sequences, merge, stop)
        families = [
            report.Family(settings.method, False, ours["predictions"], settings.layer),
            report.Family("frozen head", True, ours["frozen"], settings.layer),
        ]
        loaded = from_params(self.params, self.step, self.experiment)
        for family in controls(loaded, self.task, sequences, problem, settings, self.out, self.say):
            families.append(family)
            if stop.received is not None:
                self.say("stopped by a signal; what is fitted is kept. The same command goes on")
                raise _Stopped
        if random_init:
            fresh = random_like(loaded, settings.seed).params
            fresh = jax.device_put(fresh, sharding.state_sharding(fresh, self.mesh))
            source = _Source(self.out / RANDOM, fresh, False)
            found = self.train_all(source, folds, sequences, False, stop)
            name = f"{settings.method}, random init"
            families.append(report.Family(name, True, found["predictions"], settings.layer))
        about = report.About(
            checkpoint=self.checkpoint,
            step=self.step,
            tokens=loaded.tokens,
            task=self.task,
            settings=settings,
            problem=problem,
            overlap=overlap,
            trained=int(ours["trained"]),
            total=methods.count(self.params),
            adapter_bytes=int(ours["bytes"]),
        )
        return report.write_report(about, families, self.out)

    def train_all(
        self,
        source: _Source,
        folds: list[Fold],
        sequences: list[str],
        merge: bool,
        stop: StopSignal,
    ) -> dict[str, np.ndarray]:
        """Held-out predictions of all folds, in the order of the rows; `sequences` are of all."""
        encoder = open_encoder(source.params, self.experiment, self.settings, self.mesh)
        parts = []
        for number, fold in enumerate(folds):
            folder = source.folder / f"fold_{number}" if len(folds) > 1 else source.folder
            part = read_arrays(folder / HELD_OUT)
            if part is None:
                if folder != self.out:
                    self.say(f"{folder.relative_to(self.out)}:")
                held_out = [sequences[row] for row in fold.test]
                part = self.train_fold(encoder, fold, held_out, folder, source.kept, stop)
            if source.kept and merge and not (folder / MODEL).exists():
                self.merge(folder)
            parts.append(part)
        order = np.argsort(np.concatenate([fold.test for fold in folds]))
        joined = {
            name: np.concatenate([part[name] for part in parts])[order]
            for name in ("predictions", "frozen")
        }
        return joined | {name: parts[0][name] for name in ("trained", "bytes")}

    def train_fold(
        self,
        encoder: Encoder,
        fold: Fold,
        held_out: list[str],
        folder: pathlib.Path,
        kept: bool,
        stop: StopSignal,
    ) -> dict[str, np.ndarray]:
        """Trains one fold, scores nothing, writes what it leaves behind."""
        task = self.task
        objective = OBJECTIVES[task.kind]
        fit, validation = examples.carve(task, fold.train, self.settings.seed)
        problem = Problem(
            encoder,
            task.kind,
            objective.outputs(task),
            task.train.take(fit),
            task.train.take(validation),
        )
        outcome = training.train(problem, folder, lambda: stop.received is not None, self.say)
        if outcome is None:
            raise _Stopped
        found = {
            "predictions": objective.predict(
                encoder.predict(outcome.trained, outcome.head, held_out)
            ),
            "frozen": objective.predict(encoder.predict(encoder.start(), outcome.start, held_out)),
            "trained": np.array(methods.count(outcome.trained)),
            "bytes": np.array(0),
        }
        if kept:
            identity = digest(checksums(self.params))
            if encoder.method.name == "full":
                identity = save_model(folder / MODEL, encoder, outcome.trained, self.checkpoint)
            description = {
                "method": encoder.method.name,
                "task": task.name,
                "kind": task.kind,
                "classes": list(task.classes),
                "checkpoint": f"{parse_checkpoint(self.checkpoint)[0].resolve()}@{self.step}",
                "parameters": identity,
                "best": outcome.best,
            }
            found["bytes"] = np.array(
                save_adapter(folder, encoder, outcome.trained, outcome.head, description)
            )
        write_arrays(folder / HELD_OUT, found)
        training.forget_state(folder)
        return found

    def merge(self, folder: pathlib.Path) -> None:
        """Writes `model/` beside an adapter that was trained before."""
        found = load_adapter(folder, f"{parse_checkpoint(self.checkpoint)[0]}@{self.step}")
        save_model(folder / MODEL, found.encoder, found.trained, self.checkpoint)
        self.say(f"written: {folder / MODEL}")
