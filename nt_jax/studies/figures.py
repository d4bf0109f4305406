"""Figures of a study: losses against what was spent, the laws through them, and what they predict.

Every function returns a Figure. Drawn within `nt_jax.report.plots.styled` it takes the ink of the
page and goes to `svg`; drawn alone it is matplotlib's plain style, for a file. Ordered groups
(sizes, budgets) have the colours of one ramp and a marker each, so that they are told apart without
colour. Losses are in `unit`, that of the runs.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from nt_jax.errors import InputError
from nt_jax.report.plots import BLUE, GREEN, GREY, INK, ORANGE, WIDE, tokens_text
from nt_jax.studies.intervals import Bootstrap, predict
from nt_jax.studies.isoflop import (
    CHINCHILLA,
    Cost,
    Growth,
    Minimum,
    flops_per_token,
    optimal_parameters,
)
from nt_jax.studies.laws import Law
from nt_jax.studies.points import Run

PER_TOKEN = "nats a token"
TOKENS = "tokens"

_NAMES = {"flops": "training FLOPs", "parameters": "parameters"}
_MARKERS = "osD^vP*X<>"
_SOURCES = (BLUE, ORANGE, GREEN, "#a855f7")
_POINTS = 120
_MOST = 10
"""Groups that the legend names; of more, every second or third."""
_EQUAL = 0.02


class Curve(NamedTuple):
    """A law along one variable."""

    label: str
    x: Float[np.ndarray, " M"]
    value: Float[np.ndarray, " M"]
    low: Float[np.ndarray, " M"]
    high: Float[np.ndarray, " M"]


class HeldOut(NamedTuple):
    """A run that no law was fitted to: what was predicted and what came out."""

    name: str
    x: float
    value: float
    low: float
    high: float
    measured: float | None
    """None while it is not known."""


def law_curves(
    sample: Bootstrap[Law], variable: str, ends: tuple[float, float], others: Sequence[float]
) -> list[Curve]:
    """The law and its 95 % band along `parameters` or `tokens`, one curve for each of the other."""
    x = np.geomspace(*ends, _POINTS)
    curves = []
    for other in others:
        rest = np.full_like(x, other)
        parameters, tokens = (x, rest) if variable == "parameters" else (rest, x)
        found = predict(sample, parameters, tokens)
        name = "tokens" if variable == "parameters" else "parameters"
        label = f"law, {tokens_text(other)} {name}"
        curves.append(Curve(label, x, found.value, found.law_low, found.law_high))
    return curves


def frontier(sample: Bootstrap[Law], ends: tuple[float, float], cost: Cost = CHINCHILLA) -> Curve:
    """Least loss for a budget of FLOPs, by the law, with its 95 % band."""
    x = np.geomspace(*ends, _POINTS)

    def least(law: Law) -> Float[np.ndarray, " M"]:
        size = optimal_parameters(law, x, cost)
        return law.loss(size, x / flops_per_token(cost, size))

    low, high = np.percentile([least(law) for law in sample.laws], [2.5, 97.5], axis=0)
    return Curve("compute-optimal, by the law", x, least(sample.fit.law), low, high)


def flops_figure(
    runs: Sequence[Run], curves: Sequence[Curve] = (), held_out: Sequence[HeldOut] = (),
    unit: str = PER_TOKEN,
) -> Figure:  # fmt: skip
    """Loss against training FLOPs; models of one size are joined."""
    return _losses(runs, "flops", "parameters", curves, held_out, unit, TOKENS)


def parameters_figure(
    runs: Sequence[Run], curves: Sequence[Curve] = (), held_out: Sequence[HeldOut] = (),
    unit: str = PER_TOKEN, seen: str = TOKENS,
) -> Figure:  # fmt: skip
    """Loss against parameters; runs of equal tokens are joined. `seen` is what `tokens` counts."""
    return _losses(runs, "parameters", "tokens", curves, held_out, unit, seen)


def tokens_figure(
    runs: Sequence[Run], curves: Sequence[Curve] = (), held_out: Sequence[HeldOut] = (),
    unit: str = PER_TOKEN, seen: str = TOKENS,
) -> Figure:  # fmt: skip
    """Loss against tokens; models of one size are joined. `seen` is what `tokens` counts."""
    return _losses(runs, "tokens", "parameters", curves, held_out, unit, seen)


def isoflop_figure(found: Sequence[Minimum], unit: str = PER_TOKEN) -> Figure:
    """Loss against parameters at each level of compute, its parabola and its minimum.

    A minimum is drawn, with the 95 % interval of its place, where it lies inside the runs.
    """
    figure, axes = _panel()
    for one, (colour, marker) in zip(found, ramp(len(found)), strict=True):
        sizes = one.level.parameters
        x = np.geomspace(sizes.min(), sizes.max(), _POINTS)
        inside = one.place == "inside"
        label = f"{one.level.flops:.2g} FLOPs".replace("e+", "e")
        label += "" if inside else ", no minimum inside"
        axes.plot(x, one.curve(x), color=colour, linewidth=1.4, linestyle="-" if inside else ":")
        axes.plot(sizes, one.level.loss, marker, color=colour, markersize=5, label=label)
        if inside:
            axes.errorbar(
                one.parameters, one.loss,
                xerr=_arms(one.parameters, *one.parameters_interval),
                color=INK, marker="*", markersize=14, markerfacecolor=colour, capsize=5,
                elinewidth=1.6, zorder=4,
            )  # fmt: skip
    axes.plot([], [], "*", color=INK, markerfacecolor="none", markersize=11, label="minimum, 95 %")
    _log_x(axes, "parameters", TOKENS)
    _loss_y(axes, unit)
    return _with_legend(figure, axes)


def growth_figure(
    fitted: Growth, found: Sequence[Minimum], cost: Cost = CHINCHILLA, seen: str = TOKENS
) -> Figure:
    """Best parameters and tokens against FLOPs, and the power laws through them."""
    figure = Figure(figsize=WIDE, layout="constrained")
    used = [one for one in found if one.place == "inside"]
    flops = np.array([one.level.flops for one in used])
    x = np.geomspace(flops.min() / 2, flops.max() * 2, 2)
    panels = (("parameters", "N*", "a", fitted.a, fitted.a_interval, BLUE),
              ("tokens", "D*", "b", fitted.b, fitted.b_interval, ORANGE))  # fmt: skip
    for axes, (what, name, letter, power, (low, high), colour) in zip(
        figure.subplots(1, 2), panels, strict=True
    ):
        for one in used:
            ends = np.array([one.parameters, *one.parameters_interval])
            if what == "tokens":
                ends = one.level.flops / flops_per_token(cost, ends)[[0, 2, 1]]
            axes.errorbar(
                one.level.flops, ends[0], yerr=_arms(*ends), color=colour, marker="*",
                markersize=9, capsize=3,
            )  # fmt: skip
        line = [fitted.optimum(c)[what == "tokens"] for c in x]
        axes.plot(x, line, color=colour, linewidth=1.4)
        axes.set_title(f"{name} ~ C^{letter}, {letter} = {power:.2f} ({low:.2f} to {high:.2f})")
        axes.set_yscale("log")
        _log_ticks(axes.yaxis, tokens_text, *sorted(axes.get_ylim()))
        axes.set_ylabel(f"best {seen if what == 'tokens' else what}")
        _log_x(axes, "flops", seen)
        plain(axes)
    return figure


def score_figure(runs: Sequence[Run], score: str, unit: str = PER_TOKEN) -> Figure:
    """A tag, such as a probe's `mcc`, against the loss, which falls to the right.

    The tags `SCORE low` and `SCORE high`, where there are any, are the ends of its interval. Raises
    InputError where no run has the score.
    """
    known = [run for run in runs if isinstance(run.tags.get(score), int | float)]
    if not known:
        raise InputError(f"no run has the score {score!r}")
    figure, axes = _panel()
    for size, own, (colour, marker) in _grouped(known, "parameters"):
        value, low, high = (
            np.array([float(run.tags.get(name, run.tags[score])) for run in own])
            for name in (score, f"{score} low", f"{score} high")
        )
        axes.errorbar(
            [run.loss for run in own], value, yerr=_arms(value, low, high), color=colour,
            marker=marker, markersize=5, capsize=2, linestyle="", elinewidth=1,
            label=f"{tokens_text(size)} parameters",
        )  # fmt: skip
    axes.invert_xaxis()
    axes.set_xlabel(f"held-out loss ({unit})")
    axes.set_ylabel(score)
    return _with_legend(figure, axes)


def sources_figure(runs: Sequence[Run], tag: str = "source", unit: str = PER_TOKEN) -> Figure:
    """Loss by the source of the training windows at equal tokens, every seed a point.

    The bar is the mean over the seeds and its arms are their range. The losses have to be those of
    one held-out set. Raises InputError for runs without the tag and of unequal tokens.
    """
    for run in runs:
        if tag not in run.tags:
            raise InputError(f"run {run.name}: no tag {tag!r}")
    seen = [run.tokens for run in runs]
    if max(seen) > (1 + _EQUAL) * min(seen):
        raise InputError(
            f"sources are compared at equal tokens, and these runs have {tokens_text(min(seen))} "
            f"to {tokens_text(max(seen))}"
        )
    figure, axes = _panel()
    names = list(dict.fromkeys(str(run.tags[tag]) for run in runs))
    sizes = sorted({run.parameters for run in runs})
    width = 0.7 / len(sizes)
    styles = itertools.cycle(zip(_SOURCES, _MARKERS, strict=False))
    for number, (size, (colour, marker)) in enumerate(zip(sizes, styles, strict=False)):
        middle = (number - (len(sizes) - 1) / 2) * width
        label: str | None = f"{tokens_text(size)} parameters"
        for place, name in enumerate(names):
            losses = np.array(
                [r.loss for r in runs if r.parameters == size and str(r.tags[tag]) == name]
            )
            if not losses.size:
                continue
            x = place + middle
            spread = np.linspace(-0.2, 0.2, len(losses)) * width * (len(losses) > 1)
            axes.plot(
                x + spread, losses, marker, color=colour, alpha=0.55, markersize=5, label=label
            )
            axes.hlines(losses.mean(), x - 0.35 * width, x + 0.35 * width, color=colour, lw=2.2)
            axes.vlines(x, losses.min(), losses.max(), color=colour, lw=1)
            label = None
    axes.set_xticks(range(len(names)), names)
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.grid(False, axis="x")
    axes.set_xlabel(f"{tag} ({tokens_text(float(np.mean(seen)))} tokens each)")
    axes.set_ylabel(f"held-out loss ({unit})")
    axes.margins(y=0.12)
    return _with_legend(figure, axes)


def _losses(
    runs: Sequence[Run], variable: str, group: str, curves: Sequence[Curve],
    held_out: Sequence[HeldOut], unit: str, seen: str,
) -> Figure:  # fmt: skip
    figure, axes = _panel()
    line = "-" if not curves else ""
    groups = list(_grouped(runs, group))
    every = -(-len(groups) // _MOST)
    for number, (value, own, (colour, marker)) in enumerate(groups):
        own = sorted(own, key=lambda run: getattr(run, variable))
        label = f"{tokens_text(value)} {seen if group == 'tokens' else group}"
        axes.plot(
            [getattr(run, variable) for run in own], [run.loss for run in own], marker,
            color=colour, markersize=5, linestyle=line, linewidth=1.2,
            label=label if number % every == 0 else None,
        )  # fmt: skip
    colours = {f"law, {tokens_text(value)} {group}": colour for value, _, (colour, _) in groups}
    inks = [colours.get(curve.label, GREY) for curve in curves]
    for curve, ink in zip(curves, inks, strict=True):
        known = curve.label in colours
        axes.plot(
            curve.x, curve.value, color=ink, linewidth=1.4, linestyle="-" if known else "--",
            label=None if known else curve.label.replace("tokens", seen),
        )  # fmt: skip
    _draw_held_out(axes, held_out)
    _draw_bands(axes, curves, inks)
    _log_x(axes, variable, seen)
    _loss_y(axes, unit)
    if any(curve.label in colours for curve in curves):
        axes.plot([], [], color=GREY, linewidth=1.4, label="law, 95 % band")
    return _with_legend(figure, axes)


def _draw_bands(
    axes: Axes, curves: Sequence[Curve], inks: Sequence[tuple[float, ...] | str]
) -> None:
    """Where they are far wider than all that is drawn by now, the frame cuts them."""
    low, high = axes.get_ylim()
    for curve, ink in zip(curves, inks, strict=True):
        axes.fill_between(curve.x, curve.low, curve.high, color=ink, alpha=0.18, linewidth=0)
    bottom, top = axes.get_ylim()
    axes.set_ylim(max(bottom, 2 * low - high), min(top, 2 * high - low))


def _draw_held_out(axes: Axes, held_out: Sequence[HeldOut]) -> None:
    for number, one in enumerate(held_out):
        first = number == 0
        axes.errorbar(
            one.x, one.value, yerr=_arms(one.value, one.low, one.high), color=GREEN, marker="D",
            markerfacecolor="none", markersize=8, capsize=4, elinewidth=1.6, linestyle="",
            label="predicted, 95 % of a run" if first else None,
        )  # fmt: skip
        if one.measured is not None:
            axes.plot(
                one.x, one.measured, "x", color=ORANGE, markersize=9, markeredgewidth=2.4,
                label="measured, held out" if first else None,
            )  # fmt: skip
        top = max(one.high, one.measured or one.high)
        axes.annotate(one.name, (one.x, top), (0, 8), textcoords="offset points", ha="center")


def _panel() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDE[0], 4.4), layout="constrained")
    axes = figure.subplots()
    plain(axes)
    return figure, axes


def plain(axes: Axes) -> None:
    """A light grid below the data, and two of four spines."""
    axes.grid(True, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _with_legend(figure: Figure, axes: Axes) -> Figure:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(4, len(labels)), frameon=False
    )
    return figure


def ramp(count: int) -> list[tuple[tuple[float, ...], str]]:
    """Colours of plasma that are readable on white and on near-black, each with a marker."""
    colours = matplotlib.colormaps["plasma"](np.linspace(0.12, 0.8, max(count, 2)))
    markers = itertools.cycle(_MARKERS)
    return [(tuple(c), m) for c, m in zip(colours[:count], markers, strict=False)]


def _grouped(
    runs: Sequence[Run], group: str
) -> Iterator[tuple[float, list[Run], tuple[tuple[float, ...], str]]]:
    values = sorted({getattr(run, group) for run in runs})
    for value, style in zip(values, ramp(len(values)), strict=True):
        yield value, [run for run in runs if getattr(run, group) == value], style


def _arms(
    value: float | np.ndarray, low: float | np.ndarray, high: float | np.ndarray
) -> np.ndarray:
    """Lengths of error bars, [2, M]; an end that is unknown has none."""
    arms = np.stack([np.atleast_1d(value - low), np.atleast_1d(high - value)])
    return np.maximum(np.nan_to_num(arms, posinf=0.0), 0.0)


def _log_x(axes: Axes, variable: str, seen: str) -> None:
    axes.set_xscale("log")
    axes.set_xlabel(_NAMES.get(variable, f"{seen} seen in training"))
    if variable != "flops":
        _log_ticks(axes.xaxis, tokens_text, *axes.get_xlim())


def _loss_y(axes: Axes, unit: str) -> None:
    """Linear, or logarithmic where losses differ by more than a factor of two."""
    axes.set_ylabel(f"held-out loss ({unit})")
    low, high = axes.get_ylim()
    if low > 0 and high / low > 2:
        axes.set_yscale("log")
        _log_ticks(axes.yaxis, lambda value: f"{value:g}", low, high)


def _log_ticks(axis: Axis, text: Callable[[float], str], *ends: float) -> None:
    """Readable numbers at 1, 2 and 5 where there are few decades, else at every decade."""
    decades = np.log10(ends[1] / ends[0])
    subs: tuple[float, ...] = (1.0, 2.0, 5.0) if decades < 3 else (1.0,)
    if decades < 0.7:
        subs = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)
    axis.set_major_locator(LogLocator(subs=subs, numticks=20))
    axis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))
    axis.set_minor_formatter(NullFormatter())
    axis.set_minor_locator(NullLocator())
