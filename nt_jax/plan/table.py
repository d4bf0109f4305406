"""Plans as text for people: one in full, several as a table."""

from collections.abc import Sequence

from nt_jax.plan.prediction import Plan, flags
from nt_jax.plan.search import text

GIB = 2**30
_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def full(plan: Plan) -> str:
    """Everything about one plan."""
    run = plan.experiment
    chips = plan.topology.chips * plan.topology.slices
    lines = [
        f"{run.name} on {plan.topology.name}: {verdict(plan)}",
        "",
        *_aligned(
            [
                (
                    "chips",
                    f"{chips} ({plan.topology.devices} devices, {plan.topology.hosts} hosts)",
                ),
                ("shape", text(plan)),
                ("memory", _memory(plan)),
                ("by formula", _estimate(plan)),
                ("compiled in", _compiled(plan)),
                *_times(plan),
                *_measured(plan),
            ]
        ),
    ]
    if plan.collectives:
        lines += ["", "collectives of a step (bytes: of the whole arrays; sent: by each device)"]
        lines += _columns(
            ("kind", "over", "count", "bytes", "sent", "while computing"),
            [
                (
                    one.kind, "+".join(one.axes) or f"{one.group} devices", f"{one.count:,}",
                    quantity(one.bytes, "B"), quantity(one.sent, "B"),
                    "yes" if one.hidden else "no",
                )
                for one in plan.collectives
            ],
        )  # fmt: skip
    if plan.nearest is not None:
        lines += ["", f"nearest that fits: {nearest(plan)}"]
    return "\n".join(lines)


def verdict(plan: Plan) -> str:
    """Fits, or by how much not."""
    share = plan.peak / plan.hbm
    return "fits" if plan.fits else f"does NOT fit ({share:.0%} of the memory)"


def nearest(plan: Plan) -> str:
    """What fits instead, with the flags to paste."""
    other = plan.nearest
    if other is None:
        return ""
    step = f", {other.step_seconds:.3g} s a step" if other.step_seconds else ""
    return (
        f"{text(other)} ({other.peak / GIB:.1f} of {other.hbm / GIB:.1f} GiB{step})\n"
        f"  {flags(other.experiment)}"
    )


def _memory(plan: Plan) -> str:
    return (
        f"{plan.peak / GIB:.2f} of {plan.hbm / GIB:.2f} GiB a device: state "
        f"{plan.state / GIB:.2f}, temporaries {plan.temporaries / GIB:.2f}, "
        f"code {plan.code / GIB:.2f}"
    )


def _estimate(plan: Plan) -> str:
    found = plan.estimated.total
    off = "" if plan.source == "formula" else f" ({found / plan.peak - 1:+.0%})"
    return f"{found / GIB:.2f} GiB{off}"


def _compiled(plan: Plan) -> str:
    if plan.compile_seconds is None:
        return "not compiled: no compiler for it without one, so memory and time are by formula"
    return f"{plan.compile_seconds:.0f} s of one processor"


def _times(plan: Plan) -> list[tuple[str, str]]:
    if plan.times is None or plan.step_seconds is None:
        return []
    spent = plan.times
    steps = plan.experiment.train.steps
    cost = (
        "no list price"
        if plan.cost is None
        else f"${plan.cost:,.0f} at ${plan.price:g} a chip-hour"
    )
    again = plan.executed_flops / plan.flops
    return [
        ("FLOPs a step", f"{quantity(plan.flops, 'FLOP')} by formula, x {again:.2f} executed"),
        (
            "step",
            f"{plan.step_seconds:.3g} s: chip {spent.chip:.3g}, waiting for collectives "
            f"{spent.exposed:.3g}",
        ),
        (
            "alone",
            f"compute {spent.compute:.3g} s, memory {spent.memory:.3g} s, links {spent.links:.3g} s"
            + (f", network {spent.network:.3g} s" if spent.network else ""),
        ),
        ("MFU", f"{plan.mfu:.1%}"),
        ("tokens/s", f"{plan.tokens_per_s:,.0f}"),
        ("whole run", f"{plan.days:,.2f} days for {steps:,} steps; {cost}"),
        (
            "input a host",
            f"{quantity(plan.input_bytes_per_s or 0, 'B')}/s ({plan.windows_per_s:,.0f} windows/s)",
        ),
    ]


def _measured(plan: Plan) -> list[tuple[str, str]]:
    found = plan.measured
    if not found:
        return []
    device = found["device"]
    rows = [
        (
            "device",
            f"{device['count']} x {device['kind']}: {quantity(device['flops'], 'FLOP')}/s, "
            f"{quantity(device['bandwidth'], 'B')}/s measured",
        )
    ]
    if "step_seconds" not in found:
        return [*rows, ("measured", "nothing: it would not fit")]
    return [
        *rows,
        (
            "measured",
            f"step {found['step_seconds']:.3g} s (predicted {found['step_error']:+.0%}), peak "
            f"{found['peak_bytes'] / GIB:.2f} GiB (predicted {found['peak_error']:+.0%})",
        ),
    ]


def several(plans: Sequence[Plan]) -> str:
    """One row a plan, in the order given."""
    header = (
        "experiment", "topology", "fits", "memory", "of GiB", "step s", "MFU", "tokens/s", "days",
        "cost $", "shape",
    )  # fmt: skip
    return "\n".join(_columns(header, [row(plan) for plan in plans]))


def row(plan: Plan) -> tuple[str, ...]:
    """Cells of `several`."""

    def shown(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    return (
        plan.experiment.name,
        plan.topology.name,
        "yes" if plan.fits else "NO",
        f"{plan.peak / GIB:.1f}",
        f"{plan.hbm / GIB:.1f}",
        shown(plan.step_seconds, ".3g"),
        shown(plan.mfu, ".1%"),
        shown(plan.tokens_per_s, ",.0f"),
        shown(plan.days, ",.1f"),
        shown(plan.cost, ",.0f"),
        text(plan) + (" (formula)" if plan.source == "formula" else ""),
    )


def quantity(value: float, unit: str) -> str:
    """1.23 GB, 4.5 TFLOP: powers of 1000."""
    for size, prefix in ((1e18, "E"), (1e15, "P"), *_UNITS):
        if value >= size:
            return f"{value / size:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def _aligned(rows: Sequence[tuple[str, str]]) -> list[str]:
    wide = max(len(name) for name, _ in rows)
    return [f"  {name:<{wide}}  {value}" for name, value in rows]


def _columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Text left, numbers right."""
    table = [header, *rows]
    wide = [max(len(line[column]) for line in table) for column in range(len(header))]
    left = [
        not all(line[column][:1].isdigit() or line[column] == "-" for line in rows)
        for column in range(len(header))
    ]
    return [
        "  "
        + "  ".join(
            f"{cell:<{width}}" if is_left else f"{cell:>{width}}"
            for cell, width, is_left in zip(line, wide, left, strict=True)
        ).rstrip()
        for line in table
    ]
