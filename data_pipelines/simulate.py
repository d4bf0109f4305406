"""Writes a small simulated genome with annotation, variants and labelled tasks.

    python -m data_pipelines.simulate --out DIR [--seed 0] [--megabases 2.4] [--samples 8]

For the demonstration and the tests: everything in DIR is simulated and says so. The same arguments
give the same bytes. `simulation.json` is written last: a folder without it is incomplete.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from data_pipelines.simulated_genome import (
    CHROMOSOMES,
    Chromosome,
    Gene,
    Span,
    make_chromosome,
    make_species,
)
from data_pipelines.simulated_tasks import SPLITS, Task, make_tasks, make_variants
from nt_jax.errors import InputError

MIN_MEGABASES, MAX_MEGABASES = 0.2, 200.0
SOURCE = "nt-jax-simulation"
_README = """# Simulated genome

Everything in this folder is SIMULATED (seed {seed}); none of it is real biology and no result on it
says anything about a real genome. It was written by
`python -m data_pipelines.simulate --seed {seed} --megabases {megabases:g} --samples {samples}`.

genome.fa        {chromosomes} chromosomes, {bases} bases; GC isochores, one run of N each
genes.gff3       {genes} genes with UTRs, introns (GT..AG, branch points), poly(A) signals and
                 promoters (TATA boxes about 30 bases in front of the TSS); repeats; gaps
variants.vcf     {variants} phased SNVs and indels of {samples} simulated samples; INFO/REGION says
                 where; selection has thinned them in coding sequence, splice sites and TATA boxes
tasks/NAME/      train.csv, dev.csv, test.csv with the columns sequence,label:
{tasks}
simulation.json  seed, sizes and label names

Splits: train {train}; dev {dev}; test {test}.
Hold the same chromosomes out when pretraining:
  nt-jax data build fasta --kind simulated --fasta genome.fa --out windows \\
      --validation {dev} --test {test}
"""


def simulate(
    out: str | pathlib.Path,
    *,
    seed: int = 0,
    megabases: float = 2.4,
    samples: int = 8,
    report: Callable[[str], None] = lambda line: None,
) -> dict:
    """Writes the folder `out` and returns the content of its simulation.json.

    Args:
        out: new or empty folder, or an earlier simulation, which is replaced.
        seed: everything random; 0 or more.
        megabases: size of the genome, in million bases.
        samples: diploid individuals in variants.vcf.
        report: called with one line of progress at a time.

    Raises:
        InputError: `out` holds other files, or a number is out of its range.
    """
    if not MIN_MEGABASES <= megabases <= MAX_MEGABASES:
        raise InputError(
            f"--megabases {megabases:g}: must be in {MIN_MEGABASES:g}..{MAX_MEGABASES:g}"
        )
    if seed < 0 or samples < 1:
        name, value = ("--seed", seed) if seed < 0 else ("--samples", samples)
        raise InputError(f"{name} {value}: must be at least {0 if seed < 0 else 1}")
    folder = pathlib.Path(out)
    mark = folder / "simulation.json"
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not mark.exists())):
        raise InputError(f"{folder}: exists and is no earlier simulation; name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    mark.unlink(missing_ok=True)

    species = make_species(seed)
    chromosomes = []
    for name, share in CHROMOSOMES.items():
        length = round(share * megabases * 1e6)
        chromosomes.append(make_chromosome(species, name, length, seed))
        report(f"{name}: {length} bases, {len(chromosomes[-1].genes)} genes")
    _write(folder / "genome.fa", _fasta(chromosomes, seed))
    _write(folder / "genes.gff3", _gff(chromosomes, seed))
    variants = _write(folder / "variants.vcf", _vcf(chromosomes, samples, seed))
    variants -= len(_vcf_header(chromosomes, samples, seed))
    report(f"variants.vcf: {variants} variants of {samples} samples")
    tasks = {}
    for task, splits in make_tasks(chromosomes, seed).items():
        for split, rows in splits.items():
            lines = ["sequence,label", *(f"{sequence},{label}" for sequence, label in rows)]
            _write(folder / "tasks" / task.name / f"{split}.csv", lines)
        tasks[task] = {split: len(rows) for split, rows in splits.items()}
        report(f"tasks/{task.name}: {_counts(tasks[task])}")
    values = {
        "kind": "simulated",
        "seed": seed,
        "megabases": megabases,
        "samples": samples,
        "bases": sum(chromosome.bases.size for chromosome in chromosomes),
        "chromosomes": {c.name: c.bases.size for c in chromosomes},
        "splits": {split: list(names) for split, names in SPLITS.items()},
        "genes": sum(len(c.genes) for c in chromosomes),
        "introns": sum(len(gene.introns) for c in chromosomes for gene in c.genes),
        "repeats": sum(len(c.repeats) for c in chromosomes),
        "variants": variants,
        "tasks": {
            task.name: {"labels": list(task.labels), "length": task.length, "sequences": sizes}
            for task, sizes in tasks.items()
        },
        "numpy": np.__version__,
    }
    _write(folder / "README.txt", [_readme(values, tasks).rstrip("\n")])
    _write(mark, [json.dumps(values, indent=2)])
    return values


def _write(path: pathlib.Path, lines: Iterable[str]) -> int:
    """Writes lines to a file and returns their number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with path.open("w", encoding="ascii", newline="\n") as file:
        for line in lines:
            file.write(line + "\n")
            count += 1
    return count


def _counts(sizes: dict[str, int]) -> str:
    return ", ".join(f"{split} {size}" for split, size in sizes.items())


def _readme(values: dict, tasks: dict[Task, dict[str, int]]) -> str:
    lines = [
        f"  {task.name}: {task.length} bases; "
        + ", ".join(f"{number} {label}" for number, label in enumerate(task.labels))
        + f"; {_counts(sizes)}"
        for task, sizes in tasks.items()
    ]
    splits = {split: " ".join(names) for split, names in SPLITS.items()}
    counted = {**values, "chromosomes": len(values["chromosomes"]), "tasks": "\n".join(lines)}
    return _README.format(**counted, **splits)


def _fasta(chromosomes: Sequence[Chromosome], seed: int) -> Iterator[str]:
    for chromosome in chromosomes:
        yield f">{chromosome.name} simulated seed={seed} length={chromosome.bases.size}"
        text = chromosome.bases.tobytes().decode()
        yield from (text[at : at + 80] for at in range(0, len(text), 80))


def _gff(chromosomes: Sequence[Chromosome], seed: int) -> Iterator[str]:
    """GFF3: 1-based, both ends included, sorted by position within each chromosome."""
    yield "##gff-version 3"
    for chromosome in chromosomes:
        yield f"##sequence-region {chromosome.name} 1 {chromosome.bases.size}"
    yield f"# simulated, seed {seed}"
    for chromosome in chromosomes:
        rows = [(chromosome.gap, "gap", ".", ".", f"ID={chromosome.name}.gap")]
        for number, repeat in enumerate(chromosome.repeats, 1):
            kind = "microsatellite" if repeat.family == "SIM-simple" else "dispersed_repeat"
            note = f"ID={chromosome.name}.r{number};Name={repeat.family}"
            rows.append((repeat.span, kind, repeat.strand, ".", note))
        for gene in chromosome.genes:
            rows += _gene_rows(gene)
        # Stable: a gene stays in front of its parts where they start at the same base.
        for (start, end), kind, strand, phase, note in sorted(rows, key=lambda row: row[0][0]):
            columns = (chromosome.name, SOURCE, kind, start + 1, end, ".", strand, phase, note)
            yield "\t".join(map(str, columns))


def _gene_rows(gene: Gene) -> list[tuple[Span, str, str, str, str]]:
    """Features of one gene; the names are terms of the Sequence Ontology."""
    forward = gene.strand == "+"
    first, last = (gene.cds[0], gene.cds[-1])
    start, end = gene.transcript
    utr5 = (start, first[0]) if forward else (first[1], end)
    utr3 = (last[1], end) if forward else (start, last[0])
    of_gene, of_mrna = f"Parent={gene.name}", f"Parent={gene.name}.t1"
    rows = [
        (gene.transcript, "gene", ".", f"ID={gene.name};Name={gene.name};biotype=protein_coding"),
        (gene.transcript, "mRNA", ".", f"ID={gene.name}.t1;{of_gene}"),
        # Outside the gene's own span, so no part of it: named by an attribute instead of Parent.
        (gene.promoter, "promoter", ".", f"gene={gene.name}"),
        *([(gene.tata_box, "TATA_box", ".", f"gene={gene.name}")] if gene.tata_box else []),
        (utr5, "five_prime_UTR", ".", of_mrna),
        *((span, "exon", ".", of_mrna) for span in gene.exons),
        *((span, "intron", ".", of_mrna) for span in gene.introns),
        *((span, "branch_site", ".", of_mrna) for span in gene.branch_points),
        (utr3, "three_prime_UTR", ".", of_mrna),
        (gene.polya_signal, "polyA_signal_sequence", ".", of_mrna),
    ]
    coded = 0
    for span in gene.cds:
        # Phase: bases to skip to the next codon.
        rows.append((span, "CDS", str(-coded % 3), f"ID={gene.name}.cds;{of_mrna}"))
        coded += span[1] - span[0]
    return [(span, kind, gene.strand, phase, note) for span, kind, phase, note in rows]


def _vcf_header(chromosomes: Sequence[Chromosome], samples: int, seed: int) -> list[str]:
    names = [f"SIM{number:04d}" for number in range(1, samples + 1)]
    fixed = ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT"]
    return [
        "##fileformat=VCFv4.2",
        f"##source={SOURCE} (simulated, seed {seed})",
        '##FILTER=<ID=PASS,Description="All filters passed">',
        *(f"##contig=<ID={c.name},length={c.bases.size}>" for c in chromosomes),
        '##INFO=<ID=AC,Number=A,Type=Integer,Description="Allele count">',
        '##INFO=<ID=AN,Number=1,Type=Integer,Description="Number of alleles">',
        '##INFO=<ID=AF,Number=A,Type=Float,Description="Allele frequency">',
        '##INFO=<ID=REGION,Number=1,Type=String,Description="Simulated region of the variant">',
        '##FORMAT=<ID=GT,Number=1,Type=String,Description="Phased genotype">',
        "\t".join([*fixed, *names]),
    ]


def _vcf(chromosomes: Sequence[Chromosome], samples: int, seed: int) -> Iterator[str]:
    yield from _vcf_header(chromosomes, samples, seed)
    for chromosome in chromosomes:
        for variant in make_variants(chromosome, samples, seed):
            count, total = int(variant.genotypes.sum()), variant.genotypes.size
            info = f"AC={count};AN={total};AF={count / total:.6g};REGION={variant.region}"
            calls = [f"{left}|{right}" for left, right in variant.genotypes.tolist()]
            columns = [chromosome.name, str(variant.position + 1), ".", variant.ref, variant.alt]
            yield "\t".join([*columns, ".", "PASS", info, "GT", *calls])


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; exit status 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m data_pipelines.simulate",
        description="Write a small simulated genome with annotation, variants and labelled tasks.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--seed", type=int, default=0, help="everything random")
    parser.add_argument("--megabases", type=float, default=2.4, help="size in million bases")
    parser.add_argument("--samples", type=int, default=8, help="individuals in variants.vcf")
    options = parser.parse_args(arguments)
    try:
        simulate(
            options.out,
            seed=options.seed,
            megabases=options.megabases,
            samples=options.samples,
            report=lambda line: print(line, file=sys.stderr),
        )
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{options.out}: simulated genome written", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
