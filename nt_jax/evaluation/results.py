"""The one schema of all evaluation jobs: a row is a number.

| column | type | meaning |
|---|---|---|
| checkpoint | string | workdir as it was named |
| step | int64 | optimizer step of the checkpoint |
| tokens | int64 | tokens seen in training up to that step; -1 where the run does not say |
| task | string | labelled set, variant set or annotation |
| layer | int32 | 1-based; 0 where the number is not of a layer |
| method | string | what was fitted on what: `trained, logistic`, `CNN`, `ia3`, `-llr` ... |
| control | bool | random initialisation, k-mers, CNN ...: what a score is held against |
| fold | int32 | 0-based; -1 for all held-out rows together |
| metric | string | `mcc`, `auroc`, `spearman` ..., and differences such as `mcc_minus_k-mers` |
| value, low, high | float64 | score and its 95 % interval; null where undefined or not computed |

Methods begin with what was fitted or scored (`trained`, `random init`, `k-mers` ...). A row whose
method ends in `, chosen` is of the layer (or k) that cross-validation within the training sequences
picked in each fold; its layer is 0.

A difference to a control is a row of the method that it speaks of: its metric is the metric's name,
`_minus_` and the control (`difference_name`): `mcc_minus_random_init`, `mcc_minus_k-mers`,
`mask_loss_minus_unigram`. Its interval is that of paired resamples; `control` is false. So
`metric == "mcc"` never picks a difference up.

Parquet and JSONL hold the same rows; either is one query away from any table or plot.
"""

import dataclasses
import io
import json
import math
import pathlib
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq

from nt_jax.errors import InputError
from nt_jax.files import write_atomically

ALL_FOLDS = -1
NO_LAYER = 0
UNKNOWN_TOKENS = -1
ENDINGS = (".parquet", ".jsonl")

SCHEMA = pa.schema(
    [
        pa.field("checkpoint", pa.string(), nullable=False),
        pa.field("step", pa.int64(), nullable=False),
        pa.field("tokens", pa.int64(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        pa.field("layer", pa.int32(), nullable=False),
        pa.field("method", pa.string(), nullable=False),
        pa.field("control", pa.bool_(), nullable=False),
        pa.field("fold", pa.int32(), nullable=False),
        pa.field("metric", pa.string(), nullable=False),
        pa.field("value", pa.float64()),
        pa.field("low", pa.float64()),
        pa.field("high", pa.float64()),
    ]
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One number; the table above says what the fields mean."""

    checkpoint: str
    step: int
    tokens: int = UNKNOWN_TOKENS
    task: str
    layer: int = NO_LAYER
    method: str
    control: bool = False
    fold: int = ALL_FOLDS
    metric: str
    value: float | None
    low: float | None = None
    high: float | None = None


def difference_name(metric: str, control: str) -> str:
    """Metric of a difference: `mcc` and `random init` give `mcc_minus_random_init`."""
    return f"{metric}_minus_{control.replace(' ', '_')}"


def write_rows(path: str | pathlib.Path, rows: Iterable[Row]) -> None:
    """Writes Parquet or JSONL, by the ending, atomically; a NaN becomes null."""
    path = pathlib.Path(path)
    kind = _kind(path)
    plain = [
        {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in dataclasses.asdict(row).items()
        }
        for row in rows
    ]
    if kind == ".jsonl":
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in plain))
        return
    content = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(plain, SCHEMA), content)
    write_atomically(path, content.getvalue())


def read_rows(path: str | pathlib.Path) -> list[Row]:
    """Rows of a file that `write_rows` wrote; InputError for anything else."""
    path = pathlib.Path(path)
    kind = _kind(path)
    try:
        if kind == ".jsonl":
            plain = [json.loads(line) for line in path.read_text().splitlines()]
        else:
            plain = pq.read_table(path, schema=SCHEMA).to_pylist()
        return [Row(**row) for row in plain]
    except (OSError, ValueError, TypeError, pa.ArrowException) as error:
        raise InputError(f"{path}: not a table of results ({error})") from error


def _kind(path: pathlib.Path) -> str:
    if path.suffix not in ENDINGS:
        raise InputError(f"{path}: results are written as {' or '.join(ENDINGS)}")
    return path.suffix
