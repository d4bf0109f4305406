"""The laws of a study: one for each family of runs whose losses compare, with its predictions.

A family has one dataset, tokenizer, length of sequences, way of masking and variant; its losses are
nats a token on `<mask>` positions of the same validation windows. Runs that are held out are never
fitted. Where sizes and budgets of tokens vary both the law is L(N, D); where sizes alone do, a
power law of N. N are all parameters, embeddings and head included; D are tokens, `<cls>` included.
"""

import dataclasses
import datetime
import json
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from nt_jax.config import MaskingConfig
from nt_jax.errors import InputError
from nt_jax.files import write_atomically
from nt_jax.studies.folder import read_record
from nt_jax.studies.intervals import REPLICATES, Bootstrap, bootstrap, predict
from nt_jax.studies.laws import fit_law, fit_power_law
from nt_jax.studies.points import Run, column
from nt_jax.studies.table import Row, Table, masking_text

FILE = "prediction.json"
FORMAT = 1
EQUAL = 1.02
"""Tokens within this ratio are the same budget in whole steps."""
_MASKING = masking_text(MaskingConfig())
_SEED = 0
Question = tuple[str, int, int, str, int]
"""Source, bases a token, tokens of a sequence, masking, windows."""


@dataclasses.dataclass(frozen=True)
class Family:
    """Runs whose losses compare."""

    source: str
    bases_per_token: int
    length: int
    """Tokens of a sequence."""
    masking: str
    """As in the table: share selected, and of those `<mask>` and random."""
    windows: int
    """Validation windows that are asked for; 0 is all."""
    variant: str
    """Empty for the plain one."""
    runs: tuple[Run, ...]
    """Trained and not held out."""
    open: tuple[str, ...]
    """Not held out, and not trained yet."""
    held_out: tuple[Row, ...]
    """Rows of the table; `mask_loss` is None until it is trained."""

    @property
    def name(self) -> str:
        """For headings."""
        named = f"{self.source}, {self.bases_per_token}-mers, {self.length} tokens a sequence"
        if self.masking != _MASKING:
            named += f", masking {self.masking}"
        return f"{named}, {self.variant}" if self.variant else named

    @property
    def equal_tokens(self) -> bool:
        """Whether all runs have the same budget."""
        seen = column(self.runs, "tokens")
        return bool(seen.max() <= EQUAL * seen.min())


def families(found: Table) -> list[Family]:
    """The families of a table, in its order."""
    groups: dict[tuple[Question, str], list[Row]] = {}
    for row in found.rows:
        # Rungs of a ladder differ in what follows from their size; only a variant is a recipe.
        key = question(row), str(row.get("tag:variant") or "")
        groups.setdefault(key, []).append(row)
    return [_family(*key, rows) for key, rows in groups.items()]


def question(row: Row) -> Question:
    """What a loss is of; losses of different questions do not compare."""
    return (
        str(row["source"]), int(row["bases_per_token"] or 0), int(row["sequence_length"] or 0),
        str(row["masking"]), int(row["eval_windows"] or 0),
    )  # fmt: skip


def _family(asked: Question, variant: str, rows: Sequence[Row]) -> Family:
    fitted = [row for row in rows if row["held_out"] == "no"]
    return Family(
        *asked,
        variant=variant,
        runs=tuple(point(row) for row in fitted if row["mask_loss"] is not None),
        open=tuple(str(row["run"]) for row in fitted if row["mask_loss"] is None),
        held_out=tuple(row for row in rows if row["held_out"] == "yes"),
    )


def point(row: Row, loss: str = "mask_loss") -> Run:
    """A row as a point with the tags of its run; `loss` is the column to take."""
    tags = {
        name.removeprefix("tag:"): value
        for name, value in row.items()
        if name.startswith("tag:") and value is not None
    }
    tags["source"] = row["source"] or ""
    numbers = {name: float(row[name] or 0) for name in ("parameters", "tokens", "flops")}
    return Run(name=str(row["run"]), loss=float(row[loss] or 0), tags=tags, **numbers)


def law_of(family: Family, replicates: int = REPLICATES) -> Bootstrap[Any]:
    """The law of a family with its resamples; InputError with the reason where there is none."""
    if not family.runs:
        raise InputError("no run is trained")
    sizes, seen, losses = (column(family.runs, name) for name in ("parameters", "tokens", "loss"))
    fitted = fit_power_law(sizes, losses) if family.equal_tokens else fit_law(sizes, seen, losses)
    return bootstrap(fitted, _SEED, replicates)


def predictions(family: Family, sample: Bootstrap[Any]) -> dict[str, dict[str, float]]:
    """What the law says of the held-out runs, with 95 % intervals of a run and of the law.

    Raises InputError where a power law of N would have to predict another budget of tokens.
    """
    if not family.held_out:
        return {}
    sizes, seen = (
        np.array([float(row[name] or 0) for row in family.held_out])
        for name in ("parameters", "tokens")
    )
    variables = [sizes, seen]
    if sample.fit.data.names == ("x",):
        usual = column(family.runs, "tokens")
        if max(seen.max(), usual.max()) > EQUAL * min(seen.min(), usual.min()):
            raise InputError("held-out runs have other budgets of tokens than all the others")
        variables = [sizes]
    found = predict(sample, *variables)._asdict()
    return {
        str(row["run"]): {name: float(values[number]) for name, values in found.items()}
        for number, row in enumerate(family.held_out)
    }


# --- DIR/prediction.json ----------------------------------------------------------------------


def write_down(
    found: Table, root: pathlib.Path, begun: Collection[str] = (), replicates: int = REPLICATES
) -> list[str]:
    """Writes what is predicted of the held-out runs, before they are run; returns lines to print.

    What was written of runs that have `begun` stays as it is. A family whose law cannot be fitted
    has the reason in its place.
    """
    written = written_down(root) or {"families": []}
    entries = [entry for entry in written["families"] if set(_told(entry)) & set(begun)]
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    lines = []
    for family in families(found):
        fresh = [name for row in family.held_out if (name := str(row["run"])) not in begun]
        if not fresh:
            continue
        entry: dict[str, Any] = {
            "family": family.name,
            "written": now,
            "held_out": fresh,
            "fitted_to": {run.name: run.loss for run in family.runs},
            "not_trained": list(family.open),
        }
        try:
            sample = law_of(family, replicates)
            every = predictions(family, sample)
            predicted = {name: every[name] for name in fresh}
        except InputError as error:
            entry["why"] = str(error)
            lines.append(f"{family.name}: nothing is predicted: {error}")
        else:
            law = sample.fit.law
            entry["law"] = {"form": type(law).__name__, **dataclasses.asdict(law)}
            entry["predictions"] = predicted
            lines += [
                f"{run}: predicted <mask> loss {one['value']:.4f} nats a token "
                f"({one['low']:.4f} to {one['high']:.4f}), written to {root / FILE}"
                for run, one in predicted.items()
            ]
        entries.append(entry)
    if not lines:
        return []
    whole = {"format": FORMAT, "study": found.study, "written": now, "families": entries}
    write_atomically(root / FILE, json.dumps(whole, indent=1) + "\n")
    return lines


def written_of(run: str, written: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The entry of prediction.json that speaks of a held-out run, its time in it."""
    if written is None:
        return None
    told = [entry for entry in written["families"] if run in _told(entry)]
    return {"written": written["written"], **told[-1]} if told else None


def _told(entry: Mapping[str, Any]) -> Collection[str]:
    return entry.get("held_out") or entry.get("predictions", {})


def written_down(root: pathlib.Path) -> Mapping[str, Any] | None:
    """What prediction.json holds; None where there is none. InputError where it is damaged."""
    return read_record(root / FILE, FORMAT)
