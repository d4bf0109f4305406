"""`nt-jax study plan`: what every run takes, and where it would run, before anything is run."""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from nt_jax import sharding
from nt_jax.config import Experiment
from nt_jax.errors import InputError
from nt_jax.launch.jobs import lined_up
from nt_jax.plan import estimate, prediction, table
from nt_jax.plan.prediction import Plan
from nt_jax.plan.table import GIB
from nt_jax.plan.topology import Topology
from nt_jax.studies.grid import StudyRun, amount
from nt_jax.studies.quantities import Quantities, quantities

Predict = Callable[[Experiment, Topology], Plan]


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one run takes."""

    run: StudyRun
    quantities: Quantities
    state: float
    """Bytes of parameters and optimizer moments."""
    memory: float
    """Bytes of a step if one CPU did all of it, by formula."""
    plans: tuple[Plan | str, ...] = ()
    """One a topology; why there is none, where the run cannot be laid out on it."""

    def to_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "run": self.run.name,
            "held_out": self.run.held_out,
            "source": self.run.source,
            "tags": dict(self.run.tags),
            **dataclasses.asdict(self.quantities),
            "state_bytes": self.state,
            "memory_bytes": self.memory,
            "plans": [
                {"error": plan} if isinstance(plan, str) else plan.to_dict() for plan in self.plans
            ],
        }


def cost(run: StudyRun) -> Cost:
    """By formula, on no hardware in particular. Raises InputError for a batch that is uneven."""
    alone = dict.fromkeys(sharding.AXES, 1)
    memory = estimate.memory(run.experiment, alone, "cpu")
    return Cost(run, quantities(run.experiment), memory.state, memory.total)


def by_formula(price: float | None) -> Predict:
    """Predicts without a compiler: at once, and within some tens of per cent."""
    return lambda experiment, where: prediction.by_formula(experiment, where, price)


def compiled(cache: pathlib.Path, price: float | None) -> Predict:
    """Predicts as `nt-jax plan` does: compiles for TPUs, once for runs of the same program."""
    known: dict[tuple[Experiment, Topology], Plan] = {}

    def predict(experiment: Experiment, where: Topology) -> Plan:
        key = program(experiment), where
        if key not in known:
            known[key] = prediction.predict(experiment, where, cache, price)
        return dataclasses.replace(known[key], experiment=experiment)

    return predict


def program(experiment: Experiment) -> Experiment:
    """The same for runs that differ in numbers that move no instruction: seed and length."""
    return dataclasses.replace(
        experiment,
        name="",
        train=dataclasses.replace(experiment.train, seed=0, steps=1),
        optim=dataclasses.replace(experiment.optim, warmup_steps=1),
    )


def costs(
    runs: Sequence[StudyRun],
    topologies: Sequence[Topology],
    predict: Predict,
    say: Callable[[str], None],
) -> list[Cost]:
    """Of all runs on all topologies; a run that cannot be laid out on one says why."""

    def tried(run: StudyRun, where: Topology) -> Plan | str:
        say(f"{run.name} on {where.name}")
        named = dataclasses.replace(run.experiment, name=run.name)
        try:
            return predict(named, where)
        except InputError as error:
            return str(error)

    return [
        dataclasses.replace(cost(run), plans=tuple(tried(run, where) for where in topologies))
        for run in runs
    ]


# --- As text ----------------------------------------------------------------------------------


def text(found: Sequence[Cost], topologies: Sequence[Topology]) -> str:
    """A table of the runs with totals, then one for each topology."""
    rows: list[tuple[str, ...]] = [
        ("run", "parameters", "in blocks", "tokens", "steps", "FLOPs", "state GiB", "memory GiB")
    ]
    for one in found:
        size = one.quantities
        rows.append(
            (
                one.run.name + (" *" if one.run.held_out else ""),
                f"{size.parameters:,}",
                f"{size.parameters_in_blocks:,}",
                tokens_text(size.tokens),
                f"{size.steps:,}",
                f"{size.flops:.2e}",
                f"{one.state / GIB:,.3g}",
                _large(one.memory / GIB),
            )
        )
    whole = totals(found)
    rows.append(
        (
            f"{whole['runs']} runs", "", "", tokens_text(whole["tokens"]), f"{whole['steps']:,}",
            f"{whole['flops']:.2e}", "", "",
        )
    )  # fmt: skip
    lines = [lined_up(rows, right=range(1, 8)), ""]
    if any(one.run.held_out for one in found):
        lines.append("* held out: predicted from the others before it is run")
    lines.append("state: parameters and moments; memory: of a step if one CPU did all of it")
    for index, where in enumerate(topologies):
        plans = [one.plans[index] for one in found]
        there = [plan for plan in plans if isinstance(plan, Plan)]
        lines += ["", f"on {where.name}:"]
        lines += [table.several(there)] if there else []
        lines += [
            f"  {one.run.name}: {plan}"
            for one, plan in zip(found, plans, strict=True)
            if isinstance(plan, str)
        ]
        lines.append(f"  {_total(plans)}")
    return "\n".join(lines)


def totals(found: Sequence[Cost]) -> dict[str, Any]:
    """Sums over all runs."""
    return {
        "runs": len(found),
        "tokens": sum(one.quantities.tokens for one in found),
        "bases": sum(one.quantities.bases for one in found),
        "steps": sum(one.quantities.steps for one in found),
        "flops": math.fsum(one.quantities.flops for one in found),
        "topologies": [
            _sums([one.plans[index] for one in found]) for index in range(len(found[0].plans))
        ],
    }


def _sums(plans: Sequence[Plan | str]) -> dict[str, Any]:
    """Days and dollars of the runs that fit, one after the other."""
    fitting = [plan for plan in plans if isinstance(plan, Plan) and plan.fits and plan.days]
    priced = [plan.cost for plan in fitting if plan.cost is not None]
    return {
        "runs": len(fitting),
        "days": math.fsum(plan.days or 0.0 for plan in fitting),
        "cost": math.fsum(priced) if len(priced) == len(fitting) else None,
    }


def _total(plans: Sequence[Plan | str]) -> str:
    sums = _sums(plans)
    left = len(plans) - sums["runs"]
    price = "no list price" if sums["cost"] is None else f"${sums['cost']:,.0f}"
    rest = f"; {left} do not fit and are not counted" if left else ""
    return f"{sums['runs']} runs one after the other: {sums['days']:,.1f} days, {price}{rest}"


def tokens_text(tokens: int) -> str:
    """`300B` where that is exact to four digits, as budgets are whole steps."""
    digits = max(0, len(str(tokens)) - 4)
    return amount(round(tokens, -digits))


def _large(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
