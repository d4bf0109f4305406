"""Scores of finished chunks, on disk until the whole is written."""

import contextlib
import dataclasses
import io
import json
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nt_jax.errors import InputError
from nt_jax.files import owning, write_atomically

_KEY = "key.json"


@dataclasses.dataclass(frozen=True)
class Parts:
    """The folder `OUT.parts`: one Parquet file a chunk, and what they depend on."""

    folder: pathlib.Path

    @staticmethod
    @contextlib.contextmanager
    def owned(out: pathlib.Path, key: dict[str, Any]) -> Iterator["Parts"]:
        """The parts of `out`, this process's alone.

        Raises InputError when they belong to another `key`, or another process writes them.
        """
        folder = out.with_name(f"{out.name}.parts")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder}: cannot be made: {error.strerror or error}") from None
        with owning(folder):
            parts = Parts(folder)
            parts._claim(key)
            try:
                yield parts
            finally:
                # Bad input leaves no trace that would stand in the way of the corrected call.
                if folder.exists() and not parts.count():
                    parts.remove()

    def has(self, number: int) -> bool:
        """Whether a chunk is finished."""
        return self._path(number).exists()

    def count(self) -> int:
        """Finished chunks."""
        return len(list(self.folder.glob("*.parquet")))

    def write(self, number: int, table: pa.Table) -> None:
        """Keeps the rows of a chunk."""
        content = io.BytesIO()
        pq.write_table(table, content, compression="zstd")
        write_atomically(self._path(number), content.getvalue())

    def read(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The chunks in order; all columns, or those named."""
        number = 0
        while self.has(number):
            yield pq.read_table(self._path(number), columns=columns and list(columns))
            number += 1

    def remove(self) -> None:
        """Deletes the folder."""
        shutil.rmtree(self.folder)

    def _path(self, number: int) -> pathlib.Path:
        return self.folder / f"{number:08d}.parquet"

    def _claim(self, key: dict[str, Any]) -> None:
        path = self.folder / _KEY
        if not self.count():
            write_atomically(path, json.dumps(key, indent=1) + "\n")
            return
        if not path.exists():
            raise InputError(
                f"{self.folder}: parts without {_KEY}, of no one knows what; delete it"
            )
        stored = json.loads(path.read_text())
        for name in {**key, **stored}:
            if stored.get(name) != key.get(name):
                raise InputError(
                    f"{self.folder}: holds parts of a call with another {name} "
                    f"({_short(stored.get(name))}, now {_short(key.get(name))}); give that again "
                    "to go on, or delete the folder to start anew"
                )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 24 else f"{text[:12]}..."
