"""`nt-jax data build`: genomes -> a dataset; its data card as a table."""

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
    parser.add_argument("source", choices=list(_SOURCES), metavar="SOURCE", help="|".join(_SOURCES))
    parser.add_argument("--out", type=pathlib.Path, required=True, help="dataset folder to write")
    parser.add_argument("--fasta", action="append", nargs="+", default=[], help="FASTA file(s)")
    parser.add_argument("--manifest", help="table of assemblies")
    parser.add_argument(
        "--data-dir", type=pathlib.Path, metavar="DIR",
        help="folder that `nt-jax data fetch` filled; default: files of the manifest in place",
    )  # fmt: skip
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
        "--sample-table", type=pathlib.Path, metavar="FILE",
        help="table with a row a sample, its name first; NAME may then be a value of any other "
        "column, such as a population (YRI) or a super-population (AFR)",
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
            help=f"contigs of the {split} split; default: its own, or seeded blocks",
        )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="seed of the block-wise split")
    parser.add_argument("--workers", type=int, default=1, help="processes of this machine")
    parser.add_argument(
        "--beam", metavar="OPTIONS",
        help="let Apache Beam spread the work; its pipeline options in quotes, such as "
        "'--runner=FlinkRunner --flink_master=HOST:8081'",
    )  # fmt: skip
    parser.add_argument(
        "--kind", choices=["real", "simulated"], default="real", help="named in the data card"
    )


def run(options: argparse.Namespace) -> None:
    """Builds into `options.out`; the path goes to standard output."""
    from rich.console import Console
    from rich.progress import Progress

    from data_pipelines import builders

    given = _with_genotypes(_SOURCES[options.source](options), options)
    spread = None
    if options.beam is not None:
        from data_pipelines.beam import on_beam
        from data_pipelines.datacard import INCOMPLETE
        from data_pipelines.workers import TEMPORARY

        if options.workers != 1:
            raise InputError("--workers and --beam: name one; Beam has its own number of workers")
        # Within what a build cleans up, whoever finishes it.
        staging = options.out.with_name(options.out.name + INCOMPLETE)
        spread = on_beam(options.beam, staging / f"{TEMPORARY}beam")
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("surveying", total=None)

        def tell(done: int, total: int, text: str) -> None:
            bar.update(task, completed=done, total=total, description=text)

        built = builders.build(
            given.genomes,
            options.out,
            recipe=options.recipe,
            validation=given.validation,
            test=given.test,
            seed=options.seed,
            workers=options.workers,
            spread=spread,
            kind=options.kind,
            progress=tell,
        )
    if built.existed:
        console.print(f"{built.path}: this very dataset is there already", highlight=False)
    _print_card(built.datacard)
    print(built.path)


@dataclasses.dataclass(frozen=True)
class _Given:
    """What a source of genomes gives to the build."""

    genomes: "list[Source]"
    validation: list[str]
    test: list[str]


def _fasta(options: argparse.Namespace) -> _Given:
    fastas = flat(options.fasta)
    if not fastas:
        raise InputError("nt-jax data build fasta: name at least one file with --fasta")
    if options.manifest or options.data_dir:
        raise InputError(
            "nt-jax data build fasta: --manifest and --data-dir belong to "
            "`nt-jax data build manifest`"
        )
    from data_pipelines.sources import fasta_sources

    return _Given(fasta_sources(fastas), flat(options.validation), flat(options.test))


def _manifest(options: argparse.Namespace) -> _Given:
    from data_pipelines import assemblies
    from data_pipelines.manifest import read_manifest

    command = f"nt-jax data build {options.source}"
    if not options.manifest:
        made = " that `nt-jax data manifest multispecies` made"
        raise InputError(
            f"{command}: name the table{made if options.source == 'multispecies' else ''} with "
            "--manifest"
        )
    if options.fasta:
        raise InputError(f"{command}: --fasta belongs to `nt-jax data build fasta`")
    genomes = assemblies.sources(read_manifest(options.manifest), options.data_dir)
    return _Given([*genomes], flat(options.validation), flat(options.test))


def _human_reference(options: argparse.Namespace) -> _Given:
    from data_pipelines import assemblies, human_reference

    fastas = flat(options.fasta)
    if len(fastas) + bool(options.data_dir) != 1 or options.manifest:
        raise InputError(
            "nt-jax data build human_reference: give one GRCh38 file with --fasta, or --data-dir "
            "DIR after `nt-jax data fetch human_reference --out DIR`"
        )
    if fastas:
        path = pathlib.Path(fastas[0])
    else:
        path = assemblies.sources(human_reference.MANIFEST, options.data_dir)[0].files[0]
    held_out = flat(options.validation), flat(options.test)
    validation, test = held_out if any(held_out) else human_reference.HELD_OUT
    return _Given([human_reference.source(path)], [*validation], [*test])


def _thousand_genomes(options: argparse.Namespace) -> _Given:
    if not options.vcf:
        raise InputError(
            "nt-jax data build thousand_genomes: name the phased genotypes with --vcf, one file a "
            "chromosome"
        )
    return _human_reference(options)


_SOURCES = {
    "fasta": _fasta,
    "manifest": _manifest,
    "human_reference": _human_reference,
    "thousand_genomes": _thousand_genomes,
    "multispecies": _manifest,
}
"""What a dataset can be built of."""
_SHOWN = 40
"""Sources listed one by one in the table; of more, the groups are."""


def _with_genotypes(given: _Given, options: argparse.Namespace) -> _Given:
    """The sources, the only one with the genotypes of `--vcf`."""
    from data_pipelines.genotypes import open_panel

    files = flat(options.vcf)
    if not files:
        chosen = options.samples or options.exclude_samples or options.sample_table
        if chosen or options.min_allele_count != 1 or options.skip_ref_mismatches:
            raise InputError(
                "--samples, --exclude-samples, --sample-table, --min-allele-count, "
                "--skip-ref-mismatches: name the genotypes with --vcf"
            )
        return given
    if len(given.genomes) > 1:
        raise InputError("--vcf: name one genome only, the one the genotypes were called on")
    table = _sample_table(options.sample_table)
    wanted = _names(flat(options.samples), table)
    unwanted = _names(flat(options.exclude_samples), table)
    panels = tuple(
        open_panel(
            file,
            wanted or None,
            unwanted,
            min_count=options.min_allele_count,
            skip_mismatches=options.skip_ref_mismatches,
        )
        for file in files
    )
    genomes = [dataclasses.replace(given.genomes[0], panels=panels)]
    return dataclasses.replace(given, genomes=genomes)


def _names(given: list[str], table: dict[str, list[str]]) -> list[str]:
    """Samples; those in files, and those of a population, in the place of its name."""
    names: list[str] = []
    for name in given:
        path = pathlib.Path(name)
        words = path.read_text().split() if path.is_file() else [name]
        names += [sample for word in words for sample in table.get(word, [word])]
    return list(dict.fromkeys(names))


def _sample_table(path: pathlib.Path | None) -> dict[str, list[str]]:
    """Samples by every word of the other columns of a table."""
    if path is None:
        return {}
    try:
        rows = [line.split() for line in path.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    found: dict[str, list[str]] = {}
    for sample, *words in rows[1:]:
        for word in dict.fromkeys(words):
            found.setdefault(word, []).append(sample)
    if not found:
        raise InputError(
            f"{path}: no samples with populations; give a header and a row a sample, its name first"
        )
    return found


def _print_card(card: dict) -> None:
    from rich.console import Console
    from rich.table import Table

    splits = list(card["splits"])
    title = f"{card['kind']} sequences, recipe {card['recipe']['name']}"
    console = Console(stderr=True)
    if len(card["sources"]) <= _SHOWN or "groups" not in card:
        table = Table(title=title)
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
        console.print(table)
    for source in card["sources"]:
        if "haplotypes" in source:
            console.print(_haplotypes(source), highlight=False)
        if source.get("left_out_contigs"):
            console.print(
                f"{source['name']}: {source['left_out_contigs']:,} contigs of "
                f"{source['left_out_bases']:,} bases are no primary chromosomes and are left out",
                highlight=False,
            )
    if "groups" in card:
        table = Table(title=title)
        table.add_column("group")
        for name in ("assemblies", "species", "bases", *splits):
            table.add_column(name, justify="right")
        for name, group in card["groups"].items():
            counts = [group[key] for key in ("assemblies", "species", "bases")]
            counts += [group["windows"][split] for split in splits]
            table.add_row(name, *(f"{count:,}" for count in counts))
        console.print(table)


def _haplotypes(source: dict) -> str:
    """What was read of the genotypes of a source."""
    taken = source["haplotypes"]
    total: collections.Counter[str] = collections.Counter()
    for counts in taken["read"]:
        total.update({key: value for key, value in counts.items() if key != "skipped"})
        total.update({f"skipped, {key}": value for key, value in counts["skipped"].items()})
    rows = "".join(f"\n  {key}: {value:,}" for key, value in total.items() if value)
    return f"{source['name']}: {2 * len(taken['samples']):,} haplotypes{rows}"
