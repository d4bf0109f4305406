"""Attention and element results as text for people and as rows of the common schema."""

import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from nt_jax.evaluation.elements.masked import Score
from nt_jax.evaluation.elements.pieces import CLASSES as PIECE_CLASSES
from nt_jax.evaluation.elements.pieces import LONGEST, SHORTEST
from nt_jax.evaluation.elements.probe import METRICS, Family
from nt_jax.evaluation.elements.result import ALL, FIGURES, Result
from nt_jax.evaluation.elements.statistics import FLIPS, LEAST_WINDOWS, REPLICATES
from nt_jax.evaluation.elements.tables import (
    CLASSES,
    MEASURES,
    SOURCES,
    Cell,
    select,
    too_few,
)
from nt_jax.evaluation.results import NO_LAYER, Row
from nt_jax.evaluation.table import aligned

_METHOD = (
    "Queries are all tokens but `<cls>`; the share of a class is taken of the attention that does "
    "not go to `<cls>`, a token counting by the share of its bases in the class, and stands "
    "against the class's share of the same windows' tokens. `ratio` is the one over the other, "
    "summed over windows, with a {replicates:,}-fold bootstrap over windows (95 %). The test flips "
    "the signs of the windows' differences ({flips:,} times; two-sided); q is Benjamini-Hochberg "
    "over all classes, layers and heads of a source and measure, and significant means q < 0.05. "
    "Windows lie side by side: they are treated as independent, which they nearly are. Windows "
    "without the class, or of nothing else, say nothing about it and are left out."
)
_CONTROLS = (
    "Controls: a random initialisation of the same architecture, and the trained model with the "
    "annotation of each window turned round by a random offset, which keeps the lengths and "
    "shares of the classes and puts them on other sequence. An effect that the controls share is "
    "one of position or of architecture, not of what the model learned about the class."
)


def to_markdown(result: Result) -> str:
    """The content of attention.md."""
    settings = result.settings
    parts = [
        f"# Attention and elements: {pathlib.Path(result.annotation).name}",
        f"Checkpoint `{result.checkpoint}`, step {result.step:,}; {result.fasta}; "
        f"{result.windows:,} windows of {result.length} tokens, side by side"
        f"{' (evenly spread)' if settings.windows else ''}; {result.dropped:,} windows left out "
        f"because more than half of their bases are N; promoter: {settings.promoter} bases "
        f"upstream; seed {settings.seed}.",
        "How the annotation was read:\n\n"
        + "\n".join(f"- {note}" for note in result.notes or ("everything as it stands",)),
        "## Attention",
        _METHOD.format(replicates=REPLICATES, flips=FLIPS),
        _CONTROLS,
    ]
    for measure in MEASURES:
        what = (
            "All attention"
            if measure == "attention"
            else (f"Pairs of tokens with attention above {settings.threshold:g}, all pairs alike")
        )
        parts += [
            f"### {what}",
            _attention_table(result, measure),
            f"![{what}]({FIGURES[measure]})",
        ]
    few = too_few(result.cells)
    if few:
        parts.append(f"Not tested, fewer than {LEAST_WINDOWS} windows: {', '.join(few)}.")
    parts += ["### Attention on `<cls>`", _cls_table(result)]
    parts += ["## Masked tokens", _masked_text(result), _masked_table(result)]
    parts += ["## Element probe", _probe_text(result)]
    if not isinstance(result.families, str):
        parts += [_probe_table(result.families), *map(_confusion, result.families[:3:2])]
    return "\n\n".join(parts) + "\n"


def overview(result: Result) -> str:
    """The main table, for the terminal."""
    return _attention_table(result, "attention")


def _attention_table(result: Result, measure: str) -> str:
    header = ["class", "bases", "share", "windows", "left out (without/wholly)"]
    for source in SOURCES:
        header += [f"{source}: above/below"]
    header += ["strongest head of the trained model: ratio"]
    rows = []
    for element in CLASSES:
        own = {source: select(result.cells, source, measure, element) for source in SOURCES}
        one = own["trained"][0]
        size, share = result.sizes[element]
        row = [
            element,
            f"{size:,}",
            f"{share:.1%}",
            f"{one.windows:,}",
            f"{one.without:,}/{one.wholly:,}",
        ]
        for source in SOURCES:
            row.append("/".join(str(count) for count in _counts(own[source])))
        rows.append([*row, _strongest(own["trained"])])
    heads = len(select(result.cells, "trained", measure, CLASSES[0]))
    return (
        f"Heads, of {heads}, that are significantly above and below the class's share:\n\n"
        + aligned(header, rows)
    )


def _counts(cells: list[Cell]) -> tuple[int, int]:
    above = sum(c.significant and c.ratio > 1 for c in cells)
    below = sum(c.significant and c.ratio < 1 for c in cells)
    return above, below


def _strongest(cells: list[Cell]) -> str:
    known = [c for c in cells if c.significant and c.ratio > 0]
    if not known:
        return "none significant"
    best = max(known, key=lambda c: abs(np.log2(c.ratio)))
    return (
        f"layer {best.layer}, head {best.head}: {best.ratio:.3f} [{best.low:.3f}, {best.high:.3f}]"
    )


def _cls_table(result: Result) -> str:
    header = ["layer", "trained: mean (heads from, to)", "random init: mean (heads from, to)"]
    trained, untrained = result.cls["trained"], result.cls["random init"]
    rows = [
        [str(layer), *(f"{own.mean():.4f} ({own.min():.4f}, {own.max():.4f})" for own in pair)]
        for layer, pair in enumerate(zip(trained, untrained, strict=True), 1)
    ]
    uniform = 1 / result.length
    return (
        f"Share of all attention that goes to `<cls>`; uniform attention gives {uniform:.4f}.\n\n"
        + aligned(header, rows)
    )


def _masked_text(result: Result) -> str:
    return (
        "The positions that `nt-jax evaluate` asks for; the numbers are over those replaced by "
        "`<mask>`. A token counts for a class by the share of its bases in it. Unigram: the token "
        f"frequencies of {result.unigram}; its accuracy is that of always naming the most frequent "
        "one. 95 % bootstrap intervals over windows; losses in nats a token."
    )


def _masked_table(result: Result) -> str:
    header = ["class", "tokens", "loss", "perplexity", "accuracy", "unigram loss",
              "unigram accuracy", "loss minus unigram", "loss minus random init"]  # fmt: skip
    rows = []
    for element in (ALL, *CLASSES):
        own = result.masked[element]
        rows.append(
            [
                element,
                f"{result.masked_tokens[element]:,.0f}",
                _score(own["mask_loss"]),
                _number(own["mask_perplexity"], ",.0f"),
                _score(own["mask_accuracy"], places=4),
                _number(own["unigram_mask_loss"], ".3f"),
                _number(own["unigram_mask_accuracy"], ".4f"),
                _score(own["mask_loss_minus_unigram"], "+"),
                _score(own["mask_loss_minus_random_init"], "+"),
            ]
        )
    return aligned(header, rows)


def _number(score: Score, form: str) -> str:
    return format(score.value, form) if np.isfinite(score.value) else "–"


def _score(score: Score, sign: str = "", places: int = 3) -> str:
    if not np.isfinite(score.value):
        return "–"
    value, low, high = (format(number, f"{sign}.{places}f") for number in score)
    # A few tokens: some resamples have none of them, so there is no interval.
    return f"{value} [{low}, {high}]" if np.isfinite(score.low) else value


def _probe_text(result: Result) -> str:
    pieces = result.pieces
    labels = pieces.labels
    counts = ", ".join(
        f"{name} {np.count_nonzero(labels == i):,}" for i, name in enumerate(PIECE_CLASSES)
    )
    text = (
        f"Pieces of {SHORTEST} to {LONGEST} bases (the middle of longer elements) that are in one "
        f"of the five classes only: {counts}. Left out: {pieces.short:,} shorter runs, "
        f"{pieces.crossing:,} whose window crosses a border between blocks, {pieces.unknown:,} "
        "with an N in their window. "
    )
    if isinstance(result.families, str):
        return text + f"No probe: {result.families}."
    folds = len(result.families[0].picks)
    return text + (
        f"Forward strand throughout. Mean embedding of the tokens wholly inside a piece, from a "
        f"window centred on it; logistic regression; {folds} folds that never split a block of "
        f"the genome ({len(np.unique(pieces.groups))} blocks). Layer (for k-mers: k) and strength "
        "are chosen within training, by folds of blocks there too. "
        "95 % bootstrap intervals over blocks; F1 is the mean over the classes. The k-mers are of "
        "the piece alone, while the model also reads its flanks."
    )


def _probe_table(families: tuple[Family, ...]) -> str:
    rows = []
    for family in families:
        for variant, scores in family.variants.items():
            name = f"{family.name}, {_variant(family, variant)}" if family.unit else family.name
            rows.append([name, *(_score(scores[metric]) for metric in METRICS)])
        if len(family.variants) > 1:
            picks = ", ".join(map(str, family.picks))
            name = f"{family.name}, chosen ({_variant(family, picks)})"
            rows.append([name, *(_score(family.chosen[metric]) for metric in METRICS)])
    return aligned(["features", "MCC", "macro F1", "accuracy"], rows)


def _variant(family: Family, variant: int | str) -> str:
    return f"{family.unit} = {variant}" if family.unit == "k" else f"{family.unit} {variant}"


def _confusion(family: Family) -> str:
    shares = family.confusion / family.confusion.sum(axis=1, keepdims=True)
    rows = [
        [name, *(f"{share:.0%}" for share in row)]
        for name, row in zip(PIECE_CLASSES, shares, strict=True)
    ]
    return f"Of each true class (rows), named as (columns), {family.name}:\n\n" + aligned(
        ["true class", *PIECE_CLASSES], rows
    )


def result_rows(result: Result) -> Iterator[Row]:
    """All numbers in the schema of `results`; heads are part of the method's name."""
    name = pathlib.Path(result.annotation).name
    common: dict[str, Any] = {
        "checkpoint": result.checkpoint,
        "step": result.step,
        "tokens": result.tokens,
    }
    for cell in result.cells:
        measure = "attention"
        if cell.measure == "pairs":
            measure = f"attention above {result.settings.threshold:g}"
        own = {
            **common,
            "task": f"{name}: {cell.element}",
            "layer": cell.layer,
            "method": f"{measure}, head {cell.head}, {cell.source}",
            "control": cell.source != "trained",
        }
        yield Row(**own, metric="ratio", value=cell.ratio, low=cell.low, high=cell.high)
        yield Row(**own, metric="share", value=cell.share)
        yield Row(**own, metric="q", value=cell.q)
    for element, scores in result.masked.items():
        for metric, score in scores.items():
            yield Row(
                **common, task=f"{name}: {element}", method="masked tokens", metric=metric,
                control=metric.startswith(("unigram", "random_init")), **score._asdict(),
            )  # fmt: skip
    probed = {**common, "task": f"{name}: element probe"}
    for family in () if isinstance(result.families, str) else result.families:
        yield from probe_rows(family, probed)


def probe_rows(family: Family, common: dict[str, Any]) -> Iterator[Row]:
    """Every variant, and what the folds chose, in the names that `nt-jax probe` uses."""
    name = f"{family.name}, logistic"
    found = [(f"{name}, chosen", NO_LAYER, family.chosen)]
    for variant, scores in family.variants.items():
        method = f"{name}, k = {variant}" if family.unit == "k" else name
        found.append((method, variant if family.unit == "layer" else NO_LAYER, scores))
    for method, layer, scores in found:
        for metric, score in scores.items():
            yield Row(
                **common, layer=layer, method=method, control=family.name != "trained",
                metric=metric, **score._asdict(),
            )  # fmt: skip


def summary(result: Result) -> dict[str, Any]:
    """What a program would want first; the tables hold the rest. NaN becomes None."""

    def plain(score: Score) -> dict[str, float | None]:
        return {k: v if np.isfinite(v) else None for k, v in score._asdict().items()}

    return {
        "checkpoint": result.checkpoint,
        "step": result.step,
        "annotation": result.annotation,
        "windows": result.windows,
        "length": result.length,
        "notes": list(result.notes),
        "classes": {
            element: {
                "bases": result.sizes[element][0],
                "share": result.sizes[element][1],
                "significant": {
                    measure: {
                        source: dict(
                            zip(
                                ("above", "below"),
                                _counts(select(result.cells, source, measure, element)),
                                strict=True,
                            )
                        )
                        for source in SOURCES
                    }
                    for measure in MEASURES
                },
                "masked": {k: plain(v) for k, v in result.masked[element].items()},
            }
            for element in CLASSES
        },
        "masked": {k: plain(v) for k, v in result.masked[ALL].items()},
        "probe": result.families
        if isinstance(result.families, str)
        else {f.name: {k: plain(v) for k, v in f.chosen.items()} for f in result.families},
    }
