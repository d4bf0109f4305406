"""Alleles on disk while a dataset is built: one folder a file of genotypes, arrays a contig.

A folder appears whole or not at all, so a build that was killed goes on with those it finished.
The arrays are mapped into memory; any process reads the part it needs.
"""

import dataclasses
import functools
import json
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipelines.contigs import StagedContig, read_back
from data_pipelines.genotypes import Counts, Panel, Reference, read_alleles
from data_pipelines.haplotypes import Allele, Alleles
from data_pipelines.sources import Source
from data_pipelines.workers import TEMPORARY, Progress, Spread
from nt_jax.errors import InputError

_INDEX = "index.json"
PREFIX = "alleles-"
_FLUSH = 4096
"""Alleles kept in memory before they are written."""


@dataclasses.dataclass(frozen=True)
class Staged:
    """The alleles of one source."""

    haplotypes: int
    """0 for a source without genotypes."""
    contigs: dict[str, pathlib.Path]
    """Folder of the arrays of each contig that has alleles."""
    counts: list[dict[str, Any]]
    """What was read from each file, as JSON."""

    def alleles(self, contig: str) -> Alleles:
        """All alleles of a contig."""
        folder = self.contigs.get(contig)
        return Alleles.of([], self.haplotypes) if folder is None else open_arrays(folder)


def open_arrays(folder: pathlib.Path) -> Alleles:
    """The arrays of a contig, mapped into memory."""
    types = json.loads((folder / _INDEX).read_text())
    return Alleles(
        **{
            name: np.memmap(folder / f"{name}.bin", kind, "r") if size else np.zeros(0, kind)
            for name, (kind, size) in types.items()
        }
    )


def stage(
    sources: Sequence[Source],
    contigs: Sequence[StagedContig],
    folder: pathlib.Path,
    spread: Spread,
    progress: Progress,
) -> dict[str, Staged]:
    """Reads the genotypes of all sources, each file in one piece of work; those there are kept.

    Raises InputError for bad genotypes, or when two files of one source have the same contig.
    """
    jobs = [
        (
            [contig for contig in contigs if contig.source == source.name],
            panel,
            folder / f"{PREFIX}{i:05d}-{j:05d}",
        )
        for i, source in enumerate(sources)
        for j, panel in enumerate(source.panels)
    ]
    missing = [job for job in jobs if not job[-1].is_dir()]
    for done, _ in enumerate(spread(_read, missing), 1):
        progress(done, len(missing), "reading genotypes")
    return {
        source.name: _staged(
            source, [folder / f"{PREFIX}{i:05d}-{j:05d}" for j in range(len(source.panels))]
        )
        for i, source in enumerate(sources)
    }


def _staged(source: Source, folders: Sequence[pathlib.Path]) -> Staged:
    contigs: dict[str, pathlib.Path] = {}
    counts = []
    for panel, folder in zip(source.panels, folders, strict=True):
        index = json.loads((folder / _INDEX).read_text())
        counts.append(index["counts"])
        for number, name in enumerate(index["contigs"]):
            if name in contigs:
                raise InputError(
                    f"{panel.path}: contig {name} is in another file too; concatenate them "
                    "(bcftools concat)"
                )
            contigs[name] = folder / str(number)
    haplotypes = source.panels[0].haplotypes if source.panels else 0
    return Staged(haplotypes, contigs, counts)


def _read(own: Sequence[StagedContig], panel: Panel, target: pathlib.Path) -> None:
    """Writes the arrays of every contig of a file."""
    temporary = target.with_name(f"{TEMPORARY}{target.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    counts = Counts()
    contigs: list[str] = []
    writer: _Writer | None = None
    reference = Reference(frozenset(c.name for c in own), functools.partial(read_back, own))
    for name, allele in read_alleles(panel, reference, counts):
        if not contigs or name != contigs[-1]:
            if writer is not None:
                writer.close()
            writer = _Writer(temporary / str(len(contigs)), panel.haplotypes)
            contigs.append(name)
        assert writer is not None
        writer.add(allele)
    if writer is not None:
        writer.close()
    index = {"contigs": contigs, "counts": counts.to_dict()}
    (temporary / _INDEX).write_text(json.dumps(index))
    temporary.rename(target)


class _Writer:
    """Appends the alleles of a contig to the files of its arrays."""

    def __init__(self, folder: pathlib.Path, haplotypes: int) -> None:
        self._folder = folder
        self._haplotypes = haplotypes
        self._waiting: list[Allele] = []
        self._ends = {"alt_ends": 0, "carrier_ends": 0}
        self._sizes = dict.fromkeys(Alleles._fields, 0)
        folder.mkdir()
        self._files = {name: (folder / f"{name}.bin").open("wb") for name in Alleles._fields}

    def add(self, allele: Allele) -> None:
        self._waiting.append(allele)
        if len(self._waiting) >= _FLUSH:
            self._flush()

    def close(self) -> None:
        self._flush()
        for file in self._files.values():
            file.close()
        kinds = Alleles.of([], self._haplotypes)._asdict()
        index = {name: (kinds[name].dtype.str, size) for name, size in self._sizes.items()}
        (self._folder / _INDEX).write_text(json.dumps(index))

    def _flush(self) -> None:
        part = Alleles.of(self._waiting, self._haplotypes)._asdict()
        for name, before in self._ends.items():
            part[name] = part[name] + before
            self._ends[name] = int(part[name][-1]) if len(part[name]) else before
        for name, array in part.items():
            # Not `tofile`, which does not say why it failed.
            self._files[name].write(np.ascontiguousarray(array).data)
            self._sizes[name] += len(array)
        self._waiting.clear()
