"""Speed of `nt-jax score`: alleles a second, batched and one after the other, and of reading.

    python benchmarks/variants.py

NT v2 nano with random parameters (the arithmetic is that of a trained one), windows of 64 tokens.
Alleles are those of the 1000 Genomes panel on chromosome 22 and of a saturation mutagenesis of
../shared/data (or NT_JAX_DATA_MIRROR), where neighbouring records share masked windows. Times are
processor seconds of this process after everything was compiled, so that the load of others on the
machine matters little; what to look at is the ratio. On a CPU one window fills the core nearly as
well as a batch, so what batching gains there is the head on masked positions alone and what
records share. Writes benchmarks/results/variants.json and variants.md.
"""

import argparse
import functools
import json
import os
import pathlib
import platform
import resource
import tempfile
from collections.abc import Callable
from typing import Any

import cyvcf2
import jax
import numpy as np

from nt_jax import registry
from nt_jax.evaluation.loading import LoadedModel, from_params
from nt_jax.evaluation.variants import haplotypes, scores
from nt_jax.evaluation.variants.haplotypes import Local, Reason
from nt_jax.evaluation.variants.reading import open_vcf
from nt_jax.evaluation.variants.reference import open_reference
from nt_jax.model.factory import build_model

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PANEL = "variants/1kg30x_chr22_16.6-16.8Mb_3202samples_GRCh38.vcf.gz"
GENOME = "genomes/human/GRCh38_chr22_16600000-16800000.fa.gz"
WINDOW, LAYERS = 64, (2, 4)
FEW = 12
"""Alleles of the slow ways, evenly taken."""
Alleles = list[tuple[Local, Local] | Reason]


def processor_seconds() -> float:
    """Of all threads of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measure(run: Callable[[], Any]) -> float:
    """Processor seconds of a second call."""
    run()
    start = processor_seconds()
    run()
    return processor_seconds() - start


def nano() -> LoadedModel:
    """NT v2 nano, freshly initialised."""
    experiment = registry.find_experiment("nt_v2_nano")
    model = build_model(experiment.model, experiment.tokenizer.make())
    return from_params(jax.jit(model.init)(jax.random.key(0)), 0, experiment)


def alleles(mirror: pathlib.Path, count: int) -> dict[str, Alleles]:
    """The first sites of the panel, and all SNVs of as many bases as give the same number."""
    reach, longest = scores.reach(WINDOW, 6), scores.longest_allele(WINDOW, 6)
    with tempfile.TemporaryDirectory() as folder:
        reference = open_reference(mirror / GENOME, pathlib.Path(folder))
    sites = [site for site, _ in zip(open_vcf(mirror / PANEL).sites(), range(count), strict=False)]
    piece = reference.pieces["chr22"][0]
    saturated = [
        ("chr22", position, chr(piece.bases[position - 1 - piece.start]), letter)
        for position in range(16_700_000, 16_700_000 + count // 3)
        for letter in "ACGT"
        if ord(letter) != piece.bases[position - 1 - piece.start]
    ]
    listed = {
        "1000 Genomes sites": [(s.chrom, s.pos, s.ref, s.alts[0]) for s in sites],
        "all SNVs of a stretch": saturated,
    }
    return {
        name: [haplotypes.locate(reference, *row, reach, longest) for row in rows]
        for name, rows in listed.items()
    }


def one_window_at_a_time(loaded: LoadedModel, allele: tuple[Local, Local] | Reason) -> None:
    """All windows of one allele through `LoadedModel.apply`, logits of all positions."""
    prepared = scores.prepare([allele], loaded.tokenizer, WINDOW)
    for batch in prepared.questions.batches(batch_tokens=1):
        np.asarray(loaded.apply(batch.tokens)["logits"])
    for windows in prepared.windows:
        found = loaded.apply(windows, layers=LAYERS)["embeddings"]
        for layer in LAYERS:
            np.asarray(found[layer])


def reading(mirror: pathlib.Path) -> dict[str, float]:
    """Processor seconds for all records of the panel: ours, and with the genotypes decoded."""

    def decoded() -> int:
        return sum(int(record.gt_types.sum() > 0) for record in cyvcf2.VCF(str(mirror / PANEL)))

    return {
        "sites": measure(lambda: sum(1 for _ in open_vcf(mirror / PANEL).sites())),
        "genotypes decoded by cyvcf2": measure(decoded),
    }


def run(count: int) -> dict[str, Any]:
    """All cases."""
    mirror = pathlib.Path(os.environ.get("NT_JAX_DATA_MIRROR", ROOT.parent / "shared" / "data"))
    loaded = nano()
    rows = []

    def together(mine: Alleles) -> None:
        prepared = scores.prepare(mine, loaded.tokenizer, WINDOW)
        scores.model_scores(loaded, prepared, LAYERS, "mean")

    def apart(mine: Alleles) -> None:
        for allele in mine:
            prepared = scores.prepare([allele], loaded.tokenizer, WINDOW)
            scores.model_scores(loaded, prepared, LAYERS, "mean", batch_tokens=16 * WINDOW)

    def windows(mine: Alleles) -> None:
        for allele in mine:
            one_window_at_a_time(loaded, allele)

    for name, mine in alleles(mirror, count).items():
        few = mine[:: max(1, len(mine) // FEW)]
        for method, function, some in (
            ("batched", together, mine),
            ("one allele at a time", apart, few),
            ("one window at a time", windows, few),
        ):
            seconds = measure(functools.partial(function, some)) / len(some)
            rows.append({"alleles": name, "count": len(some), "method": method, "seconds": seconds})
    return {
        "benchmark": "variants",
        "window": WINDOW,
        "model": "nt_v2_nano",
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
        "rows": rows,
        "reading": reading(mirror),
    }


def markdown(result: dict[str, Any]) -> str:
    """The table for the documentation."""
    lines = [
        "# Variants: alleles a second",
        "",
        f"NT v2 nano, windows of {result['window']} tokens, distances of two layers, on a CPU "
        f"({result['machine']}, load average {result['load_average']} on "
        f"{result['cpu_count']} cores). Processor seconds; the last column is the ratio to the "
        "slowest.",
        "",
        "| alleles | how | alleles a processor second | times as fast |",
        "|---|---|---:|---:|",
    ]
    for row in result["rows"]:
        slowest = max(r["seconds"] for r in result["rows"] if r["alleles"] == row["alleles"])
        lines.append(
            f"| {row['alleles']} ({row['count']}) | {row['method']} "
            f"| {1 / row['seconds']:.1f} | {slowest / row['seconds']:.1f} |"
        )
    texts = [f"{name} {seconds:.2f} s" for name, seconds in result["reading"].items()]
    lines += ["", f"Reading 5,496 records with 3,202 samples: {', '.join(texts)}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Runs the benchmark, writes and prints the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=192, help="alleles of each case")
    result = run(parser.parse_args().count)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "variants.json").write_text(json.dumps(result, indent=2) + "\n")
    (RESULTS / "variants.md").write_text(markdown(result))
    print(markdown(result))


if __name__ == "__main__":
    main()
