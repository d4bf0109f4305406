"""Typed overrides of an experiment: `--optim.peak-lr 3e-4` (parsed by tyro)."""

import contextlib
import dataclasses
import io
import typing
from collections.abc import Sequence
from typing import Any

import tyro

from nt_jax.config import Experiment
from nt_jax.errors import InputError, nearest


def known_flags(experiment: Experiment) -> dict[str, tuple[str, Any]]:
    """Every override: flag -> (type as people write it, value now)."""
    flags = {}
    for group in dataclasses.fields(experiment):
        part = getattr(experiment, group.name)
        if not dataclasses.is_dataclass(part):
            continue
        hints = typing.get_type_hints(type(part))
        for field in dataclasses.fields(part):
            flag = f"--{group.name}.{field.name.replace('_', '-')}"
            flags[flag] = (_type_text(hints[field.name]), getattr(part, field.name))
    return flags


def apply_overrides(experiment: Experiment, arguments: Sequence[str]) -> Experiment:
    """Returns the experiment with the overrides applied; raises InputError on the first bad one."""
    flags = known_flags(experiment)
    pairs = _pairs(arguments, flags)
    for flag, value in pairs:
        try:
            experiment = _parse(experiment, [flag, value])
        except SystemExit as stop:
            expected, now = flags[flag]
            raise InputError(f"{flag}: {value!r} is not {expected} (now {now})") from stop
    return experiment


def _parse(experiment: Experiment, arguments: list[str]) -> Experiment:
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        return tyro.cli(
            Experiment,
            default=experiment,
            args=arguments,
            config=(tyro.conf.FlagConversionOff, tyro.conf.AvoidSubcommands),
        )


def _pairs(arguments: Sequence[str], flags: dict[str, Any]) -> list[tuple[str, str]]:
    pairs, rest = [], list(arguments)
    while rest:
        flag, equals, value = rest.pop(0).partition("=")
        # Both spellings of a field name are accepted, as tyro does.
        flag = flag.replace("_", "-")
        if flag not in flags:
            raise InputError(
                f"unknown option {flag!r}{nearest(flag, flags)}; `nt-jax pretrain --help` lists all"
            )
        if not equals:
            if not rest:
                raise InputError(f"{flag}: a value is missing ({flags[flag][0]})")
            value = rest.pop(0)
        pairs.append((flag, value))
    return pairs


def _type_text(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + "|".join(map(str, typing.get_args(hint)))
    if isinstance(hint, type):
        return {int: "an integer", float: "a number", bool: "True|False", str: "text"}[hint]
    return " or ".join(
        "None" if part is type(None) else _type_text(part) for part in typing.get_args(hint)
    )


def table(experiment: Experiment) -> str:
    """All overrides with type and present value, one a line."""
    rows = [(flag, kind, str(value)) for flag, (kind, value) in known_flags(experiment).items()]
    wide = max(len(flag) for flag, _, _ in rows)
    return "\n".join(f"  {flag:<{wide}}  {value:<10}  {kind}" for flag, kind, value in rows)
