"""Everything a workdir says about its run, read once and without judging."""

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np
from jaxtyping import Float

from nt_jax.config import Experiment
from nt_jax.errors import InputError
from nt_jax.evaluation.stored import RESULTS, read_results
from nt_jax.ledger import Life, read_lives, totals
from nt_jax.metrics import read_metrics
from nt_jax.workdir import DATACARD, DONE, read_config

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A workdir; whatever is absent is empty, whatever is damaged is in `problems`."""

    folder: pathlib.Path
    experiment: Experiment
    record: dict[str, Any]
    """Rest of config.json: versions, git revision, dataset fingerprint, init_from."""
    train: list[Row]
    """Rows of metrics.jsonl without `split`, by step."""
    evaluations: dict[str, list[Row]]
    """Rows of metrics.jsonl by their `split`."""
    probes: list[Row]
    """Entries of all probe.json under WORKDIR/probe."""
    datacard: dict[str, Any] | None
    """Data card of the training windows, None when it cannot be found."""
    lives: list[Life]
    """Lines of goodput.jsonl."""
    finished: bool
    """Whether DONE exists."""
    problems: list[str]
    """Files that are there but cannot be read."""

    @property
    def validation(self) -> list[Row]:
        """Evaluation rows of the validation split."""
        return self.evaluations.get("validation", [])

    @property
    def simulated(self) -> bool | None:
        """Whether the training data are simulated; None when the data card does not say."""
        kind = (self.datacard or {}).get("kind")
        return None if kind is None else kind == "simulated"


def read_run(folder: pathlib.Path) -> Run:
    """Reads a workdir at any moment of its run; InputError when it is none."""
    experiment, record = read_config(folder)
    problems: list[str] = []
    rows = _metrics(folder, problems)
    evaluations: dict[str, list[Row]] = {}
    for row in rows:
        if "split" in row:
            evaluations.setdefault(row["split"], []).append(row)
    return Run(
        folder=folder,
        experiment=experiment,
        record=record,
        train=[row for row in rows if "split" not in row],
        evaluations=evaluations,
        probes=_probes(folder, problems),
        datacard=_datacard(folder, experiment, problems),
        lives=_lives(folder, problems),
        finished=(folder / DONE).exists(),
        problems=problems,
    )


def column(rows: list[Row], name: str) -> Float[np.ndarray, " rows"]:
    """One number a row; NaN where the row has none (JSON's null stands for a non-finite one)."""
    return np.array([np.nan if row.get(name) is None else row[name] for row in rows], np.float64)


def _metrics(folder: pathlib.Path, problems: list[str]) -> list[Row]:
    try:
        return read_metrics(folder)
    except ValueError as error:
        problems.append(f"metrics.jsonl: {error}")
        return []


def _lives(folder: pathlib.Path, problems: list[str]) -> list[Life]:
    try:
        lives = read_lives(folder)
        totals(lives)
        return lives
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        problems.append(f"goodput.jsonl: {error}")
        return []


def _probes(folder: pathlib.Path, problems: list[str]) -> list[Row]:
    found = []
    for path in sorted((folder / "probe").glob(f"**/{RESULTS}")):
        try:
            found += read_results(path)
        except InputError as error:
            problems.append(str(error))
    return found


def _datacard(
    folder: pathlib.Path, experiment: Experiment, problems: list[str]
) -> dict[str, Any] | None:
    """A copy in the workdir, else the one beside the windows."""
    places = [folder / DATACARD]
    if experiment.data.path:
        places.append(pathlib.Path(experiment.data.path) / DATACARD)
    for path in places:
        try:
            card = json.loads(path.read_text())
        except OSError:
            continue
        except ValueError as error:
            problems.append(f"{path}: {error}")
            continue
        if isinstance(card, dict):
            return card
        problems.append(f"{path}: not a data card")
    return None
