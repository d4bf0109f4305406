"""Fits of the controls, kept: they do not change from checkpoint to checkpoint.

A control (random initialisation, k-mers) depends on the task and the settings alone, and costs
as much as the checkpoint it stands beside. Its fits lie in `OUT/controls/HASH.npz`, where HASH is
of everything that they depend on.
"""

import hashlib
import io
import json
import pathlib
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from nt_jax.errors import InputError
from nt_jax.evaluation.classifier import Fit
from nt_jax.files import write_atomically

FOLDER = "controls"
Fits = dict[int, list[Fit]]


def kept_fits(out: pathlib.Path, key: Mapping[str, Any], compute: Callable[[], Fits]) -> Fits:
    """What `compute` gives, from disk where it was computed before for an equal `key` (JSON).

    Raises InputError for a file that cannot be read.
    """
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    path = out / FOLDER / f"{digest[:32]}.npz"
    if path.is_file():
        return _read(path)
    fits = compute()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, _packed(fits))
    return fits


def _packed(fits: Fits) -> bytes:
    arrays: dict[str, np.ndarray] = {}
    for variant, folds in fits.items():
        for fold, fit in enumerate(folds):
            arrays[f"{variant}/{fold}/probabilities"] = fit.probabilities
            arrays[f"{variant}/{fold}/inner_mcc"] = np.array(fit.inner_mcc)
            arrays[f"{variant}/{fold}/strength"] = np.array(fit.strength)
            arrays[f"{variant}/{fold}/converged"] = np.array(fit.converged)
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    return content.getvalue()


def _read(path: pathlib.Path) -> Fits:
    fits: Fits = {}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = [name.rpartition("/")[0] for name in arrays.files if name.endswith("/strength")]
            for name in names:
                part = {field: arrays[f"{name}/{field}"] for field in Fit.__dataclass_fields__}
                fit = Fit(
                    probabilities=part["probabilities"],
                    inner_mcc=float(part["inner_mcc"]),
                    strength=float(part["strength"]),
                    converged=bool(part["converged"]),
                )
                fits.setdefault(int(name.partition("/")[0]), []).append(fit)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: damaged ({error}); delete it to fit again") from error
    return fits
