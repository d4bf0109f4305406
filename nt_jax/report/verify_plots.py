"""Plots of what `nt-jax data verify` found."""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from data_pipelines.near import BINS, IDENTITY, SHARE
from data_pipelines.verify import Report
from nt_jax.report.plots import BLUE, GREEN, GREY, NARROW, ORANGE, WIDE, styled, svg, tokens_text
from nt_jax.report.verify_tables import source_rows

_SPLITS = {"train": BLUE, "validation": ORANGE, "test": GREEN}
_LONGEST = 34
"""Letters of a name on an axis."""


def bases_plot(report: Report) -> str:
    """Bases of the windows by source and split; those that windows share count in each."""
    rows = source_rows(report)

    def draw(axes: Axes) -> None:
        left = np.zeros(len(rows))
        for split in report.windows:
            own = np.array(
                [row.windows.get(split, 0) * report.window_length for row in rows], float
            )
            axes.barh(range(len(rows)), own, left=left, color=_SPLITS[split], label=split)
            left += own
        axes.set_xlabel("bases in windows")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tokens_text(value)))

    return _by_source([row.name for row in rows], draw, "bases by source")


def composition_plot(report: Report) -> str:
    """Shares of G and C, soft-masked bases and N by source."""
    rows = source_rows(report)

    def draw(axes: Axes) -> None:
        places = np.arange(len(rows))
        shares = (
            ("GC", [row.gc for row in rows], BLUE),
            ("soft-masked", [row.soft_masked / max(1, row.bases) for row in rows], ORANGE),
            ("N", [row.n / max(1, row.bases) for row in rows], GREY),
        )
        for number, (name, values, colour) in enumerate(shares):
            axes.barh(places + (number - 1) * 0.27, values, 0.25, color=colour, label=name)
        axes.set_xlabel("share of the bases")
        axes.set_xlim(0, max(0.6, 1.05 * max(max(values) for _, values, _ in shares)))
        axes.xaxis.set_major_formatter(PercentFormatter(1, 0))

    return _by_source([row.name for row in rows], draw, "composition by source")


def identity_plot(report: Report, pair: str) -> str:
    """Looked-up windows of a pair of splits by the identity of their best stretch."""
    found = report.near[pair]
    with styled(f"identity {pair}"):
        figure = Figure(figsize=NARROW, layout="constrained")
        axes = figure.subplots()
        long, short = np.array(found.identities), np.array(found.identities_of_less)
        width = float(BINS[1] - BINS[0])
        middles = BINS[:-1] + width / 2
        axes.bar(middles, short, 0.9 * width, color=GREY, label=f"less than {SHARE:.0%} of it")
        axes.bar(
            middles, long, 0.9 * width, bottom=short, color=ORANGE, label=f"{SHARE:.0%} or more"
        )
        axes.axvline(IDENTITY, color=GREY, linestyle="--", linewidth=1)
        axes.set_xlim(BINS[0], BINS[-1])
        axes.set_ylim(0, max(1, 1.08 * int((long + short).max())))
        axes.set_xticks([0.8, 0.85, 0.9, 0.95, 1.0])
        axes.xaxis.set_major_formatter(PercentFormatter(1, 0))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        axes.grid(True, axis="y")
        axes.set_axisbelow(True)
        axes.set_xlabel("estimated identity of the best stretch")
        axes.set_ylabel("windows")
        rest = found.looked_up - int((long + short).sum())
        axes.set_title(f"{pair}: {rest:,} of {found.looked_up:,} have none")
        figure.legend(loc="outside lower center", ncols=2)
        return svg(figure)


def tasks_plot(report: Report) -> str:
    """Share of each labelled set that the training windows have."""
    names = [f"{found.task}, {found.split}" for found in report.tasks]

    def draw(axes: Axes) -> None:
        many = np.array([max(1, found.looked_up) for found in report.tasks])
        exact = np.array([found.exact for found in report.tasks]) / many
        near = np.array([found.near for found in report.tasks]) / many
        axes.barh(range(len(names)), exact, color=ORANGE, label="contained")
        axes.barh(range(len(names)), near - exact, left=exact, color=BLUE, label="near-duplicates")
        axes.set_xlim(0, 1)
        axes.set_xlabel("share of the sequences")
        axes.xaxis.set_major_formatter(PercentFormatter(1, 0))

    return _by_source(names, draw, "tasks")


def _by_source(names: Sequence[str], draw: Callable[[Axes], None], name: str) -> str:
    with styled(name):
        figure = Figure(figsize=(WIDE[0], 1.3 + 0.32 * len(names)), layout="constrained")
        axes = figure.subplots()
        axes.grid(True, axis="x")
        axes.set_axisbelow(True)
        draw(axes)
        axes.set_yticks(range(len(names)), [_shortened(text) for text in names])
        axes.set_ylim(len(names) - 0.4, -0.6)
        figure.legend(loc="outside lower center", ncols=4)
        return svg(figure)


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
