"""The human reference GRCh38.p14: chromosomes 1-20, X and Y train, 21 validates, 22 tests.

Published (V): the assembly and the splits. Patches, alternate loci, unplaced and unlocalised
sequences and the mitochondrion are left out (I) and counted: patches and alternates repeat the
chromosomes, also those that are held out.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Iterator

from data_pipelines.fasta import Contig, read_fasta
from data_pipelines.manifest import Assembly, Manifest
from data_pipelines.sources import Source
from nt_jax.errors import InputError

NAME = "human_reference"
"""Name of this set on the command line."""
HELD_OUT = (("chr21",), ("chr22",))
"""Contigs of validation and test."""
LENGTHS = {
    "chr1": 248_956_422, "chr2": 242_193_529, "chr3": 198_295_559, "chr4": 190_214_555,
    "chr5": 181_538_259, "chr6": 170_805_979, "chr7": 159_345_973, "chr8": 145_138_636,
    "chr9": 138_394_717, "chr10": 133_797_422, "chr11": 135_086_622, "chr12": 133_275_309,
    "chr13": 114_364_328, "chr14": 107_043_718, "chr15": 101_991_189, "chr16": 90_338_345,
    "chr17": 83_257_441, "chr18": 80_373_285, "chr19": 58_617_616, "chr20": 64_444_167,
    "chr21": 46_709_983, "chr22": 50_818_468, "chrX": 156_040_895, "chrY": 57_227_415,
}  # fmt: skip
"""Bases of the primary chromosomes of GRCh38; patches do not change them."""
_VERSIONS = (11, 12, 12, 12, 10, 12, 14, 11, 12, 11, 10, 12, 11, 9, 10, 10, 11, 10, 10, 11, 9, 11)
_REFSEQ = {
    **{f"NC_{i:06d}.{version}": f"chr{i}" for i, version in enumerate(_VERSIONS, start=1)},
    "NC_000023.11": "chrX",
    "NC_000024.10": "chrY",
}
_FOLDER = "https://ftp.ncbi.nlm.nih.gov/genomes/all/GCF/000/001/405/GCF_000001405.40_GRCh38.p14"
MANIFEST = Manifest(
    pathlib.Path(NAME),
    (
        Assembly(
            accession="GCF_000001405.40",
            species="Homo sapiens",
            genus="Homo",
            group="vertebrate_mammalian",
            url=f"{_FOLDER}/GCF_000001405.40_GRCh38.p14_genomic.fna.gz",
            checksum="md5:c30471567037b2b2389d43c908c653e1",
            bytes=972_898_531,
            split="",
            weight=1.0,
        ),
    ),
)
"""Where NCBI keeps it."""


def source(path: str | os.PathLike[str]) -> Source:
    """The primary chromosomes of a file, named chr1 to chrY whatever their names are there.

    The file is read once to count what is left out. Raises InputError when it cannot be read, or a
    chromosome is missing or has another length than in GRCh38.
    """
    path = pathlib.Path(path)
    found: dict[str, int] = {}
    left_out = bases = 0
    for contig in read_fasta(path):
        name = _primary(contig)
        if name is None:
            left_out += 1
            bases += len(contig.bases)
            continue
        if name in found:
            raise InputError(f"{path}: {contig.name}: {name} is there twice; keep one")
        found[name] = len(contig.bases)
        if found[name] != LENGTHS[name]:
            raise InputError(
                f"{path}: {contig.name} has {found[name]:,} bases, {LENGTHS[name]:,} in GRCh38; "
                "another assembly? Use `nt-jax data build fasta` for it"
            )
    missing = [name for name in LENGTHS if name not in found]
    if missing:
        raise InputError(
            f"{path}: {len(missing)} of {len(LENGTHS)} chromosomes are missing (first: "
            f"{missing[0]}, also known as {missing[0].removeprefix('chr')} and NC_...); give the "
            "whole GRCh38"
        )
    (assembly,) = MANIFEST.assemblies
    return Source(
        "GRCh38",
        (path,),
        functools.partial(_read, path),
        about={
            "species": assembly.species,
            "genus": assembly.genus,
            "group": assembly.group,
            "left_out_contigs": left_out,
            "left_out_bases": bases,
        },
    )


def _read(path: pathlib.Path) -> Iterator[Contig]:
    for contig in read_fasta(path):
        name = _primary(contig)
        if name is not None:
            yield dataclasses.replace(contig, name=name)


def _primary(contig: Contig) -> str | None:
    """chr1 ... chrY, or None for everything else."""
    name = _REFSEQ.get(contig.name, contig.name)
    name = name if name.startswith("chr") else f"chr{name}"
    return name if name in LENGTHS else None
