"""What a study declares, as text: the golden files, and DIR/study.json that a folder is held to."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from nt_jax.config import Experiment, from_dict, to_dict, to_json
from nt_jax.errors import InputError
from nt_jax.files import is_temporary, write_atomically
from nt_jax.studies.folder import Folder, read_record
from nt_jax.studies.grid import Study, StudyRun
from nt_jax.workdir import FREE, first_difference

FILE = "study.json"
FORMAT = 1
_ADDABLE = ("losses_on", "probes")
"""Evaluation jobs may be added to a run, never changed or taken away."""


def to_plain(run: StudyRun) -> dict[str, Any]:
    """A run as JSON. Not where its data are: they may move."""
    plain = dataclasses.asdict(run)
    del plain["name"], plain["data"]
    return json.loads(json.dumps(plain))


def to_text(study: Study) -> str:
    """The whole declaration: what all runs share once, then what differs, run by run."""
    runs = {run.name: to_plain(run) for run in study.runs}
    for plain in runs.values():
        plain["experiment"] = flat(plain["experiment"])
    shared = _taken_out(list(runs.values()))
    shared["experiment"] = _taken_out([plain["experiment"] for plain in runs.values()])
    whole = {"study": study.name, "question": study.question, "shared": shared, "runs": runs}
    return json.dumps(whole, indent=1) + "\n"


def _taken_out(tables: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Takes out of all tables, and returns, what they have in common."""
    first = tables[0]
    common = {
        key: value
        for key, value in first.items()
        if key != "experiment" and all(key in other and other[key] == value for other in tables)
    }
    for table in tables:
        for key in common:
            del table[key]
    return common


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"model": {"num_layers": 4}}` -> `{"model.num_layers": 4}`."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def check(study: Study, root: pathlib.Path) -> None:
    """Raises InputError where DIR is no study's, or holds another one."""
    stored = read_record(root / FILE, FORMAT)
    if stored is None:
        raise InputError(f"{root}: no study was run here; `nt-jax study run` starts one")
    _held_to(stored, study, root)


def places(study: Study, root: pathlib.Path, named: Mapping[str, str]) -> dict[str, str]:
    """Folders of the datasets: `named`, else those of the last time, else as declared."""
    declared: dict[str, str] = {}
    for run in study.runs:
        path = run.data or run.experiment.data.path
        if path:
            declared.setdefault(run.source, path)
    stored = (read_record(root / FILE, FORMAT) or {"data": {}})["data"]
    return {**declared, **stored, **named}


def admit(study: Study, root: pathlib.Path) -> None:
    """Raises InputError where DIR holds something else, or a study declared differently.

    Runs and evaluation jobs may be added, and what `pretrain` lets change may change.
    """
    stored = read_record(root / FILE, FORMAT)
    if stored is not None:
        _held_to(stored, study, root)
    elif root.exists():
        others = [path for path in root.iterdir() if path.name != ".lock"]
        if not all(map(is_temporary, others)):
            raise InputError(f"{root}: not empty and no study's folder; name another --out")


def claim(
    study: Study,
    root: pathlib.Path,
    named: Mapping[str, str],
    fingerprints: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Makes DIR, which the caller has locked, this study's; returns `places` and keeps them.

    Raises InputError as `admit` does, and where a dataset has not the fingerprint that it had:
    losses on other windows do not compare.
    """
    admit(study, root)
    stored = read_record(root / FILE, FORMAT) or {"data": {}}
    had, have = stored.get("fingerprints", {}), fingerprints or {}
    for source, fingerprint in have.items():
        if had.get(source, fingerprint) != fingerprint:
            raise InputError(
                f"{root}: {source} is another dataset than before (fingerprint "
                f"{fingerprint[:12]}, was {had[source][:12]}); give that one, or another --out"
            )
    found = places(study, root, named)
    runs = {run.name: to_plain(run) for run in study.runs}
    digest = hashlib.sha256(json.dumps(runs, sort_keys=True).encode()).hexdigest()
    kept = {**stored["data"], **named}
    record = {
        "format": FORMAT, "study": study.name, "digest": digest, "data": kept,
        "fingerprints": {**had, **have}, "runs": runs,
    }  # fmt: skip
    _write(root / FILE, json.dumps(record, indent=1) + "\n")
    folder = Folder(root)
    folder.experiment(study.runs[0]).parent.mkdir(exist_ok=True)
    folder.runs.mkdir(exist_ok=True)
    for run in study.runs:
        _write(folder.experiment(run), to_json(run.experiment))
    return found


def _held_to(stored: Mapping[str, Any], study: Study, root: pathlib.Path) -> None:
    found = difference(stored, study)
    if found:
        raise InputError(
            f"{root}: {found}; give the declaration as it was (runs may be added), or another --out"
        )


def difference(stored: Mapping[str, Any], study: Study) -> str | None:
    """The first thing in which a declaration contradicts study.json, in words; None where none."""
    if stored["study"] != study.name:
        return f"holds the study {stored['study']}, not {study.name}"
    now = {run.name: run for run in study.runs}
    for name, old in stored["runs"].items():
        if name not in now:
            return f"{name} was declared and is no more"
        new = to_plain(now[name])
        # Fields that a later version has added are read with their defaults.
        had = to_dict(from_dict(Experiment, old["experiment"], f"{FILE}: {name}"))
        found = first_difference(had, new["experiment"], free=FREE)
        if found:
            field, before, after = found
            return f"{name} was declared with {field}={before}, now with {after}"
        for field in ("source", "held_out", "tags"):
            if old[field] != new[field]:
                return f"{name} was declared with {field}={old[field]}, now with {new[field]}"
        for field in _ADDABLE:
            gone = [job for job in old[field] if job not in new[field]]
            if gone:
                return f"{name} was declared with {field}={gone[0]}, and is no more"
    return None


def _write(path: pathlib.Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:
        write_atomically(path, text)
