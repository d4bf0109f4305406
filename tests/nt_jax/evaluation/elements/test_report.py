"""The element probe in the tidy table, under the names that all probes have there."""

import numpy as np
import pytest

from nt_jax.evaluation.elements.masked import Score
from nt_jax.evaluation.elements.pieces import CLASSES
from nt_jax.evaluation.elements.probe import METRICS, Family
from nt_jax.evaluation.elements.report import probe_rows

COMMON = {"checkpoint": "run", "step": 5, "tokens": 9, "task": "g.gff3: element probe"}


def family(name: str, unit: str, variants: tuple[int, ...]) -> Family:
    def scores(number: float) -> dict[str, Score]:
        return dict.fromkeys(METRICS, Score(number, number - 0.1, number + 0.1))

    confusion = np.zeros((len(CLASSES), len(CLASSES)), int)
    own = {variant: scores(variant / 10) for variant in variants}
    return Family(name, unit, own, scores(0.75), (variants[-1],), confusion)


@pytest.mark.parametrize(
    ("name", "unit", "variants", "methods", "control"),
    [
        ("trained", "layer", (1, 2), {("trained, logistic", 1), ("trained, logistic", 2)}, False),
        ("random init", "layer", (1,), {("random init, logistic", 1)}, True),
        (
            "k-mers", "k", (3, 4),
            {("k-mers, logistic, k = 3", 0), ("k-mers, logistic, k = 4", 0)}, True,
        ),
        ("element length", "", (0,), {("element length, logistic", 0)}, True),
    ],
)  # fmt: skip
def test_every_variant_and_the_chosen_score_have_rows(name, unit, variants, methods, control):
    rows = list(probe_rows(family(name, unit, variants), COMMON))
    chosen = f"{name}, logistic, chosen"
    assert {(row.method, row.layer) for row in rows} == methods | {(chosen, 0)}
    assert {row.control for row in rows} == {control}
    assert {row.fold for row in rows} == {-1}
    assert len(rows) == (len(variants) + 1) * len(METRICS)
    for row in rows:
        if row.method == chosen:
            assert (row.value, row.low, row.high) == (0.75, 0.65, 0.85)
