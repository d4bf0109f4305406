"""The plans of the large experiments on the usual slices: docs/results/plan.json and plan.md.

    python benchmarks/plan_table.py [--out docs/results] [--cache DIR] [--compiles 3]

For each experiment and slice: the experiment as shipped, and where that does not fit, or less
than `WORTH` of the best formula's speed, the best that a small search finds. Compiled programs are
kept in the cache, and finished rows in plan.json, so the command goes on where it was stopped.
One row takes one to some ten minutes of one core (two to four compilations).
"""

import argparse
import json
import pathlib
import sys

from nt_jax import environment

environment.quiet()

from nt_jax import hardware, registry  # noqa: E402
from nt_jax.files import write_atomically  # noqa: E402
from nt_jax.plan import compiler, prediction, search, table, topology  # noqa: E402
from nt_jax.plan.prediction import Plan  # noqa: E402

EXPERIMENTS = ("nt_v1_500m_human_ref", "nt_v1_2b5_multispecies", "nt_v2_500m_multispecies")
SLICES = ("v4-64", "v5e-16", "v5e-256", "v5p-64", "v6e-64")
WORTH = 0.9
"""A shape as shipped is shown alone where it reaches this share of the best searched speed."""
GIB = 2**30


def main() -> None:
    """Fills in the rows that are missing, then writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("docs/results"))
    parser.add_argument("--cache", type=pathlib.Path, default=compiler.CACHE)
    parser.add_argument("--compiles", type=int, default=3)
    parser.add_argument("--experiment", action="append", help="instead of the usual three")
    parser.add_argument("--topology", action="append", help="instead of the usual five")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "plan.json"
    digest = compiler.source_digest()
    rows = json.loads(path.read_text()) if path.is_file() else []
    rows = [row for row in rows if row["source_digest"] == digest]
    for name in options.experiment or EXPERIMENTS:
        for slice_name in options.topology or SLICES:
            if any((row["experiment"], row["topology"]) == (name, slice_name) for row in rows):
                continue
            for role, plan in plans(name, slice_name, options.cache, options.compiles):
                rows.append({"role": role, "source_digest": digest, **plan.to_dict()})
            write_atomically(path, json.dumps(rows, indent=1) + "\n")
            write_atomically(options.out / "plan.md", page(rows))


def plans(name: str, slice_name: str, cache: pathlib.Path, compiles: int) -> list[tuple[str, Plan]]:
    """As shipped, and the best searched where that is worth showing."""
    experiment, where = registry.find_experiment(name), topology.parse(slice_name)
    say(f"{name} on {slice_name}: as shipped")
    shipped = prediction.predict(experiment, where, cache)
    best = [plan for plan in search.search(experiment, where, cache, compiles, say) if plan.fits]
    found = [("shipped", shipped)]
    if not shipped.fits and not best:
        near = search.nearest(experiment, where, cache, compiles, say)
        best = [near] if near else []
    if best and (not shipped.fits or best[0].step_seconds < WORTH * shipped.step_seconds):
        found.append(("best found", best[0]))
    return found


def page(rows: list[dict]) -> str:
    """Markdown."""
    lines = [
        "# Plans of the large experiments",
        "",
        "Made by `benchmarks/plan_table.py`: the real train step, compiled by libtpu for slices "
        "that are not here. Time is predicted (docs/pods.md says how), not measured; cost is "
        f"on-demand list price ({hardware.PRICES_OF}). Memory is GiB of one chip.",
        "",
        "| experiment | slice | | fits | memory | step | MFU | tokens/s | days | cost | flags |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        memory = f"{row['peak_hbm_bytes'] / GIB:.1f} of {row['hbm_bytes'] / GIB:.1f}"
        timed = row["step_seconds"] is not None and row["fits"]
        cells = (
            row["experiment"], row["topology"], row["role"], "yes" if row["fits"] else "**no**",
            memory,
            f"{row['step_seconds']:.3g} s" if timed else "",
            f"{row['mfu']:.0%}" if timed else "",
            f"{row['tokens_per_s'] / 1e3:,.0f}k" if timed else "",
            f"{row['days']:,.1f}" if timed else "",
            f"${row['cost']:,.0f}" if timed and row["cost"] else "",
            f"`{row['flags']}`",
        )  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    compiled = [row for row in rows if row["compile_seconds"] is not None]
    if compiled:
        off = sorted(row["estimated_hbm_bytes"] / row["peak_hbm_bytes"] - 1 for row in compiled)
        lines += [
            "",
            f"The formula that prunes searches is {off[0]:+.0%} to {off[-1]:+.0%} of what the "
            f"compiler says of these programs, {off[len(off) // 2]:+.0%} in the middle.",
            "",
            "## Collectives of a step",
            "",
            "| experiment | slice | | collectives (sent by each chip) |",
            "|---|---|---|---|",
        ]
    for row in compiled:
        each = ", ".join(
            f"{one['count']:,} {one['kind']} over {'+'.join(one['axes']) or one['group']} "
            f"({table.quantity(one['sent'], 'B')})"
            for one in row["collectives"]
        )
        lines.append(f"| {row['experiment']} | {row['topology']} | {row['role']} | {each} |")
    return "\n".join(lines) + "\n"


def say(line: str) -> None:
    """On stderr."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
