"""Haplotypes of the 1000 Genomes: equal to bcftools consensus, how large, how fast.

    python benchmarks/haplotypes.py [--every N]

1. Every haplotype (or every N-th) of the 200-kb panel of chromosome 22 with 3,202 people, whole,
   against `bcftools consensus -H`. Where they differ, the records that bcftools says it left out
   are taken out of ours; then both have to be the same, and the haplotype counts as explained.
2. Bytes a variant of the dataset beyond those of the reference alone.
3. The loader on windows of 6,200 bases, with haplotypes, with their reference alone and without
   genotypes, interleaved; processor time, one core.

Reads ../shared/data (or NT_JAX_DATA_MIRROR); writes benchmarks/results/haplotypes.json and .md.
About an hour of processor time for every haplotype.
"""

import argparse
import dataclasses
import itertools
import json
import os
import pathlib
import re
import statistics
import tempfile
import time
from typing import Any

import pysam
import pysam.bcftools

from data_pipelines import haplotypes
from data_pipelines.builders import build
from data_pipelines.fasta import Contig, read_fasta
from data_pipelines.genotypes import Counts, Panel, Reference, open_panel, read_alleles
from data_pipelines.haplotypes import Alleles, Change
from data_pipelines.sources import fasta_sources
from nt_jax import data
from nt_jax.config import DataConfig
from nt_jax.tokenizers import KmerTokenizer

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PANEL = "variants/1kg30x_chr22_16.6-16.8Mb_3202samples_GRCh38.vcf.gz"
GENOME = "genomes/human/GRCh38_chr22_16600000-16800000.fa.gz"
LENGTH = 1000
BATCH = 32
ROUNDS = 5


def whole(reference: Contig, changes: list[Change]) -> str:
    """The haplotype of the whole stretch."""
    size = len(reference.bases) + sum(len(c.alt) - c.length for c in changes)
    return haplotypes.assemble(reference.bases.tobytes(), changes, 0, size).bases.decode()


def explained(reference: Contig, changes: list[Change], left_out: list[int], expected: str) -> bool:
    """Whether leaving out what bcftools left out, 1-based positions, gives its haplotype."""
    places = {position - 1 - reference.start for position in left_out}
    doubtful = [c for c in changes if {c.start, c.start - 1} & places]
    for count in range(len(doubtful) + 1):
        for without in itertools.combinations(doubtful, count):
            if whole(reference, [c for c in changes if c not in without]) == expected:
                return True
    return False


def compare(vcf: pathlib.Path, reference: Contig, panel: Panel, every: int) -> dict[str, Any]:
    """Counts of haplotypes: equal, explained, different; and what was read."""
    counts = Counts()
    held = Reference([reference.name], lambda: [reference])
    found = [allele for _, allele in read_alleles(panel, held, counts)]
    alleles = Alleles.of(found, panel.haplotypes)
    packed = haplotypes.pack(alleles, 0, len(found), reference.start, panel.haplotypes)
    result: dict[str, Any] = {"compared": 0, "equal": 0, "explained": 0, "different": []}
    with tempfile.TemporaryDirectory() as folder:
        fasta, indexed = pathlib.Path(folder) / "r.fa", pathlib.Path(folder) / "panel.bcf"
        span = f"{reference.start + 1}-{reference.start + len(reference.bases)}"
        fasta.write_text(f">{reference.name}:{span}\n{reference.bases.tobytes().decode()}\n")
        pysam.bcftools.view("-Ob", "-o", str(indexed), str(vcf), catch_stdout=False)
        pysam.bcftools.index(str(indexed))
        for number in range(0, panel.haplotypes, every):
            sample, side = panel.samples[number // 2], number % 2 + 1
            text = pysam.bcftools.consensus(
                "-H", str(side), "-s", sample, "-f", str(fasta), str(indexed)
            )
            messages = pysam.bcftools.consensus.get_messages()
            left_out = [int(at) for at in re.findall(r"The site \S+:(\d+) overlaps", messages)]
            expected = "".join(text.splitlines()[1:])
            changes = haplotypes.carried(packed, number)
            result["compared"] += 1
            if whole(reference, changes) == expected:
                result["equal"] += 1
            elif explained(reference, changes, left_out, expected):
                result["explained"] += 1
            else:
                result["different"].append(f"{sample}:{side}")
    return result | {"read": counts.to_dict()}


def loader(folders: dict[str, pathlib.Path], steps: int) -> dict[str, float]:
    """Million tokens a processor second of each dataset, median over rounds that take turns."""
    tokenizer = KmerTokenizer(k=6, vocabulary="v2")
    spent: dict[str, list[float]] = {}
    for start in range(0, steps * ROUNDS, steps):
        for name, folder in folders.items():
            kind = "reference" if name == "reference" else "drawn"
            batches = data.train_batches(
                data.open_dataset(folder),
                tokenizer,
                DataConfig(sequence_length=LENGTH, haplotypes=kind),
                global_batch=BATCH,
                seed=0,
                start_step=start,
                stop_step=start + steps,
            )
            next(batches)
            began = time.process_time()
            for _ in batches:
                pass
            spent.setdefault(name, []).append(time.process_time() - began)
    tokens = BATCH * LENGTH * (steps - 1)
    return {name: tokens / statistics.median(own) / 1e6 for name, own in spent.items()}


def main() -> None:
    """Writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--every", type=int, default=1, help="compare every N-th haplotype")
    parser.add_argument("--steps", type=int, default=60, help="batches of each loader")
    options = parser.parse_args()
    mirror = pathlib.Path(os.environ.get("NT_JAX_DATA_MIRROR", ROOT.parent / "shared" / "data"))
    vcf, genome = mirror / PANEL, mirror / GENOME
    (reference,) = read_fasta(genome)
    panel = open_panel(vcf)
    result = compare(vcf, reference, panel, options.every)
    with tempfile.TemporaryDirectory() as folder:
        where = pathlib.Path(folder)
        (plain,) = fasta_sources([genome])
        people = dataclasses.replace(plain, panels=(panel,))
        # Windows every 50 bases: as many as a training set has, of the same kind.
        for name, sources in (("plain", [plain]), ("people", [people])):
            build(sources, where / name, recipe="hf6200", seed=0)
            recipe = "window=6200,stride=50,jitter=100,tokens=1000"
            build(sources, where / f"{name}-dense", recipe=recipe, seed=0)
        sizes = [
            sum(path.stat().st_size for path in (where / name).glob("*.array_record*"))
            for name in ("plain", "people")
        ]
        result["bytes_a_variant"] = (sizes[1] - sizes[0]) / result["read"]["alleles"]
        result["million_tokens_a_second"] = loader(
            {
                "no genotypes": where / "plain-dense",
                "reference": where / "people-dense",
                "haplotypes": where / "people-dense",
            },
            options.steps,
        )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "haplotypes.json").write_text(json.dumps(result, indent=1) + "\n")
    (RESULTS / "haplotypes.md").write_text(table(result))
    print(table(result))


def table(result: dict[str, Any]) -> str:
    """What people read."""
    speeds = result["million_tokens_a_second"]
    base = speeds["no genotypes"]
    rows = "\n".join(f"| {name} | {own:.2f} | {own / base:.2f} |" for name, own in speeds.items())
    read, size = result["read"], result["bytes_a_variant"]
    return f"""# Haplotypes of 3,202 people

200 kb of chromosome 22 (1000 Genomes, 30x): {read["records"]:,} records, {read["carriers"]:,}
carried alleles.

{result["compared"]:,} haplotypes against `bcftools consensus -H`: {result["equal"]:,} equal base
for base, {result["explained"]:,} equal but for records that bcftools left out as overlapping,
{len(result["different"])} different.

{size:.0f} bytes a variant beside the reference, compressed (windows of 6,200 bases every 6,000):
{size * 0.125:.1f} GB for the 125 million variants of the genome.

| loader | M tokens a processor second | ratio |
|---|---:|---:|
{rows}

Sequences of 1,000 tokens, one core, medians of rounds that take turns.
"""


if __name__ == "__main__":
    main()
