"""Variants of the small contig, and `nt-jax score` called on them."""

import pathlib
import subprocess
import sys

import numpy as np

from nt_jax import cli
from tests.nt_jax.evaluation.variants.conftest import CONTIG
from tests.nt_jax.runs import environment

HEADER = """##fileformat=VCFv4.2
##INFO=<ID=AF,Number=A,Type=Float,Description="frequency">
##INFO=<ID=KIND,Number=1,Type=String,Description="kind">
##INFO=<ID=X,Number=1,Type=String,Description="text">
##FORMAT=<ID=GT,Number=1,Type=String,Description="genotype">
#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\ts1\ts2
"""


def base(position: int) -> str:
    """Base of chr1 at a 1-based position; the contig begins at 1001."""
    return CONTIG[position - 1001]


def others(position: int) -> list[str]:
    return [letter for letter in "ACGT" if letter != base(position)]


def write_vcf(path: pathlib.Path, records: list[str]) -> pathlib.Path:
    text = "".join(f"{record}\tGT\t0|1\t./.\n" for record in records)
    path.write_text(HEADER + text)
    return path


def many(count: int) -> list[str]:
    """Sorted SNVs and indels with a frequency each."""
    rng = np.random.default_rng(3)
    records = []
    for position in sorted(rng.integers(1010, 1600, count).tolist()):
        ref = CONTIG[position - 1001 : position - 1001 + rng.integers(1, 3)]
        alt = rng.choice(others(position)) + "ACG"[: rng.integers(0, 3)]
        records.append(f"chr1\t{position}\t.\t{ref}\t{alt}\t.\t.\tAF={rng.random():.4f};KIND=x")
    return records


def score(*arguments: object) -> int:
    return cli.main(["score", *map(str, arguments)])


SMALL_CHUNKS = "import sys; from nt_jax import cli; from nt_jax.evaluation.variants import job;"


def start(*arguments: object, chunk: int = 16) -> subprocess.Popen:
    """The command in a process of its own, with small chunks."""
    code = f"{SMALL_CHUNKS} job.CHUNK = {chunk}; sys.exit(cli.main(sys.argv[1:]))"
    return subprocess.Popen(
        [sys.executable, "-c", code, "score", *map(str, arguments)],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(out: pathlib.Path) -> int:
    return len(list(out.with_name(f"{out.name}.parts").glob("*.parquet")))
