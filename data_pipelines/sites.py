"""Records of a VCF or BCF file with their genotypes, as htslib reads them, each one checked.

The file is streamed once more beside htslib (`vcf_lines`, `bcf_lines`), which reads over some
damage and does not survive other.
"""

import os
import pathlib
import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cyvcf2
import numpy as np

from data_pipelines.bcf_lines import bcf_lines, is_bcf
from data_pipelines.compressed import require_bgzf_end
from data_pipelines.vcf_lines import vcf_lines
from nt_jax.errors import InputError


class Site(NamedTuple):
    """A record."""

    number: int
    """Data record of the file, from 1."""
    contig: str
    start: int
    """0-based; -1 where POS is 0, the end of a chromosome in front of its first base."""
    ref: str
    alts: Sequence[str]
    genotypes: np.ndarray
    """int16[samples, ploidy + 1]; the last column says whether it is phased."""


def samples_of(path: pathlib.Path) -> list[str]:
    """Names of all samples. Raises InputError when the file is no VCF or BCF."""
    reader = _reader(path)
    try:
        return reader.samples
    except UnicodeDecodeError:
        raise InputError(f"{path}: the name of a sample is no UTF-8; rename it") from None
    finally:
        reader.close()


def sites(path: pathlib.Path, samples: Sequence[str]) -> Iterator[Site]:
    """The records with the genotypes of some samples, in the order of the file.

    Raises InputError for what contradicts the format, a file that is damaged or not sorted, records
    without genotypes, and another ploidy than 1 or 2.
    """
    lines = bcf_lines(path) if is_bcf(path) else vcf_lines(path)
    reader = _reader(path, samples)
    if reader.samples != list(samples):
        # cyvcf2 hands them over as one text, joined by commas.
        raise InputError(f"{path}: the name of a sample has a comma or a '^' in it; rename it")
    number = 0
    contig, start = "", -1
    done: set[str] = set()
    try:
        records = iter(reader)
        while True:
            line = next(lines, None)
            if line and line.contig not in done:
                # cyvcf2 takes a record with any damage that is the first of an undeclared contig.
                reader.add_to_header(f"##contig=<ID={line.contig}>")
            site = _next(path, records, number)
            if (line and line[1:]) != (site and (site.contig, site.start)):
                raise InputError(f"{path}: damaged behind record {number}; copy it again")
            if site is None:
                return
            number += 1
            place = f"{path}: record {number}, {site.contig}:{site.start + 1}"
            if contig != site.contig:
                if site.contig in done:
                    raise InputError(f"{place}: {site.contig} comes twice; sort the file")
                done.add(site.contig)
                contig, start = site.contig, -1
            if site.start < start:
                raise InputError(
                    f"{place}: behind {contig}:{start + 1}; sort the file (bcftools sort)"
                )
            start = site.start
            _require_genotypes(place, site)
            yield site
    finally:
        reader.close()


def _require_genotypes(place: str, site: Site) -> None:
    ploidy = site.genotypes.shape[1] - 1
    if not 1 <= ploidy <= 2:
        raise InputError(f"{place}: {ploidy} alleles a genotype; only ploidy 1 and 2 can be read")
    largest = int(site.genotypes[:, :-1].max(initial=0))
    if largest > len(site.alts):
        raise InputError(
            f"{place}: a genotype has allele {largest}, but ALT names {len(site.alts)}; correct "
            "the file"
        )


def _next(path: pathlib.Path, records: Iterator, before: int) -> Site | None:
    """The next record, None behind the last."""
    try:
        record = next(records)
    except StopIteration:
        return None
    except Exception as error:  # cyvcf2 raises nothing narrower
        raise InputError(
            f"{path}: damaged behind record {before} ({error}); copy or download it again"
        ) from None
    try:
        genotype = record.genotype
        calls = None if genotype is None else genotype.array()
        alts = [alt.upper() for alt in record.ALT]
        contig, start, ref = record.CHROM, record.start, record.REF.upper()
    except UnicodeDecodeError:
        contig, start, ref, calls = "\0", 0, "", None
    except Exception:  # nor here
        contig, start, ref, calls = record.CHROM, record.start, "", None
    if not (contig + ref).isprintable():
        raise InputError(f"{path}: record {before + 1}: CHROM, REF or ALT is no text; correct it")
    if calls is None:
        raise InputError(
            f"{path}: record {before + 1}, {contig}:{start + 1}: no genotypes (GT); leave such "
            "records out"
        )
    return Site(before + 1, contig, start, ref, alts, calls)


def _reader(path: pathlib.Path, samples: Sequence[str] | None = None) -> cyvcf2.VCF:
    try:
        with path.open("rb") as raw:
            require_bgzf_end(path, raw, raw.read(18))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        with warnings.catch_warnings():  # of samples that it does not find: `sites` looks itself
            warnings.simplefilter("ignore")
            return cyvcf2.VCF(os.fspath(path), lazy=True, samples=samples and list(samples))
    except Exception as error:  # cyvcf2 raises nothing narrower
        raise InputError(f"{path}: no VCF or BCF file ({error})") from None
