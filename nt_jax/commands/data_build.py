"""`nt-jax data build`: FASTA files -> a dataset; its data card as a table."""

import argparse
import collections
import dataclasses
import pathlib
from typing import TYPE_CHECKING

from nt_jax.commands.options import flat
from nt_jax.errors import InputError

if TYPE_CHECKING:
    from data_pipelines.sources import Source


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("source", choices=["fasta"], metavar="SOURCE", help="fasta")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="dataset folder to write")
    parser.add_argument("--fasta", action="append", nargs="+", default=[], help="FASTA file(s)")
    parser.add_argument(
        "--recipe", default="hf6200",
        help="paper6100|hf6200|paper12k|hf12k|window=BASES,stride=BASES,jitter=BASES",
    )  # fmt: skip
    parser.add_argument(
        "--vcf", action="append", nargs="+", default=[], metavar="FILE",
        help="phased genotypes called on the FASTA (one file, or one a chromosome)",
    )  # fmt: skip
    parser.add_argument(
        "--samples", action="append", nargs="+", default=[], metavar="NAME|FILE",
        help="of the genotypes: names, or a file with one a line; default: all",
    )  # fmt: skip
    parser.add_argument(
        "--exclude-samples", action="append", nargs="+", default=[], metavar="NAME|FILE",
        help="left out of them",
    )  # fmt: skip
    parser.add_argument(
        "--min-allele-count", type=int, default=1,
        help="haplotypes that must carry an allele (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--skip-ref-mismatches",
        action="store_true",
        help="skip and count records whose REF is not what the FASTA has, instead of an error",
    )
    for split in ("validation", "test"):
        parser.add_argument(
            f"--{split}", action="append", nargs="+", default=[], metavar="CONTIG",
            help=f"contigs of the {split} split; default: seeded blocks",
        )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="seed of the block-wise split")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument(
        "--kind", choices=["real", "simulated"], default="real", help="named in the data card"
    )


def run(options: argparse.Namespace) -> None:
    """Builds into `options.out`; the path goes to standard output."""
    from rich.console import Console
    from rich.progress import Progress

    from data_pipelines import builders

    fastas = flat(options.fasta)
    if not fastas:
        raise InputError("nt-jax data build fasta: name at least one file with --fasta")
    sources = _with_genotypes(fastas, options)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("surveying", total=None)

        def tell(done: int, total: int, text: str) -> None:
            bar.update(task, completed=done, total=total, description=text)

        built = builders.build(
            sources,
            options.out,
            recipe=options.recipe,
            validation=flat(options.validation),
            test=flat(options.test),
            seed=options.seed,
            workers=options.workers,
            kind=options.kind,
            progress=tell,
        )
    if built.existed:
        console.print(f"{built.path}: this very dataset is there already", highlight=False)
    _print_card(built.datacard)
    print(built.path)


def _with_genotypes(fastas: list[str], options: argparse.Namespace) -> "list[Source]":
    """The sources; genotypes belong to the only one."""
    from data_pipelines.genotypes import open_panel
    from data_pipelines.sources import fasta_sources

    sources = fasta_sources(fastas)
    files = flat(options.vcf)
    if not files:
        return sources
    if len(sources) > 1:
        raise InputError("--vcf: name one FASTA file only, the one the genotypes were called on")
    wanted = _names(flat(options.samples))
    panels = tuple(
        open_panel(
            file,
            wanted or None,
            _names(flat(options.exclude_samples)),
            min_count=options.min_allele_count,
            skip_mismatches=options.skip_ref_mismatches,
        )
        for file in files
    )
    return [dataclasses.replace(sources[0], panels=panels)]


def _names(given: list[str]) -> list[str]:
    """Names, those in files in the place of the files."""
    names = []
    for name in given:
        path = pathlib.Path(name)
        names += path.read_text().split() if path.is_file() else [name]
    return names


def _print_card(card: dict) -> None:
    from rich.console import Console
    from rich.table import Table

    splits = list(card["splits"])
    table = Table(title=f"{card['kind']} sequences, recipe {card['recipe']['name']}")
    table.add_column("source")
    for name in ("contigs", "bases", "N", "GC", *splits):
        table.add_column(name, justify="right")
    for source in card["sources"]:
        table.add_row(
            source["name"],
            f"{source['contigs']:,}",
            f"{source['bases']:,}",
            f"{source['n']:,}",
            f"{source['gc']:.3f}",
            *(f"{source['windows'].get(split, 0):,}" for split in splits),
        )
    console = Console(stderr=True)
    console.print(table)
    for source in card["sources"]:
        if "haplotypes" in source:
            console.print(_haplotypes(source), highlight=False)


def _haplotypes(source: dict) -> str:
    """What was read of the genotypes of a source."""
    taken = source["haplotypes"]
    total: collections.Counter[str] = collections.Counter()
    for counts in taken["read"]:
        total.update({key: value for key, value in counts.items() if key != "skipped"})
        total.update({f"skipped, {key}": value for key, value in counts["skipped"].items()})
    rows = "".join(f"\n  {key}: {value:,}" for key, value in total.items() if value)
    return f"{source['name']}: {2 * len(taken['samples']):,} haplotypes{rows}"
