"""Labelled sequences: read, cleaned, split, and audited for leakage.

| given | training | test |
|---|---|---|
| one table or `.fna` | all | k-fold |
| folder with train, dev and test files (GUE, NT) | train + dev | test |
| folder with train and test | train | test |
| folder with dev and test | dev | test |
| folder with train and dev | train | dev |
| folder with one file | all | k-fold |

A table is a CSV or TSV with the columns `sequence` and `label`; in an `.fna` of the Nucleotide
Transformer benchmark the label stands behind the last `|` of a header. Any may be gzipped. What
is tuned is tuned by cross-validation within the training sequences, so a dev split adds to them.
"""

import collections
import csv
import dataclasses
import gzip
import io
import pathlib
import re
import zlib
from collections.abc import Iterator

import numpy as np

from nt_jax.errors import InputError
from nt_jax.evaluation.tasks.task import Audit, Split, Task

SPLITS = ("train", "dev", "test")
SIMULATION = "simulation.json"
"""Marks a folder written by `data_pipelines.simulate`."""
SUFFIXES = tuple(kind + zipped for kind in (".csv", ".tsv", ".fna") for zipped in ("", ".gz"))

_IUPAC = "RYSWKMBDHV"
_CLEAN = str.maketrans("U" + _IUPAC, "T" + "N" * len(_IUPAC))
_COMPLEMENT = str.maketrans("ACGT", "TGCA")
_LETTERS = "ACGTUN" + _IUPAC
_BAD_LETTER = re.compile(f"[^{_LETTERS}{_LETTERS.lower()}]")
_MEASUREMENT = re.compile(r"[-+]?(\d+\.\d*|\.\d+|\d+(\.\d*)?[eE][-+]?\d+|nan|inf)", re.IGNORECASE)


def read_task(path: str | pathlib.Path) -> Task:
    """Reads a file or folder; the table at the top of this file says what becomes what.

    Raises InputError for a missing file or column, a bad label, an empty sequence, a bad letter
    (with the line), a test label that training lacks, or fewer than two classes.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        files = _split_files(path)
        parts = {name: _read_rows(file) for name, file in files.items()}
        # Numbered folders (GUE: tf/0, mouse/1) say nothing without their parent.
        resolved = path.resolve()
        name = resolved.name if not resolved.name.isdigit() else "_".join(resolved.parts[-2:])
    elif path.is_file():
        files = {"all": path}
        parts = {"all": _read_rows(path)}
        name = path.name.removesuffix(".gz").rpartition(".")[0]
    else:
        raise InputError(f"{path}: no such task; give a CSV, TSV, .fna or a folder of them")
    marks = [parent / SIMULATION for parent in path.resolve().parents[:3]]
    simulated = any(mark.is_file() for mark in marks)
    return _assemble(name, path, files, parts, simulated)


@dataclasses.dataclass(frozen=True)
class _Row:
    sequence: str
    label: str
    line: int
    ambiguous: int


def _split_files(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    files = {}
    for split in SPLITS:
        found = [folder / (split + suffix) for suffix in SUFFIXES]
        found = [file for file in found if file.is_file()]
        if len(found) > 1:
            raise InputError(
                f"{folder}: both {found[0].name} and {found[1].name}; which is the {split} split? "
                "Remove one"
            )
        if found:
            files[split] = found[0]
    if not files:
        raise InputError(
            f"{folder}: no labelled data; expected train, dev or test with one of the endings "
            f"{', '.join(SUFFIXES)}"
        )
    return files


def _assemble(
    name: str,
    path: pathlib.Path,
    files: dict[str, pathlib.Path],
    parts: dict[str, list[_Row]],
    simulated: bool,
) -> Task:
    test_name = None if len(parts) == 1 else list(parts)[-1]
    train_rows = [row for split, rows in parts.items() if split != test_name for row in rows]
    test_rows = parts[test_name] if test_name else []

    kept, dropped = _without_leakage(train_rows, test_rows)
    classes = _ordered({row.label for row in kept})
    if len(classes) < 2:
        what = f"only the label {classes[0]!r}" if classes else "no sequence"
        raise InputError(f"{path}: {what} in training; a task needs at least two classes")
    number = {label: index for index, label in enumerate(classes)}
    for row in test_rows:
        if row.label not in number:
            raise InputError(
                f"{files[str(test_name)]}: line {row.line}: label {row.label!r} does not occur in "
                f"training ({', '.join(classes)})"
            )

    def split(rows: list[_Row]) -> Split:
        labels = np.array([number[row.label] for row in rows], np.int64)
        return Split(tuple(row.sequence for row in rows), labels)

    audit = Audit(
        rows={files[part].name: len(rows) for part, rows in parts.items()},
        in_test=dropped["in_test"],
        in_test_reversed=dropped["in_test_reversed"],
        conflicting=dropped["conflicting"],
        repeated=dropped["repeated"],
        ambiguous_letters=sum(row.ambiguous for row in train_rows + test_rows),
    )
    test = split(test_rows) if test_name else None
    return Task(name, classes, split(kept), test, audit, simulated)


def _without_leakage(
    train: list[_Row], test: list[_Row]
) -> tuple[list[_Row], collections.Counter[str]]:
    """Training rows that may stay, and how many were dropped for which reason."""
    dropped = collections.Counter(in_test=0, in_test_reversed=0, conflicting=0, repeated=0)
    in_test = {row.sequence for row in test}
    labels = collections.defaultdict(set)
    for row in train:
        labels[row.sequence].add(row.label)
    seen: set[tuple[str, str]] = set()
    kept = []
    for row in train:
        other = row.sequence[::-1].translate(_COMPLEMENT)
        if row.sequence in in_test:
            dropped["in_test"] += 1
        elif other in in_test:
            dropped["in_test_reversed"] += 1
        elif len(labels[row.sequence]) > 1:
            dropped["conflicting"] += 1
        elif (min(row.sequence, other), row.label) in seen:
            dropped["repeated"] += 1
        else:
            seen.add((min(row.sequence, other), row.label))
            kept.append(row)
    return kept, dropped


def _ordered(labels: set[str]) -> tuple[str, ...]:
    if all(re.fullmatch(r"-?\d+", label) for label in labels):
        return tuple(sorted(labels, key=int))
    return tuple(sorted(labels))


def _read_rows(path: pathlib.Path) -> list[_Row]:
    name = path.name.removesuffix(".gz")
    if not name.endswith((".csv", ".tsv", ".fna")):
        raise InputError(f"{path}: unknown kind of table; known endings: {', '.join(SUFFIXES)}")
    text = _read_text(path)
    records = _fna_records(path, text) if name.endswith(".fna") else _table_records(path, text)
    rows = [_row(path, *record) for record in records]
    if not rows:
        raise InputError(f"{path}: no sequences")
    return rows


def _read_text(path: pathlib.Path) -> str:
    try:
        raw = path.read_bytes()
        if path.suffix == ".gz":
            raw = gzip.decompress(raw)
        return raw.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error}); is the file whole?") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not text in UTF-8 (byte {error.start})") from error


def _table_records(path: pathlib.Path, text: str) -> Iterator[tuple[str, str, int]]:
    """(sequence, label, line) of a CSV or TSV; a tab in the header makes it a TSV."""
    delimiter = "\t" if "\t" in text.partition("\n")[0] else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header = [column.strip().lower() for column in next(reader, [])]
    for column in ("sequence", "label"):
        if header.count(column) != 1:
            raise InputError(
                f"{path}: line 1: {header.count(column)} columns named {column!r} "
                f"(found: {', '.join(header) or 'nothing'}); a header needs sequence and label"
            )
    sequence, label = header.index("sequence"), header.index("label")
    try:
        for fields in reader:
            if not fields:
                continue
            if len(fields) != len(header):
                raise InputError(
                    f"{path}: line {reader.line_num}: {len(fields)} fields, the header has "
                    f"{len(header)}"
                )
            yield fields[sequence], fields[label], reader.line_num
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.line_num}: {error}") from error


def _fna_records(path: pathlib.Path, text: str) -> Iterator[tuple[str, str, int]]:
    """(sequence, label, line of the header) of the benchmark's FASTA: `>NAME|LABEL`.

    These are labelled examples, not contigs: names repeat, so the genome reader does not apply.
    """
    head, _, rest = text.partition(">")
    if head.strip():
        raise InputError(f"{path}: line 1: text before the first '>' header")
    line = head.count("\n") + 1
    for record in rest.split("\n>") if rest else []:
        header, *lines = record.splitlines()
        _, bar, label = header.rpartition("|")
        if not bar:
            raise InputError(f"{path}: line {line}: no label behind '|' in the header >{header}")
        yield "".join(part.strip() for part in lines), label, line
        line += record.count("\n") + 1


def _row(path: pathlib.Path, sequence: str, label: str, line: int) -> _Row:
    label = label.strip()
    if re.fullmatch(r"-?\d+\.0+", label):
        # Tables that went through floats: 1.0 is class 1.
        label = label.partition(".")[0]
    if not label or _MEASUREMENT.fullmatch(label):
        what = "empty" if not label else f"{label!r}, a measurement and not a class"
        raise InputError(f"{path}: line {line}: the label is {what}; labels are integers or names")
    bases = sequence.strip()
    if not bases:
        raise InputError(f"{path}: line {line}: the sequence is empty")
    bad = _BAD_LETTER.search(bases)
    if bad:
        raise InputError(
            f"{path}: line {line}: {bad.group()!r} at base {bad.start() + 1} is not a nucleotide "
            "letter (A, C, G, T, U, N or IUPAC)"
        )
    bases = bases.upper()
    return _Row(bases.translate(_CLEAN), label, line, sum(map(bases.count, _IUPAC)))
