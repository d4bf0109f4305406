"""Studies by name (entry point group `nt_jax.studies`) or by path."""

import pathlib
from collections.abc import Sequence
from importlib.metadata import entry_points

from nt_jax import registry
from nt_jax.errors import InputError, nearest
from nt_jax.studies.grid import Study, StudyRun

GROUP = "nt_jax.studies"


def names() -> list[str]:
    """Registered study names."""
    return sorted(entry_points(group=GROUP).names)


def find_study(name: str) -> Study:
    """Calls `study()` of a registered study or of a Python file; raises InputError."""
    path = pathlib.Path(name)
    if path.suffix == ".py":
        make = getattr(registry.module_at(path, "study"), "study", None)
        found = make() if callable(make) else None
        if not isinstance(found, Study):
            raise InputError(f"{path}: needs a function study() that returns a Study")
        return found
    entries = entry_points(group=GROUP, name=name)
    if not entries:
        raise InputError(
            f"no study {name!r}{nearest(name, names())}; known: {', '.join(names()) or 'none'}, "
            "or the path of a .py file with study()"
        )
    return next(iter(entries)).load()()


def choose(study: Study, names: Sequence[str]) -> tuple[StudyRun, ...]:
    """The runs of these names, all where there is none; InputError for an unknown one."""
    known = [run.name for run in study.runs]
    for name in names:
        if name not in known:
            raise InputError(
                f"study {study.name}: no run {name!r}{nearest(name, known)}; "
                f"`nt-jax study plan` lists all {len(known)}"
            )
    return tuple(run for run in study.runs if not names or run.name in names)
