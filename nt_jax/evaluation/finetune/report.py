"""The result of a fine-tuning: result.json, results.parquet, a picture and a table."""

import dataclasses
import io
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nt_jax.evaluation import figure, metrics, search
from nt_jax.evaluation.finetune.settings import Settings
from nt_jax.evaluation.leakage import overlap_line
from nt_jax.evaluation.results import ALL_FOLDS, NO_LAYER, Row, write_rows
from nt_jax.evaluation.summary import format_score
from nt_jax.evaluation.tasks import Task
from nt_jax.files import write_atomically
from nt_jax.metrics import read_metrics

RESULT, ROWS, FIGURE = "result.json", "results.parquet", "finetune.png"
TUNED, RANDOM = figure.COLOURS["trained"], figure.COLOURS["random init"]
COLOURS = {
    "frozen head": "#0891b2",
    "probe": "#64748b",
    **{name: figure.COLOURS[name] for name in ("k-mers", "CNN")},
}
"""Of the controls; k-mers and CNN as in the figure of a probe."""

Result = dict[str, Any]


class Family(NamedTuple):
    """One line of the table."""

    name: str
    control: bool
    predictions: np.ndarray
    """Of the held-out sequences, in the order of their rows."""
    layer: int = NO_LAYER
    """Layer that the head reads, 1-based; `NO_LAYER` where it is chosen, or where none is read."""
    chosen: tuple[int, ...] = ()
    """Layer or k that was chosen within the training sequences of each fold."""


@dataclasses.dataclass(frozen=True)
class About:
    """What a result says of where it comes from."""

    checkpoint: str
    step: int
    tokens: int
    """Seen in training; -1 where the run does not say."""
    task: Task
    settings: Settings
    problem: search.Problem
    """Its folds and the labels of all rows."""
    overlap: dict[str, Any]
    """As `leakage.known_overlap` gives it."""
    trained: int
    """Parameters trained, the head not counted."""
    total: int
    """Parameters of the model."""
    adapter_bytes: int


def write_report(about: About, families: Sequence[Family], out: pathlib.Path) -> Result:
    """Scores the families, writes the files and returns what is in result.json."""
    result = _result(about, families, out)
    write_atomically(out / RESULT, json.dumps(result, indent=1) + "\n")
    write_rows(out / ROWS, _rows(result))
    write_atomically(out / FIGURE, _picture(result))
    return result


def format_result(result: Result) -> str:
    """The result as a small table."""
    first = result["families"][0]
    names = list(first["scores"])[:3]
    width = max(len(family["name"]) for family in result["families"])
    rows = [" " * width + "".join(f"  {name:<24}" for name in names)]
    rows += [
        f"{family['name']:<{width}}"
        + "".join(f"  {format_score(family['scores'][name]):<24}" for name in names)
        for family in result["families"]
    ]
    rows += [
        f"{first['name']} minus {entry['against']}: "
        + ", ".join(f"{name} {format_score(entry['scores'][name], '+')}" for name in names)
        for entry in result["differences"]
    ]
    settings, trained = result["settings"], result["trained_parameters"]
    where = f"{result['checkpoint']} at step {result['step']:,}, layer {settings['layer']}"
    share = f"{trained['encoder']:,} of {trained['model']:,} parameters ({trained['share']:.2%})"
    simulated = " (simulated)" if result["simulated"] else ""
    head = (
        f"{result['task']}{simulated}: {where}; {share} and the head; "
        f"{result['scored']:,} sequences scored ({result['split']} split)"
    )
    audit = f"{result['audit']}; {overlap_line(result['overlap'])}"
    return "\n".join(line.rstrip() for line in [head, *rows, audit])


def _result(about: About, families: Sequence[Family], out: pathlib.Path) -> Result:
    task, settings, problem = about.task, about.settings, about.problem
    labels = problem.truth[search.held_out_rows(problem.folds)]
    scorer = metrics.SCORERS[task.kind]
    # The same seed for all: resamples are shared, differences are paired.
    measured = [
        metrics.measure(scorer, labels, family.predictions, settings.seed) for family in families
    ]
    differences = [
        {"against": family.name, "scores": metrics.differences(measured[0], scores)}
        for family, scores in zip(families[1:], measured[1:], strict=True)
    ]
    return {
        "checkpoint": about.checkpoint,
        "step": about.step,
        "tokens": about.tokens,
        "task": task.name,
        "kind": task.kind,
        "classes": list(task.classes),
        "simulated": task.simulated,
        "fingerprint": task.fingerprint,
        "settings": dataclasses.asdict(settings),
        "split": "given" if task.test is not None else f"{len(problem.folds)}-fold",
        "train": len(task.train),
        "scored": len(labels),
        "audit": task.audit.line(),
        "overlap": about.overlap,
        "trained_parameters": {
            "encoder": about.trained,
            "model": about.total,
            "share": about.trained / about.total,
            "adapter_bytes": about.adapter_bytes,
        },
        "families": [
            {
                "name": family.name,
                "control": family.control,
                "layer": family.layer,
                "chosen": list(family.chosen),
                "scores": scores.entries,
                "by_fold": search.scores_by_fold(
                    problem, search.parted(problem.folds, family.predictions)
                ),
            }
            for family, scores in zip(families, measured, strict=True)
        ],
        "differences": differences,
        "curves": [read_metrics(folder) for folder in _folders(out)],
    }


def _folders(out: pathlib.Path) -> list[pathlib.Path]:
    folds = sorted(out.glob("fold_*"), key=lambda folder: int(folder.name.rpartition("_")[2]))
    return folds or [out]


def _rows(result: Result) -> Iterator[Row]:
    """Every score of every family: of all held-out rows with its interval, and fold by fold."""
    for family in result["families"]:

        def row(fold: int, metric: str, family: Result = family, **score: float | None) -> Row:
            return Row(
                checkpoint=result["checkpoint"],
                step=result["step"],
                tokens=result["tokens"],
                task=result["task"],
                layer=family["layer"],
                method=family["name"],
                control=family["control"],
                fold=fold,
                metric=metric,
                **score,
            )

        for metric, score in family["scores"].items():
            yield row(ALL_FOLDS, metric, **score)
            for fold, value in enumerate(family["by_fold"][metric]):
                yield row(fold, metric, value=value)


def draw(result: Result) -> Figure:
    """Loss against epochs, and the first score of every family with its interval."""
    drawn = Figure(figsize=(8.4, 3.2), layout="constrained")
    curves, bars = drawn.subplots(1, 2, width_ratios=(3, 2))
    for number, rows in enumerate(result["curves"]):
        epochs = [row["epoch"] for row in rows]
        for name, colour, style in (
            ("loss", RANDOM, "--"), ("validation_loss", TUNED, "-"),
        ):  # fmt: skip
            values = [np.nan if row[name] is None else row[name] for row in rows]
            label = {"loss": "training", "validation_loss": "validation"}[name]
            curves.plot(
                epochs, values, style, color=colour, linewidth=1.4, marker="o", markersize=3,
                label=label if number == 0 else None,
            )  # fmt: skip
        best = min(rows, key=lambda row: row["validation_loss"] or np.inf)
        curves.plot(
            best["epoch"], best["validation_loss"], "o", color=TUNED, markersize=8,
            fillstyle="none", label="best" if number == 0 else None,
        )  # fmt: skip
    curves.set_xlabel("epoch")
    curves.set_ylabel("loss")
    curves.legend(frameon=False)
    metric = next(iter(result["families"][0]["scores"]))
    for place, family in enumerate(result["families"]):
        colour = COLOURS.get(family["name"], RANDOM if family["control"] else TUNED)
        score = {key: np.nan if x is None else x for key, x in family["scores"][metric].items()}
        gap = [[score["value"] - score["low"]], [score["high"] - score["value"]]]
        bars.errorbar(
            [score["value"]], [place], xerr=np.maximum(gap, 0), fmt="o", color=colour, capsize=3
        )
    names = [family["name"] for family in result["families"]]
    bars.set_yticks(range(len(names)), names)
    bars.invert_yaxis()
    bars.set_xlabel(f"{metric.upper()}, 95 % interval")
    simulated = " (simulated)" if result["simulated"] else ""
    drawn.suptitle(f"{result['task']}{simulated}, {names[0]}", fontsize=10)
    for axes in (curves, bars):
        axes.grid(True, alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    return drawn


def _picture(result: Result) -> bytes:
    buffer = io.BytesIO()
    with matplotlib.rc_context({"savefig.dpi": 150}):
        drawn = draw(result)
        FigureCanvasAgg(drawn)
        drawn.savefig(buffer, format="png")
    return buffer.getvalue()
