"""The reference genome: the bases around a position, on disk until they are asked for."""

import bisect
import dataclasses
import pathlib
import tempfile
from collections.abc import Iterable

import numpy as np
from jaxtyping import UInt8

from data_pipelines.fasta import read_fasta
from nt_jax.errors import InputError, nearest

_SHOWN = 5


@dataclasses.dataclass(frozen=True, eq=False)
class Piece:
    """A contig, or one piece of it."""

    start: int
    """True 0-based coordinate of the first base."""
    bases: UInt8[np.ndarray, " N"]
    """ASCII codes of A, C, G, T and N; mapped from the disk."""

    @property
    def end(self) -> int:
        """Coordinate behind the last base."""
        return self.start + len(self.bases)


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """Contigs of a FASTA file by name, in true coordinates."""

    path: pathlib.Path
    pieces: dict[str, list[Piece]]
    """Pieces of each contig by their start."""

    def piece(self, name: str, start: int, end: int) -> Piece | None:
        """The piece that holds all of [start, end), and a base more where that is empty."""
        pieces = self.pieces.get(name, [])
        found = bisect.bisect_right(pieces, start, key=lambda piece: piece.start) - 1
        if found < 0 or not max(end, start + 1) <= pieces[found].end:
            return None
        return pieces[found]

    def check_contigs(self, names: Iterable[str], source: pathlib.Path) -> None:
        """Raises InputError when no contig of `source` is here, with the likely reason."""
        asked = list(names)
        if not asked or any(name in self.pieces for name in asked):
            return
        first = asked[0]
        other = first.removeprefix("chr") if first.startswith("chr") else f"chr{first}"
        if other in self.pieces:
            way = (
                f"; {self.path} has {other!r}: rename the contigs of one of the two (for a VCF: "
                "bcftools annotate --rename-chrs)"
            )
        else:
            way = nearest(first, self.pieces) or f"; {self.path} has {_list(self.pieces)}"
        raise InputError(f"{source}: none of its contigs is in the reference: {_list(asked)}{way}")


def open_reference(path: str | pathlib.Path, folder: pathlib.Path) -> Reference:
    """Reads a FASTA (plain, gzip, bgzip) once; a nameless file in `folder` then holds its bases.

    One contig at a time is in memory, and the file goes with the process, however it ends.
    Raises InputError as `read_fasta` does.
    """
    path = pathlib.Path(path)
    parts: list[tuple[str, int, int]] = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for contig in read_fasta(path):
            parts.append((contig.name, contig.start, contig.bases.size))
            file.write(contig.bases.data)
        file.flush()
        bases = np.memmap(file, np.uint8, mode="r")
    pieces: dict[str, list[Piece]] = {}
    at = 0
    for name, start, size in parts:
        pieces.setdefault(name, []).append(Piece(start, bases[at : at + size]))
        at += size
    for found in pieces.values():
        found.sort(key=lambda piece: piece.start)
    return Reference(path, pieces)


def _list(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
