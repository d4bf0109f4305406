"""Tokenizations beside each other: what each made of the same bases, or of the same FLOPs.

Runs say by the tag `equal` what is the same for them, and only those that have it are compared; one
with an empty tag, which the others are measured by, stands in all. Several learning rates of one
tokenization (tag `rate`) are a fair chance for each, and the best one counts.
"""

import dataclasses
from collections.abc import Sequence

from matplotlib.figure import Figure

from nt_jax.report.plots import GREY, WIDE
from nt_jax.studies import figures
from nt_jax.studies.table import Row, Table


@dataclasses.dataclass(frozen=True)
class Tokenized:
    """One run."""

    run: str
    equal: str
    """What it has in common with the others: bases, FLOPs; the dataset, if there are several."""
    k: int
    """Bases a token."""
    rate: str
    """Its peak learning rate; empty where the study has one for all."""
    bases: float
    flops: float
    loss: float
    """Nats a base on `<mask>` positions."""
    unigram: float
    """The same of the training split's token frequencies."""


def tokenized(found: Table) -> list[Tokenized]:
    """Trained runs that are to be compared: by what is equal, falling k and rising loss."""
    rows = [row for row in found.rows if row.get("tag:equal") is not None]
    if len({row["bases_per_token"] for row in rows}) < 2:
        return []
    kinds = sorted({str(kind) for row in rows if (kind := row["tag:equal"])}) or [""]
    several = len({row["source"] for row in rows}) > 1
    runs = [
        _tokenized(row, f"{kind}, {row['source']}" if several else kind)
        for row in rows
        if row["mask_nats_per_base"] is not None
        for kind in ([str(row["tag:equal"])] if row["tag:equal"] else kinds)
    ]
    return sorted(runs, key=lambda one: (one.equal, -one.k, one.loss))


def best(runs: Sequence[Tokenized]) -> list[Tokenized]:
    """The run of least loss of each k, in each of what is equal."""
    found: dict[tuple[str, int], Tokenized] = {}
    for one in runs:
        found.setdefault((one.equal, one.k), one)
        if one.loss < found[one.equal, one.k].loss:
            found[one.equal, one.k] = one
    return list(found.values())


def tokenizations_figure(runs: Sequence[Tokenized]) -> Figure:
    """Nats a base that context saves, by k, a panel for what is equal: all runs, best joined."""
    kinds = sorted({one.equal for one in runs})
    figure = Figure(figsize=(WIDE[0], 3.8), layout="constrained")
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    (colour, marker), *_ = figures.ramp(1)
    for axes, kind in zip(panels, kinds, strict=True):
        figures.plain(axes)
        own = [one for one in runs if one.equal == kind]
        ks = sorted({one.k for one in own}, reverse=True)
        for one in own:
            axes.plot(ks.index(one.k), one.unigram - one.loss, marker, color=GREY, markersize=5)
        top = {one.k: one.unigram - one.loss for one in best(own)}
        axes.plot(range(len(ks)), [top[k] for k in ks], marker=marker, color=colour, linewidth=1.4)
        axes.set_xticks(range(len(ks)), [f"{k}-mers" if k > 1 else "single bases" for k in ks])
        axes.set_xlim(-0.4, len(ks) - 0.6)
        axes.axhline(0.0, color=GREY, linewidth=0.8, linestyle=":")
        axes.set_title(f"equal {kind}" if kind else "")
    panels[0].set_ylabel("better than token frequencies\n(nats a base, on <mask>)")
    return figure


def _tokenized(row: Row, equal: str) -> Tokenized:
    def number(name: str) -> float:
        return float(row[name] or 0)

    return Tokenized(
        str(row["run"]), equal, int(number("bases_per_token")),
        str(row.get("tag:rate") or ""), number("bases"), number("flops"),
        number("mask_nats_per_base"), number("unigram_mask_nats_per_base"),
    )  # fmt: skip
