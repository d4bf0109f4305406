"""Scores of labelled variants: how well they rank, with intervals, beside the controls."""

import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float

from nt_jax.errors import InputError
from nt_jax.evaluation import metrics
from nt_jax.evaluation.loading import LoadedModel
from nt_jax.evaluation.results import NO_LAYER, Row
from nt_jax.evaluation.variants import controls
from nt_jax.evaluation.variants.labels import Label
from nt_jax.evaluation.variants.parts import Parts

RANKING, CORRELATION = "ranking", "correlation"
ABSOLUTE = "abs_"
"""In front of a metric: against the size of the effect, whatever its direction."""
_COLUMN = re.compile(r"(?:l(?P<layer>\d+)_)?(?P<rest>.+)")


def evaluate(
    parts: Parts, label: Label, group: str | None, columns: Sequence[str], seed: int
) -> dict[str, Any]:
    """Every score and control against the labels, over all alleles and within each group.

    Two different labels make two classes, the larger is the positive one: AUROC and AUPRC. More
    are measured effects: Spearman and Pearson, with the effect and with its absolute value. A log-
    likelihood ratio enters with its sign turned (`-llr`: the less likely ALT is, the higher), all
    else as it is. Intervals are 95 % bootstraps over alleles. Raises InputError without labels.
    """
    known = pa.concat_tables(parts.read(["skipped", "label", "group"]))
    truth = known["label"].to_numpy(zero_copy_only=False).astype(np.float64)
    scored = np.array([text is None for text in known["skipped"].to_pylist()], bool)
    usable = scored & np.isfinite(truth)
    values = np.unique(truth[usable])
    if len(values) < 2:
        have = f"only {values[0]:g}" if len(values) else "no value"
        raise InputError(f"--label {label}: {have} among the {scored.sum()} scored alleles")
    kind = RANKING if len(values) == 2 else CORRELATION
    groups = _groups(known["group"].to_pylist(), usable) if group else {}
    everywhere: dict[str | None, np.ndarray] = {None: usable}
    found = []
    for column in columns:
        score = _column(parts, column)
        for name, rows in (everywhere | groups).items():
            measured = _measured(kind, truth[rows], score[rows], values[-1], seed)
            found.append({"score": shown(column), "column": column, "group": name, **measured})
    result: dict[str, Any] = {
        "label": str(label),
        "kind": kind,
        "alleles": int(usable.sum()),
        "unlabelled": int((scored & ~usable).sum()),
    }
    if kind == RANKING:
        result |= {
            "positive": float(values[-1]),
            "positives": int((truth[usable] == values[-1]).sum()),
        }
    return result | {
        "groups": {name: int(rows.sum()) for name, rows in groups.items()},
        "scores": found,
    }


def shown(column: str) -> str:
    """Name of a score as it enters, with its sign."""
    return f"-{column}" if _turned(column) else column


def rows(
    result: dict[str, Any], loaded: LoadedModel, checkpoint: str, variants: pathlib.Path
) -> Iterator[Row]:
    """The numbers of `evaluate`, one a row; a group is part of the task's name."""
    for entry in result["scores"]:
        column = entry["column"]
        found = _COLUMN.fullmatch(column.removeprefix(controls.RANDOM))
        assert found
        task = f"{variants.name}: {result['label']}"
        for metric in _metrics(result["kind"]):
            yield Row(
                checkpoint=checkpoint,
                step=loaded.step,
                tokens=loaded.tokens,
                task=f"{task}: {entry['group']}" if entry["group"] is not None else task,
                layer=int(found["layer"] or NO_LAYER),
                method=("random init, " if column.startswith(controls.RANDOM) else "")
                + ("-" if _turned(column) else "")
                + found["rest"].removeprefix(controls.PREFIX),
                control=column.startswith(controls.PREFIX),
                metric=metric,
                **entry[metric],
            )


def _turned(column: str) -> bool:
    return column.endswith(("llr", "llr_kmer"))


def _metrics(kind: str) -> tuple[str, ...]:
    names = metrics.SCORERS[kind].names
    return names if kind == RANKING else (*names, *(ABSOLUTE + name for name in names))


def _measured(
    kind: str,
    truth: Float[np.ndarray, " N"],
    score: Float[np.ndarray, " N"],
    positive: float,
    seed: int,
) -> dict[str, metrics.Entry]:
    """{metric: {value, low, high}}."""
    scorer = metrics.SCORERS[kind]
    if kind == RANKING:
        return metrics.measure(scorer, truth == positive, score, seed).entries
    signed = metrics.measure(scorer, truth, score, seed).entries
    sizes = metrics.measure(scorer, np.abs(truth), score, seed).entries
    return signed | {ABSOLUTE + name: entry for name, entry in sizes.items()}


def _column(parts: Parts, name: str) -> Float[np.ndarray, " N"]:
    """One column of all alleles, as it enters."""
    pieces = [table[name].to_numpy(zero_copy_only=False) for table in parts.read([name])]
    values = np.concatenate(pieces).astype(np.float64)
    return -values if _turned(name) else values


def _groups(
    names: Sequence[str | None], usable: Bool[np.ndarray, " N"]
) -> dict[str | None, np.ndarray]:
    codes = np.array(["" if name is None else name for name in names])
    return {str(name): usable & (codes == name) for name in np.unique(codes[usable]) if name}
