"""One labelled example as a file has it, with what an error message needs to point at it."""

import dataclasses
import math
import pathlib
import re

from nt_jax.errors import InputError

SPLITS = ("train", "dev", "test")
SPLIT_NAMES = {
    "train": "train",
    "dev": "dev",
    "val": "dev",
    "valid": "dev",
    "validation": "dev",
    "test": "test",
}
"""What files and a `split` column call the splits."""

MEASUREMENT = re.compile(r"[-+]?(\d+\.\d*|\.\d+|\d+(\.\d*)?[eE][-+]?\d+)")
INTEGER = re.compile(r"-?\d+")

_IUPAC = "RYSWKMBDHV"
_CLEAN = str.maketrans("U" + _IUPAC, "T" + "N" * len(_IUPAC))
_COMPLEMENT = str.maketrans("ACGT", "TGCA")
_LETTERS = "ACGTUN" + _IUPAC
_BAD_LETTER = re.compile(f"[^{_LETTERS}{_LETTERS.lower()}]")
_NOT_FINITE = re.compile(r"[-+]?(nan|inf|infinity)", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Interval:
    """A stretch of a reference: 0-based, half-open, as in BED."""

    chrom: str
    start: int
    end: int
    reverse: bool
    """On the minus strand: its sequence is the reverse complement."""


@dataclasses.dataclass(frozen=True)
class Row:
    """An example before its task decides what kind of label it has."""

    sequence: str
    """Upper-case A, C, G, T, N; empty as long as only the interval is known."""
    label: str | frozenset[str]
    """A class or a measurement, as text; or the set of labels that hold."""
    columns: tuple[str, ...] | None
    """All labels there are, where each has its own column `label:NAME`."""
    file: pathlib.Path
    where: str
    """`line 7`, or `row 7` of a Parquet file."""
    source: str
    """The file's name in the audit."""
    ambiguous: int = 0
    """IUPAC letters read as N."""
    group: str | None = None
    split: str | None = None
    """From a `split` column: train, dev or test."""
    interval: Interval | None = None

    def error(self, what: str) -> InputError:
        """An InputError that names file and line."""
        return InputError(f"{self.file}: {self.where}: {what}")


def clean_sequence(file: pathlib.Path, where: str, sequence: str) -> tuple[str, int]:
    """Upper-case A, C, G, T, N and the number of IUPAC letters that became N."""
    bases = sequence.strip()
    if not bases:
        raise InputError(f"{file}: {where}: the sequence is empty")
    bad = _BAD_LETTER.search(bases)
    if bad:
        raise InputError(
            f"{file}: {where}: {bad.group()!r} at base {bad.start() + 1} is not a nucleotide "
            "letter (A, C, G, T, U, N or IUPAC)"
        )
    bases = bases.upper()
    return bases.translate(_CLEAN), sum(map(bases.count, _IUPAC))


def clean_label(file: pathlib.Path, where: str, label: str) -> str:
    """The text of a class or of a finite measurement; 1.0 is class 1, as after a float column."""
    label = label.strip()
    if re.fullmatch(r"-?\d+\.0+", label):
        label = label.partition(".")[0]
    if not label:
        raise InputError(f"{file}: {where}: the label is empty; give a class or a measurement")
    number = MEASUREMENT.fullmatch(label) and math.isfinite(float(label))
    if _NOT_FINITE.fullmatch(label) or (MEASUREMENT.fullmatch(label) and not number):
        raise InputError(f"{file}: {where}: the label is {label!r}, not a finite number; remove it")
    return label


def reverse_complement(sequence: str) -> str:
    """The other strand, read in its own direction; N stays N."""
    return sequence[::-1].translate(_COMPLEMENT)
