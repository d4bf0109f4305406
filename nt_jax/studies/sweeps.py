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
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from nt_jax.errors import InputError
from nt_jax.report.plots import INK, WIDE, tokens_text
from nt_jax.studies import figures
from nt_jax.studies.families import question
from nt_jax.studies.table import Cell, Row, Table

AT_AN_END = "at an end"


@dataclasses.dataclass(frozen=True)
class Sweep:
    """One width under one rule."""

    where: str
    """What its runs are trained on, and on how many tokens; losses elsewhere do not compare."""
    rule: str
    size: str
    parameters: float
    losses: Mapping[float, float]
    """Rate, rising -> loss, mean over seeds, nats a token on `<mask>` positions."""
    missing: Mapping[float, int]
    """Rate -> runs without a loss (diverged, failed, not run yet); it is not among `losses`."""

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
    """Every width under every rule: by data and tokens, by rule in the table's order, rising size.

    Raises InputError for a rate that is no number. Widths without any loss yet are left out.
    """
    rows = [row for row in found.rows if row.get("tag:rate") and row.get("tag:equal") is None]
    rules = list(dict.fromkeys(rule for row in rows if (rule := _rule(row)))) or [""]
    cells: dict[tuple[Any, ...], dict[float, list[Cell]]] = {}
    sizes: dict[tuple[Any, ...], float] = {}
    for row in rows:
        asked, tokens = question(row), tokens_text(float(row["tokens"] or 0))
        for rule in [_rule(row)] if _rule(row) else rules:
            key = asked, tokens, rule, str(row.get("tag:size") or "")
            sizes[key] = float(row["parameters"] or 0)
            cells.setdefault(key, {}).setdefault(_rate(row), []).append(row["mask_loss"])
    places = list(dict.fromkeys(key[:2] for key in cells))
    swept = [
        Sweep(
            where=f"{asked[0]}, {asked[1]}-mers, {tokens} tokens",
            rule=rule,
            size=size,
            parameters=sizes[asked, tokens, rule, size],
            losses={
                rate: float(np.mean([float(one or 0) for one in by[rate]]))
                for rate in sorted(by)
                if None not in by[rate]
            },
            missing={rate: by[rate].count(None) for rate in sorted(by) if None in by[rate]},
        )
        for (asked, tokens, rule, size), by in sorted(
            cells.items(),
            key=lambda item: (
                places.index(item[0][:2]), rules.index(item[0][2]), sizes[item[0]]
            ),
        )
    ]  # fmt: skip
    return [one for one in swept if one.losses]


def carried(swept: Sequence[Sweep]) -> Iterator[tuple[Sweep, Sweep, float]]:
    """(smallest, other, nats lost): the best rate of a rule's smallest width, taken at the others.

    Against the least loss of the other width; NaN where it has no loss at that rate.
    """
    for panel in panels_of(swept):
        smallest, *others = panel
        for other in others:
            taken = other.losses.get(smallest.best, math.nan)
            yield smallest, other, taken - other.losses[other.best]


def panels_of(swept: Sequence[Sweep]) -> list[list[Sweep]]:
    """Sweeps that compare, by rising size: one rule on the same data and tokens."""
    keys = dict.fromkeys((one.where, one.rule) for one in swept)
    return [[one for one in swept if (one.where, one.rule) == key] for key in keys]


def _rule(row: Row) -> str:
    return str(row.get("tag:rule") or "")


def _rate(row: Row) -> float:
    try:
        return float(str(row["tag:rate"]))
    except ValueError:
        raise InputError(
            f"run {row['run']}: the tag rate={row['tag:rate']!r} is no learning rate"
        ) from None


def rates_figure(swept: Sequence[Sweep], unit: str = figures.PER_TOKEN) -> Figure:
    """Loss against the learning rate, a line a width, a panel a rule; minima are marked.

    A row of panels for what the runs are trained on; a cross at the top is a rate without a loss.
    """
    places = list(dict.fromkeys(one.where for one in swept))
    rules = list(dict.fromkeys(one.rule for one in swept))
    figure = Figure(figsize=(WIDE[0], 0.6 + 3.6 * len(places)), layout="constrained")
    panels = figure.subplots(
        len(places), len(rules), sharex=True, sharey="row", squeeze=False
    )  # fmt: skip
    sizes = sorted({one.parameters for one in swept})
    styles = dict(zip(sizes, figures.ramp(len(sizes)), strict=True))
    handles = {}
    rates = sorted({rate for one in swept for rate in (*one.losses, *one.missing)})
    for own in panels_of(swept):
        row, column = places.index(own[0].where), rules.index(own[0].rule)
        axes = panels[row, column]
        figures.plain(axes)
        for one in own:
            colour, marker = styles[one.parameters]
            (line,) = axes.plot(
                list(one.losses), list(one.losses.values()), marker=marker, color=colour,
                markersize=5, linewidth=1.4,
            )  # fmt: skip
            handles[one.parameters] = (
                line,
                f"{one.size}, {tokens_text(one.parameters)} parameters",
            )
            axes.plot(
                one.best, one.losses[one.best], "*", color=INK, markersize=13,
                markerfacecolor=colour, zorder=4,
            )  # fmt: skip
            if one.missing:
                axes.plot(
                    list(one.missing), [0.98] * len(one.missing), "x", color=colour,
                    transform=axes.get_xaxis_transform(), in_layout=False,
                )  # fmt: skip
        axes.set_xscale("log")
        axes.set_xticks(rates, [f"{rate:.3g}" for rate in rates], rotation=45)
        axes.xaxis.set_minor_locator(NullLocator())
        named = own[0].rule, own[0].where if len(places) > 1 else ""
        axes.set_title("\n".join(filter(None, named)))
        axes.set_xlabel("peak learning rate")
    for axes in panels[:, 0]:
        axes.set_ylabel(f"held-out loss ({unit})")
    ordered = [handles[size] for size in sizes]
    figure.legend(
        [line for line, _ in ordered], [label for _, label in ordered],
        loc="outside lower center", ncols=min(4, len(ordered)), frameon=False,
    )  # fmt: skip
    return figure
