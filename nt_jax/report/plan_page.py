"""Plans as one HTML file that loads nothing from anywhere."""

import html
import pathlib
from collections.abc import Sequence

from nt_jax import hardware
from nt_jax.files import write_atomically
from nt_jax.plan.prediction import Plan, flags
from nt_jax.plan.table import GIB, nearest, quantity, row, verdict
from nt_jax.report import plan_plots as plots
from nt_jax.report.elements import document, facts, figure, section, table
from nt_jax.report.plots import tokens_text

_HEADER = ("Topology", "Fits", "GiB", "of GiB", "Step s", "MFU", "Tokens/s", "Days", "$", "Shape")


def write_page(plans: Sequence[Plan], path: pathlib.Path) -> None:
    """Writes the page to `path`."""
    write_atomically(path, render(plans))


def render(plans: Sequence[Plan]) -> str:
    """The page as text; `plans` are of one experiment."""
    name = html.escape(plans[0].experiment.name)
    run = plans[0].experiment
    tokens = run.train.steps * plans[0].tokens_per_step
    parts = [
        f"<h1>{name}: plan</h1>",
        f'<p class="soft">{run.train.steps:,} steps of {run.train.global_batch:,} sequences of '
        f"{run.data.sequence_length:,} tokens: {tokens_text(tokens)} tokens, "
        f"{quantity(plans[0].flops * run.train.steps, 'FLOP')}. Predicted, not measured; prices of "
        f"{hardware.PRICES_OF}.</p>",
        section("In short", _summary(plans)),
    ]
    parts += [section(html.escape(_title(plan)), _details(plan)) for plan in plans]
    return document(f"{name}: plan", parts)


def _title(plan: Plan) -> str:
    return f"{plan.topology.name}: {row(plan)[-1]}"


def _summary(plans: Sequence[Plan]) -> str:
    rows = [[html.escape(cell) for cell in row(plan)[1:]] for plan in plans]
    figures = figure(plots.memory_plot(plans), "Memory of a device; the line is what there is.")
    timed = [plan for plan in plans if plan.times]
    if timed:
        caption = "Time of a step: on the chip, and waiting for collectives."
        figures += figure(plots.time_plot(timed), caption)
    return table(_HEADER, rows) + f'<div class="plots">{figures}</div>'


def _details(plan: Plan) -> str:
    rows = [
        ("Verdict", verdict(plan)),
        (
            "Memory",
            f"{plan.peak / GIB:.2f} of {plan.hbm / GIB:.2f} GiB a device "
            f"(by formula {plan.estimated.total / GIB:.2f})",
        ),
        ("Flags", flags(plan.experiment)),
    ]
    if plan.compile_seconds is not None:
        rows.append(("Compiled in", f"{plan.compile_seconds:.0f} s of one processor"))
    if plan.times:
        spent = plan.times
        rows += [
            (
                "Alone",
                f"compute {spent.compute:.3g} s, memory {spent.memory:.3g} s, links "
                f"{spent.links:.3g} s, network {spent.network:.3g} s",
            ),
            ("FLOPs executed", f"{plan.executed_flops / plan.flops:.2f} x the model's"),
            (
                "Input a host",
                f"{quantity(plan.input_bytes_per_s or 0, 'B')}/s, {plan.windows_per_s:,.0f} "
                f"windows/s, {plan.topology.hosts} hosts",
            ),
        ]
    body = facts(rows)
    if plan.nearest:
        body += f'<p class="warn">Nearest that fits: {html.escape(nearest(plan))}</p>'
    if plan.collectives:
        body += table(
            ("Collective", "Over", "A step", "Bytes", "Sent by a device", "While computing"),
            [
                [
                    one.kind,
                    "+".join(one.axes) or f"{one.group} devices",
                    f"{one.count:,}",
                    quantity(one.bytes, "B"),
                    quantity(one.sent, "B"),
                    "yes" if one.hidden else "no",
                ]
                for one in plan.collectives
            ],
        )
    return body
