"""Meshes, micro-batches and remat policies that run the same steps: which fit, which are fastest.

The global batch is never changed, so every candidate is the same run. Formulas order and prune;
the compiler has the last word.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator
from typing import Literal

from nt_jax.config import Experiment, MeshConfig
from nt_jax.plan.prediction import Plan, by_formula, predict
from nt_jax.plan.topology import Topology

Remat = Literal["none", "dots", "full"]
_REMAT: tuple[Remat, ...] = ("none", "dots", "full")
_TENSOR = 8
"""Most devices that share a layer's heads: more of them wait for each other."""


def candidates(experiment: Experiment, topology: Topology) -> Iterator[Experiment]:
    """Every mesh x accumulate x remat that divides the devices, the batch and the heads."""
    sequence = experiment.mesh.sequence
    each = topology.devices // topology.slices // sequence
    batch = experiment.train.global_batch
    for tensor in _divisors(each):
        if tensor > _TENSOR or experiment.model.num_heads % tensor:
            continue
        for fsdp in _divisors(each // tensor):
            copies = topology.devices // sequence // tensor
            if experiment.model.embed_dim % fsdp or batch % copies:
                continue
            mesh = MeshConfig(
                slices=topology.slices, data=-1, fsdp=fsdp, sequence=sequence, tensor=tensor
            )
            for accumulate in _divisors(batch // copies):
                for remat in _REMAT:
                    yield reshaped(experiment, mesh, accumulate, remat)


def reshaped(experiment: Experiment, mesh: MeshConfig, accumulate: int, remat: Remat) -> Experiment:
    """The same run in another shape."""
    return dataclasses.replace(
        experiment,
        mesh=mesh,
        train=dataclasses.replace(experiment.train, accumulate=accumulate),
        model=dataclasses.replace(experiment.model, remat=remat),
    )


def search(
    experiment: Experiment, topology: Topology, cache: pathlib.Path, compiled: int,
    say: Callable[[str], None], price: float | None = None,
) -> list[Plan]:  # fmt: skip
    """Compiles the `compiled` candidates that the formulas rank best; fitting ones first, by time.

    One candidate a mesh and remat policy: of the accumulations that fit, the fastest. For GPUs
    nothing is compiled, and the best by formula are returned.
    """
    plans = [by_formula(one, topology, price) for one in candidates(experiment, topology)]
    plans = [plan for plan in plans if _may_fit(plan)]
    plans.sort(key=lambda plan: plan.step_seconds or 0.0)
    best: dict[tuple, Plan] = {}
    for plan in plans:
        best.setdefault((tuple(plan.mesh.values()), plan.experiment.model.remat), plan)
    chosen = list(best.values())[:compiled]
    if topology.compiled:
        done = []
        for number, plan in enumerate(chosen, 1):
            say(f"{topology.name}: {number} of {len(chosen)}: {text(plan)}")
            done.append(predict(plan.experiment, topology, cache, price))
        chosen = done
    return sorted(chosen, key=lambda plan: (not plan.fits, plan.step_seconds or plan.peak))


def nearest(
    experiment: Experiment, topology: Topology, cache: pathlib.Path, compiled: int,
    say: Callable[[str], None], price: float | None = None,
) -> Plan | None:  # fmt: skip
    """The smallest change of a run that fits; None where `compiled` attempts find none.

    More accumulation first, then remat, then more devices that share the state, then tensor.
    """
    now = by_formula(experiment, topology, price).mesh
    policy = _REMAT.index(experiment.model.remat)
    found = []
    for one in candidates(experiment, topology):
        plan = by_formula(one, topology, price)
        if plan.experiment.train.accumulate < experiment.train.accumulate:
            continue
        if (again := _REMAT.index(one.model.remat)) < policy or plan.mesh["fsdp"] < now["fsdp"]:
            continue
        change = (
            plan.mesh["tensor"] != now["tensor"],
            plan.mesh["fsdp"] / now["fsdp"],
            again - policy,
            one.train.accumulate,
        )
        if _may_fit(plan):
            found.append((change, plan))
    found.sort(key=lambda pair: pair[0])
    if not topology.compiled:
        return found[0][1] if found else None
    # What the compiler says of one shape tells how far the formula is off for the next.
    off, tries = 1.0, 0
    for _, plan in found:
        if plan.peak * off > plan.hbm:
            continue
        if tries == compiled:
            break
        tries += 1
        say(f"{topology.name}: does not fit; trying {text(plan)}")
        tried = predict(plan.experiment, topology, cache, price)
        if tried.fits:
            return tried
        off = max(off, tried.peak / plan.peak)
    return None


def _may_fit(plan: Plan) -> bool:
    """By formula; where a compiler has the last word, to the last byte."""
    return plan.fits or (plan.topology.compiled and plan.peak <= plan.hbm)


def text(plan: Plan) -> str:
    """A candidate in a few words."""
    mesh = " ".join(f"{axis} {size}" for axis, size in plan.mesh.items() if size > 1)
    run = plan.experiment
    return f"{mesh or '1 device'}, accumulate {run.train.accumulate}, remat {run.model.remat}"


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]
