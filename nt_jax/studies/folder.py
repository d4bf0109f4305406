"""DIR of `nt-jax study run STUDY --out DIR`: what lies where, and the jobs that put it there.

DIR/study.json                what was declared, and where its data are (`declared`)
DIR/prediction.json           what is expected of held-out runs (`families`)
DIR/experiments/NAME.json     the experiment of a run, as `nt-jax pretrain` takes it
DIR/runs/NAME                 its workdir
DIR/runs/NAME.log             what `pretrain` printed, over all its lives
DIR/runs/NAME.failed          why it was given up; gone when it is tried again
DIR/runs/NAME.launched        how it was handed to a scheduler; delete it to launch it again
DIR/evaluations/NAME/on/SOURCE.json and .log
DIR/evaluations/NAME/probes/TASK/ and TASK.log
DIR/table.tsv, table.json, timings.tsv, report.html
"""

import dataclasses
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nt_jax.errors import InputError
from nt_jax.studies.grid import LossOn, Probe, StudyRun
from nt_jax.workdir import DONE

PROBE_RESULTS = "results.parquet"
"""The last file that `nt-jax probe` writes (evaluation/probe.py takes seconds to import)."""
TRAINING = "training"
"""Stage of the first job of every run."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One process that a run needs: its training, or an evaluation of it."""

    stage: str
    """training, loss on SOURCE, probe TASK."""
    words: tuple[str, ...]
    """Command line from the command on; `--data` is left out."""
    source: str | None
    """Which dataset `--data` names, if any."""
    result: pathlib.Path
    """A file that is there once the job is done, and whole."""
    log: pathlib.Path
    """What it prints."""

    def is_done(self) -> bool:
        """Whether its result is there."""
        return self.result.exists()

    def arguments(self, data: Mapping[str, str]) -> list[str]:
        """The command line, with the folder of its dataset."""
        return [*self.words, *(["--data", data[self.source]] if self.source else [])]


@dataclasses.dataclass(frozen=True)
class Folder:
    """The paths of one study."""

    root: pathlib.Path

    @property
    def runs(self) -> pathlib.Path:
        """Workdirs, and their logs beside them."""
        return self.root / "runs"

    def workdir(self, run: StudyRun) -> pathlib.Path:
        """Of the training run."""
        return self.runs / run.name

    def failed(self, run: StudyRun) -> pathlib.Path:
        """Says why a run was given up."""
        return self.runs / f"{run.name}.failed"

    def launched(self, run: StudyRun) -> pathlib.Path:
        """Holds the command that its training was handed to a scheduler with."""
        return self.runs / f"{run.name}.launched"

    def experiment(self, run: StudyRun) -> pathlib.Path:
        """Text of its experiment."""
        return self.root / "experiments" / f"{run.name}.json"

    def loss(self, run: StudyRun, loss: LossOn) -> pathlib.Path:
        """Result of `nt-jax evaluate` on other data."""
        return self._evaluations(run) / "on" / f"{loss.name}.json"

    def probe(self, run: StudyRun, probe: Probe) -> pathlib.Path:
        """Folder of `nt-jax probe`."""
        return self._evaluations(run) / "probes" / probe.name

    def _evaluations(self, run: StudyRun) -> pathlib.Path:
        return self.root / "evaluations" / run.name

    def training(self, run: StudyRun) -> Job:
        """The job that trains."""
        workdir = self.workdir(run)
        return Job(
            stage=TRAINING,
            words=("pretrain", str(self.experiment(run)), "--workdir", str(workdir)),
            source=run.source,
            result=workdir / DONE,
            log=self.runs / f"{run.name}.log",
        )

    def evaluations(self, run: StudyRun, task_folders: Sequence[pathlib.Path] = ()) -> list[Job]:
        """The jobs that follow it; tasks known by name are looked for in `task_folders` first."""
        return [*self._losses(run), *self._probes(run, task_folders)]

    def jobs(self, run: StudyRun, task_folders: Sequence[pathlib.Path] = ()) -> list[Job]:
        """All of them, in order."""
        return [self.training(run), *self.evaluations(run, task_folders)]

    def _losses(self, run: StudyRun) -> Iterator[Job]:
        for loss in run.losses_on:
            result = self.loss(run, loss)
            words = ["evaluate", "--checkpoint", str(self.workdir(run)), "--split", loss.split]
            words += ["--windows", str(loss.windows), "--length", str(loss.length)]
            yield Job(
                stage=f"loss on {loss.name}",
                words=(*words, "--out", str(result)),
                source=loss.source,
                result=result,
                log=result.with_suffix(".log"),
            )

    def _probes(self, run: StudyRun, task_folders: Sequence[pathlib.Path]) -> Iterator[Job]:
        for probe in run.probes:
            out = self.probe(run, probe)
            words = ["probe", "--checkpoint", str(self.workdir(run)), "--task", probe.task]
            words += ["--out", str(out), "--folds", str(probe.folds), "--seed", str(probe.seed)]
            words += ["--max-sequences", str(probe.max_sequences), "--head", probe.head]
            if probe.layers:
                words += ["--layers", ",".join(map(str, probe.layers))]
            for folder in task_folders:
                words += ["--data-dir", str(folder)]
            yield Job(
                stage=f"probe {probe.task}",
                words=tuple(words),
                source=None,
                result=out / PROBE_RESULTS,
                log=out.with_name(f"{out.name}.log"),
            )


def read_record(path: pathlib.Path, version: int) -> dict[str, Any] | None:
    """What study.json or prediction.json holds; None where there is none.

    Raises InputError where it is damaged, or of another format than `version`.
    """
    try:
        stored = json.loads(path.read_text())
        found = stored["format"]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged ({error})") from error
    if found != version:
        raise InputError(f"{path}: of another version of nt-jax (format {found})")
    return stored
