"""Haplotypes of the 1000 Genomes: equal to bcftools consensus, how large, how fast.

    python benchmarks/haplotypes.py [--every N] [--panel chr22|chr20]

1. Every haplotype (or every N-th) of the 200-kb panel of chromosome 22 with 3,202 people, and of
   the first of three Mb of chromosome 20 with 300, whole, against `bcftools consensus -H`. Where
   they differ, the records that bcftools says it left out are taken out of ours; then both have to
   be the same, and the haplotype counts as explained.
2. Of chromosome 22: bytes a variant of the dataset beyond those of the reference alone.
3. The loader on windows of 6,200 bases of it, with haplotypes, with their reference alone and
   without genotypes, interleaved; processor time, one core. Its memory over a long run.

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
PANELS = {
    "chr22": (
        "variants/1kg30x_chr22_16.6-16.8Mb_3202samples_GRCh38.vcf.gz",
        "genomes/human/GRCh38_chr22_16600000-16800000.fa.gz",
    ),
    "chr20": (
        "variants/1kg_p3_chr20_1-4Mb_300samples_GRCh37.vcf.gz",
        "genomes/human/GRCh37_chr20_1000001-2000000.fa.gz",
    ),
}
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


def memory(folder: pathlib.Path, steps: int) -> dict[str, Any]:
    """Resident megabytes while haplotypes are drawn, ten times in a long run."""
    tokenizer = KmerTokenizer(k=6, vocabulary="v2")
    batches = data.train_batches(
        data.open_dataset(folder),
        tokenizer,
        DataConfig(sequence_length=LENGTH),
        global_batch=BATCH,
        seed=0,
        start_step=0,
        stop_step=steps,
    )
    resident = []
    for number, _ in enumerate(batches, 1):
        if number % (steps // 10) == 0:
            pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
            resident.append(pages * os.sysconf("SC_PAGE_SIZE") // 2**20)
    return {"tokens": BATCH * LENGTH * steps, "megabytes": resident}


def main() -> None:
    """Writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--every", type=int, default=1, help="compare every N-th haplotype")
    parser.add_argument("--steps", type=int, default=60, help="batches of each loader")
    parser.add_argument("--panel", choices=PANELS, action="append", help="default: both")
    options = parser.parse_args()
    mirror = pathlib.Path(os.environ.get("NT_JAX_DATA_MIRROR", ROOT.parent / "shared" / "data"))
    stored = RESULTS / "haplotypes.json"
    result = json.loads(stored.read_text()) if stored.exists() else {}
    for name in options.panel or PANELS:
        vcf, genome = (mirror / part for part in PANELS[name])
        (reference,) = read_fasta(genome)
        panel = open_panel(vcf)
        result[name] = {
            "people": len(panel.samples),
            "bases": len(reference.bases),
            **compare(vcf, reference, panel, options.every),
        }
        if name == "chr22":
            result[name] |= measured(genome, panel, options.steps)
    RESULTS.mkdir(exist_ok=True)
    stored.write_text(json.dumps(result, indent=1) + "\n")
    (RESULTS / "haplotypes.md").write_text(table(result))
    print(table(result))


def measured(genome: pathlib.Path, panel: Panel, steps: int) -> dict[str, Any]:
    """Size and speed of datasets with and without the panel."""
    with tempfile.TemporaryDirectory() as folder:
        where = pathlib.Path(folder)
        (plain,) = fasta_sources([genome])
        people = dataclasses.replace(plain, panels=(panel,))
        counts = {}
        # Windows every 50 bases: as many as a training set has, of the same kind.
        for name, sources in (("plain", [plain]), ("people", [people])):
            card = build(sources, where / name, recipe="hf6200", seed=0).datacard
            counts[name] = card["sources"][0].get("haplotypes")
            recipe = "window=6200,stride=50,jitter=100,tokens=1000"
            build(sources, where / f"{name}-dense", recipe=recipe, seed=0)
        sizes = [
            sum(path.stat().st_size for path in (where / name).glob("*.array_record*"))
            for name in ("plain", "people")
        ]
        return {
            "bytes_a_variant": (sizes[1] - sizes[0]) / counts["people"]["read"][0]["alleles"],
            "million_tokens_a_second": loader(
                {
                    "no genotypes": where / "plain-dense",
                    "reference": where / "people-dense",
                    "haplotypes": where / "people-dense",
                },
                steps,
            ),
            "memory": memory(where / "people-dense", 50 * steps),
        }


def table(result: dict[str, Any]) -> str:
    """What people read."""
    main_panel = result["chr22"]
    speeds, size = main_panel["million_tokens_a_second"], main_panel["bytes_a_variant"]
    base = speeds["no genotypes"]
    rows = "\n".join(f"| {name} | {own:.2f} | {own / base:.2f} |" for name, own in speeds.items())
    compared = "\n".join(
        f"| {name} | {own['bases']:,} | {own['people']:,} | {own['read']['alleles']:,} | "
        f"{own['read']['carriers']:,} | {own['compared']:,} | {own['equal']:,} | "
        f"{own['explained']:,} | {len(own['different']):,} |"
        for name, own in result.items()
    )
    return f"""# Haplotypes of the 1000 Genomes

Against `bcftools consensus -H`, whole haplotypes, base for base. "Left out" are equal but for
records that bcftools left out as overlapping, and said so.

| panel | bases | people | alleles | carried | compared | equal | left out | different |
|---|---:|---:|---:|---:|---:|---:|---:|---:|
{compared}

{size:.0f} bytes a variant beside the reference, compressed (3,202 people, windows of 6,200 bases
every 6,000): {size * 0.125:.1f} GB for the 125 million variants of the genome.

| loader | M tokens a processor second | ratio |
|---|---:|---:|
{rows}

Sequences of 1,000 tokens, one core, medians of rounds that take turns. Resident memory while
{main_panel["memory"]["tokens"] / 1e6:.0f} M tokens with haplotypes are read, ten times on the way:
{", ".join(map(str, main_panel["memory"]["megabytes"]))} MiB.
"""


if __name__ == "__main__":
    main()
