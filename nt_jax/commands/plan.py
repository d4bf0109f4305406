"""`nt-jax plan`: what a run would take, without the hardware."""

import argparse
import dataclasses
import json
import os
import pathlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nt_jax.config import Experiment
    from nt_jax.plan.prediction import Plan


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options; the overrides of the config are whatever is left, as in pretrain."""
    parser.add_argument("experiment", metavar="EXPERIMENT", help="registered name or .py file")
    parser.add_argument(
        "--topology", action="append", required=True, metavar="NAME",
        help="v5e-16, v4-64, v5p-64x2 (two slices), h200-8, or here: compile for this machine, run "
        "some steps and compare; may be given several times (a table)",
    )  # fmt: skip
    parser.add_argument(
        "--search", action="store_true",
        help="try meshes x micro-batches x remat policies; the global batch stays",
    )  # fmt: skip
    parser.add_argument(
        "--compiles", type=int, default=4, metavar="N",
        help="most programs that a search compiles, or that are tried for what does not fit",
    )  # fmt: skip
    parser.add_argument("--price", type=float, metavar="DOLLARS", help="of a chip-hour")
    parser.add_argument("--json", action="store_true", help="JSON on stdout")
    parser.add_argument("--html", type=pathlib.Path, metavar="FILE", help="write a page, too")
    parser.add_argument(
        "--cache", type=pathlib.Path, metavar="DIR",
        help="where compiled programs are kept (default: .cache/nt-jax/plan in the home folder)",
    )  # fmt: skip
    parser.epilog = "Overrides (--mesh.fsdp 16, ...) are those of `nt-jax pretrain --help`."


def run(options: argparse.Namespace) -> int:
    """Prints the plans; 0 whether they fit or not."""
    from nt_jax import registry
    from nt_jax.errors import InputError
    from nt_jax.overrides import apply_overrides

    experiment = apply_overrides(registry.find_experiment(options.experiment), options.rest)
    if options.compiles < 1:
        raise InputError("--compiles: at least 1")

    # Planning needs no device in this process; those of the machine are for the one that measures.
    environment = dict(os.environ)
    os.environ["JAX_PLATFORMS"] = "cpu"
    from nt_jax.plan import table
    from nt_jax.plan.prediction import flags

    plans = [
        plan for name in options.topology for plan in _plans(experiment, name, options, environment)
    ]
    if options.html:
        from nt_jax.report.plan_page import write_page

        write_page(plans, options.html)
    if options.json:
        found = [plan.to_dict() for plan in plans]
        print(json.dumps(found[0] if len(found) == 1 and not options.search else found, indent=2))
    elif len(plans) == 1:
        print(table.full(plans[0]))
    else:
        print(table.several(plans))
        if options.search and any(plan.fits for plan in plans):
            best = next(plan for plan in plans if plan.fits)
            print(f"\nbest: {flags(best.experiment)}")
        for plan in plans:
            if plan.nearest is not None:
                print(f"\n{plan.topology.name}: nearest that fits: {table.nearest(plan)}")
    return 0


def _plans(
    experiment: "Experiment", name: str, options: argparse.Namespace, environment: dict[str, str]
) -> "list[Plan]":
    """One plan, or what a search found."""
    from nt_jax.errors import InputError
    from nt_jax.plan import compiler, prediction, search, topology
    from nt_jax.plan.here import plan_here

    if name == "here":
        if options.search:
            raise InputError("--search and --topology here do not go together")
        return [plan_here(experiment, environment, options.price)]
    where = topology.parse(name)
    cache = options.cache or compiler.CACHE
    limits = (where, cache, options.compiles, _say, options.price)
    if options.search:
        return search.search(experiment, *limits)
    _say(f"{name}: {'compiling' if where.compiled else 'by formula'}")
    plan = prediction.predict(experiment, where, cache, options.price)
    if plan.fits:
        return [plan]
    return [dataclasses.replace(plan, nearest=search.nearest(experiment, *limits))]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
