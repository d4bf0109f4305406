"""The records of a BCF beside those that htslib makes of them.

htslib and cyvcf2 trust what a record says of itself: other samples than the header has, or GT of
another type than integers, end the process. So each record is looked at first (VCF specification,
section 6): that it is whole, and that its genotypes are what is read of it.
"""

import pathlib
import re
import struct
from collections.abc import Iterator
from typing import IO

from data_pipelines.compressed import opened
from data_pipelines.vcf_lines import Line
from nt_jax.errors import InputError

_MAGIC = b"BCF\2"
_SIZES = struct.Struct("<II")
"""Bytes of the shared part and of the samples' part."""
_SITE = struct.Struct("<iiifII")
"""Contig, 0-based start, length, quality; alleles << 16 | INFO fields; fields << 24 | samples."""
_WIDTH = {0: 0, 1: 1, 2: 2, 3: 4, 5: 4, 7: 1}
"""Bytes of a value by its type: missing, int8, int16, int32, float, character."""
_INTEGERS = {1: "<b", 2: "<h", 3: "<i"}


def is_bcf(path: pathlib.Path) -> bool:
    """Whether the file, compressed or not, begins as a BCF does."""
    with opened(path, "VCF or BCF") as stream:
        return stream.read(3) == _MAGIC[:3]


def bcf_lines(path: pathlib.Path) -> Iterator[Line]:
    """The records in their order; `number` counts them from 1.

    Raises InputError, with the number of the record, for what htslib would not survive.
    """
    with opened(path, "VCF or BCF") as stream:
        contigs, genotype, samples = _header(path, stream)
        number = 1
        while sizes := stream.read(_SIZES.size):
            try:
                line = _line(number, sizes, stream, contigs, genotype, samples)
            except (struct.error, IndexError, KeyError, OverflowError):
                raise InputError(
                    f"{path}: record {number} is cut off or damaged; copy it again"
                ) from None
            except ValueError as error:
                raise InputError(f"{path}: record {number}: {error}") from None
            yield line
            number += 1


def _header(path: pathlib.Path, stream: IO[bytes]) -> tuple[dict[int, str], int, int]:
    """(contigs by number, number of the key GT, samples)."""
    head = stream.read(9)
    text = b""
    if len(head) == 9 and head.startswith(_MAGIC):
        (size,) = struct.unpack("<I", head[5:])
        text = stream.read(size)
    if not text or len(text) != size:
        raise InputError(f"{path}: the header of this BCF is cut off; copy it again")
    contigs: dict[int, str] = {}
    keys = {"PASS": 0}
    columns = 0
    for line in text.rstrip(b"\0").decode("utf-8", "replace").split("\n"):
        found = re.match(r"##(contig|FILTER|INFO|FORMAT)=<(?:.*,)?ID=([^,>]+)", line)
        if found:
            index = re.search(r",IDX=([0-9]{1,9})[,>]", line)
            if found[1] == "contig":
                contigs[int(index[1]) if index else len(contigs)] = found[2]
            else:
                keys.setdefault(found[2], int(index[1]) if index else len(keys))
        elif line.startswith("#CHROM"):
            columns = len(line.rstrip("\r").split("\t"))
    return contigs, keys.get("GT", -1), max(0, columns - 9)


def _line(
    number: int,
    sizes: bytes,
    stream: IO[bytes],
    contigs: dict[int, str],
    genotype: int,
    samples: int,
) -> Line:
    shared_size, own_size = _SIZES.unpack(sizes)
    shared, own = stream.read(shared_size), stream.read(own_size)
    contig, start, _, _, alleles, fields = _SITE.unpack_from(shared)
    if len(shared) != shared_size or len(own) != own_size:
        raise IndexError
    if not alleles >> 16:
        raise ValueError("no REF; correct the file")
    if fields & 0xFFFFFF != samples:
        raise ValueError(f"{fields & 0xFFFFFF} samples, the header has {samples}; make it again")
    at, kind = 0, 0
    for _ in range(fields >> 24):
        at, key = _integer(own, at)
        at, width, values = _type(own, at)
        if key == genotype:
            kind = width if kind == 0 and values else -1
        at += samples * _WIDTH[width] * values
    if at != own_size:
        raise IndexError
    if kind not in (1, 2):
        # 32 bits are for alleles of five digits, which cyvcf2 would wrap.
        raise ValueError("no genotypes (GT) that can be read; leave such records out")
    return Line(number, contigs[contig], start)


def _type(data: bytes, at: int) -> tuple[int, int, int]:
    """(behind the description, type, values) of typed values."""
    kind, values = data[at] & 15, data[at] >> 4
    if values < 15:
        return at + 1, kind, values
    at, values = _integer(data, at + 1)
    if values < 0:
        raise IndexError
    return at, kind, values


def _integer(data: bytes, at: int) -> tuple[int, int]:
    """(behind it, value) of one typed integer."""
    kind = data[at] & 15
    if data[at] >> 4 != 1:
        raise IndexError
    (value,) = struct.unpack_from(_INTEGERS[kind], data, at + 1)
    return at + 1 + _WIDTH[kind], value
