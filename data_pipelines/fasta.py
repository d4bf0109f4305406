"""Reads FASTA: plain, gzip or BGZF, told apart by their first bytes and never by the file's name.

Coordinates are 0-based and half-open. A file is streamed contig by contig, so the largest contig
has to fit into memory and the file does not. What is repaired is counted (lower case, U, IUPAC
codes); what cannot be a nucleotide sequence is refused with its file, record, line and letter.
"""

import dataclasses
import os
import pathlib
import re
from collections.abc import Iterator
from typing import IO

import numpy as np

from data_pipelines.compressed import opened
from nt_jax.errors import InputError

_BLOCK = 1 << 23
"""Bytes read at a time."""
_REGION = re.compile(r"(?P<name>.+):(?P<start>[0-9]+)-(?P<end>[0-9]+)")
_DIGITS = 18
"""Of the largest coordinate: it has to fit into 64 bits."""
_LONGEST = 250
"""Letters of a name; a longer one has swallowed its sequence, or is a mistake."""
_SHOWN = 60
"""Letters of a name that messages show."""
_AMBIGUOUS = b"RYSWKMBDHV"
_LOWER, _URACIL, _IUPAC, _INVALID = 1, 2, 4, 8
_BLANK = b" \t\r\n"


def _tables() -> tuple[bytes, bytes]:
    """`bytes.translate` tables: letter -> one of ACGTN, and letter -> what has to be counted."""
    letters, notes = bytearray(256), bytearray([_INVALID]) * 256
    for source, target, note in [
        (b"ACGTN", b"ACGTN", 0),
        (b"U", b"T", _URACIL),
        (_AMBIGUOUS, b"N" * len(_AMBIGUOUS), _IUPAC),
    ]:
        for letter, base in zip(source, target, strict=True):
            lower = ord(chr(letter).lower())
            letters[letter] = letters[lower] = base
            notes[letter], notes[lower] = note, note | _LOWER
    return bytes(letters), bytes(notes)


_LETTERS, _NOTES = _tables()
_COMPLEMENT = bytes.maketrans(b"ACGT", b"TGCA")


@dataclasses.dataclass(frozen=True, eq=False)
class Contig:
    """One record of a FASTA file."""

    name: str
    """First word of the header, without a `:START-END` behind it."""
    bases: np.ndarray
    """uint8[bases], ASCII codes of A, C, G, T and N only; read-only."""
    start: int
    """True 0-based coordinate of the first base: START - 1 of `NAME:START-END`, else 0."""
    soft_masked: int
    """Bases that were in lower case."""
    converted_u: int
    """Bases that were U and are T now."""
    iupac: int
    """Bases that were another IUPAC code and are N now."""


def read_fasta(path: str | os.PathLike[str]) -> Iterator[Contig]:
    """The contigs of one file, in its order.

    Raises:
        InputError: the file is missing, no FASTA (FASTQ, binary, text), protein, cut off, empty,
            or a record has no name, no bases, a name used before, or a `NAME:START-END` that its
            length contradicts. The message names the record and the line.
    """
    path = pathlib.Path(path)
    taken: dict[str, list[tuple[int, int] | None]] = {}
    with opened(path, "FASTA") as stream:
        for number, (header, line, pieces) in enumerate(_records(path, stream), start=1):
            contig = _contig(path, number, header, line, pieces)
            region = (contig.start, contig.start + len(contig.bases))
            _refuse_repeat(path, number, contig.name, line, taken, region, header)
            yield contig


def reverse_complement(bases: np.ndarray) -> np.ndarray:
    """The other strand of uint8[n] ASCII bases, read in its own direction; N stays N."""
    # Several times faster than indexing a table of NumPy's.
    return np.frombuffer(bases[::-1].tobytes().translate(_COMPLEMENT), np.uint8)


def _blocks(stream: IO[bytes]) -> Iterator[bytes]:
    """The stream in pieces of whole lines."""
    while block := stream.read(_BLOCK):
        yield block if block.endswith(b"\n") else block + stream.readline()


def _records(
    path: pathlib.Path, stream: IO[bytes]
) -> Iterator[tuple[str, int, list[tuple[int, bytes]]]]:
    """(header, its line, [(first line of the piece, raw sequence lines)]) of each record."""
    line = 1
    header: str | None = None
    header_line = 0
    pieces: list[tuple[int, bytes]] = []
    for block in _blocks(stream):
        position = 0
        if header is None:
            first = len(block) - len(block.lstrip(_BLANK))
            line += block.count(b"\n", 0, first)
            if first == len(block):
                continue
            position = block.rfind(b"\n", 0, first) + 1
            _require_header(path, line, block[position : position + 80])
        while position < len(block):
            if block[position : position + 1] == b">":
                if header is not None:
                    yield header, header_line, pieces
                end = block.find(b"\n", position)
                end = len(block) if end < 0 else end
                header, header_line = _header(path, line, block[position + 1 : end]), line
                pieces = []
                line += 1
                position = end + 1
            following = block.find(b"\n>", position - 1 if position else 0)
            end = len(block) if following < 0 else following + 1
            if end > position:
                piece = block[position:end]
                pieces.append((line, piece))
                line += piece.count(b"\n")
            position = end
    if header is None:
        raise InputError(f"{path}: no FASTA record in it; only blank lines")
    yield header, header_line, pieces


def _require_header(path: pathlib.Path, line: int, text: bytes) -> None:
    if text.startswith(b">"):
        return
    shown = text.splitlines()[0][:30]
    if text.startswith(b"@"):
        raise InputError(
            f"{path}: line {line} starts with '@': this is FASTQ (reads); give an assembled "
            "genome as FASTA"
        )
    raise InputError(f"{path}: line {line} is {shown!r}: not FASTA, whose records start with '>'")


def _header(path: pathlib.Path, line: int, raw: bytes) -> str:
    """Text behind the `>`."""
    raw = raw.rstrip(b"\r")
    if b"\r" in raw:
        raise InputError(
            f"{path}: line {line}: lines end with a bare carriage return; convert them with "
            "tr '\\r' '\\n'"
        )
    return raw.decode("utf-8", "replace")


def _contig(
    path: pathlib.Path, number: int, header: str, line: int, pieces: list[tuple[int, bytes]]
) -> Contig:
    words = header.split(maxsplit=1)
    if not words or header[0].isspace():
        raise InputError(f"{path}: record {number}, line {line}: no name behind '>'; give it one")
    name = words[0]
    if len(name) > _LONGEST:
        raise InputError(
            f"{path}: record {number}, line {line}: the name {name[:_SHOWN]}... has {len(name):,} "
            f"letters, the limit is {_LONGEST}; is the end of the line missing behind it?"
        )
    clean, counts = [], np.zeros(3, np.int64)
    for first, raw in pieces:
        notes = np.frombuffer(raw.translate(_NOTES, _BLANK), np.uint8)
        met = int(np.bitwise_or.reduce(notes)) if notes.size else 0
        if met & _INVALID:
            raise _invalid_letter(path, number, name, first, raw)
        if met:
            counts += [np.count_nonzero(notes & bit) for bit in (_LOWER, _URACIL, _IUPAC)]
        clean.append(raw.translate(_LETTERS, _BLANK))
    pieces.clear()
    bases = np.frombuffer(clean[0] if len(clean) == 1 else b"".join(clean), np.uint8)
    if not bases.size:
        raise InputError(
            f"{path}: record {number} ({name}), line {line}: no bases; remove the record or "
            "complete the file"
        )
    name, start = _region(path, number, name, line, bases.size)
    return Contig(name, bases, start, *(int(count) for count in counts))


def _region(path: pathlib.Path, number: int, name: str, line: int, length: int) -> tuple[str, int]:
    """Name and true 0-based start; `NAME:START-END` is 1-based and includes its end."""
    found = _REGION.fullmatch(name)
    if not found:
        return name, 0
    if max(len(found["start"]), len(found["end"])) > _DIGITS:
        raise InputError(
            f"{path}: record {number}, line {line}: {name} names coordinates of more than "
            f"{_DIGITS} digits; correct the header"
        )
    start, end = int(found["start"]), int(found["end"])
    if start < 1 or end - start + 1 != length:
        hint = " (0-based, as of bedtools?)" if end - start == length else ""
        raise InputError(
            f"{path}: record {number}, line {line}: {name} (1-based, end included) names "
            f"{max(0, end - start + 1)} bases from {start}, but {length} follow{hint}; correct "
            "the header"
        )
    return found["name"], start - 1


def _refuse_repeat(
    path: pathlib.Path,
    number: int,
    name: str,
    line: int,
    taken: dict[str, list[tuple[int, int] | None]],
    region: tuple[int, int],
    header: str,
) -> None:
    """A name may come again only as another, non-overlapping `NAME:START-END` piece."""
    piece = region if header.split(maxsplit=1)[0] != name else None
    for other in taken.setdefault(name, []):
        if piece is None or other is None:
            raise InputError(
                f"{path}: record {number}, line {line}: the contig name {name} appears twice; "
                "rename or remove one of them"
            )
        if piece[0] < other[1] and other[0] < piece[1]:
            raise InputError(
                f"{path}: record {number}, line {line}: {name}:{piece[0] + 1}-{piece[1]} overlaps "
                f"the piece {name}:{other[0] + 1}-{other[1]} of this file; remove one of them"
            )
    taken[name].append(piece)


def _invalid_letter(
    path: pathlib.Path, number: int, name: str, first_line: int, raw: bytes
) -> InputError:
    """The error for the first letter of a piece that stands for no nucleotide."""
    notes = np.frombuffer(raw.translate(_NOTES), np.uint8)
    blank = np.isin(np.frombuffer(raw, np.uint8), np.frombuffer(_BLANK, np.uint8))
    at = int(np.flatnonzero((notes & _INVALID).astype(bool) & ~blank)[0])
    line = first_line + raw.count(b"\n", 0, at)
    column = at - (raw.rfind(b"\n", 0, at) + 1) + 1
    letter = chr(raw[at])
    if letter.upper() in "EFILPQZJOX*":
        reason = "a protein sequence? give nucleotides"
    elif letter in "-.":
        reason = "an alignment? remove the gaps"
    else:
        reason = "correct the file"
    return InputError(
        f"{path}: record {number} ({name}), line {line}, position {column}: {letter!r} is no "
        f"IUPAC nucleotide code: {reason}"
    )
