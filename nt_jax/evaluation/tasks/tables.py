"""CSV, TSV, Parquet and BED: one labelled sequence, or one labelled interval, a row.

Columns, in any order; others are not looked at:

| column | holds |
|---|---|
| `sequence` or `seq` | the bases |
| `chrom` or `region`, `start`, `end`, `strand` | in place of bases; 0-based, half-open; + or - |
| `label` | a class (a name or an integer) or a measurement (a decimal number) |
| `labels` | any number of labels: `A;B`, or nothing |
| `label:NAME` | one column a label: 1 where it holds, else 0 |
| `group` | what cross-validation must not tear apart; if absent, the interval's chromosome |
| `split` | train, dev or test |

A BED file has no header: chromosome, start, end, name (the label), score, strand.
"""

import csv
import dataclasses
import gzip
import io
import pathlib
import zlib
from collections.abc import Iterator, Mapping, Sequence

import pyarrow
import pyarrow.parquet

from nt_jax.errors import InputError
from nt_jax.evaluation.tasks.examples import (
    SPLIT_NAMES,
    Interval,
    Row,
    clean_label,
    clean_sequence,
)

TEXT_TABLES = (".csv", ".tsv", ".bed")

Records = Iterator[tuple[str, Sequence[str]]]
"""(`line 7`, fields) of each row."""

_POSITIONS = ("chrom", "start", "end", "strand")
_BED = ("chrom", "start", "end", "label", "score", "strand")
_ALIASES = {"seq": "sequence", "region": "chrom"}
_PREFIX = "label:"
_TRUE, _FALSE = ("1", "1.0", "true"), ("0", "0.0", "false")
_STRANDS = {"+": False, "-": True, ".": False, "": False}
_LIST = ";"


@dataclasses.dataclass(frozen=True)
class _Columns:
    """Where the fields of a row stand."""

    at: dict[str, int]
    """Of the columns with a meaning, without the `label:NAME` ones."""
    named: dict[str, int]
    """Of the columns `label:NAME`, by NAME."""


def read_table(path: pathlib.Path, source: str, label: str | None = None) -> list[Row]:
    """The rows of one table; with `label` the whole table is of that class.

    Raises InputError for a missing or doubled column, an empty or bad sequence, label or interval,
    with the line.
    """
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if kind == "parquet":
        header, records = _parquet(path)
    elif kind == "bed":
        # The names of intervals in a file of one class are the intervals' own.
        header = ["name" if label and name == "label" else name for name in _BED]
        records = _bed(path, read_text(path))
    else:
        header, records = _delimited(path, read_text(path))
    columns = _columns(f"{path}: {'columns' if kind == 'parquet' else 'line 1'}", header, label)
    return [_row(path, source, where, fields, columns, label) for where, fields in records]


def read_text(path: pathlib.Path) -> str:
    """The text of a file, gzipped or not; InputError when it is damaged."""
    try:
        raw = path.read_bytes()
        if path.suffix == ".gz":
            raw = gzip.decompress(raw)
        return raw.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error}); is the file whole?") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not text in UTF-8 (byte {error.start})") from error


def _delimited(path: pathlib.Path, text: str) -> tuple[list[str], Records]:
    """Header and rows of a CSV or TSV; a tab in the header makes it a TSV."""
    delimiter = "\t" if "\t" in text.partition("\n")[0] else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.line_num}: {error}") from error

    def records() -> Records:
        try:
            for fields in reader:
                if not fields:
                    continue
                if len(fields) != len(header):
                    raise InputError(
                        f"{path}: line {reader.line_num}: {len(fields)} fields, the header has "
                        f"{len(header)}"
                    )
                yield f"line {reader.line_num}", fields
        except csv.Error as error:
            raise InputError(f"{path}: line {reader.line_num}: {error}") from error

    return header, records()


def _bed(path: pathlib.Path, text: str) -> Records:
    for line, content in enumerate(text.splitlines(), start=1):
        if not content.strip() or content.startswith(("#", "track", "browser")):
            continue
        fields = content.split("\t")
        if len(fields) < 3:
            raise InputError(
                f"{path}: line {line}: {len(fields)} columns between tabs; a BED line has "
                "chromosome, start and end"
            )
        fields = fields[: len(_BED)]
        yield f"line {line}", [*fields, *[""] * (len(_BED) - len(fields))]


def _parquet(path: pathlib.Path) -> tuple[list[str], Records]:
    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        what = str(error).splitlines()[0]
        raise InputError(f"{path}: not a whole Parquet file ({what}); copy it again") from error
    header = table.column_names
    wanted = [_meaning(name) for name in header]
    # Only what has a meaning is turned into Python objects.
    columns = [
        column.to_pylist() if meaning else None
        for column, meaning in zip(table.columns, wanted, strict=True)
    ]

    def records() -> Records:
        for row in range(table.num_rows):
            yield f"row {row + 1}", [_text(column[row]) if column else "" for column in columns]

    return header, records()


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return _LIST.join(map(str, value))
    return str(value)


def _meaning(name: str) -> str | None:
    """What a header's column stands for: `label:NAME` keeps its case, the others do not matter."""
    name = name.strip()
    if name.lower().startswith(_PREFIX):
        return _PREFIX + name[len(_PREFIX) :].strip()
    name = _ALIASES.get(name.lower(), name.lower())
    known = ("sequence", "label", "labels", "group", "split", *_POSITIONS)
    return name if name in known else None


def _columns(place: str, header: Sequence[str], label: str | None) -> _Columns:
    meanings = [_meaning(name) for name in header]
    if "sequence" in meanings:
        # Where the bases come from is not looked at when they are there.
        meanings = [None if name in _POSITIONS else name for name in meanings]
    found = ", ".join(name.strip().lower() for name in header) or "nothing"

    def wrong(what: str, way_out: str = "a header needs sequence and label") -> InputError:
        return InputError(f"{place}: {what} (found: {found}); {way_out}")

    for name in dict.fromkeys(meaning for meaning in meanings if meaning):
        if meanings.count(name) > 1:
            raise wrong(f"{meanings.count(name)} columns named {name!r}")
    at = {name: column for column, name in enumerate(meanings) if name}
    if "sequence" not in at and not set(_POSITIONS[:3]) <= set(at):
        raise wrong("0 columns named 'sequence'")
    named = {name.removeprefix(_PREFIX): at[name] for name in at if name.startswith(_PREFIX)}
    kinds = [name for name in at if name in ("label", "labels")] + ["label:NAME"] * bool(named)
    if label is not None and kinds:
        raise wrong(f"a column {kinds[0]}", f"but the file's name makes {label!r} of all")
    if label is None and not kinds:
        raise wrong("0 columns named 'label'")
    if len(kinds) > 1:
        raise wrong(f"columns {' and '.join(kinds)}", "keep one kind of label")
    return _Columns(at, named)


def _row(
    path: pathlib.Path,
    source: str,
    where: str,
    fields: Sequence[str],
    columns: _Columns,
    label: str | None,
) -> Row:
    cells = {name: fields[column].strip() for name, column in columns.at.items()}
    interval, sequence, ambiguous = None, "", 0
    labels = _labels(path, where, fields, columns) if label is None else label
    if "sequence" in cells:
        sequence, ambiguous = clean_sequence(path, where, cells["sequence"])
    else:
        interval = _interval(path, where, cells)
    split = cells.get("split", "train").lower()
    if split not in SPLIT_NAMES:
        raise InputError(f"{path}: {where}: the split is {split!r}; give train, dev or test")
    group = cells.get("group", interval.chrom if interval else None)
    if group == "":
        raise InputError(f"{path}: {where}: the group is empty; name it or drop the column")
    return Row(
        sequence,
        labels,
        tuple(columns.named) or None,
        path,
        where,
        source,
        ambiguous,
        group,
        SPLIT_NAMES[split] if "split" in cells else None,
        interval,
    )


def _labels(
    path: pathlib.Path, where: str, fields: Sequence[str], columns: _Columns
) -> str | frozenset[str]:
    if "label" in columns.at:
        return clean_label(path, where, fields[columns.at["label"]])
    if "labels" in columns.at:
        names = [name.strip() for name in fields[columns.at["labels"]].split(_LIST)]
        return frozenset(name for name in names if name)
    held = set()
    for name, place in columns.named.items():
        flag = fields[place].strip().lower()
        if flag not in _TRUE + _FALSE:
            raise InputError(f"{path}: {where}: label:{name} is {flag!r}; give 1 or 0")
        if flag in _TRUE:
            held.add(name)
    return frozenset(held)


def _interval(path: pathlib.Path, where: str, cells: Mapping[str, str]) -> Interval:
    chrom, start, end = cells["chrom"], cells["start"], cells["end"]
    strand = cells.get("strand", "")
    if not (start.isdigit() and end.isdigit() and int(start) < int(end)):
        raise InputError(
            f"{path}: {where}: no interval from {start!r} to {end!r}; start and end are 0-based "
            "and half-open, start below end"
        )
    if not chrom:
        raise InputError(f"{path}: {where}: the chromosome is empty; name it")
    if strand not in _STRANDS:
        raise InputError(f"{path}: {where}: the strand is {strand!r}; give +, - or .")
    return Interval(chrom, int(start), int(end), _STRANDS[strand])
