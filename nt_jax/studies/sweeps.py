"""Sweeps of the learning rate: the best one at each width, and what it costs to carry it over.

Runs of a sweep carry the tags `rate` (`optim.peak_lr`), `rule` (how it is carried over to other
widths; a run with an empty one stands in every rule, as those of the width do that the rules start
from) and `size`; several seeds of one rate are averaged. The best rate lies at the minimum of the
parabola through the least loss and its two neighbours, against the logarithm of the rate; a least
loss at either end of the sweep is said to be there. Runs with the tag `equal` belong to a
comparison of tokenizations (tokenizations.py).
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from nt_jax.report.plots import INK, WIDE, tokens_text
from nt_jax.studies import figures
from nt_jax.studies.table import Row, Table

AT_AN_END = "at an end"


@dataclasses.dataclass(frozen=True)
class Sweep:
    """One width under one rule."""

    rule: str
    size: str
    parameters: float
    losses: Mapping[float, float]
    """Rate, rising -> loss, mean over seeds, nats a token on `<mask>` positions."""

    @property
    def best(self) -> float:
        """The rate of the least loss."""
        return min(self.losses, key=lambda rate: self.losses[rate])

    def minimum(self) -> tuple[float, str]:
        """The rate at the minimum of the parabola, and where it is: `inside` or AT_AN_END."""
        rates = list(self.losses)
        at = rates.index(self.best)
        if not 0 < at < len(rates) - 1:
            return self.best, AT_AN_END
        near = rates[at - 1 : at + 2]
        logs = np.log(near) - math.log(self.best)
        c, b, _ = np.polyfit(logs, [self.losses[rate] for rate in near], 2)
        return float(self.best * math.exp(-b / (2 * c))), "inside"


def sweeps(found: Table) -> list[Sweep]:
    """Every width under every rule, by rule in the table's order and rising size."""
    cells: dict[tuple[str, str], dict[float, list[float]]] = {}
    sizes: dict[str, float] = {}
    rows = [
        (row, float(loss)) for row in found.rows
        if row.get("tag:rate") and (loss := row["mask_loss"]) is not None
        and row.get("tag:equal") is None
    ]  # fmt: skip
    rules = list(dict.fromkeys(rule for row, _ in rows if (rule := _rule(row)))) or [""]
    for row, loss in rows:
        size, rate = str(row["tag:size"]), float(str(row["tag:rate"]))
        sizes[size] = float(row["parameters"] or 0)
        for rule in [_rule(row)] if _rule(row) else rules:
            cells.setdefault((rule, size), {}).setdefault(rate, []).append(loss)
    swept = [
        Sweep(rule, size, sizes[size], {rate: float(np.mean(by[rate])) for rate in sorted(by)})
        for (rule, size), by in cells.items()
    ]
    return sorted(swept, key=lambda one: (rules.index(one.rule), one.parameters))


def _rule(row: Row) -> str:
    return str(row.get("tag:rule") or "")


def carried(swept: Sequence[Sweep]) -> Iterator[tuple[Sweep, Sweep, float]]:
    """(smallest, other, nats lost): the best rate of a rule's smallest width, taken at the others.

    Against the least loss of the other width; NaN where it was not run at that rate.
    """
    for rule in dict.fromkeys(one.rule for one in swept):
        smallest, *others = [one for one in swept if one.rule == rule]
        for other in others:
            taken = other.losses.get(smallest.best, math.nan)
            yield smallest, other, taken - other.losses[other.best]


def rates_figure(swept: Sequence[Sweep], unit: str = figures.PER_TOKEN) -> Figure:
    """Loss against the learning rate, a line a width, a panel a rule; minima are marked."""
    rules = list(dict.fromkeys(one.rule for one in swept))
    figure = Figure(figsize=(WIDE[0], 4.2), layout="constrained")
    panels = figure.subplots(1, len(rules), sharex=True, sharey=True, squeeze=False)[0]
    sizes = sorted({one.parameters for one in swept})
    styles = dict(zip(sizes, figures.ramp(len(sizes)), strict=True))
    handles = {}
    for axes, rule in zip(panels, rules, strict=True):
        figures.plain(axes)
        for one in swept:
            if one.rule != rule:
                continue
            colour, marker = styles[one.parameters]
            (line,) = axes.plot(
                list(one.losses), list(one.losses.values()), marker=marker, color=colour,
                markersize=5, linewidth=1.4,
            )  # fmt: skip
            label = f"{one.size}, {tokens_text(one.parameters)} parameters"
            handles[one.parameters] = (line, label)
            axes.plot(
                one.best, one.losses[one.best], "*", color=INK, markersize=13,
                markerfacecolor=colour, zorder=4,
            )  # fmt: skip
        axes.set_xscale("log")
        rates = sorted({rate for one in swept for rate in one.losses})
        axes.set_xticks(rates, [f"{rate:.3g}" for rate in rates], rotation=45)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_title(rule)
        axes.set_xlabel("peak learning rate")
    panels[0].set_ylabel(f"held-out loss ({unit})")
    ordered = [handles[size] for size in sizes]
    figure.legend(
        [line for line, _ in ordered], [label for _, label in ordered],
        loc="outside lower center", ncols=min(4, len(ordered)), frameon=False,
    )  # fmt: skip
    return figure
