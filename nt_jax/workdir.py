"""What a workdir says about its run: config.json, the baseline's counts, DONE."""

import dataclasses
import hashlib
import io
import json
import pathlib
import socket
from typing import Any

import numpy as np

from nt_jax import distributed, mixture
from nt_jax.config import Experiment, from_dict, to_dict
from nt_jax.errors import InputError
from nt_jax.files import is_temporary, write_atomically
from nt_jax.runtime import git_revision, versions

CONFIG, DONE, TOKENIZER, UNIGRAM = "config.json", "DONE", "tokenizer.json", "unigram.npy"
DATACARD = "datacard.json"

# What may change between two starts of one run: it moves no bit of the data order or the masks.
FREE = (
    "data.workers", "data.path", "mesh", "checkpoint", "model.remat", "model.attention",
    "optim.nonfinite_limit", "optim.on_limit", "optim.rollback_limit", "train.watchdog_seconds",
)  # fmt: skip


def read_config(workdir: pathlib.Path) -> tuple[Experiment, dict[str, Any]]:
    """Experiment of a workdir and everything else config.json records; raises InputError."""
    path = workdir / CONFIG
    if not path.is_file():
        raise InputError(f"{workdir}: not a workdir of nt-jax (no {CONFIG})")
    try:
        stored = json.loads(path.read_text())
        return from_dict(Experiment, stored.pop("experiment"), str(path)), stored
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{path}: unreadable ({error})") from error


def claim(
    workdir: pathlib.Path,
    experiment: Experiment,
    dataset: str,
    init_from: str | None,
    step: int = 0,
) -> None:
    """Makes the workdir this experiment's, or raises InputError naming the first difference.

    `dataset` is the fingerprint of the windows: the same data may move to another folder. `step` is
    where the run goes on: its weights of the data may change behind it, and config.json says so.
    """
    if (workdir / CONFIG).exists():
        stored, record = read_config(workdir)
        if "dataset" not in record:
            raise InputError(
                f"{workdir}: holds imported weights, no run; give another --workdir and "
                f"--init-from {workdir}"
            )
        old, new = stored.data.weights, experiment.data.weights
        changed = old != new and mixture.same_until(step, old, new)
        if changed:
            stored = dataclasses.replace(stored, data=dataclasses.replace(stored.data, weights=new))
        difference = first_difference(to_dict(stored), to_dict(experiment))
        if difference:
            name, had, has = difference
            hint = "give the same settings to resume, or another --workdir"
            if name == "data.weights":
                hint = f"to change them, add ';RULE@STEP' with a step from {step} on"
            raise InputError(
                f"{workdir}: holds a run with {name}={had}, this one has {has}; {hint}"
            )
        if record["dataset"] != dataset:
            raise InputError(
                f"{workdir}: its run was trained on another dataset than {experiment.data.path}"
            )
        if init_from is not None and record["init_from"] != init_from:
            raise InputError(
                f"{workdir}: its run started from {record['init_from'] or 'random weights'}, "
                f"not from {init_from}"
            )
        record = {**record, "experiment": to_dict(experiment)}
        if changed:
            event = {"step": step, "data.weights": [old, new]}
            record["lineage"] = [*record.get("lineage", []), event]
    else:
        check_empty(workdir)
        create(workdir, experiment, {"dataset": dataset, "init_from": init_from})
        return
    _write(workdir, record)


def left_out(record: dict[str, Any]) -> tuple[tuple[int, int], ...]:
    """(step, batches) of each rollback that config.json records; see `order.TrainOrder`."""
    events = [event for event in record.get("lineage", []) if "batches_left_out" in event]
    return tuple((event["step"], event["batches_left_out"]) for event in events)


def add_to_lineage(workdir: pathlib.Path, event: dict[str, Any]) -> None:
    """Records in config.json what changed during the run."""
    record = json.loads((workdir / CONFIG).read_text())
    _write(workdir, {**record, "lineage": [*record.get("lineage", []), event]})


def join(workdir: pathlib.Path, experiment: Experiment, dataset: str) -> None:
    """Raises InputError, on all processes, where one would not train what process 0 trains.

    They come here with their config and data before process 0 claims the workdir.
    """
    mine = {
        "experiment": to_dict(experiment),
        "dataset": dataset,
        "versions": {name: versions()[name] for name in ("nt-jax", "jax")},
    }
    theirs = json.loads(distributed.from_leader("start", lambda: json.dumps(mine)))
    # Copies of the same windows, and who reads them, are each host's own matter.
    difference = first_difference(
        theirs, mine, free=("experiment.data.path", "experiment.data.workers")
    )
    complaint = ""
    if difference:
        name, had, has = difference
        complaint = (
            f"{workdir}: process {distributed.index()} has {name.removeprefix('experiment.')}={has}"
            f", process 0 {had}; start all processes with the same command and the same data"
        )
    distributed.agree("one experiment", complaint)


def look(workdir: pathlib.Path) -> None:
    """Raises InputError, on all processes, where one does not see what process 0 has written."""
    theirs = distributed.from_leader("workdir claimed", lambda: _digest(workdir / CONFIG))
    complaint = (
        f"{workdir}: process {distributed.index()} on {socket.gethostname()} does not see "
        "process 0's files there; name a folder that all hosts share"
    )
    seen = _digest(workdir / CONFIG) == theirs
    distributed.agree("one workdir", "" if seen else complaint)


def _digest(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""


def store_datacard(workdir: pathlib.Path, card: dict[str, Any]) -> None:
    """Keeps what the run is trained on, for reports and exports far from the windows."""
    write_atomically(workdir / DATACARD, json.dumps(card, indent=2) + "\n")


def check_empty(workdir: pathlib.Path) -> None:
    """Raises InputError where `workdir` holds anything."""
    # A start that was killed while it wrote its first file leaves that file's temporary.
    if workdir.exists() and any(not is_temporary(entry) for entry in workdir.iterdir()):
        raise InputError(f"{workdir}: not empty and not a workdir of nt-jax; name another")


def create(workdir: pathlib.Path, experiment: Experiment, origin: dict[str, Any]) -> None:
    """Writes the first config.json: the experiment, where it comes from, what made it."""
    workdir.mkdir(parents=True, exist_ok=True)
    record = {"experiment": to_dict(experiment), **origin}
    _write(workdir, {**record, "versions": versions(), "git_revision": git_revision()})


def _write(workdir: pathlib.Path, record: dict[str, Any]) -> None:
    write_atomically(workdir / CONFIG, json.dumps(record, indent=2) + "\n")


def first_difference(
    old: dict[str, Any], new: dict[str, Any], prefix: str = "", free: tuple[str, ...] = FREE
) -> tuple[str, Any, Any] | None:
    """(name, value before, value now) of the first field that differs and is not `free`."""
    for key in new:
        name = f"{prefix}{key}"
        if name in free:
            continue
        if isinstance(new[key], dict):
            found = first_difference(old[key], new[key], f"{name}.", free)
            if found:
                return found
        elif old.get(key) != new[key]:
            return name, old.get(key), new[key]
    return None


def stored_counts(workdir: pathlib.Path) -> np.ndarray | None:
    """Token counts of the training split, [V], if they were made already."""
    path = workdir / UNIGRAM
    return np.load(path, allow_pickle=False) if path.exists() else None


def store_counts(workdir: pathlib.Path, counts: np.ndarray) -> None:
    """Keeps the counts for restarts and evaluation jobs."""
    content = io.BytesIO()
    np.save(content, counts, allow_pickle=False)
    write_atomically(workdir / UNIGRAM, content.getvalue())
