"""Contigs on disk while a dataset is built: a folder a source, its bases in one file.

A source is read once. A folder appears whole or not at all, so a build that was killed goes on
with those it finished; any process maps the part of a contig that it needs into memory.
"""

import dataclasses
import json
import pathlib
import shutil
from collections.abc import Iterator, Sequence

import numpy as np

from data_pipelines import windows
from data_pipelines.fasta import Contig
from data_pipelines.sources import Source
from data_pipelines.windows import Recipe
from data_pipelines.workers import TEMPORARY, Progress, Spread
from nt_jax.errors import InputError

PREFIX = "contigs-"
_INDEX, _BASES, _STARTS = "index.json", "bases.bin", "starts.bin"


@dataclasses.dataclass(frozen=True)
class StagedContig:
    """One contig and where its bases lie; counts are bases or windows."""

    source: str
    name: str
    start: int
    """True 0-based coordinate of the first base."""
    length: int
    n: int
    gc: int
    soft_masked: int
    converted_u: int
    iupac: int
    window_count: int
    """Windows with enough bases."""
    n_windows: int
    """Windows dropped because more than half of them is N."""
    folder: pathlib.Path
    first_base: int
    """Place in the file of bases."""
    first_window: int
    """Place in the file of window starts."""

    def bases(self, mapped: np.ndarray) -> np.ndarray:
        """uint8[length] ASCII codes, of the mapped bases of the contig's source."""
        return mapped[self.first_base : self.first_base + self.length]

    def starts(self) -> np.ndarray:
        """int64[window_count] 0-based starts of the windows with enough bases."""
        if not self.window_count:
            return np.zeros(0, np.int64)
        where = 8 * self.first_window
        return np.fromfile(self.folder / _STARTS, np.int64, self.window_count, offset=where)


def stage_contigs(
    sources: Sequence[Source],
    recipe: Recipe,
    folder: pathlib.Path,
    spread: Spread,
    progress: Progress,
) -> list[StagedContig]:
    """Reads all sources, each in one piece of work; those that are there already are kept.

    Raises InputError for bad input.
    """
    targets = [folder / f"{PREFIX}{i:05d}" for i in range(len(sources))]
    missing = [
        (source, recipe, target)
        for source, target in zip(sources, targets, strict=True)
        if not target.is_dir()
    ]
    progress(0, len(missing), "reading sequences")
    for done, _ in enumerate(spread(_stage, missing), 1):
        progress(done, len(missing), "reading sequences")
    return [
        StagedContig(source.name, **{**contig, "folder": target})
        for source, target in zip(sources, targets, strict=True)
        for contig in json.loads((target / _INDEX).read_text())
    ]


def map_bases(folder: pathlib.Path) -> np.ndarray:
    """uint8[bases] of all contigs of a source, mapped into memory by one open file."""
    return np.asarray(np.memmap(folder / _BASES, np.uint8, "r"))


def read_back(contigs: Sequence[StagedContig]) -> Iterator[Contig]:
    """The contigs of one source as it gave them, from the disk."""
    mapped = map_bases(contigs[0].folder)
    for own in contigs:
        yield Contig(
            own.name, own.bases(mapped), own.start, own.soft_masked, own.converted_u, own.iupac
        )


def _stage(source: Source, recipe: Recipe, target: pathlib.Path) -> None:
    temporary = target.with_name(f"{TEMPORARY}{target.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    index = []
    first_base = first_window = 0
    with (temporary / _BASES).open("wb") as bases, (temporary / _STARTS).open("wb") as starts:
        for contig in source.read():
            few_n, n_windows = windows.full_windows(contig.bases, recipe)
            # Not `tofile`, which does not say why it failed.
            bases.write(contig.bases.data)
            starts.write(few_n.data)
            counts = {base: int(np.count_nonzero(contig.bases == ord(base))) for base in "GCN"}
            index.append(
                {
                    "name": contig.name,
                    "start": contig.start,
                    "length": len(contig.bases),
                    "n": counts["N"],
                    "gc": counts["G"] + counts["C"],
                    "soft_masked": contig.soft_masked,
                    "converted_u": contig.converted_u,
                    "iupac": contig.iupac,
                    "window_count": len(few_n),
                    "n_windows": n_windows,
                    "first_base": first_base,
                    "first_window": first_window,
                }
            )
            first_base += len(contig.bases)
            first_window += len(few_n)
    if not index:
        raise InputError(f"{source.name}: no contig is left of it")
    (temporary / _INDEX).write_text(json.dumps(index))
    temporary.rename(target)
