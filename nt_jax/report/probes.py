"""The page's section on probes."""

import html
from collections.abc import Sequence

from nt_jax.evaluation.metrics import SCORERS
from nt_jax.evaluation.stored import Result
from nt_jax.evaluation.summary import checked, format_score, latest, metric_name, title
from nt_jax.report import probe_plots
from nt_jax.report.elements import facts, figure, stacked, table


def tables_and_plots(probes: Sequence[Result]) -> str:
    """HTML of one probe at least: scores beside their controls, what was checked, figures."""
    shown = latest(probes)
    controls = [family["name"] for family in shown[0]["families"][1:]]
    header = ["task", "metric", "step", "scored", "trained", *controls]
    header += [f"trained minus {name}" for name in controls]
    rows = []
    for result in shown:
        metric = SCORERS[result["kind"]].names[0]
        families = [stacked(format_score(f["chosen"][metric])) for f in result["families"]]
        differences = [stacked(format_score(d[metric], "+")) for d in result["differences"]]
        rows.append(
            [
                html.escape(title(result)),
                metric_name(metric),
                f"{result['step']:,}",
                f"{result['scored']:,}",
                *families,
                *differences,
            ]
        )
    body = table(header, rows) + (
        '<p class="soft">Score [95 % bootstrap interval over the scored sequences]. The layer is '
        "chosen by cross-validation within the training sequences; differences are paired.</p>"
    )
    body += facts([(title(result), checked(result)) for result in shown])
    figures = figure(
        probe_plots.bars(probes),
        " ".join(
            ["Chosen layer beside its controls, newest step.", *probe_plots.anchor_notes(shown)]
        ),
        width="page",
    )
    figures += figure(
        probe_plots.layers_plot(probes),
        "Score by layer, newest step.",
        width="page" if len(rows) > 1 else "half",
    )
    if len(rows) > 1:
        figures += figure(
            probe_plots.heat_map(probes),
            "Layers and tasks, newest step; the layer chosen in training is bold.",
            width="page",
        )
    if len({result["tokens"] for result in probes}) > 1:
        figures += figure(
            probe_plots.tokens_plot(probes), "Chosen layer against tokens.", width="page"
        )
    return f'{body}<div class="plots">{figures}</div>'
