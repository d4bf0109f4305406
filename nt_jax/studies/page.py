"""DIR/report.html: a study as one page that loads nothing from anywhere."""

import html
import pathlib
from collections.abc import Sequence

from nt_jax.files import write_atomically
from nt_jax.report.elements import document, facts, section, table
from nt_jax.studies.findings import findings
from nt_jax.studies.grid import Study
from nt_jax.studies.plan import tokens_text
from nt_jax.studies.status import duration
from nt_jax.studies.table import (
    COLUMNS,
    JSON,
    PATTERNS,
    TIME_COLUMNS,
    TIMINGS,
    TSV,
    Cell,
    Row,
    Table,
    collect,
    timings,
    write,
)

PAGE = "report.html"


def write_report(study: Study, root: pathlib.Path) -> pathlib.Path:
    """Writes the tables and the page of a study's folder; returns the page's path.

    Works at any moment; a run that has not ended has empty cells. Raises InputError for damaged
    files.
    """
    found, times = collect(study, root), timings(study, root)
    write(found, times, root)
    path = root / PAGE
    write_atomically(path, render(study, found, times, findings(found, root)))
    return path


def render(study: Study, found: Table, times: Sequence[Row], fitted: str = "") -> str:
    """The page as text; `fitted` is the HTML of laws and figures."""
    name = html.escape(study.name)
    question = f'<p class="soft">{html.escape(study.question)}</p>' if study.question else ""
    losses = (
        "Nats a token on &lt;mask&gt; positions of the run's own validation windows at its last "
        "step; a base is a token divided by k. Losses on different validation windows do not "
        "compare: the unigram column says how hard they are. Held-out runs are marked *."
    )
    parts = [
        f"<h1>{name}</h1>",
        question,
        section("In short", facts(_headline(found, times))),
        section("Runs", _runs(found) + f'<p class="soft">{losses}</p>'),
        section("Laws and figures", fitted) if fitted else "",
        section("Losses on other data", _elsewhere(found)) if _names(found, "on:") else "",
        section("Probes", _probes(found)) if _names(found, "probe:") else "",
        section("Time", _times(times)),
        section("Columns", _columns()),
    ]
    return document(f"{name}: study", parts)


def _headline(found: Table, times: Sequence[Row]) -> list[tuple[str, str]]:
    done = [row for row in found.rows if row["state"] == "done"]
    wall = sum(float(row["wall_seconds"] or 0.0) for row in times)
    rows = [
        ("Runs", f"{len(done)} of {len(found.rows)} done"),
        ("Tokens of these", tokens_text(sum(int(row["tokens"] or 0) for row in done))),
        ("FLOPs of these", f"{sum(float(row['flops'] or 0) for row in done):.2e}"),
        ("Time of training, all runs added up", duration(wall)),
        ("Files", f"{TSV} and {JSON} (every number of this page), {TIMINGS}"),
    ]
    return rows


def _runs(found: Table) -> str:
    tags = _names(found, "tag:")
    header = ["run", *(html.escape(name.partition(":")[2]) for name in tags)]
    header += ["parameters", "in blocks", "tokens", "FLOPs", "&lt;mask&gt; loss", "unigram"]
    header += ["model minus unigram", "nats a base", "accuracy", "loss, all selected"]
    rows = [
        [
            html.escape(str(row["run"])) + (" *" if row["held_out"] == "yes" else ""),
            *(html.escape(str(row[name] or "")) for name in tags),
            _shown(row["parameters"], ","),
            _shown(row["parameters_in_blocks"], ","),
            tokens_text(int(row["tokens"] or 0)),
            _shown(row["flops"], ".2e"),
            _shown(row["mask_loss"], ".4f"),
            _shown(row["unigram_mask_loss"], ".4f"),
            f"{_shown(row['mask_difference'], '+.4f')} "
            f"[{_shown(row['mask_difference_low'], '+.4f')}, "
            f"{_shown(row['mask_difference_high'], '+.4f')}]",
            _shown(row["mask_nats_per_base"], ".5f"),
            _shown(row["mask_accuracy"], ".3%"),
            _shown(row["loss"], ".4f"),
        ]
        for row in found.rows
    ]
    return table(header, rows)


def _elsewhere(found: Table) -> str:
    sources = dict.fromkeys(name.split(":")[1] for name in _names(found, "on:"))
    header = ["run"]
    for source in sources:
        header += [f"{html.escape(source)}: &lt;mask&gt; loss", "unigram", "difference", "accuracy"]
    rows = []
    for row in found.rows:
        cells = [html.escape(str(row["run"]))]
        for source in sources:
            for metric, form in (
                ("mask_loss", ".4f"), ("unigram_mask_loss", ".4f"), ("mask_difference", "+.4f"),
                ("mask_accuracy", ".3%"),
            ):  # fmt: skip
                cells.append(_shown(row.get(f"on:{source}:{metric}"), form))
        rows.append(cells)
    return table(header, rows)


def _probes(found: Table) -> str:
    names = [name for name in _names(found, "probe:") if not name.endswith((":low", ":high"))]
    header = ["run", *(html.escape(name.removeprefix("probe:")) for name in names)]
    rows = [
        [html.escape(str(row["run"])), *(_shown(row[name], ".3f") for name in names)]
        for row in found.rows
    ]
    note = "Layer chosen within the training sequences; intervals are in the table's files."
    return table(header, rows) + f'<p class="soft">{note}</p>'


def _times(times: Sequence[Row]) -> str:
    rows = [
        [
            html.escape(str(row["run"])),
            _shown(row["starts"], ","),
            "–" if row["wall_seconds"] is None else duration(float(row["wall_seconds"])),
            "–" if row["step_seconds"] is None else duration(float(row["step_seconds"])),
            _shown(row["tokens_per_s"], ",.0f"),
        ]
        for row in times
    ]
    return table(["run", "starts", "wall time", "in steps", "tokens/s"], rows)


def _columns() -> str:
    about = facts([*COLUMNS.items(), *PATTERNS.items()])
    time = facts(TIME_COLUMNS.items())
    return (
        f"<details><summary>{TSV}, {JSON}</summary>{about}</details>"
        f"<details><summary>{TIMINGS}</summary>{time}</details>"
    )


def _names(found: Table, prefix: str) -> list[str]:
    return [name for name in found.columns if name.startswith(prefix)]


def _shown(value: Cell, form: str) -> str:
    return "–" if value is None or isinstance(value, str) else format(value, form)
