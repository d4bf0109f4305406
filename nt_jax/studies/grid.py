"""A study as data: runs with stable names, and grids that expand into them.

A study file (experiments/studies/NAME.py, or any path) has a function `study()` that returns a
`Study`. Nothing here reads data or starts anything.

A grid is the product sizes x sources x budgets x variants x seeds. All five stand in the name of a
run, also where there is one value alone, so that a grid that grows renames nothing:
`nano-yeast-2M-s0`; a variant other than the plain one comes before the seed.
"""

import dataclasses
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal

from nt_jax import throughput
from nt_jax.config import Experiment
from nt_jax.errors import InputError
from nt_jax.overrides import apply_overrides

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+=-]{0,99}")
_BESIDE = (".log", ".failed", ".launched", ".sh", ".tmp")
"""What files beside a workdir are named by: its name and one of these."""
_UNITS = (("T", 10**12), ("B", 10**9), ("M", 10**6), ("K", 10**3))


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossOn:
    """An evaluation job: the masked loss of a trained model on the windows of another dataset."""

    source: str
    """Which dataset, as `StudyRun.source`."""
    split: str = "validation"
    """Which windows of it."""
    windows: int = 0
    """Evenly spread windows that are read; 0 is all."""
    length: int = 0
    """Tokens of a sequence, `<cls>` included; 0 is as trained."""

    @property
    def name(self) -> str:
        """File name of the result; one a run."""
        return self.source if self.split == "validation" else f"{self.source}-{self.split}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Probe:
    """An evaluation job: `nt-jax probe` of the trained model on one task."""

    task: str
    """Registered name (`nt-jax tasks`) or path."""
    layers: tuple[int, ...] = ()
    """1-based; empty: all of up to 12, else 10 spread ones."""
    folds: int = 10
    """Folds where the task has no test split."""
    seed: int = 0
    """Of folds and controls."""
    max_sequences: int = 0
    """Of each split; 0 is all."""
    head: str = "logistic"
    """logistic, mlp or both."""

    @property
    def name(self) -> str:
        """Folder name of the result; one a run."""
        return re.sub(r"[^A-Za-z0-9_.+=-]+", "-", self.task).strip("-.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyRun:
    """One training run and the evaluation jobs that follow it."""

    name: str
    """Stable, and the name of its folder."""
    experiment: Experiment
    """All that fixes the run but the place of its data."""
    source: str
    """Which dataset it is trained on; `--data SOURCE=DIR` says where that is."""
    data: str = ""
    """Folder of the dataset where the command line names none."""
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """size, source, tokens, seed ...: free texts, each a column of the study's table."""
    losses_on: tuple[LossOn, ...] = ()
    """Besides the loss on its own validation windows, which every run has."""
    probes: tuple[Probe, ...] = ()
    """Probes of the last checkpoint."""
    held_out: bool = False
    """Its loss is predicted from the other runs before it is run."""

    def sources(self) -> Iterator[str]:
        """Every dataset that its jobs read."""
        yield self.source
        yield from (loss.source for loss in self.losses_on)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """Runs that answer one question together. Raises InputError for names that would collide."""

    name: str
    """Name it is known by."""
    runs: tuple[StudyRun, ...]
    """In the order in which they are run."""
    question: str = ""
    """What it is for, in a sentence."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise InputError(f"study {self.name}: no runs")
        folders: set[str] = set()
        same: dict[tuple[str, Experiment], str] = {}
        places: dict[str, str] = {}
        for run in self.runs:
            _check(self.name, run)
            place = run.data or run.experiment.data.path
            if place and places.setdefault(run.source, place) != place:
                raise InputError(
                    f"study {self.name}: {run.source} is {places[run.source]} and, for {run.name}, "
                    f"{place}; two datasets need two names"
                )
            # Some file systems do not tell upper from lower case.
            if run.name.casefold() in folders:
                raise InputError(f"study {self.name}: two runs would share the folder {run.name!r}")
            folders.add(run.name.casefold())
            key = (run.source, dataclasses.replace(run.experiment, name=""))
            if key in same:
                raise InputError(
                    f"study {self.name}: {same[key]} and {run.name} are the same run; leave one out"
                )
            same[key] = run.name

    def run(self, name: str) -> StudyRun:
        """The run of that name; raises KeyError."""
        return {run.name: run for run in self.runs}[name]

    def sources(self) -> tuple[str, ...]:
        """Every dataset that is needed, in order of appearance."""
        return tuple(dict.fromkeys(source for run in self.runs for source in run.sources()))


def _check(study: str, run: StudyRun) -> None:
    where = f"study {study}: run {run.name!r}"
    if not _NAME.fullmatch(run.name) or run.name.endswith(_BESIDE):
        raise InputError(
            f"{where}: no name of a folder; letters, digits and _.+=- (at most 100), none of the "
            f"endings {' '.join(_BESIDE)}"
        )
    for source in run.sources():
        if not _NAME.fullmatch(source) or "=" in source:
            raise InputError(f"{where}: source {source!r} needs letters, digits and _.+- alone")
    for key, value in run.tags.items():
        if not _NAME.fullmatch(key) or not value.isprintable():
            raise InputError(f"{where}: tag {key!r}: a name and one line of text are needed")
    for kind, jobs in (("loss on", run.losses_on), ("probe", run.probes)):
        folders = [job.name for job in jobs]  # type: ignore[attr-defined]
        for name in folders:
            if not name or folders.count(name) > 1:
                raise InputError(f"{where}: two results would be named {kind} {name!r}")


# --- Budgets ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Tokens:
    """The same tokens for every size, in whole steps."""

    tokens: int
    """Tokens read, `<cls>` included."""

    @property
    def label(self) -> str:
        """`2M`, for names and tags."""
        return amount(self.tokens)

    def steps(self, experiment: Experiment) -> int:
        """Optimizer steps that come nearest to it; at least one."""
        return max(1, round(self.tokens / tokens_per_step(experiment)))


@dataclasses.dataclass(frozen=True)
class Flops:
    """The same model FLOPs for every size (iso-FLOP), in whole steps; see nt_jax/throughput.py."""

    flops: float
    """FLOPs of training."""

    @property
    def label(self) -> str:
        """`1e15FLOP`, for names and tags."""
        return f"{self.flops:.6g}FLOP".replace("e+", "e")

    def steps(self, experiment: Experiment) -> int:
        """Optimizer steps that come nearest to it; at least one."""
        return max(1, round(self.flops / throughput.train_flops_per_step(experiment)))


def tokens_per_step(experiment: Experiment) -> int:
    """Tokens of a step over all devices, `<cls>` included."""
    return experiment.train.global_batch * experiment.data.sequence_length


def amount(count: int) -> str:
    """A count as people write it, without rounding: 300B, 1.5M, 2048."""
    for unit, size in _UNITS:
        text = f"{count / size:.6g}"
        if count >= size and "e" not in text and Decimal(text) * size == count:
            return text + unit
    return str(count)


# --- Grids ------------------------------------------------------------------------------------


PLAIN: Mapping[str, tuple[str, ...]] = {"": ()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid:
    """sizes x sources x budgets x variants x seeds, all with the same evaluation jobs."""

    sizes: Mapping[str, Experiment]
    """Name of a size -> its experiment; the grid sets steps, seed and name."""
    sources: Sequence[str]
    """Datasets."""
    budgets: Sequence[Tokens | Flops]
    """How long each is trained."""
    variants: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=lambda: PLAIN)
    """Name -> overrides as on the command line (`--optim.peak-lr 3e-4`); "" is the plain one."""
    seeds: Sequence[int] = (0,)
    """`train.seed`."""
    warmup_share: float = 0.0
    """Share of the steps that are warm-up; 0 leaves `optim.warmup_steps` as it is."""
    losses_on: tuple[LossOn, ...] = ()
    """Of every run, also of those that are trained on that dataset: the same windows for all."""
    probes: tuple[Probe, ...] = ()
    """Of every run."""
    held_out: Sequence[Mapping[str, str]] = ()
    """Tags of runs that are held out: a run is that has all tags of one entry."""


def expand(grid: Grid) -> tuple[StudyRun, ...]:
    """The runs of a grid, seeds varying fastest.

    Raises InputError for a bad override or budget, and where `held_out` names no run.
    """
    for budget in grid.budgets:
        if not (budget.tokens if isinstance(budget, Tokens) else budget.flops) > 0:
            raise InputError(f"budget {budget}: must be above 0")
    varied = {
        (size, variant): apply_overrides(experiment, list(words))
        for size, experiment in grid.sizes.items()
        for variant, words in grid.variants.items()
    }
    for (size, variant), experiment in varied.items():
        _check_variant(grid, variant, grid.sizes[size], experiment)
    axes = itertools.product(grid.sizes, grid.sources, grid.budgets, grid.variants, grid.seeds)
    runs = tuple(
        _expanded(grid, varied[size, variant], size, source, budget, variant, seed)
        for size, source, budget, variant, seed in axes
    )
    for entry in grid.held_out:
        if not any(entry.items() <= run.tags.items() for run in runs):
            known = {key: sorted({run.tags.get(key, "") for run in runs}) for key in entry}
            raise InputError(f"held_out {dict(entry)}: no run has these tags; there are {known}")
    return runs


def _check_variant(grid: Grid, variant: str, plain: Experiment, varied: Experiment) -> None:
    """InputError where overrides say what another axis of the grid says."""
    changed = {
        "train.steps (a budget)": plain.train.steps != varied.train.steps,
        "train.seed (a seed)": plain.train.seed != varied.train.seed,
        "optim.warmup_steps (warmup_share)": bool(grid.warmup_share)
        and plain.optim.warmup_steps != varied.optim.warmup_steps,
    }
    for field, twice in changed.items():
        if twice:
            raise InputError(f"variant {variant!r}: the grid itself sets {field}")


def _expanded(
    grid: Grid,
    experiment: Experiment,
    size: str,
    source: str,
    budget: Tokens | Flops,
    variant: str,
    seed: int,
) -> StudyRun:
    steps = budget.steps(experiment)
    warmup = experiment.optim.warmup_steps
    if grid.warmup_share:
        warmup = round(grid.warmup_share * steps)
    parts = [size, source, budget.label, *([variant] if variant else []), f"s{seed}"]
    tags = {"size": size, "source": source, "tokens": budget.label, "seed": str(seed)}
    if isinstance(budget, Flops):
        tags["flops"] = tags["tokens"]
        tags["tokens"] = amount(steps * tokens_per_step(experiment))
    if variant:
        tags["variant"] = variant
    name = "-".join(parts)
    return StudyRun(
        name=name,
        experiment=dataclasses.replace(
            experiment,
            name=name,
            train=dataclasses.replace(experiment.train, steps=steps, seed=seed),
            optim=dataclasses.replace(experiment.optim, warmup_steps=warmup),
        ),
        source=source,
        tags=tags,
        losses_on=grid.losses_on,
        probes=grid.probes,
        held_out=any(entry.items() <= tags.items() for entry in grid.held_out),
    )
