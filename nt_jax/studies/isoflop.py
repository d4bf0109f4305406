"""The best size for a compute budget: minima at equal FLOPs, and the optimum of a law.

Hoffmann et al. 2022, approach 2 (section 3.2): at each level of compute a parabola is fitted to the
loss against log N; its minimum is N*, and N* and D* are power laws of the FLOPs C. Approach 3
(section 3.3, equation 4) has the optimum of a fitted `Law` in closed form under C = k N D.

Intervals keep the sizes as they are and resample the residuals of all levels together, each divided
by sqrt(1 - leverage) (Davison and Hinkley 1997, "Bootstrap Methods and their Application", section
6.3): levels have too few runs to resample runs. This takes the scatter to be the same at all
levels.

L is the number of levels, n of the runs of one level, R of replicates.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from nt_jax.errors import InputError
from nt_jax.evaluation.metrics import interval
from nt_jax.studies.intervals import REPLICATES, Bootstrap
from nt_jax.studies.laws import Law
from nt_jax.studies.points import Run, column

Cost = float | Callable[[Any], Any]
"""Training FLOPs a token: k, for k times the parameters, or a function of the parameters."""
CHINCHILLA = 6.0
"""Two FLOPs a parameter forward and four backward."""

_LEVEL = 1.1
_REACH = 3 * math.log(10)
_GOLDEN = (math.sqrt(5) - 1) / 2
_HALVINGS = 50


def flops_per_token(cost: Cost, parameters: Any) -> Any:
    """Training FLOPs a token of models of so many parameters."""
    return cost(parameters) if callable(cost) else cost * parameters


def cost_of(runs: Sequence[Run]) -> Cost:
    """FLOPs a token as the runs have it: linear between their sizes in log-log, and beyond them.

    Where the runs' FLOPs are those of `nt_jax.throughput`, so is this. Raises InputError for runs
    of a single size.
    """
    pairs = {run.parameters: run.flops / run.tokens for run in runs}
    if len(pairs) < 2:
        raise InputError("FLOPs a token against parameters: runs of two sizes at least are needed")
    x, y = np.log(np.array(sorted(pairs.items()))).T

    def cost(parameters: Any) -> Any:
        at = np.log(parameters)
        left = np.clip(np.searchsorted(x, at) - 1, 0, len(x) - 2)
        slope = (y[left + 1] - y[left]) / (x[left + 1] - x[left])
        return np.exp(y[left] + slope * (at - x[left]))

    return cost


@dataclasses.dataclass(frozen=True)
class Optimum:
    """What a law takes to be the best use of a budget."""

    parameters: float
    tokens: float
    loss: float


def optimum(law: Law, flops: float, cost: Cost = CHINCHILLA) -> Optimum:
    """Parameters and tokens of least loss for so many training FLOPs."""
    size = optimal_parameters(law, flops, cost)
    tokens = flops / flops_per_token(cost, size)
    return Optimum(float(size), float(tokens), float(law.loss(size, tokens)))


def optimal_parameters(law: Law, flops: Any, cost: Cost = CHINCHILLA) -> Any:
    """N of least loss for so many training FLOPs, a number or an array.

    In closed form for k; for a function by golden-section search within three decades of the form
    for 6, where the loss has to have one minimum.
    """
    share = law.alpha + law.beta
    ratio = (law.alpha * law.A / (law.beta * law.B)) ** (1 / share)
    if not callable(cost):
        return ratio * (flops / cost) ** (law.beta / share)

    def loss(log_size: Any) -> Any:
        size = np.exp(log_size)
        return law.loss(size, flops / cost(size))

    middle = np.log(ratio) + law.beta / share * np.log(flops / CHINCHILLA)
    low, high = middle - _REACH, middle + _REACH
    for _ in range(_HALVINGS):
        first, second = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        left = loss(first) < loss(second)
        low, high = np.where(left, low, first), np.where(left, second, high)
    return np.exp((low + high) / 2)


def optimum_intervals(
    sample: Bootstrap[Law], flops: float, cost: Cost = CHINCHILLA
) -> dict[str, tuple[float, float]]:
    """95 % intervals of `parameters`, `tokens` and `loss` of the optimum."""
    found = np.array([dataclasses.astuple(optimum(law, flops, cost)) for law in sample.laws])
    names = [field.name for field in dataclasses.fields(Optimum)]
    return {name: interval(values) for name, values in zip(names, found.T, strict=True)}


@dataclasses.dataclass(frozen=True)
class Level:
    """Runs of (nearly) equal compute; InputError for fewer than three sizes: no parabola."""

    flops: float
    """Geometric mean over the runs."""
    parameters: Float[np.ndarray, " n"]
    loss: Float[np.ndarray, " n"]

    def __post_init__(self) -> None:
        sizes = len(np.unique(self.parameters))
        if sizes < 3:
            raise InputError(f"{self.flops:.3g} FLOPs: runs of {sizes} sizes, a parabola needs 3")


def groups(runs: Sequence[Run], within: float = _LEVEL) -> list[list[Run]]:
    """Runs whose FLOPs follow each other within this ratio, by rising FLOPs."""
    ordered = sorted(runs, key=lambda run: run.flops)
    found: list[list[Run]] = []
    for run in ordered:
        if not found or run.flops > within * found[-1][-1].flops:
            found.append([])
        found[-1].append(run)
    return found


def level_of(runs: Sequence[Run]) -> Level:
    """Runs of equal compute; InputError for fewer than three sizes."""
    return Level(
        math.exp(np.log(column(runs, "flops")).mean()),
        column(runs, "parameters"),
        column(runs, "loss"),
    )


@dataclasses.dataclass(frozen=True)
class Minimum:
    """The parabola of one level and its minimum."""

    level: Level
    parabola: tuple[float, float, float]
    """Loss = a + b x + c x^2 with x the log of N over `centre`."""
    centre: float
    parameters: float
    """N*; NaN where the parabola opens downwards."""
    parameters_interval: tuple[float, float]
    loss: float
    loss_interval: tuple[float, float]
    place: str
    """`inside` the range of the runs, `below` or `above` it, or `none`: no minimum at all."""
    without: int
    """Replicates that have no minimum; the intervals are those of the others."""
    replicates: Float[np.ndarray, " R"]
    """N* of every resample, NaN where there is none."""

    def curve(self, parameters: Any) -> Any:
        """Loss of the parabola at N."""
        a, b, c = self.parabola
        x = np.log(np.asarray(parameters) / self.centre)
        return a + x * (b + x * c)


def minima(found: Sequence[Level], seed: int, replicates: int = REPLICATES) -> list[Minimum]:
    """The minimum of every level; intervals are NaN where no level has more than three runs."""
    designs, coefficients, residuals = [], [], []
    for level in found:
        x = np.log(level.parameters) - np.log(level.parameters).mean()
        design = np.stack([np.ones_like(x), x, x * x], axis=1)
        inverse = np.linalg.pinv(design)
        own = inverse @ level.loss
        spare = 1 - np.einsum("np,pn->n", design, inverse)
        known = spare > 1e-9
        misses = (level.loss - design @ own)[known] / np.sqrt(spare[known])
        designs.append((design, inverse))
        coefficients.append(own)
        residuals.append(misses)
    pool = np.concatenate(residuals)
    pool = pool - pool.mean() if pool.size else pool
    rng = np.random.default_rng(seed)
    result = []
    for level, (design, inverse), own in zip(found, designs, coefficients, strict=True):
        drawn = np.zeros((0, 3))
        if pool.size:
            noise = rng.choice(pool, size=(replicates, len(level.loss)))
            drawn = (design @ own + noise) @ inverse.T
        result.append(_minimum(level, own, drawn))
    return result


def _minimum(
    level: Level, own: Float[np.ndarray, " 3"], drawn: Float[np.ndarray, "R 3"]
) -> Minimum:
    logs = np.log(level.parameters)
    centre = logs.mean()
    ends = logs.min() - centre, logs.max() - centre
    (at,), (loss,) = _vertex(own[None])
    if np.isnan(at):
        place = "none"
    else:
        place = "below" if at < ends[0] else "above" if at > ends[1] else "inside"
    places, losses = _vertex(drawn)
    with np.errstate(over="ignore"):
        sizes = np.exp(centre + places)
        return Minimum(
            level=level,
            parabola=(float(own[0]), float(own[1]), float(own[2])),
            centre=math.exp(centre),
            parameters=float(np.exp(centre + at)),
            parameters_interval=interval(sizes),
            loss=float(loss),
            loss_interval=interval(losses),
            place=place,
            without=int(np.isnan(places).sum()),
            replicates=sizes,
        )


def _vertex(
    parabolas: Float[np.ndarray, "R 3"],
) -> tuple[Float[np.ndarray, " R"], Float[np.ndarray, " R"]]:
    """(x, value) of the minimum of each; NaN where the parabola opens downwards."""
    a, b, c = parabolas.T
    up = np.where(c > 0, c, np.nan)
    x = -b / (2 * up)
    return x, a + b * x / 2


@dataclasses.dataclass(frozen=True)
class Growth:
    """N* = N1 (C / C1)^a and D* = D1 (C / C1)^b over levels of compute."""

    flops: float
    """C1, the geometric mean of the levels used."""
    parameters: float
    """N1."""
    tokens: float
    """D1."""
    a: float
    a_interval: tuple[float, float]
    b: float
    b_interval: tuple[float, float]
    used: tuple[float, ...]
    """FLOPs of the levels whose minimum lies inside their runs."""
    left_out: tuple[float, ...]

    def optimum(self, flops: float) -> tuple[float, float]:
        """(N*, D*) for so many FLOPs."""
        steps = flops / self.flops
        return self.parameters * steps**self.a, self.tokens * steps**self.b


def growth(found: Sequence[Minimum], cost: Cost = CHINCHILLA) -> Growth:
    """Power laws through the minima that lie inside the range of their runs.

    Least squares in log-log; D* = C / FLOPs a token of N*. A replicate counts where all its levels
    have a minimum. Raises InputError for fewer than two such levels.
    """
    used = [one for one in found if one.place == "inside"]
    if len(used) < 2:
        raise InputError(
            f"minima inside the range of the runs at {len(used)} of {len(found)} compute levels: "
            "a power law needs two"
        )
    flops = np.array([one.level.flops for one in used])
    x = np.log(flops) - np.log(flops).mean()

    def slopes(values: Float[np.ndarray, "R L"]) -> Float[np.ndarray, " R"]:
        return np.log(values) @ x / (x @ x)

    sizes = np.array([one.parameters for one in used])
    tokens = flops / flops_per_token(cost, sizes)
    drawn = np.stack([one.replicates for one in used], axis=1)
    drawn = drawn[(np.isfinite(drawn) & (drawn > 0)).all(axis=1)]
    return Growth(
        flops=math.exp(np.log(flops).mean()),
        parameters=math.exp(np.log(sizes).mean()),
        tokens=math.exp(np.log(tokens).mean()),
        a=float(slopes(sizes[None])[0]),
        a_interval=interval(slopes(drawn)),
        b=float(slopes(tokens[None])[0]),
        b_interval=interval(slopes(flops / flops_per_token(cost, drawn))),
        used=tuple(float(one) for one in flops),
        left_out=tuple(one.level.flops for one in found if one.place != "inside"),
    )
