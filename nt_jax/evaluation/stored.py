"""Probe results, read back from disk; nothing of what made them is imported."""

import json
import pathlib
from typing import Any

from nt_jax.errors import InputError

RESULTS = "probe.json"
Result = dict[str, Any]


def read_results(path: pathlib.Path) -> list[Result]:
    """Entries of a probe.json, none if there is no file; InputError when it is damaged."""
    if not path.exists():
        return []
    try:
        stored = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path}: damaged ({error}); delete it to probe again") from error
    if not isinstance(stored, list) or not all(isinstance(entry, dict) for entry in stored):
        raise InputError(f"{path}: not a list of probe results; delete it to probe again")
    if not all("kind" in entry for entry in stored):
        raise InputError(f"{path}: of an older version; delete it to probe again")
    return stored
