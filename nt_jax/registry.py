"""Experiments by name (entry point group `nt_jax.experiments`) or by path."""

import importlib.util
import json
import pathlib
from importlib.metadata import entry_points
from types import ModuleType

from nt_jax.config import Experiment, from_json
from nt_jax.errors import InputError, nearest

GROUP = "nt_jax.experiments"


def names() -> list[str]:
    """Registered experiment names."""
    return sorted(entry_points(group=GROUP).names)


def find_experiment(name: str) -> Experiment:
    """The experiment of a registered name, a Python file or a JSON file; raises InputError.

    A Python file has `config()`; a JSON file holds the text of an experiment (`config.to_json`).
    """
    path = pathlib.Path(name)
    if path.suffix == ".py":
        return _from_python(path)
    if path.suffix == ".json":
        return _from_json(path)
    found = entry_points(group=GROUP, name=name)
    if not found:
        raise InputError(
            f"no experiment {name!r}{nearest(name, names())}; "
            f"known: {', '.join(names())}, or the path of a .py file with config()"
        )
    return next(iter(found)).load()()


def module_at(path: pathlib.Path, what: str) -> ModuleType:
    """The module that a Python file makes; InputError where there is none or it has a defect.

    `what` is what the file should hold, for the message.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such {what} file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (SyntaxError, ImportError, NameError) as error:
        raise InputError(f"{path}: cannot be imported ({error})") from error
    return module


def _from_python(path: pathlib.Path) -> Experiment:
    config = getattr(module_at(path, "experiment"), "config", None)
    experiment = config() if callable(config) else None
    if not isinstance(experiment, Experiment):
        raise InputError(f"{path}: needs a function config() that returns an Experiment")
    return experiment


def _from_json(path: pathlib.Path) -> Experiment:
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise InputError(f"{path}: no such experiment file") from None
    try:
        return from_json(Experiment, text, str(path))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: not the text of an experiment ({error})") from error
