"""NCBI's `assembly_summary.txt`: one line an assembly, as RefSeq publishes it.

Columns are found by their names: there were 20 of them, then 22, 23 and 38, and `group` and
`genome_size` are only in the newest files. The header is the last line that starts with `#` and
names `assembly_accession`; older files have a space behind the `#`.
"""

import dataclasses
import pathlib
import re
from collections.abc import Iterator

from data_pipelines.compressed import opened
from nt_jax.errors import InputError

_NEEDED = (
    "assembly_accession",
    "refseq_category",
    "organism_name",
    "version_status",
    "assembly_level",
    "genome_rep",
    "ftp_path",
)
_USED = (*_NEEDED, "excluded_from_refseq", "group", "genome_size")
_NONE = ("", "na", "NA")
_GENUS = re.compile(r"[A-Z][a-z]+(?:-[a-z]+)?")
_EPITHET = re.compile(r"[a-z][a-z-]+")
_QUALIFIERS = ("uncultured", "unclassified", "unidentified", "environmental", "synthetic")
_NO_EPITHETS = (
    "archaeon", "bacterium", "cyanobacterium", "proteobacterium", "actinobacterium", "endosymbiont",
    "symbiont", "fungus", "metagenome", "organism", "phytoplasma", "virus",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Record:
    """One assembly; empty text and None stand for `na`."""

    accession: str
    organism: str
    """As written, with strain."""
    category: str
    """"reference genome", "representative genome" or empty."""
    level: str
    """Complete Genome, Chromosome, Scaffold or Contig."""
    status: str
    """latest, replaced or suppressed."""
    representation: str
    """Full or Partial."""
    ftp_path: str
    """Folder of its files."""
    excluded: str
    """Why it is not in RefSeq, if it is not."""
    group: str
    """bacteria, plant, viral, ...; from the file or from who read it."""
    bases: int | None
    """Genome size, where the file has it."""


@dataclasses.dataclass(frozen=True)
class Name:
    """What the name of an organism says."""

    genus: str
    """Empty where the name has none, as in `uncultured bacterium`."""
    species: str
    """Genus and epithet, without strain; the whole name of a `sp.`."""
    sure: bool
    """A described species whose genus is not in doubt (square brackets, `sp.`, `cf.`)."""


def read_summary(path: pathlib.Path, group: str = "") -> Iterator[Record]:
    """The assemblies of a file, plain or gzip, in its order.

    `group` is that of all of them, for files without such a column. Raises InputError with file
    and line for a missing header or column, and lines that are cut off.
    """
    header: dict[str, int] = {}
    columns = least = 0
    with opened(path, "table") as stream:
        for number, raw in enumerate(stream, start=1):
            line = raw.decode("utf-8", "replace").rstrip("\r\n")
            if line.startswith("#"):
                names = line.lstrip("# ").split("\t")
                if names[0] == "assembly_accession":
                    places = {name.strip(): place for place, name in enumerate(names)}
                    header = {name: places[name] for name in _USED if name in places}
                    _require_columns(path, number, header, group)
                    # Lines of the newest files are full; of older ones tools strip what is empty.
                    columns = len(names)
                    last_needed = max(header[name] for name in _NEEDED)
                    least = columns if "group" in header else 1 + last_needed
                continue
            if not line.strip():
                continue
            if not header:
                raise InputError(
                    f"{path}: line {number}: no header above it; give NCBI's assembly_summary.txt "
                    "with its lines that start with #"
                )
            cells = line.split("\t")
            if len(cells) < least:
                raise InputError(
                    f"{path}: line {number}: {len(cells)} columns, the header has {columns}; "
                    "the file is cut off or not tab-separated: fetch it again"
                )
            yield _record({name: cells[i] for name, i in header.items() if i < len(cells)}, group)
    if not header:
        raise InputError(f"{path}: no line '#assembly_accession ...'; give NCBI's file as it is")


def name_of(organism: str) -> Name:
    """Genus and species by the name of an organism; strains are left out."""
    words = organism.replace("'", "").replace('"', "").split()
    candidatus = words[:1] == ["Candidatus"]
    words = words[candidatus:]
    if not words or words[0].lower() in _QUALIFIERS:
        return Name("", organism, sure=False)
    bracketed = words[0].startswith("[")
    genus = words[0].strip("[]")
    epithet = words[1] if len(words) > 1 else ""
    if not _GENUS.fullmatch(genus) or epithet in _NO_EPITHETS:
        return Name("", organism, sure=False)
    if not _EPITHET.fullmatch(epithet):
        return Name(genus, organism, sure=False)
    prefix = "Candidatus " if candidatus else ""
    return Name(genus, f"{prefix}{genus} {epithet}", sure=not bracketed)


def _require_columns(path: pathlib.Path, number: int, header: dict[str, int], group: str) -> None:
    for name in _NEEDED:
        if name not in header:
            raise InputError(
                f"{path}: line {number}: column {name} is missing; give NCBI's file as it is"
            )
    if not group and "group" not in header:
        raise InputError(
            f"{path}: line {number}: no column group (older files have none); give the group as "
            f"GROUP={path}"
        )


def _record(cells: dict[str, str], group: str) -> Record:
    values = {name: "" if cell.strip() in _NONE else cell.strip() for name, cell in cells.items()}
    size = values.get("genome_size", "")
    return Record(
        accession=values["assembly_accession"],
        organism=values["organism_name"],
        category=values["refseq_category"],
        level=values["assembly_level"],
        status=values["version_status"],
        representation=values["genome_rep"],
        ftp_path=values["ftp_path"],
        excluded=values.get("excluded_from_refseq", ""),
        group=group or values["group"],
        bases=int(size) if size.isdigit() else None,
    )
