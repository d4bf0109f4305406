"""FASTA and text files of labelled examples.

These are examples, not contigs: names repeat, so the genome reader does not apply.
"""

import pathlib
from collections.abc import Iterator

from nt_jax.errors import InputError
from nt_jax.evaluation.tasks.examples import Row, clean_label, clean_sequence
from nt_jax.evaluation.tasks.tables import read_text


def read_labelled_fasta(path: pathlib.Path, source: str) -> list[Row]:
    """`>NAME|LABEL`, the `.fna` of the Nucleotide Transformer benchmark: behind the last bar."""
    rows = []
    for header, bases, line in _records(path, read_text(path)):
        where = f"line {line}"
        _, bar, label = header.rpartition("|")
        if not bar:
            raise InputError(f"{path}: {where}: no label behind '|' in the header >{header}")
        label = clean_label(path, where, label)
        sequence, ambiguous = clean_sequence(path, where, bases)
        rows.append(Row(sequence, label, None, path, where, source, ambiguous))
    return rows


def read_class_fasta(path: pathlib.Path, source: str, label: str) -> list[Row]:
    """All records of a file, each an example of the class `label`."""
    rows = []
    for _, bases, line in _records(path, read_text(path)):
        where = f"line {line}"
        sequence, ambiguous = clean_sequence(path, where, bases)
        rows.append(Row(sequence, label, None, path, where, source, ambiguous))
    return rows


def read_class_text(path: pathlib.Path, source: str, label: str) -> Row:
    """A file that holds the bases of one example and nothing else."""
    bases = "".join(read_text(path).split())
    sequence, ambiguous = clean_sequence(path, "line 1", bases)
    return Row(sequence, label, None, path, "line 1", source, ambiguous)


def _records(path: pathlib.Path, text: str) -> Iterator[tuple[str, str, int]]:
    """(header, bases, line of the header)."""
    head, _, rest = text.partition(">")
    if head.strip():
        raise InputError(f"{path}: line 1: text before the first '>' header")
    line = head.count("\n") + 1
    for record in rest.split("\n>") if rest else []:
        header, *lines = record.splitlines() or [""]
        yield header, "".join(part.strip() for part in lines), line
        line += record.count("\n") + 1
