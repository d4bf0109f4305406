"""Which files of a path hold which split.

| given | parts |
|---|---|
| a table (CSV, TSV, Parquet, BED) or `.fna` | all; or by its column `split` |
| folder with files train, dev, test (`dev.csv.gz`, `test-00000-of-00001.parquet`) | as named |
| folder with folders train, dev, test, in them a file or a folder for each class | as named |
| folder with one FASTA, or one folder, for each class | all |
| folder with one of these in its folder `data` | as there |

A class file is a FASTA, or in train, dev and test also a table without a label column: its name is
the label. A class folder holds FASTA files, or text files with the bases of one example each. All
but Parquet may be gzipped.
"""

import collections
import pathlib
import re
from collections.abc import Iterable

from nt_jax.errors import InputError
from nt_jax.evaluation.tasks.examples import SPLIT_NAMES, SPLITS, Row
from nt_jax.evaluation.tasks.fasta_files import (
    read_class_fasta,
    read_class_text,
    read_labelled_fasta,
)
from nt_jax.evaluation.tasks.tables import TEXT_TABLES, read_table

_TEXT_SUFFIXES = (*TEXT_TABLES, ".fna")
SUFFIXES = (*(kind + zipped for kind in _TEXT_SUFFIXES for zipped in ("", ".gz")), ".parquet")
"""Endings of files that hold sequences with their labels."""
CLASS_SUFFIXES = tuple(kind + zipped for kind in (".fa", ".fasta") for zipped in ("", ".gz"))
"""Endings of files whose name is the label of all their sequences."""

_SHARD = re.compile(r"(?P<split>[a-z]+)-\d+-of-\d+.*")
_BASES = (".txt", ".txt.gz")

Parts = dict[str, list[Row]]
"""Rows of each split, or of `all`."""


def read_parts(path: pathlib.Path) -> tuple[Parts, list[str]]:
    """The rows of a file or folder by split, and what people should know about files not read.

    Raises InputError where nothing is found, or two things for the same split.
    """
    if path.is_file():
        return _by_split(_read_file(path, path.name)), []
    if not path.is_dir():
        raise InputError(
            f"{path}: no such task; give a CSV, TSV, Parquet, .fna or JSON file or a folder of them"
        )
    folder = path
    files, notes = _split_files(folder)
    folders = _split_folders(folder)
    if not files and not folders and not _class_files(folder) and (path / "data").is_dir():
        folder = path / "data"
        files, notes = _split_files(folder)
        folders = _split_folders(folder)
    parts: Parts = {}
    for split in SPLITS:
        if split in files and split in folders:
            raise _doubled(folder, files[split][0].name, folders[split].name, split)
        if split in files:
            rows = [row for file in files[split] for row in _read_file(file, file.name)]
            _check_splits(rows, split)
            parts[split] = rows
        elif split in folders:
            parts[split] = _read_classes(folders[split], f"{folders[split].name}/", tables=True)
    if not parts:
        parts = {"all": _read_classes(folder, "", tables=False)}
    return parts, notes


def _read_file(path: pathlib.Path, source: str) -> list[Row]:
    name = path.name.removesuffix(".gz")
    if name.endswith(".fna"):
        rows = read_labelled_fasta(path, source)
    elif path.name.endswith(SUFFIXES):
        rows = read_table(path, source)
    else:
        raise InputError(f"{path}: unknown kind of table; known endings: {', '.join(SUFFIXES)}")
    if not rows:
        raise InputError(f"{path}: no sequences")
    return rows


def _by_split(rows: list[Row]) -> Parts:
    if rows[0].split is None:
        return {"all": rows}
    parts = {split: [row for row in rows if row.split == split] for split in SPLITS}
    return {split: held for split, held in parts.items() if held}


def _check_splits(rows: list[Row], split: str) -> None:
    for row in rows:
        if row.split not in (None, split):
            raise row.error(f"split {row.split!r} in a file of the {split} split; move the row")


def _split_of(name: str) -> str | None:
    """The split a file is named after: `dev.csv.gz`, `train-00000-of-00001-5ad1.parquet`."""
    suffix = next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)
    if suffix is None:
        return None
    stem = name.removesuffix(suffix)
    shard = _SHARD.fullmatch(stem)
    return SPLIT_NAMES.get(shard["split"] if shard else stem)


def _split_files(folder: pathlib.Path) -> tuple[dict[str, list[pathlib.Path]], list[str]]:
    files = collections.defaultdict(list)
    others = []
    for file in sorted(path for path in folder.iterdir() if path.is_file()):
        split = _split_of(file.name)
        if split:
            files[split].append(file)
        elif file.name.endswith(SUFFIXES):
            others.append(file.name)
    notes = []
    for split, found in files.items():
        shards = [file for file in found if _SHARD.match(file.name)]
        if len(found) == 1 or shards == found:
            continue
        # The hub keeps each set of the NT benchmark in both forms.
        parquet = [file for file in found if file.suffix == ".parquet"]
        rest = [file for file in found if file not in parquet]
        if len(parquet) == 1 and all(".fna" in file.suffixes for file in rest):
            files[split] = parquet
            notes.append(f"{parquet[0].name} read, not {rest[0].name} beside it")
        else:
            raise _doubled(folder, found[0].name, found[1].name, split)
    if files and others:
        notes.append(f"not read: {', '.join(others)}")
    return dict(files), notes


def _split_folders(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    folders: dict[str, pathlib.Path] = {}
    for path in sorted(path for path in folder.iterdir() if path.is_dir()):
        split = SPLIT_NAMES.get(path.name)
        if split in folders:
            raise _doubled(folder, folders[split].name, path.name, split)
        if split:
            folders[split] = path
    return folders


def _doubled(folder: pathlib.Path, one: str, other: str, split: str) -> InputError:
    return InputError(f"{folder}: both {one} and {other}; which is the {split} split? Remove one")


def _class_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """Files and folders of a folder that may each be a class."""

    def holds(path: pathlib.Path) -> bool:
        if path.is_dir():
            return any(file.name.endswith(CLASS_SUFFIXES + _BASES) for file in path.iterdir())
        return path.name.endswith(CLASS_SUFFIXES)

    return sorted(path for path in folder.iterdir() if holds(path))


def _read_classes(folder: pathlib.Path, prefix: str, tables: bool) -> list[Row]:
    """Rows of all classes of one folder; the name of a file or folder is the label."""
    found = _class_files(folder)
    if tables:
        found += [file for file in folder.iterdir() if file.name.endswith(SUFFIXES)]
    if not found:
        raise InputError(
            f"{folder}: no labelled data; expected train, dev or test with one of the endings "
            f"{', '.join(SUFFIXES)}, or a FASTA for each class"
        )
    rows: list[Row] = []
    for path in sorted(found):
        source = prefix + path.name
        held = _read_class(path, source)
        if not held:
            raise InputError(f"{path}: no sequences")
        rows += held
    return rows


def _read_class(path: pathlib.Path, source: str) -> list[Row]:
    if path.is_dir():
        label = path.name
        files = sorted(file for file in path.iterdir() if file.is_file())
        texts = [file for file in files if file.name.endswith(_BASES)]
        fasta = [file for file in files if file.name.endswith(CLASS_SUFFIXES)]
        rows = [read_class_text(file, source, label) for file in texts]
        return rows + [row for file in fasta for row in read_class_fasta(file, source, label)]
    label = _stem(path.name, CLASS_SUFFIXES + SUFFIXES)
    if path.name.endswith(CLASS_SUFFIXES):
        return read_class_fasta(path, source, label)
    if path.name.removesuffix(".gz").endswith(".fna"):
        return read_class_fasta(path, source, label)
    return read_table(path, source, label)


def _stem(name: str, suffixes: Iterable[str]) -> str:
    return next(name.removesuffix(suffix) for suffix in suffixes if name.endswith(suffix))
