"""What is launched: one run, or the runs of a sweep, each with a workdir of its own."""

import dataclasses
import itertools
import pathlib
import re
from collections.abc import Callable, Sequence

from nt_jax import registry
from nt_jax.config import Experiment
from nt_jax.errors import InputError
from nt_jax.overrides import apply_overrides
from nt_jax.saved_steps import FOLDER, committed_steps

FINISHED, FAILED, BAD_INPUT, PREEMPTED = 0, 1, 2, 75
"""Exit codes of `pretrain`, and of what launches it."""
DONE = "DONE"

_COMMA = re.compile(r"(?<!\\),")
_UNSAFE = re.compile(r"[^\w.=+,-]+")


@dataclasses.dataclass(frozen=True)
class Run:
    """One training run."""

    name: str
    """What tells it from the other runs of its sweep; the workdir's own name where it is alone."""
    experiment: str
    """Registered name, .py or .json file, as given."""
    workdir: pathlib.Path
    arguments: tuple[str, ...]
    """Of the command line, from `pretrain` on."""

    def is_done(self) -> bool:
        """Whether training has finished, as far as this machine can see the workdir."""
        return (self.workdir / DONE).exists()


def plan_runs(
    experiments: Sequence[str],
    workdir: pathlib.Path,
    data: str | None,
    overrides: Sequence[str],
    sweeps: Sequence[str] = (),
    more: Sequence[str] = (),
    file_there: Callable[[str], str] = str,
) -> list[Run]:
    """The cross product of `experiments` and `sweeps` (`optim.peak-lr=1e-4,3e-4`), checked.

    One run has `workdir` itself, several have a folder each in it. `more` is passed on as it is;
    `file_there` gives the path of a .py file where it will run. Raises InputError for whatever
    `pretrain` would refuse in an experiment or override, and where
    two runs would be the same or share a workdir.
    """
    axes = [_axis(text) for text in sweeps]
    keys = [key for key, _ in axes]
    fixed = {word.partition("=")[0].replace("_", "-") for word in overrides}
    for key in keys:
        if keys.count(key) > 1 or f"--{key}" in fixed:
            raise InputError(f"--sweep {key}: given twice; name all its values in one --sweep")
    choices = [[(key, value) for value in values] for key, values in axes]
    chosen = list(itertools.product(experiments, itertools.product(*choices)))
    runs: list[Run] = []
    configs: dict[str, Experiment] = {}
    for experiment, pairs in chosen:
        swept = [word for key, value in pairs for word in (f"--{key}", value)]
        given = [*swept, *overrides]
        config = apply_overrides(registry.find_experiment(experiment), given)
        if data is not None:
            config = apply_overrides(config, ["--data.path", data])
        if not config.data.path:
            raise InputError(f"{config.name}: which data? Give --data DIR (`nt-jax data build`)")
        parts = [pathlib.Path(experiment).stem] if len(experiments) > 1 else []
        parts += [f"{key}={value}" for key, value in pairs]
        alone = len(chosen) == 1
        name = workdir.name if alone else _UNSAFE.sub("-", ",".join(parts))
        for other, known in configs.items():
            if name == other:
                raise InputError(f"two runs would share {workdir / name}; launch them apart")
            if config == known:
                raise InputError(f"{other} and {name} are the same run; leave one out")
        configs[name] = config
        folder = workdir if alone else workdir / name
        named = file_there(experiment) if experiment.endswith(".py") else experiment
        if experiment.endswith(".json"):
            named = str(pathlib.Path(experiment).absolute())
        words = ["pretrain", named, "--workdir", str(folder)]
        words += ["--data", data] if data is not None else []
        runs.append(Run(name, experiment, folder, (*words, *more, *given)))
    return runs


def _axis(text: str) -> tuple[str, list[str]]:
    key, equals, values = text.partition("=")
    key = key.removeprefix("--").replace("_", "-")
    parts = [value.replace("\\,", ",") for value in _COMMA.split(values)]
    if not (key and equals and all(parts)):
        raise InputError(
            f"--sweep {text!r}: needs GROUP.FIELD=VALUE,VALUE,... (a comma in a value: '\\,')"
        )
    return key, parts


def newest_step(workdir: pathlib.Path) -> int | None:
    """Newest committed checkpoint of a run; None before the first."""
    steps = committed_steps(workdir / FOLDER)
    return steps[-1] if steps else None


class Patience:
    """Allows so many restarts in a row that bring no new committed checkpoint."""

    def __init__(self, limit: int):
        self.restarts = 0
        self._limit = limit
        self._step: int | None = None

    def again(self, step: int | None) -> bool:
        """Whether to start again after an attempt that left `step` as the newest one."""
        if step is not None and (self._step is None or step > self._step):
            self.restarts, self._step = 0, step
        if self.restarts == self._limit:
            return False
        self.restarts += 1
        return True


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How one run ended, for the table at the end."""

    run: Run
    state: str
    """done, done before, stopped, bad input, failed, not started."""
    code: int | None
    """Exit code; None where nothing was started."""
    step: int | None
    """Newest committed step."""


def table(outcomes: Sequence[Outcome]) -> str:
    """Plain text whose columns line up."""
    rows: list[tuple[str, ...]] = [("run", "state", "exit code", "step", "workdir")]
    for o in outcomes:
        cells = ["-" if cell is None else str(cell) for cell in (o.code, o.step)]
        rows.append((o.run.name, o.state, *cells, str(o.run.workdir)))
    return lined_up(rows, right=(2, 3))


def lined_up(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Columns two blanks apart; those in `right` are numbers."""
    wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, wide, strict=True))
        ).rstrip()
        for row in rows
    )


def state_of(code: int) -> str:
    """An exit code in words."""
    known = {FINISHED: "done", BAD_INPUT: "bad input", PREEMPTED: "stopped"}
    return known.get(code, "failed")


def worst(outcomes: Sequence[Outcome]) -> int:
    """Exit code of a launch: 75 where anything was stopped, else what failed, else 0."""
    codes = [outcome.code for outcome in outcomes]
    if PREEMPTED in codes or any(outcome.state == "not started" for outcome in outcomes):
        return PREEMPTED
    bad = [code for code in codes if code]
    if not bad:
        return FINISHED
    return BAD_INPUT if set(bad) == {BAD_INPUT} else FAILED
