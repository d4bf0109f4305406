"""Does the best learning rate of a narrow model hold for a wide one?

    nt-jax study run rates --out DIR --data species=FOLDER
    nt-jax study report rates --out DIR

Widths 32 and 128 of the miniature study's ladder, six rates, under two rules: muP with CompleteP
(nt_jax/transfer.py), and one rate for all widths, the initial values as they come. Both rules start
from width 128, where they are the same run.
"""

import dataclasses
from collections.abc import Iterator

from experiments.studies.miniature import LADDER, rung
from nt_jax.config import Experiment
from nt_jax.studies.grid import Grid, Study, StudyRun, Tokens, expand

NARROW, BASE = 32, LADDER.base_width
RATES = (1.25e-4, 2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3)
TOKENS = 1_000_000
RULES = {"mup": "muP, CompleteP", "one": "one rate for all widths"}


def study() -> Study:
    """18 runs: three a rate."""
    return Study(
        name="rates",
        question="Does the best learning rate of a narrow model hold for a wide one?",
        runs=tuple(run for rate in RATES for run in _runs(rate)),
    )


def _runs(rate: float) -> Iterator[StudyRun]:
    found = rung(BASE, TOKENS, dataclasses.replace(LADDER, peak_lr=rate))
    yield _run(found, "rate", "", rate)
    found = rung(NARROW, TOKENS, dataclasses.replace(LADDER, peak_lr=rate))
    yield _run(found, "mup", RULES["mup"], rate)
    plain = dataclasses.replace(found.optim, base_width=0, base_depth=0)
    yield _run(dataclasses.replace(found, optim=plain), "one", RULES["one"], rate)


def _run(found: Experiment, variant: str, rule: str, rate: float) -> StudyRun:
    grid = Grid(
        sizes={found.name: found},
        sources=("species",),
        budgets=(Tokens(TOKENS),),
        variants={f"{variant}{rate:g}": ()},
    )
    (run,) = expand(grid)
    return dataclasses.replace(run, tags={**run.tags, "rule": rule, "rate": f"{rate:g}"})
