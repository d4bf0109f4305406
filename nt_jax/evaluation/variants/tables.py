"""Variants from a table with the columns chrom, pos, ref and alt."""

import itertools
import pathlib
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from nt_jax.errors import InputError, nearest
from nt_jax.evaluation.variants.reading import MISSING, Site, Source

_DELIMITERS = {".tsv": "\t", ".txt": "\t", ".csv": ","}
_NEEDED = ("chrom", "pos", "ref", "alt")
_NOTHING = "-"
_BLOCK = 1 << 22


def open_table(path: str | pathlib.Path, wanted: tuple[str, ...] = ()) -> Source:
    """TSV or CSV (also compressed) with a header, or Parquet; `wanted` are more columns.

    The columns chrom, pos, ref, alt and, where there is one, id are found in upper or lower case.
    pos is 1-based. `-` in ref or alt stands for no bases: with ref `-` the bases of alt are
    inserted behind the base at pos, with alt `-` the bases of ref, the first of them at pos, are
    deleted. Raises InputError for an unreadable file, a missing column or a pos that is no number.
    """
    path = pathlib.Path(path)
    try:
        names = _names(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read as a table ({error})") from None
    by_lower = {name.lower().lstrip("#"): name for name in reversed(names)}
    for column in _NEEDED:
        if column not in by_lower:
            raise InputError(
                f"{path}: no column {column!r}{nearest(column, names)}; a table of variants has "
                f"{', '.join(_NEEDED)}, this one {', '.join(names)}"
            )
    for name in wanted:
        if name not in names:
            raise InputError(f"{path}: no column {name!r}{nearest(name, names)}")
    needed = [by_lower[column] for column in _NEEDED]
    columns = [*needed, *([by_lower["id"]] if "id" in by_lower else []), *wanted]

    def sites() -> Iterator[Site]:
        row = itertools.count(1)
        for batch in _batches(path, list(dict.fromkeys(columns))):
            for values in zip(*(batch[name] for name in columns), strict=True):
                yield _site(path, f"row {next(row)}", values, len(wanted))

    return Source(path, sites, None)


def _site(path: pathlib.Path, where: str, values: Sequence[str | None], wanted: int) -> Site:
    chrom, pos, ref, alt = (text or "" for text in values[:4])
    if not pos.isascii() or not pos.isdigit():
        raise InputError(f"{path}: {where}: pos is {pos!r}, no number; correct it or leave it out")
    extra = values[len(values) - wanted :]
    name = values[4] if len(values) > 4 + wanted else None
    return Site(
        where,
        chrom,
        int(pos),
        name or ".",
        "" if ref == _NOTHING else ref,
        ("" if alt == _NOTHING else alt or ".",),
        (tuple(None if text is None or text in MISSING else text for text in extra),),
        (),
    )


def _names(path: pathlib.Path) -> list[str]:
    if path.suffix == ".parquet":
        return pq.read_schema(path).names
    with _reader(path, None) as reader:
        return reader.schema.names


def _batches(path: pathlib.Path, columns: list[str]) -> Iterator[dict[str, list[str | None]]]:
    """Columns as text, a block of rows at a time."""
    try:
        if path.suffix == ".parquet":
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(columns=columns):
                    yield {name: batch[name].cast(pa.string()).to_pylist() for name in columns}
            return
        with _reader(path, columns) as reader:
            for batch in reader:
                yield {name: batch[name].to_pylist() for name in columns}
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read as a table ({error})") from None


def _reader(path: pathlib.Path, columns: list[str] | None) -> pyarrow.csv.CSVStreamingReader:
    name = path.name.removesuffix(".gz").removesuffix(".bgz")
    ending = pathlib.PurePath(name).suffix
    if ending not in _DELIMITERS:
        raise InputError(
            f"{path}: which format? Tables end in {', '.join(_DELIMITERS)} (also with .gz) "
            "or .parquet"
        )
    stream = pa.input_stream(str(path), compression="gzip" if name != path.name else None)
    return pyarrow.csv.open_csv(
        stream,
        read_options=pyarrow.csv.ReadOptions(block_size=_BLOCK),
        parse_options=pyarrow.csv.ParseOptions(delimiter=_DELIMITERS[ending]),
        convert_options=pyarrow.csv.ConvertOptions(
            include_columns=columns,
            column_types=dict.fromkeys(columns or (), pa.string()),
            strings_can_be_null=False,
        ),
    )
