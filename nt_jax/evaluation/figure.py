"""The probe figure: score by layer with its interval, and the controls as lines."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nt_jax.evaluation.metrics import SCORERS
from nt_jax.evaluation.summary import latest, metric_name, title, variant_name
from nt_jax.pictures import png

# Readable on white and on near-black, and to people with colour vision deficiencies.
COLOURS = {
    "trained": "#3b82f6",
    "random init": "#d97706",
    "k-mers": "#0d9f76",
    "CNN": "#a855f7",
}


def draw_probe(axes: Axes, result: dict[str, Any]) -> None:
    """One task, by its kind's first metric: curves over layers, lines for the other controls."""
    metric = SCORERS[result["kind"]].names[0]
    styles = iter([":", "-.", (0, (5, 1)), (0, (1, 3)), "--", "-"])
    for family in result["families"]:
        name, unit = family["name"], family["unit"]
        if unit == "layer":
            value, low, high = (
                np.array([variant[metric][part] for variant in family["variants"]], float)
                for part in ("value", "low", "high")
            )
            axes.errorbar(
                [variant["layer"] for variant in family["variants"]],
                value,
                yerr=np.maximum([value - low, high - value], 0),
                color=COLOURS[name],
                marker="o",
                markersize=4,
                capsize=2,
                linewidth=1.6,
                elinewidth=1,
                linestyle="-" if name == "trained" else "--",
                label=name,
            )
            continue
        for style, variant in zip(styles, family["variants"], strict=False):
            number = variant[metric]["value"]
            axes.axhline(
                np.nan if number is None else number,
                color=COLOURS[name],
                linestyle=style,
                linewidth=1.4,
                label=f"{name}, {variant_name(unit, variant[unit])}" if unit == "k" else name,
            )
    axes.set_title(f"{title(result)}, step {result['step']:,}", fontsize=10)
    axes.set_xlabel("layer")
    axes.set_ylabel(metric_name(metric))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(True)
    axes.spines[["top", "right"]].set_visible(False)


def probe_figure(results: Sequence[dict[str, Any]], columns: int = 3) -> Figure:
    """A panel for the newest step of every task, with one legend."""
    shown = latest(results)
    columns = min(columns, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(
        figsize=(4.2 * columns, 3.2 * rows + (0.5 if columns > 1 else 0.8)), layout="constrained"
    )
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, result in zip(panels, shown, strict=False):
        draw_probe(axes, result)
    for axes in panels[len(shown) :]:
        axes.remove()
    handles, labels = panels[0].get_legend_handles_labels()
    named = dict(zip(labels, handles, strict=True))
    # matplotlib lists lines before error bars; the models come first here.
    order = sorted(named, key=lambda label: (label not in COLOURS, label != "trained"))
    figure.legend(
        [named[label] for label in order],
        order,
        loc="outside lower center",
        ncols=min(2 * columns, len(order)),
        frameon=False,
    )
    return figure


def save_figure(results: Sequence[dict[str, Any]]) -> bytes:
    """The figure as PNG (150 dots an inch)."""
    with matplotlib.rc_context({"grid.alpha": 0.3}):
        return png(probe_figure(results))
