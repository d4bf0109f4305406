"""One run of a study as a point: its size, what it has seen and computed, and its loss."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from nt_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Run:
    """One trained model. `tags` holds what else is known: `source`, `seed`, a probe's score."""

    name: str
    parameters: float | int
    tokens: float | int
    """Tokens or bases seen in training."""
    flops: float | int
    """Training FLOPs by formula (`nt_jax.throughput`)."""
    loss: float
    """Held-out loss, nats a token or a base."""
    tags: Mapping[str, str | float | int] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("parameters", "tokens", "flops", "loss"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"run {self.name}: {name} is {value:g}, not a number above 0")


def read_runs(rows: Iterable[Mapping[str, Any]]) -> list[Run]:
    """Runs from rows with the columns of `Run`; any other column becomes a tag.

    Raises InputError, with the row's number from 0, for a missing column or a bad number.
    """
    columns = [field.name for field in dataclasses.fields(Run)][:-1]
    runs = []
    for number, row in enumerate(rows):
        missing = [name for name in columns if row.get(name) is None]
        if missing:
            raise InputError(f"row {number}: no {', '.join(missing)}")
        try:
            numbers = {name: float(row[name]) for name in columns[1:]}
        except (TypeError, ValueError) as error:
            raise InputError(f"row {number} ({row['name']}): {error}") from None
        tags = {
            name: value
            for name, value in row.items()
            if name not in columns and isinstance(value, str | float | int)
        }
        runs.append(Run(name=str(row["name"]), tags=tags, **numbers))
    return runs


def column(runs: Iterable[Run], name: str) -> Float[np.ndarray, " n"]:
    """One number of every run, such as `parameters`."""
    return np.array([getattr(run, name) for run in runs], np.float64)
