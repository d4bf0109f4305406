"""Does the best learning rate of a narrow model hold for a wide one?

    nt-jax study run rates --out DIR --data species=FOLDER
    nt-jax study report rates --out DIR

Widths 32 and 128 of the miniature study's ladder, seven rates, each under two rules: muP with
CompleteP (nt_jax/transfer.py), and one rate for all widths, the initial values as they come. The
rate stands for width 128 in both.
"""

import dataclasses
from collections.abc import Iterator

from experiments.studies.miniature import LADDER, rung
from nt_jax.config import Experiment
from nt_jax.studies.grid import Grid, Study, StudyRun, Tokens, expand

WIDTHS = (32, 128)
RATES = (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)
TOKENS = 1_000_000
RULES = {"mup": "muP, CompleteP", "one": "one rate for all widths"}


def study() -> Study:
    """28 runs."""
    return Study(
        name="rates",
        question="Does the best learning rate of a narrow model hold for a wide one?",
        runs=tuple(run for rule in RULES for rate in RATES for run in _runs(rule, rate)),
    )


def _runs(rule: str, rate: float) -> Iterator[StudyRun]:
    grid = Grid(
        sizes={f"w{width}": _experiment(width, rule, rate) for width in WIDTHS},
        sources=("species",),
        budgets=(Tokens(TOKENS),),
        variants={f"{rule}{rate:g}": ()},
    )
    for run in expand(grid):
        yield dataclasses.replace(run, tags={**run.tags, "rule": RULES[rule], "rate": f"{rate:g}"})


def _experiment(width: int, rule: str, rate: float) -> Experiment:
    found = rung(width, TOKENS, dataclasses.replace(LADDER, peak_lr=rate))
    if rule == "one":
        plain = dataclasses.replace(found.optim, base_width=0, base_depth=0)
        return dataclasses.replace(found, optim=plain)
    return found
