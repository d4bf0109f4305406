"""Probe results as text: one line a task, or the full tables."""

from collections import Counter
from collections.abc import Iterator, Sequence

from nt_jax.evaluation.leakage import overlap_line
from nt_jax.evaluation.metrics import SCORERS
from nt_jax.evaluation.results import ALL_FOLDS, NO_LAYER, Row, difference_name
from nt_jax.evaluation.stored import Result
from nt_jax.evaluation.table import aligned
from nt_jax.evaluation.tasks.task import Audit


def format_score(score: dict[str, float | None], sign: str = "") -> str:
    """`0.612 [0.570, 0.653]`; a dash where the score is undefined."""
    if score["value"] is None or score["low"] is None or score["high"] is None:
        return "–"
    value, low, high = (format(score[part], f"{sign}.3f") for part in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def variant_name(unit: str, variant: int) -> str:
    """`layer 5` or `k = 6`; a network has no number."""
    return {"k": f"k = {variant}", "network": "one-hot"}.get(unit, f"{unit} {variant}")


def chosen_variants(family: Result) -> str:
    """`layer 5`, or where folds differ `layer 5 (8/10), layer 6 (2/10)`."""
    picks = family["chosen"][family["unit"]]
    shares = Counter(picks).most_common()
    names = [variant_name(family["unit"], variant) for variant, _ in shares]
    if len(names) == 1:
        return names[0]
    return ", ".join(
        f"{name} ({n}/{len(picks)})" for name, (_, n) in zip(names, shares, strict=True)
    )


def title(result: Result) -> str:
    """Name of the task, saying so when its sequences are simulated."""
    return f"{result['task']} (simulated)" if result["simulated"] else result["task"]


def latest(results: Sequence[Result]) -> list[Result]:
    """The entry of the newest step of every task, tasks in order of appearance."""
    newest: dict[str, Result] = {}
    for result in results:
        if result["task"] not in newest or result["step"] >= newest[result["task"]]["step"]:
            newest[result["task"]] = result
    return list(newest.values())


def overview(results: Sequence[Result]) -> str:
    """One row a result: the families by the kind's first metric, and the paired differences."""
    header = ["task", "metric", "step", "scored", "trained", "layer"]
    rows = []
    for result in results:
        metric = SCORERS[result["kind"]].names[0]
        trained, *controls = result["families"]
        picks = Counter(trained["chosen"]["layer"]).most_common()
        layer = str(picks[0][0]) if len(picks) == 1 else f"{picks[0][0]}*"
        rows.append(
            [
                title(result),
                metric_name(metric),
                str(result["step"]),
                f"{result['scored']:,}",
                format_score(trained["chosen"][metric]),
                layer,
                *(format_score(control["chosen"][metric]) for control in controls),
                *(format_score(entry[metric], "+") for entry in result["differences"]),
            ]
        )
    names = [family["name"] for family in results[0]["families"][1:]] if results else []
    return aligned([*header, *names, *(f"- {name}" for name in names)], rows)


def metric_name(metric: str) -> str:
    """As people write it: MCC, AUROC, F1; spearman, accuracy."""
    return metric.upper() if len(metric) <= 5 else metric


def to_markdown(results: Sequence[Result]) -> str:
    """The content of probe.md."""
    parts = [
        "# Probes",
        "Scores with 95 % bootstrap intervals over the scored sequences. The layer (for k-mers: k) "
        "that speaks for a row is chosen by cross-validation within the training sequences, not "
        "by the scores shown; an asterisk marks that folds differ in their choice. Differences "
        "(trained minus control) are paired over the same resamples. Intervals hold the drawing "
        "of the scored sequences, not that of the training sequences or of the random "
        "initialisation (one seed).",
        overview(results),
    ]
    for result in results:
        parts += [f"## {title(result)}, step {result['step']}", _details(result)]
    return "\n\n".join(parts) + "\n"


def tidy(results: Sequence[Result]) -> list[Row]:
    """Every score of every variant and fold, of what each family chose (layer 0), and its paired
    differences to the controls, as rows.
    """
    return [
        row for result in results for family in result["families"] for row in _rows(result, family)
    ]


def _rows(result: Result, family: Result) -> Iterator[Row]:
    head, unit = result["settings"]["head"], family["unit"]
    name = family["name"] if unit == "network" else f"{family['name']}, {head}"
    differences = result["differences"] if family["name"] == "trained" else []

    def row(method: str, layer: int, fold: int, metric: str, **score: float | None) -> Row:
        return Row(
            checkpoint=result["checkpoint"],
            step=result["step"],
            tokens=result["tokens"],
            task=result["task"],
            layer=layer,
            method=method,
            control=family["name"] != "trained",
            fold=fold,
            metric=metric,
            **score,
        )

    for metric in SCORERS[result["kind"]].names:
        chosen = f"{name}, chosen"
        yield row(chosen, NO_LAYER, ALL_FOLDS, metric, **family["chosen"][metric])
        for entry in differences:
            against = difference_name(metric, entry["against"])
            yield row(chosen, NO_LAYER, ALL_FOLDS, against, **entry[metric])
        for variant in family["variants"]:
            layer = variant[unit] if unit == "layer" else NO_LAYER
            method = f"{name}, k = {variant['k']}" if unit == "k" else name
            yield row(method, layer, ALL_FOLDS, metric, **variant[metric])
            for fold, value in enumerate(variant["by_fold"][metric]):
                yield row(method, layer, fold, metric, value=value)


def _details(result: Result) -> str:
    names = SCORERS[result["kind"]].names
    header = ["features", *map(metric_name, names), "inner", "hyper-parameters"]
    rows = []
    loose = 0
    for family in result["families"]:
        for variant in family["variants"]:
            picks = Counter(variant["hyper"]).most_common()
            rows.append(
                [
                    f"{family['name']}, {variant_name(family['unit'], variant[family['unit']])}",
                    *(format_score(variant[name]) for name in names),
                    f"{variant['inner']:.3f}",
                    picks[0][0] if len(picks) == 1 else f"{picks[0][0]} and others",
                ]
            )
            loose += variant["not_converged"]
        rows.append(
            [
                f"{family['name']}, chosen: {chosen_variants(family)}",
                *(format_score(family["chosen"][name]) for name in names),
                "",
                "",
            ]
        )
    lines = [
        _about(result),
        aligned(header, rows),
        "\n".join(
            f"- trained minus {entry['against']}: "
            + ", ".join(f"{metric_name(name)} {format_score(entry[name], '+')}" for name in names)
            for entry in result["differences"]
        ),
    ]
    if loose:
        lines.append(f"{loose} of the fits stopped at the iteration limit before converging.")
    return "\n\n".join(lines)


def _about(result: Result) -> str:
    """Checkpoint, data, split, what was dropped, what pretraining has seen."""
    settings = result["settings"]
    most = settings["max_sequences"]
    limit = f"at most {most:,} sequences of each split were drawn" if most else "no subsampling"
    classes = f"{len(result['classes'])} classes ({', '.join(result['classes'])}); "
    return (
        f"Checkpoint `{result['checkpoint']}`, step {result['step']}. "
        f"{classes if result['classes'] else ''}"
        f"{result['train']:,} training sequences, {result['scored']:,} scored "
        f"({result['split']} split); {limit}; seed {settings['seed']}; {settings['pooling']} "
        f"pooling; head: {settings['head']}.\n\n"
        f"{checked(result)}"
    )


def checked(result: Result) -> str:
    """What the data are like: read, dropped, repeated, seen in pretraining; two sentences."""
    seen = overlap_line(result["overlap"])
    return f"{Audit.from_plain(result['audit']).line()}. {seen[0].upper()}{seen[1:]}."


def data_lines(results: Sequence[Result]) -> list[str]:
    """`checked` of each result behind its name, for the end of a table."""
    return [f"{title(result)}: {checked(result)}" for result in results]
