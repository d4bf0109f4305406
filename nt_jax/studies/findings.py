"""What a study found, for its page: laws, predictions beside measurements, figures.

Figures are also written to DIR/figures as PNG and SVG.
"""

import html
import math
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from nt_jax.errors import InputError
from nt_jax.files import write_atomically
from nt_jax.pictures import png, whole_svg
from nt_jax.report.elements import figure as figure_html
from nt_jax.report.elements import table
from nt_jax.report.plots import styled, svg, tokens_text
from nt_jax.studies import figures
from nt_jax.studies.families import (
    EQUAL,
    Family,
    families,
    law_of,
    point,
    question,
    written_down,
    written_of,
)
from nt_jax.studies.figures import HeldOut
from nt_jax.studies.intervals import REPLICATES, Bootstrap, leave_one_out, predict
from nt_jax.studies.isoflop import cost_of, groups, growth, level_of, minima
from nt_jax.studies.laws import Law
from nt_jax.studies.points import Run, column
from nt_jax.studies.sweeps import Sweep, carried, rates_figure, sweeps
from nt_jax.studies.table import Row, Table
from nt_jax.studies.tokenizations import Tokenized, best, tokenizations_figure, tokenized

_SEED = 0
_HEADLINES = ("mcc", "spearman")
"""The score of a probe that is drawn: of classes, and of values."""
_LINES = 6
"""Most curves of a law in one figure."""
_DRAW = tuple[str, str, Callable[[], Figure]]
"""Name of the file, caption, how to draw it."""


def findings(found: Table, root: pathlib.Path, replicates: int = REPLICATES) -> str:
    """HTML of all that can be said; the empty string where no run is trained."""
    written = written_down(root)
    parts: list[str] = []
    drawn: list[_DRAW] = []
    for number, family in enumerate(families(found)):
        if len(family.runs) + len(family.held_out) < 3 or not family.runs:
            continue
        if any("rate" in run.tags for run in family.runs):
            continue  # a sweep: they differ in more than sizes and budgets
        prefix = f"law-{number}" if number else "law"
        parts.append(f"<h3>{html.escape(family.name)}</h3>")
        parts.append(_family(family, written, prefix, drawn, replicates))
    swept = sweeps(found)
    if swept:
        parts.append(_sweeps(swept))
        drawn.append(("rates", "Loss against the learning rate", lambda: rates_figure(swept)))
    compared = tokenized(found)
    if compared:
        parts.append(_tokenizations(compared))
        caption = "What the context saves, by the length of a token"
        drawn.append(("tokenizations", caption, lambda: tokenizations_figure(compared)))
    drawn += _sources(found)
    drawn += _scores(found)
    pictures = [_placed(root, *one) for one in drawn]
    return "\n".join([*parts, f'<div class="plots">{"".join(pictures)}</div>' if pictures else ""])


# --- One family -------------------------------------------------------------------------------


def _family(
    family: Family,
    written: Mapping[str, Any] | None,
    prefix: str,
    drawn: list[_DRAW],
    replicates: int,
) -> str:
    held_out = _held_out(family, written)
    try:
        sample = law_of(family, replicates)
    except InputError as error:
        law = f'<p class="soft">No law: {html.escape(str(error))}.</p>'
        drawn += _plain_figures(family, held_out, prefix)
    else:
        law = _law_table(family, sample)
        drawn += _law_figures(family, sample, held_out, prefix)
    return law + _equal_compute(family, prefix, drawn) + _comparison(family, written)


def _law_table(family: Family, sample: Bootstrap[Any]) -> str:
    fitted = sample.fit
    sentence = (
        "L(N, D) = E + A / N<sup>alpha</sup> + B / D<sup>beta</sup>"
        if isinstance(fitted.law, Law)
        else "L(N) = E + A / N<sup>alpha</sup> at equal tokens"
    )
    rows = []
    for name in fitted.data.free:
        low, high = sample.interval(name)
        rows.append(
            [name, f"{getattr(fitted.law, name):.4g}", f"{low:.4g} to {high:.4g}",
             "at the end of its range" if name in fitted.on_bound else ""]
        )  # fmt: skip
    left = np.abs(leave_one_out(fitted))
    known = left[np.isfinite(left)]
    out = (
        f"; each run predicted by the others: off by {100 * np.median(known):.2f} % in the median, "
        f"{100 * known.max():.2f} % at most"
        if known.size
        else ""
    )
    spread = 100 * math.sqrt(float(np.mean(fitted.residuals**2)))
    doubts = [] if fitted.converged else ["the fit did not come to rest"]
    if sample.redrawn:
        doubts.append(f"{sample.redrawn} resamples could not be fitted and were drawn again")
    if sample.unconverged:
        doubts.append(f"{sample.unconverged} resamples did not come to rest")
    note = (
        f"{sentence}, nats a token on &lt;mask&gt; positions, {len(family.runs)} runs; R&sup2; of "
        f"the log losses {fitted.r2:.4f}, residuals {spread:.2f} %{out}. Intervals: 95 %, "
        f"{len(sample.laws)} resamples of the runs."
    )
    doubt = f'<p class="warn">{html.escape("; ".join(doubts))}.</p>' if doubts else ""
    header = ["", "value", "95 % interval", ""]
    return f"<p>{note}</p>{doubt}{table(header, rows)}"


def _comparison(family: Family, written: Mapping[str, Any] | None) -> str:
    """What was written down of the held-out runs, beside what they measured."""
    rows, notes = [], []
    for row in family.held_out:
        name, loss = str(row["run"]), row["mask_loss"]
        entry = written_of(name, written) or {}
        one = entry.get("predictions", {}).get(name)
        if one is None:
            why = entry.get("why", "none was written down before it began")
            notes.append(f"No prediction of {name}: {why}.")
            continue
        inside = off = "–"
        if loss is not None:
            inside = "yes" if one["low"] <= float(loss) <= one["high"] else "no"
            off = f"{100 * (float(loss) / one['value'] - 1):+.2f} %"
        lacking = len(entry["not_trained"])
        rests_on = f"{len(entry['fitted_to'])} runs" + (f", {lacking} missing" if lacking else "")
        rows.append(
            [html.escape(name), tokens_text(float(row["parameters"] or 0)),
             html.escape(str(entry["written"])), rests_on,
             f"{one['value']:.4f}", f"{one['low']:.4f} to {one['high']:.4f}",
             "–" if loss is None else f"{float(loss):.4f}", off, inside]
        )  # fmt: skip
    header = ["held out", "parameters", "written down", "rests on", "predicted", "95 % of a run",
              "measured", "off by", "inside"]  # fmt: skip
    told = f"<p>Predicted before these were run:</p>{table(header, rows)}" if rows else ""
    return told + "".join(f'<p class="soft">{html.escape(note)}</p>' for note in notes)


def _held_out(family: Family, written: Mapping[str, Any] | None) -> list[tuple[Row, HeldOut]]:
    """Predictions that were written down, at no place on an axis yet (x is NaN)."""
    found = []
    for row in family.held_out:
        name = str(row["run"])
        one = (written_of(name, written) or {}).get("predictions", {}).get(name)
        if one is not None:
            loss = None if row["mask_loss"] is None else float(row["mask_loss"])
            label = str(row.get("tag:size") or row["run"])
            marks = HeldOut(label, math.nan, one["value"], one["low"], one["high"], loss)
            found.append((row, marks))
    return found


def _at(held_out: Sequence[tuple[Row, HeldOut]], variable: str) -> list[HeldOut]:
    return [one._replace(x=float(row[variable] or 0)) for row, one in held_out]


def _plain_figures(
    family: Family, held_out: Sequence[tuple[Row, HeldOut]], prefix: str
) -> Iterator[_DRAW]:
    def draw() -> Figure:
        return figures.flops_figure(family.runs, (), _at(held_out, "flops"))

    yield f"{prefix}-flops", f"{family.name}: loss against FLOPs", draw


def _law_figures(
    family: Family, sample: Bootstrap[Any], held_out: Sequence[tuple[Row, HeldOut]], prefix: str
) -> Iterator[_DRAW]:
    whole = [*family.runs, *(point(row) for row, one in held_out if one.measured is not None)]

    def ends(variable: str) -> tuple[float, float]:
        values = [*column(whole, variable), *(float(row[variable] or 0) for row, _ in held_out)]
        return min(values) / 1.2, max(values) * 1.2

    def some(variable: str) -> list[float]:
        values = np.unique(column(family.runs, variable))
        at = np.unique(
            np.linspace(0, len(values) - 1, min(len(values), _LINES)).round().astype(int)
        )
        return [float(values[number]) for number in at]

    def by_parameters() -> Figure:
        if isinstance(sample.fit.law, Law):
            lines = figures.law_curves(sample, "parameters", ends("parameters"), some("tokens"))
        else:
            x = np.geomspace(*ends("parameters"), 120)
            band = predict(sample, x)
            lines = [figures.Curve("law", x, band.value, band.law_low, band.law_high)]
        return figures.parameters_figure(family.runs, lines, _at(held_out, "parameters"))

    yield f"{prefix}-parameters", f"{family.name}: loss against parameters", by_parameters
    if isinstance(sample.fit.law, Law):
        costs = cost_of(family.runs)

        def by_tokens() -> Figure:
            lines = figures.law_curves(sample, "tokens", ends("tokens"), some("parameters"))
            return figures.tokens_figure(family.runs, lines, _at(held_out, "tokens"))

        def by_flops() -> Figure:
            best = figures.frontier(sample, ends("flops"), costs)
            return figures.flops_figure(family.runs, [best], _at(held_out, "flops"))

        yield f"{prefix}-tokens", f"{family.name}: loss against tokens", by_tokens
        yield f"{prefix}-flops", f"{family.name}: loss against FLOPs", by_flops
    else:
        yield from _plain_figures(family, held_out, prefix)


def _equal_compute(family: Family, prefix: str, drawn: list[_DRAW]) -> str:
    """Minima at equal FLOPs; a level of fewer than three sizes is told and left out."""
    runs = [run for run in family.runs if "flops" in run.tags]
    whole, short = [], []
    for group in groups(runs):
        try:
            whole.append(level_of(group))
        except InputError as error:
            short.append(f'<p class="soft">No minimum: {html.escape(str(error))}.</p>')
    if not whole:
        return "".join(short)
    found = minima(whole, _SEED)
    drawn.append(
        (f"{prefix}-isoflop", f"{family.name}: loss at equal FLOPs",
         lambda: figures.isoflop_figure(found))
    )  # fmt: skip
    if sum(one.place == "inside" for one in found) > 1:
        costs = cost_of(runs)
        drawn.append(
            (f"{prefix}-growth", f"{family.name}: best size and tokens against FLOPs",
             lambda: figures.growth_figure(growth(found, costs), found, costs))
        )  # fmt: skip
    rows = []
    for one in found:
        low, high = one.parameters_interval
        known = math.isfinite(low)
        rows.append(
            [f"{one.level.flops:.2e}", str(len(one.level.loss)),
             "none" if one.place == "none" else tokens_text(one.parameters), one.place,
             f"{tokens_text(low)} to {tokens_text(high)}" if known else "–",
             f"{one.without} of {len(one.replicates)}" if len(one.replicates) else "–"]
        )  # fmt: skip
    header = ["FLOPs", "runs", "best parameters", "of the runs' range", "95 % interval",
              "resamples without a minimum"]  # fmt: skip
    return f"<p>Best size at equal FLOPs:</p>{table(header, rows)}" + "".join(short)


# --- All runs ---------------------------------------------------------------------------------


def _sweeps(swept: Sequence[Sweep]) -> str:
    costs = {
        (other.where, other.rule, other.size): (small.best, lost)
        for small, other, lost in carried(swept)
    }
    rows = []
    for one in swept:
        rate, place = one.minimum()
        taken, lost = costs.get((one.where, one.rule, one.size), (math.nan, math.nan))
        added = f"{lost:+.4f}" if math.isfinite(lost) else "–"
        if taken in one.missing:
            added = "no loss at that rate"
        rows.append(
            [html.escape(one.where), html.escape(one.rule), html.escape(one.size),
             tokens_text(one.parameters), f"{one.best:.4g}",
             f"{rate:.3g}" if place == "inside" else place, f"{one.losses[one.best]:.4f}", added,
             ", ".join(f"{rate:.4g}" for rate in one.missing) or "–"]
        )  # fmt: skip
    header = ["trained on", "rule", "size", "parameters", "best rate", "minimum of a parabola",
              "least loss", "loss added by the smallest width's best rate",
              "rates without a loss"]  # fmt: skip
    return f"<h3>Learning rates</h3>{table(header, rows)}"


def _tokenizations(runs: Sequence[Tokenized]) -> str:
    """Losses a base, which compare across tokenizers; and the unigrams', as tokens differ."""
    chosen = {one.run for one in best(runs)}
    rows = [
        [html.escape(one.equal), f"{one.k}-mers", one.rate, tokens_text(one.bases),
         f"{one.flops:.2e}", f"{one.loss:.5f}", f"{one.unigram:.5f}",
         f"{one.loss - one.unigram:+.5f}", "best" if one.run in chosen else ""]
        for one in runs
    ]  # fmt: skip
    header = ["equal", "tokens", "peak rate", "bases", "FLOPs", "nats a base", "unigram",
              "model minus unigram", ""]  # fmt: skip
    note = (
        "On &lt;mask&gt; positions. A masked token of k bases hides all of them; its loss is "
        "divided by k."
    )
    return f'<h3>Tokenizations</h3><p class="soft">{note}</p>{table(header, rows)}'


def _sources(found: Table) -> Iterator[_DRAW]:
    """Sources at equal tokens, by the loss on windows that all of them have seen the same way."""
    names = sorted(n for n in found.columns if n.startswith("on:") and n.endswith(":mask_loss"))
    for name in names:
        rows = [row for row in found.rows if row[name] is not None]
        for number, own in enumerate(_at_equal_tokens(rows)):
            if len({row["source"] for row in own}) < 2:
                continue
            judge = name.split(":")[1]
            runs = [point(row, name) for row in own]
            file = f"sources-on-{judge}" + (f"-{number}" if number else "")
            yield (
                file, f"Loss on the {judge} windows, by what a run was trained on",
                lambda runs=runs: figures.sources_figure(runs),  # type: ignore[misc]
            )  # fmt: skip


def _at_equal_tokens(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows of one tokenizer, length, masking and variant whose budgets are the same."""
    budgets: dict[tuple[Any, ...], list[list[Row]]] = {}
    for row in sorted(rows, key=lambda row: float(row["tokens"] or 0)):
        alike = budgets.setdefault((*question(row)[1:4], row.get("tag:variant") or ""), [])
        seen = float(row["tokens"] or 0)
        if not alike or seen > EQUAL * float(alike[-1][0]["tokens"] or 0):
            alike.append([])
        alike[-1].append(row)
    return [one for alike in budgets.values() for one in alike]


def _scores(found: Table) -> Iterator[_DRAW]:
    for name in found.columns:
        task, _, metric = name.rpartition(":")
        if not task.startswith("probe:") or metric not in _HEADLINES:
            continue
        rows = [r for r in found.rows if r[name] is not None and r["mask_loss"] is not None]
        if len(rows) < 3:
            continue
        title = name.removeprefix("probe:")
        runs = []
        for row in rows:
            run = point(row)
            tags = {title: row[name], f"{title} low": row[f"{name}:low"],
                    f"{title} high": row[f"{name}:high"]}  # fmt: skip
            known = {key: float(value) for key, value in tags.items() if value is not None}
            runs.append(Run(run.name, run.parameters, run.tokens, run.flops, run.loss, known))
        file = "score-" + "".join(c if c.isalnum() else "-" for c in title)
        yield (
            file, f"Probe {title} against the loss on the run's own windows",
            lambda runs=runs, title=title: figures.score_figure(runs, title),  # type: ignore[misc]
        )  # fmt: skip


def _placed(root: pathlib.Path, name: str, caption: str, draw: Callable[[], Figure]) -> str:
    """Writes a figure to DIR/figures; returns it for the page, or why there is none."""
    try:
        draw()
    except InputError as error:
        return f'<p class="soft">No figure ({html.escape(caption)}): {html.escape(str(error))}.</p>'
    folder = root / "figures"
    folder.mkdir(exist_ok=True)
    write_atomically(folder / f"{name}.png", png(draw()))
    write_atomically(folder / f"{name}.svg", whole_svg(draw(), name))
    with styled(name):
        text = svg(draw())
    return figure_html(text, caption, "page")
