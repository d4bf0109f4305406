"""How often each source of a dataset is read: rules for weights, and their shares.

A rule is a text, `data.weights` of an experiment; it may change at a step:

    proportional            every window equally often (the default)
    temperature=T           a source by the T-th root of its number of windows
    equal                   every source equally often
    species, group          every species, or group, equally often; within it, every window
    manifest                by the column `weight` of the manifest
    NAME=W,NAME=W,...       sources or groups by name, all of them named
    RULE;RULE@STEP;...      another rule from this optimizer step on (the first step is 0)
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from nt_jax.errors import InputError, nearest
from nt_jax.order import Phase, rows_of

PROPORTIONAL = "proportional"
BLOCK = 1 << 16
"""Positions in which every source has its exact share; a source needs one of them at least."""


@dataclasses.dataclass(frozen=True)
class Component:
    """The windows of one source in one split, which follow one another."""

    source: str
    first: int
    """Record number of its first window."""
    windows: int
    about: Mapping[str, Any]
    """What the data card says of the source."""


@dataclasses.dataclass(frozen=True)
class Part:
    """A rule and when it begins."""

    step: int
    rule: str


def components(card: Mapping[str, Any], split: str) -> list[Component]:
    """Sources with windows in the split, in the order of its records."""
    found: list[Component] = []
    first = 0
    for source in card["sources"]:
        windows = source["windows"].get(split, 0)
        if windows:
            found.append(Component(source["name"], first, windows, source))
        first += windows
    return found


def parse(text: str) -> tuple[Part, ...]:
    """The parts of `data.weights`, by step; raises InputError when they contradict the syntax."""
    first, *later = text.split(";")
    parts = [Part(0, first.strip())]
    for piece in later:
        rule, _, step = (word.strip() for word in piece.rpartition("@"))
        if not (rule and step.isascii() and step.isdigit()):
            raise InputError(f"data.weights: {piece.strip()!r} needs its step: RULE@STEP")
        if int(step) <= parts[-1].step:
            raise InputError(
                f"data.weights: {piece.strip()!r} begins at step {step}, the part before it at "
                f"{parts[-1].step}; put them in order"
            )
        parts.append(Part(int(step), rule))
    return tuple(parts)


def same_until(step: int, old: str, new: str) -> bool:
    """Whether two texts give the steps below `step` the same windows."""
    first, second = ([part for part in parse(text) if part.step < step] for text in (old, new))
    return first == second


def shares(rule: str, sources: Sequence[Component]) -> Float[np.ndarray, " C"]:
    """How often each source is read; the sum is 1.

    Raises InputError for an unknown rule or name, a weight that is no positive number, a source
    that is not named, or one so rare that it would hardly ever be read.
    """
    name, _, value = rule.partition("=")
    windows = np.array([source.windows for source in sources], np.float64)
    if rule in _RULES:
        weights = _RULES[rule](sources, windows)
    elif name == "temperature" and "," not in rule:
        weights = windows ** (1.0 / _positive(rule, value))
    elif value:
        weights = _named(rule, sources, windows)
    else:
        raise InputError(
            f"data.weights: {rule!r} is no rule{nearest(rule, [*_RULES, 'temperature=T'])}; rules: "
            f"{', '.join(_RULES)}, temperature=T, NAME=W,NAME=W,..."
        )
    return weights / weights.sum()


def quotas(rule: str, sources: Sequence[Component]) -> Int[np.ndarray, " C"]:
    """Positions of each source in a block, by largest remainder.

    Raises InputError as `shares` does, and for a source that would have none.
    """
    exact = shares(rule, sources) * BLOCK
    whole = np.floor(exact).astype(np.int64)
    order = np.argsort(whole - exact, kind="stable")
    whole[order[: BLOCK - int(whole.sum())]] += 1
    if not whole.all():
        rare = sources[int(np.argmin(whole))]
        raise InputError(
            f"data.weights: {rule}: {rare.source} would be read less than once in {BLOCK:,} rows; "
            "give it more weight, or build the dataset without it"
        )
    return whole


def _each_equal(key: str) -> Callable[[Sequence[Component], np.ndarray], np.ndarray]:
    def weights(sources: Sequence[Component], windows: np.ndarray) -> np.ndarray:
        names = [_about(source, key) for source in sources]
        totals: dict[Any, float] = {}
        for name, own in zip(names, windows.tolist(), strict=True):
            totals[name] = totals.get(name, 0.0) + own
        return windows / np.array([totals[name] for name in names])

    return weights


def _about(source: Component, key: str) -> Any:
    if key not in source.about:
        raise InputError(
            f"data.weights: the data card says nothing of the {key} of {source.source}; build the "
            "dataset from a manifest"
        )
    return source.about[key]


_RULES: dict[str, Callable[[Sequence[Component], np.ndarray], np.ndarray]] = {
    PROPORTIONAL: lambda sources, windows: windows,
    "equal": lambda sources, windows: np.ones(len(sources)),
    "species": _each_equal("species"),
    "group": _each_equal("group"),
    "manifest": lambda sources, windows: np.array([_about(s, "weight") for s in sources], float),
}


def _named(rule: str, sources: Sequence[Component], windows: np.ndarray) -> np.ndarray:
    """`NAME=W,...`: a group's weight is shared by its windows."""
    groups = {str(source.about["group"]) for source in sources if "group" in source.about}
    known = [*(source.source for source in sources), *sorted(groups)]
    weights = np.zeros(len(sources))
    for part in rule.split(","):
        name, _, value = (word.strip() for word in part.rpartition("="))
        if name not in known:
            shown = ", ".join(known[:5]) + (", ..." if len(known) > 5 else "")
            raise InputError(
                f"data.weights: {name!r} is no source and no group{nearest(name, known)}; there "
                f"are {shown}"
            )
        mine = np.array([name in (s.source, s.about.get("group")) for s in sources])
        if weights[mine].any():
            raise InputError(f"data.weights: {name} is named twice, or its group is")
        weights[mine] = _positive(part, value) * windows[mine] / windows[mine].sum()
    if not weights.all():
        missing = sources[int(np.argmin(weights))].source
        raise InputError(f"data.weights: {missing} is not named; give every source its weight")
    return weights


def _positive(rule: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"data.weights: {rule.strip()!r}: {text!r} is no positive number")
    return value


def phases(
    text: str, sources: Sequence[Component], global_batch: int, seed: int
) -> tuple[Phase, ...]:
    """The phases of `data.weights` for `TrainOrder`; the first is none if it is `proportional`.

    A source goes on in a new phase where it was in the one before, so no window is skipped or read
    twice because weights change; only behind a `proportional` at the beginning, which does not know
    of sources, all of them begin anew. Raises InputError as `parse` and `quotas` do.
    """
    parts = parse(text)
    if parts[0].rule == PROPORTIONAL:
        parts = parts[1:]
    read = np.zeros(len(sources), np.int64)
    made: list[Phase] = []
    for part in parts:
        origin = part.step * global_batch
        if made:
            read = read + rows_of(seed, made[-1], origin - made[-1].origin)
        made.append(
            Phase(
                origin,
                tuple(np.cumsum(quotas(part.rule, sources)).tolist()),
                tuple(source.first for source in sources),
                tuple(source.windows for source in sources),
                tuple(read.tolist()),
            )
        )
    return tuple(made)
