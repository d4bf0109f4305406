"""Damaged VCF and BCF files through the reader to windows of haplotypes, and what has to hold.

The parser and the haplotypes of this file are naive on purpose and share nothing with
data_pipelines.{genotypes,haplotypes}.
"""

import bisect
import collections
import dataclasses
import pathlib
import random
import re
from typing import Any

import numpy as np

from data_pipelines import haplotypes
from data_pipelines.fasta import Contig
from data_pipelines.genotypes import Counts, Panel, Reference, open_panel, read_alleles
from data_pipelines.haplotypes import Allele, Alleles
from data_pipelines.windows import plan_windows, recipe
from fuzzing import genomes
from fuzzing.containers import Malformed, inflated
from fuzzing.mutants import Mutant
from nt_jax.errors import InputError

WINDOWS = 2
"""Windows of each mutant, each drawn for every haplotype."""
_CALL = re.compile(r"[|/]?(\.|[0-9]{1,6})(?:([|/])(\.|[0-9]{1,6}))*")


@dataclasses.dataclass(frozen=True)
class Row:
    """A record as the naive parser reads it."""

    contig: str
    position: int
    """1-based."""
    ref: str
    alts: list[str]
    calls: list[tuple[list[int], bool]]
    """(allele numbers, -1 for missing; whether it is phased) of every sample."""


def parse(text: bytes) -> tuple[list[str], list[Row]]:
    """(samples, records) of VCF text. Raises Malformed for what has to be refused."""
    if b"\0" in text:
        raise Malformed("NUL")
    if not text.endswith(b"\n"):
        raise Malformed("the last line has no end")
    lines = [line.removesuffix(b"\r") for line in text[:-1].split(b"\n")]
    samples: list[str] | None = None
    rows = []
    for line in lines:
        if samples is None:
            if line.startswith(b"#CHROM\t"):
                samples = _text(line).split("\t")[9:]
            elif not line.startswith(b"##"):
                raise Malformed("header")
        elif line:
            rows.append(_row(line, len(samples)))
    if not samples or len(set(samples)) < len(samples):
        raise Malformed("samples")
    return samples, rows


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise Malformed("encoding") from None


def _row(line: bytes, samples: int) -> Row:
    columns = line.split(b"\t")
    if len(columns) != 9 + samples or line.startswith(b"#"):
        raise Malformed("columns")
    contig, position, _, ref, alt, _, _, _, form = columns[:9]
    if not re.fullmatch(rb"[0-9]{1,18}", position):
        raise Malformed("POS")
    if not (contig and ref and alt):
        raise Malformed("empty column")
    keys = form.split(b":")
    if b"GT" not in keys:
        raise Malformed("no GT")
    at = keys.index(b"GT")
    alts = [] if alt == b"." else _text(alt).upper().split(",")
    calls = [_call(cell, at, len(keys), len(alts)) for cell in columns[9:]]
    if max(len(numbers) for numbers, _ in calls) > 2:
        raise Malformed("ploidy")
    return Row(_text(contig), int(position), _text(ref).upper(), alts, calls)


def _call(cell: bytes, at: int, keys: int, alts: int) -> tuple[list[int], bool]:
    values = cell.split(b":")
    if len(values) > keys:
        raise Malformed("more values than FORMAT has")
    text = values[at].decode("latin-1") if at < len(values) else "."
    if not _CALL.fullmatch(text):
        raise Malformed("GT")
    numbers = [-1 if a == "." else int(a) for a in re.findall(r"\.|[0-9]+", text)]
    if max(numbers) > alts:
        raise Malformed("GT out of range")
    return numbers, "/" not in text


def check(mutant: Mutant, rng: random.Random, folder: pathlib.Path) -> str:
    """ "accepted" or "refused"; raises as `genomes.check` does."""
    path = folder / "mutant.vcf"
    path.write_bytes(mutant.data)
    reference = _reference(mutant.seed.reference, rng)
    options: dict[str, Any] = {
        "min_count": rng.choice([1, 1, 2]),
        "longest": rng.choice([1000, 1000, 5]),
        "skip_mismatches": rng.random() < 0.7,
    }
    lengths = rng.choice([50, 300, 700]), rng.choice([1, 17, 100])
    parsed: tuple[list[str], list[Row]] | None = None
    known = False
    """Whether the naive parser can say what is in the file."""
    try:
        content = inflated(mutant.data)
        known = not content.startswith(b"BCF")
        if known:
            parsed = parse(content)
        elif content == inflated(mutant.seed.bcf):
            known, parsed = True, parse(mutant.seed.text)
    except Malformed:
        known = True
    try:
        panel = open_panel(path, **options)
        counts = Counts()
        held = Reference({c.name for c in reference}, lambda: reference)
        found = list(read_alleles(panel, held, counts))
    except InputError as error:
        genomes.one_line(error, path)
        return "refused"
    assert not known or parsed is not None, "read, though it is malformed"
    if parsed is not None:
        expected = Expected(*parsed, reference, panel)
        expected.compare(found, counts)
    else:
        expected = None
    for contig in reference:
        alleles = [allele for name, allele in found if name == contig.name]
        _windows(contig, alleles, panel, expected, lengths, rng)
    return "accepted"


def _reference(text: bytes, rng: random.Random) -> list[Contig]:
    """The stretch whole, or as two pieces with a gap between them."""
    (record,) = genomes.parse(text)
    spans = [(0, len(record.bases))]
    if rng.random() < 0.3:
        spans = [(0, 700), (730, len(record.bases))]
    return [
        Contig(
            record.name,
            np.frombuffer(record.bases[low:high].encode(), np.uint8),
            record.start + low,
            0,
            0,
            0,
        )
        for low, high in spans
    ]


class Expected:
    """What has to come out: the changes of every haplotype, and every count."""

    def __init__(
        self, samples: list[str], rows: list[Row], reference: list[Contig], panel: Panel
    ) -> None:
        self.skipped: collections.Counter[str] = collections.Counter()
        self.records, self.missing, self.unphased = len(rows), 0, 0
        self.wanted: list[list[tuple[int, int, int, int, str]]]
        """(start, 0 for an insertion, order, bases replaced, ALT) a haplotype, all that it has."""
        self.wanted = [[] for _ in range(2 * len(samples))]
        self.carriers = 0
        self._order = 0
        assert panel.samples == tuple(samples), "other samples than the header has"
        names = {contig.name for contig in reference}
        for row in rows:
            if row.contig not in names:
                self.skipped["contig_absent"] += 1
            elif self._fits(row, reference, panel):
                self._apply(row, panel)
        self.changes = [self._without_conflicts(own) for own in self.wanted]

    def _fits(self, row: Row, reference: list[Contig], panel: Panel) -> bool:
        for contig in reference:
            low = row.position - 1 - contig.start
            if row.contig == contig.name and 0 <= low <= len(contig.bases) - len(row.ref):
                there = contig.bases.tobytes().decode()[low : low + len(row.ref)]
                if all(b in (a, "N") for a, b in zip(row.ref, there, strict=True)):
                    return True
                assert panel.skip_mismatches, "REF is not that of the reference"
                self.skipped["ref_mismatch"] += 1
                return False
        self.skipped["outside_of_contig"] += 1
        return False

    def _apply(self, row: Row, panel: Panel) -> None:
        flat: list[int] = []
        for numbers, phased in row.calls:
            both = numbers * 2 if len(numbers) == 1 else numbers
            self.missing += numbers.count(-1)
            self.unphased += not phased and len(numbers) == 2 and both[0] != both[1]
            flat += both
        for number, alt in enumerate(row.alts, 1):
            who = [haplotype for haplotype, own in enumerate(flat) if own == number]
            reason = None
            if not alt.isalpha():
                reason = "symbolic"
            elif set(row.ref + alt) - set("ACGT"):
                reason = "unknown_base"
            elif max(len(row.ref), len(alt)) > panel.longest:
                reason = "too_long"
            elif len(who) < max(1, panel.min_count):
                reason = "too_rare"
            elif row.ref == alt:
                reason = "no_change"
            if reason:
                self.skipped[reason] += 1
                continue
            self._order += 1
            self.carriers += len(who)
            start, ref = row.position - 1, row.ref
            while ref and alt and ref[0] == alt[0]:
                start, ref, alt = start + 1, ref[1:], alt[1:]
            while ref and alt and ref[-1] == alt[-1]:
                ref, alt = ref[:-1], alt[:-1]
            for haplotype in who:
                change = (start, int(bool(ref)), self._order, len(ref), alt)
                self.wanted[haplotype].append(change)

    def _without_conflicts(
        self, own: list[tuple[int, int, int, int, str]]
    ) -> list[tuple[int, int, str]]:
        kept: list[tuple[int, int, str]] = []
        end, inserted = -1, -1
        for start, replaces, _, length, alt in sorted(own):
            if start < end or (not replaces and start == inserted):
                self.skipped["conflict"] += 1
                continue
            kept.append((start, length, alt))
            end = start + length
            inserted = inserted if replaces else start
        self.carriers -= len(own) - len(kept)
        return kept

    def compare(self, found: list[tuple[str, Allele]], counts: Counts) -> None:
        """Every record is applied or counted under its reason, and nothing else is."""
        ours = counts.to_dict()
        theirs = {
            "records": self.records,
            "alleles": len(found),
            "carriers": self.carriers,
            "missing": self.missing,
            "unphased": self.unphased,
            "skipped": dict(self.skipped),
        }
        assert ours == theirs, f"counted {ours}, expected {theirs}"
        carried = sum(len(allele.carriers) for _, allele in found)
        assert carried == self.carriers, f"{carried} carriers, expected {self.carriers}"


def _windows(
    contig: Contig,
    alleles: list[Allele],
    panel: Panel,
    expected: Expected | None,
    lengths: tuple[int, int],
    rng: random.Random,
) -> None:
    """A few windows for every haplotype, packed as the build packs them."""
    length, stride = lengths
    cutting = recipe(f"window={length},stride={stride},jitter=0,tokens=2")
    planned = contig.start + plan_windows(len(contig.bases), cutting)
    starts = np.sort(rng.sample(planned.tolist(), min(WINDOWS, len(planned))))
    columns = Alleles.of(alleles, panel.haplotypes)
    extent = (contig.start, contig.start + len(contig.bases))
    cuts = haplotypes.stretches(columns, starts, length, extent)
    made: dict[tuple[Any, ...], tuple[str, list[float]]] = {}
    for start, low, high, first, last in zip(starts, *cuts, strict=True):
        packed = haplotypes.pack(columns, first, last, low, panel.haplotypes)
        stretch = contig.bases[low - contig.start : high - contig.start].tobytes()
        for number in range(panel.haplotypes):
            changes = haplotypes.carried(packed, number)
            window = haplotypes.assemble(stretch, changes, start - low, length).bases.decode()
            assert len(window) == length, f"{len(window)} bases instead of {length}"
            assert not set(window) - set("ACGTN"), "letters"
            if expected is None:
                continue
            own = tuple(c for c in expected.changes[number] if extent[0] <= c[0] < extent[1])
            if own not in made:
                made[own] = _haplotype(contig, own)
            bases, origins = made[own]
            at = bisect.bisect_left(origins, start)
            at = max(0, min(at, len(bases) - length))
            there = bases[at : at + length].ljust(length, "N")
            assert window == there, f"haplotype {number} at {start}: {window} instead of {there}"


def _haplotype(contig: Contig, changes: tuple[tuple[int, int, str], ...]) -> tuple[str, list]:
    """(bases, the reference base of each; half a base less for what is inserted)."""
    reference = contig.bases.tobytes().decode()
    bases, origins, at = [], [], contig.start
    for start, length, alt in changes:
        bases.append(reference[at - contig.start : start - contig.start] + alt)
        origins += range(at, start)
        origins += [start + i if i < length else start + length - 0.5 for i in range(len(alt))]
        at = start + length
    bases.append(reference[at - contig.start :])
    origins += range(at, contig.start + len(reference))
    return "".join(bases), origins
