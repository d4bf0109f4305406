"""Heat maps of layers by heads: how many times its share of the sequence a class is attended to."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator

from data_pipelines.elements import CLASSES
from nt_jax.evaluation.elements.tables import SOURCES, Cell, grid, select

# Blue to red by way of white: told apart with any common colour vision deficiency, and in grey a
# cell away from white is one away from no effect.
COLOURS = "RdBu_r"
UNKNOWN = "#b8b8b8"
LEAST_LIMIT = 0.1
"""The colour scale reaches at least to log2 ratios of +-0.1, so that noise does not look bold."""
_INCHES = 0.15
"""A cell, where there are many."""
_LEAST_PANEL, _MARGIN = 1.15, 0.55
_WIDEST = 12.0


def log_ratio(cells: Sequence[Cell]) -> Float[np.ndarray, "L H"]:
    """log2 of the ratios of one heat map; NaN where nothing was observed or expected."""
    ratio = grid(cells, "ratio")
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log2(ratio)


def colour_limit(cells: Sequence[Cell], measure: str) -> float:
    """Half the width of the colour scale: 98 % of the finite values of all panels are within."""
    values = [
        log_ratio(own)
        for source in SOURCES
        for element in shown_classes(cells, measure)
        if (own := select(cells, source, measure, element))
    ]
    finite = np.concatenate([np.zeros(0), *(v[np.isfinite(v)] for v in values)])
    return (
        max(LEAST_LIMIT, float(np.percentile(np.abs(finite), 98))) if len(finite) else LEAST_LIMIT
    )


def draw_panel(axes: Axes, cells: Sequence[Cell], limit: float) -> matplotlib.image.AxesImage:
    """One heat map: layer 1 at the bottom, a dot on every significant cell."""
    values = log_ratio(cells)
    palette: Colormap = matplotlib.colormaps[COLOURS].with_extremes(bad=UNKNOWN)
    layers, heads = values.shape
    image = axes.imshow(
        # A ratio of 0 is off the scale, not unknown.
        np.clip(values, -10 * limit, 10 * limit), cmap=palette, vmin=-limit, vmax=limit,
        origin="lower", aspect="auto", interpolation="nearest",
        extent=(-0.5, heads - 0.5, 0.5, layers + 0.5),
    )  # fmt: skip
    marked = np.argwhere(grid(cells, "significant") == 1)
    inks = ["white" if abs(values[row, head]) > 0.6 * limit else "black" for row, head in marked]
    size = 4.0 if max(layers, heads) <= 8 else 1.5
    axes.scatter(marked[:, 1], marked[:, 0] + 1, s=size, c=inks, linewidths=0)
    for axis, count, first in ((axes.xaxis, heads, 0), (axes.yaxis, layers, 1)):
        if count <= 6:
            axis.set_major_locator(FixedLocator(list(range(first, first + count))))
        else:
            axis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.tick_params(length=2, labelsize=7)
    return image


def attention_figure(cells: Sequence[Cell], measure: str, title: str) -> Figure:
    """A row a class: the trained model, its random initialisation, the turned annotation.

    Narrow panels stand two classes to a row. One colour scale serves all panels.
    """
    shown = shown_classes(cells, measure)
    first = select(cells, SOURCES[0], measure, CLASSES[0])
    layers, heads = max(c.layer for c in first), 1 + max(c.head for c in first)
    panel = max(_LEAST_PANEL, heads * _INCHES), max(_LEAST_PANEL, layers * _INCHES)
    beside = 2 if 2 * len(SOURCES) * (panel[0] + 0.3) + 1 <= _WIDEST else 1
    rows, columns = max(1, -(-len(shown) // beside)), beside * len(SOURCES)
    size = (columns * (panel[0] + 0.3) + 1.2, rows * (panel[1] + _MARGIN) + 1.0)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    limit, image = colour_limit(cells, measure), None
    for place, axes in enumerate(panels.ravel()):
        row, column = divmod(place, columns)
        number = row * beside + column // len(SOURCES)
        source = SOURCES[column % len(SOURCES)]
        if number >= len(shown):
            axes.remove()
            continue
        image = draw_panel(axes, select(cells, source, measure, shown[number]), limit)
        axes.set_title(f"{shown[number]}\n{source}", fontsize=8)
        if source == SOURCES[0]:
            axes.set_ylabel("layer", fontsize=8)
        if number >= len(shown) - beside:
            axes.set_xlabel("head", fontsize=8)
    figure.suptitle(title, fontsize=9)
    if image is not None:
        bar = figure.colorbar(
            image, ax=list(figure.axes), location="bottom", extend="both", aspect=40,
            fraction=0.03, pad=0.02,
        )  # fmt: skip
        bar.set_label("log2 (share of attention / share of sequence)", fontsize=8)
        bar.ax.tick_params(labelsize=7)
    return figure


def shown_classes(cells: Sequence[Cell], measure: str) -> list[str]:
    """Classes with a test; where there is none, those with any ratio: a few windows say little."""
    for field in ("p", "ratio"):
        shown = [
            element
            for element in CLASSES
            if any(
                np.isfinite(getattr(cell, field))
                for cell in select(cells, SOURCES[0], measure, element)
            )
        ]
        if shown:
            return shown
    return []
