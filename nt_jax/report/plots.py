"""Plots of a run as inline SVG that takes its ink from the page, light or dark."""

import contextlib
import io
import re
from collections.abc import Callable, Iterator
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from nt_jax.report.record import Run, column

BLUE, ORANGE, GREEN, GREY = "#3b82f6", "#d97706", "#0d9f76", "#8b93a1"
POINTS = 500
"""Points of one curve; longer runs are averaged down to it."""
MARKERS = 120
"""Points of one curve with markers."""
WIDE, NARROW = (9.0, 3.4), (4.5, 2.7)

# Stand-ins that are exchanged for the page's own colours in the finished SVG.
INK, _GRID = "#010203", "#010204"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": _GRID,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def tokens_text(count: float | int) -> str:
    """`0`, `512K`, `1.5M`, `300B`: powers of 1000, three digits."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if abs(count) >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.3g}"


def thin(
    x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"], points: int = POINTS
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """Averages neighbours until at most `points` are left; NaNs are left out first."""
    known = np.isfinite(y) & np.isfinite(x)
    x, y = x[known], y[known]
    if len(x) <= points:
        return x, y
    edges = np.linspace(0, len(x), points + 1).astype(int)[:-1]
    counts = np.diff(np.append(edges, len(x)))
    return np.add.reduceat(x, edges) / counts, np.add.reduceat(y, edges) / counts


def smooth(y: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Centred moving mean over about 4 % of the rows (at least 5), shortened at the ends."""
    half = max(2, len(y) // 50)
    sums = np.concatenate([[0.0], np.cumsum(y)])
    low = np.maximum(np.arange(len(y)) - half, 0)
    high = np.minimum(np.arange(len(y)) + half + 1, len(y))
    return (sums[high] - sums[low]) / (high - low)


def loss_plot(run: Run) -> str:
    """Loss against tokens: training, validation, on `<mask>`, and the unigram baseline."""

    def draw(axes: Axes) -> None:
        x, y = _curve(run, "loss")
        if len(x):
            axes.plot(*thin(x, y), color=BLUE, alpha=0.3, linewidth=0.8)
            axes.plot(*thin(x, smooth(y)), color=BLUE, linewidth=1.8, label="training, smoothed")
        rows = run.validation
        tokens = column(rows, "tokens")
        for name, colour, marker, label in (
            ("loss", ORANGE, "o", "validation"),
            ("mask_loss", GREEN, "s", "validation, <mask> only"),
        ):
            known_tokens, values = thin(tokens, column(rows, name), MARKERS)
            if len(values):
                axes.plot(
                    known_tokens, values, color=colour, marker=marker, markersize=4, label=label,
                    linewidth=1.4,
                )  # fmt: skip
        unigram = column(rows, "unigram_mask_loss")
        if np.isfinite(unigram).any():
            axes.axhline(
                float(np.nanmean(unigram)), color=GREY, linestyle="--", linewidth=1.4,
                label="unigram, <mask> only",
            )  # fmt: skip
        _frame_loss(axes, smooth(y) if len(y) else y, run)
        axes.set_ylabel("loss (nats a token)")

    return drawn(draw, "loss", WIDE)


def advantage_plot(run: Run) -> str:
    """Model minus unigram on the same `<mask>` positions, with its 95 % interval."""

    def draw(axes: Axes) -> None:
        rows = [row for row in run.validation if row.get("mask_difference_low") is not None]
        names = ("mask_difference", "mask_difference_low", "mask_difference_high")
        curves = [thin(column(rows, "tokens"), column(rows, name), MARKERS) for name in names]
        tokens, (value, low, high) = curves[0][0], (curve for _, curve in curves)
        axes.fill_between(tokens, low, high, color=GREEN, alpha=0.25, linewidth=0)
        axes.errorbar(
            tokens,
            value,
            yerr=np.maximum([value - low, high - value], 0),
            color=GREEN,
            marker="s",
            markersize=3.5,
            linewidth=1.4,
            elinewidth=0.9,
            capsize=2,
        )
        axes.axhline(0.0, color=GREY, linestyle="--", linewidth=1.2)
        axes.set_ylabel("nats a token")

    return drawn(draw, "advantage", NARROW)


def train_plot(run: Run, name: str, label: str) -> str:
    """One column of the training rows against tokens; gradient norms on a log scale."""

    def draw(axes: Axes) -> None:
        x, y = _curve(run, name)
        if name == "lr":
            axes.plot(*thin(x, y), color=BLUE, linewidth=1.8)
        else:
            axes.plot(*thin(x, y), color=BLUE, alpha=0.3, linewidth=0.8)
            axes.plot(*thin(x, smooth(y)), color=BLUE, linewidth=1.8)
        if name == "grad_norm" and (y > 0).any():
            axes.set_yscale("log")
            plain = FuncFormatter(lambda value, _: f"{value:g}")
            axes.yaxis.set_major_formatter(plain)
            axes.yaxis.set_minor_locator(LogLocator(subs=(2.0, 5.0), numticks=20))
            axes.yaxis.set_minor_formatter(plain)
        else:
            axes.set_ylim(bottom=0)
        if name == "tokens_per_s":
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: tokens_text(value)))
        axes.set_ylabel(label)

    return drawn(draw, name, NARROW)


def _curve(run: Run, name: str) -> tuple[np.ndarray, np.ndarray]:
    x, y = column(run.train, "tokens"), column(run.train, name)
    known = np.isfinite(x) & np.isfinite(y)
    return x[known], y[known]


def _frame_loss(axes: Axes, train: np.ndarray, run: Run) -> None:
    """Frames what the run is about: the first steps, far above, would flatten everything."""
    evaluated = [
        column(run.validation, name) for name in ("loss", "mask_loss", "unigram_mask_loss")
    ]
    settled = np.concatenate([train[len(train) // 20 :], *evaluated])
    settled = settled[np.isfinite(settled)]
    if settled.size:
        low, high = settled.min(), settled.max()
        margin = max(0.08 * (high - low), 0.01)
        axes.set_ylim(low - margin, high + margin)


@contextlib.contextmanager
def styled(name: str) -> Iterator[None]:
    """The page's style; `name` makes the identifiers of a plot its own."""
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        yield


def drawn(draw: Callable[[Axes], None], name: str, size: tuple[float, float]) -> str:
    """One plot against tokens."""
    with styled(name):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        axes.grid(True)
        axes.set_xlabel("tokens")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tokens_text(value)))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
        draw(axes)
        axes.set_xlim(left=0)
        if axes.get_legend_handles_labels()[0]:
            figure.legend(loc="outside lower center", ncols=4)
        return svg(figure)


def svg(figure: Figure) -> str:
    """The `<svg>` element alone: no prologue, no metadata, no address, scaling with the page."""
    FigureCanvasSVG(figure)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    head, end, body = text.partition(">")
    box = re.search(r'viewBox="[^"]*"', head)
    assert box is not None
    # In HTML an inline <svg> needs no namespace, and href no prefix.
    body = body.replace("xlink:href", "href")
    body = body.replace(INK, "currentColor").replace(_GRID, "var(--grid)")
    return f'<svg role="img" {box.group()}{end}{body}'.strip()
