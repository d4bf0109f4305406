"""Plots of probe results: by layer, against tokens, layers x tasks, beside controls and anchors."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nt_jax.evaluation.figure import COLOURS, probe_figure
from nt_jax.evaluation.metrics import SCORERS
from nt_jax.evaluation.summary import latest, metric_name, title
from nt_jax.evaluation.tasks.anchors import Anchor, anchors
from nt_jax.report.plots import GREY, INK, WIDE, drawn, styled, svg

Result = dict[str, Any]


def layers_plot(results: Sequence[Result]) -> str:
    """Scores by layer of the newest step of every task."""
    with styled("probe"):
        return svg(probe_figure(results, columns=2))


def tokens_plot(results: Sequence[Result]) -> str:
    """Score of the chosen layer, with its interval, against the tokens seen; a curve a task."""

    def draw(axes: Axes) -> None:
        names = list(dict.fromkeys(title(result) for result in results))
        for name in names:
            rows = sorted((r for r in results if title(r) == name), key=lambda r: r["step"])
            value, low, high = _scores(rows, "trained")
            axes.errorbar(
                [row["tokens"] for row in rows],
                value,
                yerr=np.maximum([value - low, high - value], 0),
                marker="o",
                markersize=3.5,
                elinewidth=0.9,
                capsize=2,
                label=name,
            )
        axes.set_ylabel(_metrics(results))

    return drawn(draw, "probe against tokens", WIDE)


def heat_map(results: Sequence[Result]) -> str:
    """Layers x tasks: the trained score of every layer; the chosen one is bold."""
    shown = latest(results)
    layers = sorted({v["layer"] for r in shown for v in _family(r, "trained")["variants"]})
    values = np.full((len(shown), len(layers)), np.nan)
    for row, result in enumerate(shown):
        for variant in _family(result, "trained")["variants"]:
            score = variant[_first(result)]["value"]
            values[row, layers.index(variant["layer"])] = np.nan if score is None else score
    with styled("heat map"):
        figure = Figure(figsize=(WIDE[0], 1.1 + 0.32 * len(shown)), layout="constrained")
        axes = figure.subplots()
        low, high = min(0.0, float(np.nanmin(values))), float(np.nanmax(values))
        edges = np.arange(len(layers) + 1) - 0.5, np.arange(len(shown) + 1) - 0.5
        # Quads, not a picture: the page stays free of anything that has to be loaded.
        axes.pcolormesh(*edges, values, cmap="cividis", vmin=low, vmax=high)
        axes.invert_yaxis()
        axes.set_xticks(range(len(layers)), [str(layer) for layer in layers])
        axes.set_yticks(range(len(shown)), [title(result) for result in shown])
        axes.set_xlabel("layer")
        for row, result in enumerate(shown):
            picked = _family(result, "trained")["chosen"]["layer"]
            usual = max(set(picked), key=picked.count)
            for column, layer in enumerate(layers):
                number = values[row, column]
                if np.isfinite(number):
                    axes.text(
                        column, row, f"{number:.2f}", ha="center", va="center",
                        fontsize=8, color="white" if number < (low + high) / 2 else "black",
                        fontweight="bold" if layer == usual else "normal",
                    )  # fmt: skip
        axes.set_title(_metrics(shown))
        return svg(figure)


def bars(results: Sequence[Result]) -> str:
    """Every family of the newest step of every task.

    Published scores are marks, where known and of the metric of the bars; `anchor_notes` has the
    rest.
    """
    shown = latest(results)
    with styled("bars"):
        figure = Figure(figsize=(WIDE[0], 3.6), layout="constrained")
        axes = figure.subplots()
        names = [name for name in COLOURS if any(_has(result, name) for result in shown)]
        width = 0.8 / len(names)
        for number, name in enumerate(names):
            rows = [row for row, result in enumerate(shown) if _has(result, name)]
            value, low, high = _scores([shown[row] for row in rows], name)
            axes.bar(
                np.array(rows) + (number - (len(names) - 1) / 2) * width,
                value,
                width,
                yerr=np.maximum([value - low, high - value], 0),
                color=COLOURS[name],
                ecolor=GREY,
                error_kw={"elinewidth": 1},
                label=name,
            )
        labels: dict[str, str] = {}
        marks = iter("D^vsP*X")
        for row, result in enumerate(shown):
            for anchor in _drawn(result):
                new = anchor.model not in labels
                labels.setdefault(anchor.model, next(marks))
                axes.plot(
                    row, anchor.value, labels[anchor.model], color=INK, markersize=5,
                    label=f"{anchor.model}, published, fine-tuned" if new else None,
                )  # fmt: skip
        axes.axhline(0, color=GREY, linewidth=0.8)
        axes.set_xticks(range(len(shown)), [title(result) for result in shown])
        if len(shown) > 4:
            axes.tick_params(axis="x", rotation=35)
            for label in axes.get_xticklabels():
                label.set_horizontalalignment("right")
        axes.grid(True, axis="y")
        axes.set_axisbelow(True)
        axes.set_ylabel(_metrics(shown))
        figure.legend(loc="outside lower center", ncols=4)
        return svg(figure)


def anchor_notes(results: Sequence[Result]) -> list[str]:
    """Sentences on published scores that `bars` does not draw.

    Those of another metric than their bars, and means over a whole suite, which no single task
    can be held against.
    """
    notes = []
    for result in results:
        others = [anchor for anchor in anchors(result["task"]) if anchor not in _drawn(result)]
        for metric in dict.fromkeys(anchor.metric for anchor in others):
            scores = _listed(anchor for anchor in others if anchor.metric == metric)
            notes.append(
                f"Not drawn, because {metric} is not {metric_name(_first(result))}: published "
                f"{metric} of {result['task']}, {scores}."
            )
    suites = (result["task"].partition("/")[0] for result in results if "/" in result["task"])
    for suite in dict.fromkeys(suites):
        if means := anchors(suite):
            notes.append(
                f"Published means over all tasks of {suite} ({means[0].metric}), not drawn: "
                f"{_listed(means)}."
            )
    return notes


def _listed(found: Iterable[Anchor]) -> str:
    return ", ".join(f"{anchor.model} {anchor.value:.3f}" for anchor in found)


def _drawn(result: Result) -> list[Anchor]:
    """Published scores of the metric that the bars of a result show."""
    metric = metric_name(_first(result))
    return [anchor for anchor in anchors(result["task"]) if anchor.metric == metric]


def _first(result: Result) -> str:
    return SCORERS[result["kind"]].names[0]


def _metrics(results: Sequence[Result]) -> str:
    return " or ".join(dict.fromkeys(metric_name(_first(result)) for result in results))


def _has(result: Result, name: str) -> bool:
    return any(family["name"] == name for family in result["families"])


def _family(result: Result, name: str) -> Result:
    return next(family for family in result["families"] if family["name"] == name)


def _scores(results: Sequence[Result], name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Value, low and high of what the family has chosen; NaN where undefined."""
    scores = [_family(result, name)["chosen"][_first(result)] for result in results]
    value, low, high = (
        np.array([score[part] for score in scores], float) for part in ("value", "low", "high")
    )
    return value, low, high
