"""Probe results, read back from disk, and as text: one line a task, or the full tables."""

import json
import pathlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

from nt_jax.errors import InputError

RESULTS = "probe.json"
Result = dict[str, Any]


def read_results(path: pathlib.Path) -> list[Result]:
    """Entries of a probe.json, none if there is no file; InputError when it is damaged."""
    if not path.exists():
        return []
    try:
        stored = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path}: damaged ({error}); delete it to probe again") from error
    if not isinstance(stored, list) or not all(isinstance(entry, dict) for entry in stored):
        raise InputError(f"{path}: not a list of probe results; delete it to probe again")
    return stored


def format_score(score: dict[str, float | None], sign: str = "") -> str:
    """`0.612 [0.570, 0.653]`; a dash where the score is undefined."""
    if score["value"] is None or score["low"] is None or score["high"] is None:
        return "–"
    value, low, high = (format(score[part], f"{sign}.3f") for part in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def variant_name(unit: str, variant: int) -> str:
    """`layer 5` or `k = 6`."""
    return f"k = {variant}" if unit == "k" else f"{unit} {variant}"


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


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns line up in plain text, the first one to the left."""
    wide = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *rest = zip(cells, wide, strict=True)
        texts = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]
        return f"| {' | '.join(texts)} |"

    rule = [":" + "-" * (wide[0] - 1), *("-" * (width - 1) + ":" for width in wide[1:])]
    return "\n".join([line(header), f"| {' | '.join(rule)} |", *map(line, rows)])


def overview(results: Sequence[Result]) -> str:
    """One row a result: MCC of the three families and the paired differences."""
    header = ["task", "step", "scored", "trained", "layer", "random init", "k-mers"]
    header += ["trained - random init", "trained - k-mers"]
    rows = []
    for result in results:
        trained = result["families"][0]
        picks = Counter(trained["chosen"]["layer"]).most_common()
        families = [format_score(family["chosen"]["mcc"]) for family in result["families"]]
        differences = [format_score(entry["mcc"], "+") for entry in result["differences"]]
        layer = str(picks[0][0]) if len(picks) == 1 else f"{picks[0][0]}*"
        rows.append(
            [
                title(result),
                str(result["step"]),
                f"{result['scored']:,}",
                families[0],
                layer,
                *families[1:],
                *differences,
            ]
        )
    return aligned(header, rows)


def to_markdown(results: Sequence[Result]) -> str:
    """The content of probe.md."""
    parts = [
        "# Linear probes",
        "MCC with 95 % bootstrap intervals over the scored sequences. The layer (for k-mers: k) "
        "that speaks for a row is chosen by cross-validation within the training sequences, not "
        "by the scores shown; an asterisk marks that folds differ in their choice. Differences "
        "are paired over the same resamples. Intervals hold the drawing of the scored sequences, "
        "not that of the training sequences or of the random initialisation (one seed).",
        overview(results),
    ]
    for result in results:
        parts += [f"## {title(result)}, step {result['step']}", _details(result)]
    return "\n\n".join(parts) + "\n"


def _details(result: Result) -> str:
    header = ["features", "MCC", "AUROC", "accuracy", "inner MCC", "C"]
    rows = []
    loose = 0
    for family in result["families"]:
        for variant in family["variants"]:
            strengths = sorted(set(variant["strengths"]))
            span = [f"{strengths[0]:g}", f"{strengths[-1]:g}"]
            rows.append(
                [
                    f"{family['name']}, {variant_name(family['unit'], variant[family['unit']])}",
                    *(format_score(variant[name]) for name in ("mcc", "auroc", "accuracy")),
                    f"{variant['inner_mcc']:.3f}",
                    span[0] if len(strengths) == 1 else "..".join(span),
                ]
            )
            loose += variant["not_converged"]
        chosen = family["chosen"]
        rows.append(
            [
                f"{family['name']}, chosen: {chosen_variants(family)}",
                *(format_score(chosen[name]) for name in ("mcc", "auroc", "accuracy")),
                "",
                "",
            ]
        )
    settings, audit = result["settings"], result["audit"]
    most = settings["max_sequences"]
    limit = f"at most {most:,} sequences of each split were drawn" if most else "no subsampling"
    files = ", ".join(f"{name} {count:,}" for name, count in audit["rows"].items())
    lines = [
        f"Checkpoint `{result['checkpoint']}`, step {result['step']}. "
        f"{len(result['classes'])} classes ({', '.join(result['classes'])}); "
        f"{result['train']:,} training sequences, {result['scored']:,} scored "
        f"({result['split']} split); {limit}; seed {settings['seed']}.",
        f"Read: {files}. Dropped from training: {audit['in_test']} also in test, "
        f"{audit['in_test_reversed']} in test on the other strand, {audit['conflicting']} with "
        f"two labels, {audit['repeated']} repeats. Ambiguous letters read as N: "
        f"{audit['ambiguous_letters']}.",
        aligned(header, rows),
        "\n".join(
            f"- trained minus {entry['against']}: MCC {format_score(entry['mcc'], '+')}, "
            f"AUROC {format_score(entry['auroc'], '+')}, "
            f"accuracy {format_score(entry['accuracy'], '+')}"
            for entry in result["differences"]
        ),
    ]
    if loose:
        lines.append(f"{loose} of the fits stopped at the iteration limit before converging.")
    return "\n\n".join(lines)
