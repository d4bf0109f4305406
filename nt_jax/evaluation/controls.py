"""What does not change from checkpoint to checkpoint is computed once and kept.

The fits of a control (random initialisation, k-mers, CNN) depend on the task and the settings
alone and cost as much as the checkpoint they stand beside; so does the overlap of a task with the
training windows. They lie in `OUT/controls/HASH.npz` and `.json`, where HASH is of everything that
they depend on.
"""

import io
import json
import pathlib
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from nt_jax.errors import InputError
from nt_jax.evaluation.embeddings import digest
from nt_jax.evaluation.search import Fit, Fits
from nt_jax.files import write_atomically

FOLDER = "controls"


def kept_fits(out: pathlib.Path, key: Mapping[str, Any], compute: Callable[[], Fits]) -> Fits:
    """What `compute` gives, from disk where it was computed before for an equal `key` (JSON).

    Raises InputError for a file that cannot be read.
    """
    path = out / FOLDER / f"{digest(key)[:32]}.npz"
    if path.is_file():
        return _read(path)
    fits = compute()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, _packed(fits))
    return fits


def kept_json(
    out: pathlib.Path, key: Mapping[str, Any], compute: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """The same for plain values."""
    path = out / FOLDER / f"{digest(key)[:32]}.json"
    if path.is_file():
        try:
            return json.loads(path.read_text())
        except ValueError as error:
            raise InputError(f"{path}: damaged ({error}); delete it") from error
    value = compute()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(value, indent=1))
    return value


def _packed(fits: Fits) -> bytes:
    arrays: dict[str, np.ndarray] = {}
    for variant, folds in fits.items():
        for fold, fit in enumerate(folds):
            for field in Fit.__dataclass_fields__:
                arrays[f"{variant}/{fold}/{field}"] = np.asarray(getattr(fit, field))
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    return content.getvalue()


def _read(path: pathlib.Path) -> Fits:
    fits: Fits = {}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = [name.rpartition("/")[0] for name in arrays.files if name.endswith("/chosen")]
            for name in names:
                part = {field: arrays[f"{name}/{field}"] for field in Fit.__dataclass_fields__}
                fit = Fit(
                    prediction=part["prediction"],
                    inner=float(part["inner"]),
                    chosen=str(part["chosen"]),
                    converged=bool(part["converged"]),
                )
                fits.setdefault(int(name.partition("/")[0]), []).append(fit)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: damaged ({error}); delete it to fit again") from error
    return fits
