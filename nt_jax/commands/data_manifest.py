"""`nt-jax data manifest multispecies`: the published selection, from NCBI's assembly summary."""

import argparse
import json
import pathlib
from typing import TYPE_CHECKING

from nt_jax.commands import options as common
from nt_jax.errors import InputError

if TYPE_CHECKING:
    from data_pipelines.multispecies import Selection


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("set", choices=["multispecies"], metavar="SET", help="multispecies")
    parser.add_argument(
        "--assembly-summary", required=True, action="append", nargs="+", metavar="[GROUP=]FILE",
        help="RefSeq's assembly_summary.txt, plain or gzip; GROUP for files without that column",
    )  # fmt: skip
    parser.add_argument(
        "--genera", choices=["published", "all"], default="published",
        help="as many of each group as published, drawn by the seed, or all there are",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the choice and of the splits")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="manifest to write (TSV)")
    common.as_json(parser, "counts")


def run(options: argparse.Namespace) -> None:
    """Writes the manifest; the counts go to standard output."""
    from data_pipelines import multispecies
    from data_pipelines.manifest import write_manifest

    if options.out.exists():
        raise InputError(f"{options.out}: is there already; name another --out or remove it")
    files = common.flat(options.assembly_summary)
    limits = {}
    if options.genera == "published":
        limits = {group: species for group, (species, _) in multispecies.PUBLISHED.items()}
    selection = multispecies.select(multispecies.summaries(files), seed=options.seed, limits=limits)
    names = [text.rpartition("/")[2] for text in files]
    write_manifest(
        options.out,
        selection.assemblies,
        comments=[
            f"multispecies: one species a genus, seed {options.seed}, genera {options.genera}, "
            f"from {', '.join(names)}",
        ],
    )
    print(_json(selection, options.out) if options.json else _tables(selection, options.out))


def _tables(selection: "Selection", out: pathlib.Path) -> str:
    from data_pipelines.manifest import GROUPS
    from data_pipelines.multispecies import PUBLISHED
    from nt_jax.evaluation.table import aligned

    species = selection.species()
    rows = [
        [
            group,
            f"{selection.genera[group]:,}",
            f"{species[group]:,}",
            f"{PUBLISHED[group][0]:,}",
            _billions(selection.bases[group]),
            _billions(PUBLISHED[group][1]),
        ]
        for group in GROUPS
    ]
    known = [selection.bases[group] for group in GROUPS]
    rows.append(
        [
            "all",
            f"{sum(selection.genera.values()):,}",
            f"{len(selection.assemblies):,}",
            f"{sum(count for count, _ in PUBLISHED.values()):,}",
            _billions(None if None in known else sum(size or 0 for size in known)),
            _billions(sum(size for _, size in PUBLISHED.values())),
        ]
    )
    header = ["group", "genera", "species", "published", "bases", "published"]
    reasons = [[reason, f"{count:,}"] for reason, count in selection.left_out.items()]
    lines = [aligned(header, rows), ""]
    if reasons:
        lines += [aligned(["left out", "assemblies"], reasons), ""]
    return "\n".join([*lines, _splits(selection), str(out)])


def _splits(selection: "Selection") -> str:
    from data_pipelines.multispecies import FEW, HELD_OUT

    held_out = selection.held_out
    train = len(selection.assemblies) - 2 * held_out
    text = f"train {train:,}, validation {held_out}, test {held_out} genomes"
    if held_out != HELD_OUT:
        text += f" (fewer than {FEW}: the published {HELD_OUT} and {HELD_OUT} are scaled down)"
    return text


def _billions(bases: int | float | None) -> str:
    return "–" if bases is None else f"{bases / 1e9:,.1f}B"


def _json(selection: "Selection", out: pathlib.Path) -> str:
    from data_pipelines.multispecies import PUBLISHED

    species = selection.species()
    return json.dumps(
        {
            "manifest": str(out),
            "groups": {
                group: {
                    "genera": selection.genera[group],
                    "species": species[group],
                    "bases": selection.bases[group],
                    "published_species": count,
                    "published_bases": bases,
                }
                for group, (count, bases) in PUBLISHED.items()
            },
            "left_out": selection.left_out,
            "held_out": selection.held_out,
        },
        indent=2,
    )
