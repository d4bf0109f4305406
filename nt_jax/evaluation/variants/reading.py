"""Variants from a VCF, a BCF or a table: one record after the other, never the genotypes."""

import contextlib
import dataclasses
import gzip
import pathlib
import re
import zlib
from collections.abc import Callable, Iterator
from typing import IO, NamedTuple

import pysam

from data_pipelines.compressed import require_bgzf_end
from nt_jax.errors import InputError, nearest

FIXED = 8
"""Columns of a VCF in front of the genotypes."""
_VCF, _BCF = b"##fileformat=VCF", b"BCF"
_INFO = re.compile(r"##INFO=<ID=(?P<name>[^,]+),Number=(?P<number>[^,]+),Type=(?P<type>[^,>]+)")
_CONTIG = re.compile(r"##contig=<(?:.*,)?ID=(?P<name>[^,>]+)")
MISSING = frozenset({"", ".", "NA", "NaN", "nan", "null"})
"""Texts that stand for no value."""


class Site(NamedTuple):
    """One record: a position with one REF and any number of ALTs."""

    where: str
    """Line or row, for messages."""
    chrom: str
    pos: int
    """1-based, of the first base of REF; for an empty REF the base in front of the insertion."""
    id: str
    ref: str
    """As given; empty where a table says `-`."""
    alts: tuple[str, ...]
    values: tuple[tuple[str | None, ...], ...]
    """For each ALT the attributes that were asked for; None: no value."""
    columns: tuple[str, ...]
    """The first eight columns of a VCF as they stand there; empty for a table."""


@dataclasses.dataclass(frozen=True)
class Source:
    """Where variants come from."""

    path: pathlib.Path
    sites: Callable[[], Iterator[Site]]
    """Reads all records, from the start."""
    header: tuple[str, ...] | None
    """Lines of a VCF's header, the one with the column names left out; None for a table."""

    def declared(self) -> tuple[set[str], set[str]]:
        """Names of the INFO fields and of the contigs in the header."""
        infos = {found["name"] for line in self.header or () if (found := _INFO.match(line))}
        contigs = {found["name"] for line in self.header or () if (found := _CONTIG.match(line))}
        return infos, contigs


def open_vcf(path: str | pathlib.Path, wanted: tuple[str, ...] = ()) -> Source:
    """A VCF (plain, gzip, bgzip) or BCF; `wanted` are INFO fields.

    Raises InputError for another format, a cut file, or a field that the header does not declare;
    while reading for a line that is no record. An INFO field with a value an ALT (Number=A or R)
    gives each its own, a flag is 1 or 0, any other field is the same for all.
    """
    path = pathlib.Path(path)
    lines = _bcf_lines if _is_bcf(path) else _vcf_lines
    header = []
    for line in lines(path):
        if not line.startswith("##"):
            break
        header.append(line)
    declared = {found["name"]: found for line in header if (found := _INFO.match(line))}
    for name in wanted:
        if name not in declared:
            raise InputError(
                f"{path}: its header declares no INFO field {name!r}{nearest(name, declared)}"
            )
    numbers = [(name, declared[name]["number"]) for name in wanted]

    def sites() -> Iterator[Site]:
        for number, line in enumerate(lines(path), start=1):
            if not line.startswith("#") and line:
                yield _site(path, f"line {number}", line, numbers)

    return Source(path, sites, tuple(header))


def _site(path: pathlib.Path, where: str, line: str, wanted: list[tuple[str, str]]) -> Site:
    columns = tuple(line.split("\t", FIXED)[:FIXED])
    if len(columns) < FIXED:
        raise InputError(
            f"{path}: {where} has {len(columns)} columns where a VCF record has {FIXED} or more, "
            "separated by tabs; correct it"
        )
    chrom, pos, name, ref, alts = columns[:5]
    if not pos.isascii() or not pos.isdigit():
        raise InputError(f"{path}: {where}: POS is {pos!r}, no number; correct it")
    alleles = tuple(alts.split(","))
    values = tuple(
        tuple(_info(path, where, columns[7], field, number, allele, len(alleles))
              for field, number in wanted)
        for allele in range(len(alleles))
    )  # fmt: skip
    return Site(where, chrom, int(pos), name, ref, alleles, values, columns)


def _info(
    path: pathlib.Path, where: str, info: str, field: str, number: str, allele: int, alleles: int
) -> str | None:
    """The value of one INFO field for one ALT."""
    found = re.search(rf"(?:^|;){re.escape(field)}(?:=([^;]*))?(?:;|$)", info)
    if number == "0":
        return "1" if found else "0"
    if found is None or found[1] is None:
        return None
    text = found[1]
    if number in ("A", "R"):
        parts = text.split(",")
        extra = int(number == "R")
        if text == ".":
            return None
        if len(parts) != alleles + extra:
            raise InputError(
                f"{path}: {where}: {field} has {len(parts)} values where Number={number} asks "
                f"for {alleles + extra}; correct it"
            )
        text = parts[allele + extra]
    return None if text in MISSING else text


def _is_bcf(path: pathlib.Path) -> bool:
    """By the first bytes; InputError for what is neither, and for a cut bgzip file."""
    try:
        with path.open("rb") as raw:
            require_bgzf_end(path, raw, raw.read(18))
        with _text(path) as file:
            start = file.read(len(_VCF))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (EOFError, OSError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read as VCF or BCF ({error})") from None
    if not start.startswith((_BCF, _VCF)):
        raise InputError(
            f"{path}: neither VCF (whose first line is {_VCF.decode()}...) nor BCF; a table of "
            "variants is given with --table"
        )
    return start.startswith(_BCF)


def _vcf_lines(path: pathlib.Path) -> Iterator[str]:
    with _text(path) as file:
        number = 0
        try:
            for raw in file:
                number += 1
                # Genotypes, often nearly all of the line, are not even decoded.
                head = raw if raw.startswith(b"#") else b"\t".join(raw.split(b"\t", FIXED)[:FIXED])
                yield head.rstrip(b"\r\n").decode("utf-8", "surrogateescape")
        except (EOFError, OSError, zlib.error) as error:
            raise InputError(
                f"{path}: damaged behind line {number} ({error}); copy or download it again"
            ) from None


@contextlib.contextmanager
def _text(path: pathlib.Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as raw:
        compressed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        if not compressed:
            yield raw
            return
        with gzip.GzipFile(fileobj=raw, mode="rb") as inflated:
            yield inflated  # type: ignore[misc]


def _bcf_lines(path: pathlib.Path) -> Iterator[str]:
    # What htslib has to say comes as an exception; it need not write to standard error as well.
    pysam.set_verbosity(0)
    try:
        with pysam.VariantFile(str(path), drop_samples=True) as file:
            yield from str(file.header).splitlines()
            for record in file:
                yield str(record).rstrip("\n")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: damaged ({error}); copy or download it again") from None
