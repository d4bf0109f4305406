"""Pictures of plans: memory against what there is, and what a step's time goes into."""

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nt_jax.plan.prediction import Plan
from nt_jax.plan.table import GIB
from nt_jax.report.plots import BLUE, GREEN, GREY, INK, ORANGE, styled, svg


def memory_plot(plans: Sequence[Plan]) -> str:
    """Bars of state, temporaries and code in GiB of one device; a mark where its memory ends."""
    parts = (
        ("state", [plan.state for plan in plans], BLUE),
        ("temporaries", [plan.temporaries for plan in plans], ORANGE),
        ("code", [plan.code for plan in plans], GREY),
    )

    def draw(axes: Axes) -> None:
        _stack(axes, [(name, [v / GIB for v in values], colour) for name, values, colour in parts])
        for place, plan in enumerate(plans):
            limit = plan.hbm / GIB
            axes.plot([limit, limit], [place - 0.42, place + 0.42], color=INK, linewidth=2)
        axes.set_xlabel("GiB of a device")

    return _bars(plans, draw, "memory")


def time_plot(plans: Sequence[Plan]) -> str:
    """Bars of seconds a step: on the chip, and waiting; marks where compute alone would end."""
    spent = [plan.times for plan in plans if plan.times]

    def draw(axes: Axes) -> None:
        _stack(
            axes,
            [
                ("matrix products at the peak", [one.compute for one in spent], GREEN),
                ("rest of the chip's time", [one.chip - one.compute for one in spent], BLUE),
                ("waiting for collectives", [one.exposed for one in spent], ORANGE),
            ],
        )
        axes.set_xlabel("seconds a step")

    return _bars(plans, draw, "time")


def _stack(axes: Axes, parts: Sequence[tuple[str, list[float], str]]) -> None:
    left = [0.0] * len(parts[0][1])
    for name, values, colour in parts:
        axes.barh(range(len(values)), values, 0.7, left=left, color=colour, label=name)
        left = [a + b for a, b in zip(left, values, strict=True)]


def _bars(plans: Sequence[Plan], draw: Callable[[Axes], None], name: str) -> str:
    """A horizontal bar for each plan, the first on top."""
    with styled(f"plan {name}"):
        figure = Figure(figsize=(4.5, 1.3 + 0.38 * len(plans)), layout="constrained")
        axes = figure.subplots()
        axes.grid(True, axis="x")
        axes.set_axisbelow(True)
        draw(axes)
        axes.set_yticks(range(len(plans)), [_label(plans, i) for i in range(len(plans))])
        axes.set_xlim(left=0)
        axes.invert_yaxis()
        figure.legend(loc="outside lower center", ncols=2)
        return svg(figure)


def _label(plans: Sequence[Plan], number: int) -> str:
    """Its topology; numbered where several plans share it."""
    name = plans[number].topology.name
    same = [plan for plan in plans if plan.topology.name == name]
    return name if len(same) == 1 else f"{name} ({number + 1})"
