"""Experiments by name (entry point group `nt_jax.experiments`) or by path."""

import importlib.util
import pathlib
from importlib.metadata import entry_points

from nt_jax.config import Experiment
from nt_jax.errors import InputError, nearest

GROUP = "nt_jax.experiments"


def names() -> list[str]:
    """Registered experiment names."""
    return sorted(entry_points(group=GROUP).names)


def find_experiment(name: str) -> Experiment:
    """Calls `config()` of a registered experiment or of a Python file; raises InputError."""
    path = pathlib.Path(name)
    if path.suffix == ".py":
        return _from_file(path)
    found = entry_points(group=GROUP, name=name)
    if not found:
        raise InputError(
            f"no experiment {name!r}{nearest(name, names())}; "
            f"known: {', '.join(names())}, or the path of a .py file with config()"
        )
    return next(iter(found)).load()()


def _from_file(path: pathlib.Path) -> Experiment:
    if not path.is_file():
        raise InputError(f"{path}: no such experiment file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (SyntaxError, ImportError, NameError) as error:
        raise InputError(f"{path}: cannot be imported ({error})") from error
    config = getattr(module, "config", None)
    experiment = config() if callable(config) else None
    if not isinstance(experiment, Experiment):
        raise InputError(f"{path}: needs a function config() that returns an Experiment")
    return experiment
