"""A small annotated genome for the tiny model of the evaluation tests (3-mers, 24 tokens)."""

import pathlib

import numpy as np
import pytest

from nt_jax.evaluation.elements.windows import ElementWindows, Genome, element_windows, read_genome
from nt_jax.evaluation.loading import LoadedModel


def write_genome(folder: pathlib.Path, bases: int = 6_000) -> tuple[pathlib.Path, pathlib.Path]:
    """Random bases with some Ns, and a gene with two exons every 300 bases on either strand."""
    rng = np.random.default_rng(1)
    letters = rng.choice(list("ACGT"), bases)
    letters[40:45] = "N"
    fasta, gff = folder / "g.fa", folder / "g.gff3"
    fasta.write_text(f">chr1 random\n{''.join(letters)}\n>two\nACGTACGTAC\n")
    lines = ["##gff-version 3"]
    for number, first in enumerate(range(61, bases - 300, 300)):
        strand = "+-"[number % 2]
        rows = [("mRNA", 0, 179), ("exon", 0, 79), ("exon", 120, 179), ("CDS", 35, 79)]
        rows += [("CDS", 120, 144)]
        for kind, a, b in rows:
            name = f"ID=t{number}" if kind == "mRNA" else f"Parent=t{number}"
            lines.append(f"1\tx\t{kind}\t{first + a}\t{first + b}\t.\t{strand}\t.\t{name}")
    gff.write_text("\n".join(lines) + "\n")
    return fasta, gff


@pytest.fixture(scope="session")
def files(tmp_path_factory) -> tuple[pathlib.Path, pathlib.Path]:
    return write_genome(tmp_path_factory.mktemp("genome"))


@pytest.fixture(scope="session")
def genome(files) -> Genome:
    return read_genome(*files, contigs=["chr1"], promoter=20)


@pytest.fixture(scope="session")
def windows(genome: Genome, loaded: LoadedModel) -> ElementWindows:
    """14 of the 86 windows of 24 tokens (69 bases)."""
    return element_windows(genome, loaded.tokenizer, 24, limit=14)
