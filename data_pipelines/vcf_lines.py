"""The lines of a VCF beside the records that htslib makes of them.

htslib reads over columns too many, everything behind a NUL byte, an empty POS and a last line that
was cut off; cyvcf2 wraps the number of an allele at 16 bits; and htslib ends the process where
FORMAT names a GT that no sample has. So the text is read a second time, and each record has to have
its line.
"""

import pathlib
import re
from collections.abc import Iterator
from typing import IO, NamedTuple

from data_pipelines.compressed import opened
from nt_jax.errors import InputError

_CUT = "has no end, so the file was cut off; copy it again, or end the line"
_NUL = "has a NUL byte; copy or make the file again"
_FIXED = 9
"""Columns in front of those of the samples."""

_DIGITS = bytes(ord("0") if chr(code).isdigit() and code < 128 else ord(" ") for code in range(256))
_CONTIG = re.compile(rb"[0-9A-Za-z!#$%&+./:;?@^_|~-][0-9A-Za-z!#$%&*+./:;=?@^_|~-]*")
"""SAM specification, section 1.2.1, as the VCF specification has it."""
_MANY = b"00000"
_LARGE = re.compile(rb"(?:^|\t)[0-9.|/]*[0-9]{5}")
"""An allele of a genotype that 16 bits may not hold, as cyvcf2 gives it."""


class Line(NamedTuple):
    """Where a record has to be."""

    number: int
    """Line of the file, from 1."""
    contig: str
    start: int
    """0-based."""


def vcf_lines(path: pathlib.Path) -> Iterator[Line]:
    """The lines of the records in their order.

    Raises InputError, with the number of the line, for what htslib would read over.
    """
    with opened(path, "VCF or BCF") as stream:
        number, tabs = _header(path, stream)
        for number, line in enumerate(stream, number + 1):  # noqa: B020
            columns = line.split(b"\t", _FIXED)
            reason = _reason(line, columns, tabs)
            if reason:
                raise InputError(f"{path}: line {number}: {reason}")
            yield Line(number, columns[0].decode(), int(columns[1]) - 1)


def _header(path: pathlib.Path, stream: IO[bytes]) -> tuple[int, int]:
    """(number, tabs) of the line that names the columns."""
    for number, line in enumerate(stream, 1):
        if b"\0" in line or not line.endswith(b"\n"):
            reason = _NUL if b"\0" in line else _CUT
            raise InputError(f"{path}: line {number}: {reason}")
        if line.startswith(b"#CHROM"):
            return number, line.count(b"\t")
        if not line.startswith(b"#"):
            raise InputError(f"{path}: line {number}: a record in front of the line #CHROM ...")
    raise InputError(f"{path}: no line #CHROM ... that names the columns; complete the file")


def _reason(line: bytes, columns: list[bytes], tabs: int) -> str:
    """What is wrong with a line; empty for nothing."""
    if not line.endswith(b"\n"):
        return _CUT
    if line.startswith(b"#"):
        return "starts with '#', but stands between the records; remove it"
    if b"\0" in line:
        return _NUL
    found = line.count(b"\t")
    if found != tabs:
        return f"{found + 1} columns, the header names {tabs + 1}; correct the file"
    if len(columns) <= _FIXED:
        return "no genotypes; leave such records out"
    if not columns[1].isdigit() or len(columns[1]) > 18:
        return f"POS is {_shown(columns[1])}, no whole number; correct the file"
    if not _CONTIG.fullmatch(columns[0]):
        return f"CHROM is {_shown(columns[0])}, no name of a contig; correct the file"
    for name, value in (("REF", columns[3]), ("ALT", columns[4])):
        if not (value and value.isascii() and value.decode().isprintable()):
            return f"{name} is {_shown(value)}; correct the file"
    if columns[8].split(b":")[0] != b"GT":
        return f"FORMAT is {_shown(columns[8])}; genotypes (GT) have to come first in it"
    if _MANY in columns[_FIXED].translate(_DIGITS) and _LARGE.search(columns[_FIXED]):
        return "a genotype has an allele of more than four digits; correct the file"
    return ""


def _shown(value: bytes) -> str:
    return ascii(value[:20].decode("latin-1"))
