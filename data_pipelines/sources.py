"""Sources of contigs: anything with a name, input files to checksum, and contigs to read."""

import dataclasses
import functools
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from data_pipelines.fasta import Contig, read_fasta
from data_pipelines.genotypes import Panel
from data_pipelines.workers import Progress
from nt_jax.errors import InputError

_SUFFIXES = (".gz", ".bgz", ".fa", ".fasta", ".fna", ".fas", ".ffn")


@dataclasses.dataclass(frozen=True)
class Source:
    """One genome: where its contigs come from and which files decide them."""

    name: str
    """Stands in every record; unique within a build."""
    files: tuple[pathlib.Path, ...]
    """Input files, checksummed: the same bytes are the same source."""
    read: Callable[[], Iterable[Contig]]
    """Yields the contigs, the same ones in the same order at every call."""
    panels: tuple[Panel, ...] = ()
    """Files of phased genotypes of the same samples, called on these contigs."""
    split: str = ""
    """Split of the whole source; empty: its contigs or blocks are divided."""
    about: Mapping[str, str | float] = dataclasses.field(default_factory=dict)
    """What else the datacard says of it, such as its species and group."""


def fasta_sources(fastas: Sequence[str | os.PathLike[str]]) -> list[Source]:
    """One source a FASTA file, named by its stem; equal stems get folders in front.

    Raises InputError when a file is missing or given twice.
    """
    paths = [pathlib.Path(fasta).resolve() for fasta in fastas]
    for i, path in enumerate(paths):
        if not path.is_file():
            raise InputError(f"{fastas[i]}: no such file; give the path of a FASTA file")
        if path in paths[:i]:
            raise InputError(f"{fastas[i]}: given twice; name each file once")
    parts = [(*path.parts[1:-1], _stem(path.name)) for path in paths]
    names = [own[-1] for own in parts]
    for depth in range(2, max(map(len, parts), default=0) + 1):
        clashing = {name for name in names if names.count(name) > 1}
        names = [
            "/".join(own[-depth:]) if name in clashing else name
            for own, name in zip(parts, names, strict=True)
        ]
    if len(set(names)) < len(names):  # genome.fa beside genome.fa.gz
        names = [path.name for path in paths]
    return [
        Source(name, (path,), functools.partial(read_fasta, path))
        for name, path in zip(names, paths, strict=True)
    ]


def identities(
    sources: Sequence[Source], progress: Progress = lambda done, total, text: None
) -> list[dict[str, Any]]:
    """Name, split, files with their checksums and more of each source, as JSON; without paths.

    Raises InputError when there is no source, two have one name or the same content, or the files
    of genotypes of one have other samples.
    """
    if not sources:
        raise InputError("no input: give at least one FASTA file")
    described: list[dict[str, Any]] = []
    for number, source in enumerate(sources):
        progress(number, len(sources), "checking files")
        files = []
        for path in (*source.files, *(panel.path for panel in source.panels)):
            try:
                with path.open("rb") as stream:
                    digest = hashlib.file_digest(stream, "sha256").hexdigest()
                files.append({"file": path.name, "bytes": path.stat().st_size, "sha256": digest})
            except OSError as error:
                raise InputError(f"{path}: cannot be read: {error.strerror}") from None
        split = {"split": source.split} if source.split else {}
        described.append({"name": source.name, **source.about, **split, "files": files})
        if source.panels:
            described[-1]["haplotypes"] = _panels(source)
    for i, own in enumerate(described):
        for other in described[:i]:
            if own["name"] == other["name"]:
                raise InputError(f"two sources are named {own['name']}; rename one of them")
            if own["files"] and [f["sha256"] for f in own["files"]] == [
                f["sha256"] for f in other["files"]
            ]:
                raise InputError(
                    f"{own['name']} and {other['name']} have the same content; give it once"
                )
    return described


def _panels(source: Source) -> dict[str, Any]:
    """What is taken of the genotypes: the same for all files."""
    first = source.panels[0]
    for other in source.panels[1:]:
        if other.samples != first.samples:
            raise InputError(
                f"{other.path}: other samples, or another order of them, than {first.path}; bring "
                "them into line (bcftools view -S)"
            )
    taken = dataclasses.asdict(first)
    del taken["path"]
    return {**taken, "samples": list(first.samples)}


def _stem(name: str) -> str:
    while (suffix := pathlib.PurePath(name).suffix).lower() in _SUFFIXES:
        name = name[: -len(suffix)]
    return name
