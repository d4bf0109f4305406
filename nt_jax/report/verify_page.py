"""What `nt-jax data verify` found, as one HTML file that loads nothing from anywhere."""

import html
import pathlib

from data_pipelines.verify import Report
from nt_jax.files import write_atomically
from nt_jax.report import verify_plots as plots
from nt_jax.report.elements import document, facts, figure, section, table
from nt_jax.report.verify_tables import Table, tables


def write_page(report: Report, path: str | pathlib.Path) -> None:
    """Writes the page to `path`."""
    write_atomically(pathlib.Path(path), render(report))


def render(report: Report) -> str:
    """The page as text."""
    name = html.escape(pathlib.Path(report.path).resolve().name)
    parts = [f"<h1>{name}</h1>", _verdict(report)]
    if report.kind == "simulated":
        parts.append(
            '<p class="warn">The sequences are simulated. Nothing on this page says anything about '
            "a real genome.</p>"
        )
    parts += [section("In short", facts(_headline(report)))]
    for own in tables(report):
        parts.append(section(html.escape(own.title), _body(report, own)))
    return document(f"{name}: data verification", parts)


def _verdict(report: Report) -> str:
    if not report.problems:
        return '<p class="soft">No problem found.</p>'
    lines = "".join(f"<li>{html.escape(problem)}</li>" for problem in report.problems)
    return f'<div class="warn">Problems:<ul>{lines}</ul></div>'


def _headline(report: Report) -> list[tuple[str, str]]:
    bases = sum(source.bases for source in report.sources)
    rows = [
        ("Kind", report.kind),
        ("Windows", ", ".join(f"{name} {count:,}" for name, count in report.windows.items())),
        ("Window length", f"{report.window_length:,} bases"),
        ("Sources", f"{len(report.sources):,}, {bases:,} bases"),
        ("Soft-masked", f"{report.soft_masked_share:.1%} of the bases of the files"),
    ]
    haplotypes = sum(source.haplotypes for source in report.sources)
    if haplotypes:
        text = f"{haplotypes:,}; what is compared below are windows of the reference"
        rows.append(("Haplotypes", text))
    return rows


def _body(report: Report, own: Table) -> str:
    body = table(
        [html.escape(cell) for cell in own.header],
        [[html.escape(cell) for cell in row] for row in own.rows],
    )
    body += "".join(f'<p class="soft">{html.escape(line)}</p>' for line in own.lines)
    figures = ""
    if own.title == "Sources":
        figures = figure(
            plots.bases_plot(report), "Bases in windows, by source and split.", width="page"
        ) + figure(
            plots.composition_plot(report),
            "Bases of the files: G and C among those that are no N, lower case, and N.",
            width="page",
        )
    if own.title == "Leakage and repeats":
        figures = "".join(
            figure(
                plots.identity_plot(report, pair),
                "The stretch of each window that is most alike. Orange and right of the line: "
                "near-duplicates.",
            )
            for pair in report.near
        )
    if own.title.startswith("Labelled"):
        figures = figure(
            plots.tasks_plot(report), "Share of each set in the training windows.", width="page"
        )
    return f'{body}<div class="plots">{figures}</div>' if figures else body
