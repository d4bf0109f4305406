"""The multispecies set: one species a genus of RefSeq, without plants and viruses.

What is published (FACTS of the model card and the released script): the six groups and their
numbers, one species a genus chosen at random, the last 50 genomes for test, the 50 before them
for validation, no weights. Inferred: that reference genomes and finished assemblies are
preferred, and in which order the genomes stand (here: one that the seed draws, so that every
group is likely in every split).
"""

import collections
import dataclasses
import hashlib
import pathlib
from collections.abc import Iterable, Mapping, Sequence

from data_pipelines.assembly_summary import Name, Record, name_of, read_summary
from data_pipelines.manifest import CHECKSUM_LIST, GROUPS, Assembly
from nt_jax.errors import InputError, nearest

PUBLISHED = {
    "bacteria": (667, 17.1e9),
    "fungi": (46, 2.3e9),
    "invertebrate": (39, 20.8e9),
    "protozoa": (10, 0.5e9),
    "vertebrate_mammalian": (31, 69.8e9),
    "vertebrate_other": (57, 63.4e9),
}
"""Species and bases of each group, as published."""
HELD_OUT = 50
"""Genomes of the test split, and of the validation split."""
FEW = 200
"""Below so many genomes the splits are scaled."""
_LEVELS = ("Complete Genome", "Chromosome", "Scaffold", "Contig")


@dataclasses.dataclass(frozen=True)
class Selection:
    """The chosen assemblies, and what became of all others."""

    assemblies: tuple[Assembly, ...]
    """In the order that decides the splits."""
    bases: Mapping[str, int | None]
    """Genome sizes of each group's choice added up; None where a file does not have them."""
    genera: Mapping[str, int]
    """Genera of each group that there were to choose from."""
    left_out: Mapping[str, int]
    """Assemblies by the reason why they were not taken."""
    held_out: int
    """Genomes of the test split, and of the validation split."""

    def species(self) -> dict[str, int]:
        """Chosen assemblies of each group."""
        counts = collections.Counter(assembly.group for assembly in self.assemblies)
        return {group: counts[group] for group in GROUPS}


@dataclasses.dataclass(frozen=True)
class _Candidate:
    record: Record
    name: Name


def summaries(texts: Sequence[str]) -> Iterable[Record]:
    """Records of several files, each given as `FILE` or `GROUP=FILE`.

    Raises InputError for a group that is none of the six, and as `read_summary` does.
    """
    for text in texts:
        group, separator, rest = text.partition("=")
        if not separator or pathlib.Path(text).exists():
            yield from read_summary(pathlib.Path(text))
            continue
        if group not in GROUPS:
            raise InputError(
                f"{text}: {group!r} is no group{nearest(group, GROUPS)}; groups: "
                f"{', '.join(GROUPS)}"
            )
        yield from read_summary(pathlib.Path(rest), group)


def select(
    records: Iterable[Record], *, seed: int = 0, limits: Mapping[str, int] | None = None
) -> Selection:
    """One assembly a genus, and the published splits.

    Within a genus, reference and representative genomes come first, then complete assemblies
    before chromosomes, scaffolds and contigs, then described species before doubtful names, then
    the seed decides. Which genera of a group are taken is decided by the seed alone.

    Args:
        records: assemblies of RefSeq, in any order.
        seed: any integer.
        limits: genera of each group at most; groups that are not named are not limited.

    Raises:
        InputError: an accession twice, or fewer than three genera.
    """
    limits = limits or {}
    left_out: collections.Counter[str] = collections.Counter()
    best: dict[tuple[str, str], _Candidate] = {}
    seen: set[str] = set()
    for record in records:
        if record.accession in seen:
            raise InputError(
                f"{record.accession}: stands twice in the assembly summaries; give each file once"
            )
        seen.add(record.accession)
        name = name_of(record.organism)
        reason = _reason(record, name)
        if reason:
            left_out[reason] += 1
            continue
        own = _Candidate(record, name)
        other = best.get((record.group, name.genus))
        if other is not None:
            left_out["another of its genus is taken"] += 1
            own = min(own, other, key=lambda candidate: _preference(candidate, seed))
        best[record.group, name.genus] = own
    chosen: list[_Candidate] = []
    genera = {}
    for group in GROUPS:
        own_genera = sorted(
            (genus for place, genus in best if place == group),
            key=lambda genus: _drawn(seed, "genus", group, genus),
        )
        genera[group] = len(own_genera)
        kept = own_genera[: limits.get(group, len(own_genera))]
        if len(kept) < len(own_genera):
            left_out["its genus is not drawn"] += len(own_genera) - len(kept)
        chosen += [best[group, genus] for genus in kept]
    if len(chosen) < 3:
        raise InputError(
            f"{len(chosen)} genera are left of {len(seen):,} assemblies; train, validation and "
            "test need one each: give more of RefSeq"
        )
    chosen.sort(key=lambda candidate: _drawn(seed, "order", candidate.record.accession))
    held_out = HELD_OUT
    if len(chosen) < FEW:
        held_out = max(1, round(HELD_OUT * len(chosen) / sum(n for n, _ in PUBLISHED.values())))
    splits = ["train"] * (len(chosen) - 2 * held_out)
    splits += ["validation"] * held_out + ["test"] * held_out
    sizes = {group: [c.record.bases for c in chosen if c.record.group == group] for group in GROUPS}
    return Selection(
        tuple(_row(candidate, split) for candidate, split in zip(chosen, splits, strict=True)),
        {
            group: None if None in own else sum(size or 0 for size in own)
            for group, own in sizes.items()
        },
        genera,
        dict(left_out.most_common()),
        held_out,
    )


def _reason(record: Record, name: Name) -> str:
    """Why an assembly cannot be taken; empty if it can."""
    if record.group not in GROUPS:
        return f"group {record.group or 'unknown'}"
    if record.status != "latest":
        return f"version {record.status or 'unknown'}"
    if record.excluded:
        return "excluded from RefSeq"
    if not record.accession.startswith("GCF_"):
        return "not in RefSeq (no GCF accession)"
    if record.representation != "Full":
        return "partial genome"
    if not record.ftp_path:
        return "no ftp path"
    return "" if name.genus else "no genus in its name"


def _preference(candidate: _Candidate, seed: int) -> tuple[bool, int, bool, bytes]:
    """Sort key, the best first."""
    record = candidate.record
    level = _LEVELS.index(record.level) if record.level in _LEVELS else len(_LEVELS)
    # Since 2024 RefSeq calls its representative genomes reference genomes as well.
    named = record.category in ("reference genome", "representative genome")
    return (not named, level, not candidate.name.sure, _drawn(seed, "assembly", record.accession))


def _drawn(seed: int, *words: str) -> bytes:
    """A place in an order that the seed draws; it does not depend on what else is there."""
    return hashlib.blake2b("\t".join([str(seed), *words]).encode(), digest_size=16).digest()


def _row(candidate: _Candidate, split: str) -> Assembly:
    record = candidate.record
    folder = record.ftp_path.rstrip("/")
    if folder.startswith("ftp://"):
        folder = f"https://{folder.removeprefix('ftp://')}"
    return Assembly(
        accession=record.accession,
        species=candidate.name.species,
        genus=candidate.name.genus,
        group=record.group,
        url=f"{folder}/{folder.rpartition('/')[2]}_genomic.fna.gz",
        checksum=CHECKSUM_LIST,
        bytes=None,
        split=split,
        weight=1.0,
    )
