"""`nt-jax data build`: FASTA files -> a dataset; its data card as a table."""

import argparse
import pathlib

from nt_jax.commands.options import flat
from nt_jax.errors import InputError


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("source", choices=["fasta"], metavar="SOURCE", help="fasta")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="dataset folder to write")
    parser.add_argument("--fasta", action="append", nargs="+", default=[], help="FASTA file(s)")
    parser.add_argument(
        "--recipe", default="hf6200",
        help="paper6100|hf6200|paper12k|hf12k|window=BASES,stride=BASES,jitter=BASES",
    )  # fmt: skip
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
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("surveying", total=None)

        def tell(done: int, total: int, text: str) -> None:
            bar.update(task, completed=done, total=total, description=text)

        built = builders.build(
            fastas,
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
    Console(stderr=True).print(table)
