"""Where the time of a run went: a bar, a table, and the lives of its process."""

from datetime import UTC, datetime

from matplotlib.figure import Figure

from nt_jax.ledger import Life, share, totals
from nt_jax.report.elements import figure, table
from nt_jax.report.plots import BLUE, GREEN, GREY, INK, ORANGE, styled, svg
from nt_jax.report.record import Run

_SHOWN = {
    "step": ("steps that were kept", GREEN),
    "lost": ("steps done again after a restart or rollback", "#dc2626"),
    "input": ("waiting for data", ORANGE),
    "eval": ("validation", BLUE),
    "save": ("saving (the part that blocks)", "#8b5cf6"),
    "compile": ("compilation, first step", "#0891b2"),
    "start_up": ("start-up", "#b45309"),
    "restore": ("reading a checkpoint", "#db2777"),
    "idle": ("between two lives", GREY),
}
"""Phase: what it is, its colour; steps first, idle time last."""


def time_spent(run: Run) -> str:
    """The section's body as HTML."""
    if not run.lives:
        return '<p class="soft">Not recorded: there is no goodput.jsonl.</p>'
    seconds = totals(run.lives)
    whole = max(sum(seconds.values()), 1e-9)
    rows = [
        [text, duration(seconds[phase]), f"{seconds[phase] / whole:.1%}"]
        for phase, (text, _) in _SHOWN.items()
    ]
    rows.append(["all, since the first start", duration(whole), "100%"])
    text = f"<p>Goodput {share(seconds):.1%}: time in steps that were kept, of all time.</p>"
    bar = figure(_bar(seconds), "Seconds since the first start, by phase.", width="page")
    body = f'{text}{table(["", "time", "share"], rows)}<div class="plots">{bar}</div>'
    if len(run.lives) > 1:
        listed = table(
            ["start (UTC)", "steps", "running", "in steps", "had to do again", "end"],
            map(_life, run.lives),
        )
        body += f"<details><summary>{len(run.lives)} lives of the process</summary>{listed}"
        body += "</details>"
    return body


def duration(seconds: float) -> str:
    """`0.3 s`, `5.0 min`, `12.5 h`, `3.1 d`."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:,.1f} s"


def _life(life: Life) -> list[str]:
    return [
        f"{datetime.fromtimestamp(life['began'], UTC):%Y-%m-%d %H:%M:%S}",
        f"{life['first_step']:,} to {life['last_step']:,}",
        duration(life["ended"] - life["began"]),
        duration(life["seconds"]["step"]),
        duration(life["seconds"]["lost"]),
        life["ending"],
    ]


def _bar(seconds: dict[str, float]) -> str:
    """One bar; parts in the order of the table."""
    with styled("time"):
        drawing = Figure(figsize=(9.0, 1.7), layout="constrained")
        axes = drawing.subplots()
        left = 0.0
        for phase, (text, colour) in _SHOWN.items():
            width = max(seconds[phase], 0.0)
            axes.barh(0, width, left=left, color=colour, label=text)
            left += width
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlim(0, max(left, 1e-9))
        axes.set_xlabel("seconds", color=INK)
        drawing.legend(loc="outside lower center", ncols=3, fontsize=8)
        return svg(drawing)
