"""Laws of the loss against parameters and tokens, fitted as in Hoffmann et al. 2022 (approach 3).

    Law       L(N, D) = E + A / N^alpha + B / D^beta      (section 3.3, equation 2)
    PowerLaw  L(x)    = E + A / x^alpha                   (one variable, the others held fixed)

N are parameters, D tokens or bases seen, L is in nats a token or a base: the unit of the caller.

What is minimised is the Huber loss (delta 1e-3) between the logarithms of law and measurement, the
law being the log-sum-exp of its terms (their equation 3), by L-BFGS from the best points of a grid
of exponents. Besiroglu et al. 2024 ("Chinchilla scaling: a replication attempt") found
that the published estimate had stopped early: the mean of so small a loss meets the optimiser's
tolerance far from the minimum. Here the loss is summed over the runs in units of delta^2, and
L-BFGS is started anew from its own answer until it finds nothing better; `Fit` says whether that
happened. Every logarithm of a variable is centred, so that exponents and coefficients are nearly
independent.

K is the number of variables, n of runs.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import scipy.optimize
from jaxtyping import Float
from threadpoolctl import threadpool_limits

from nt_jax.errors import InputError

HUBER = 1e-3
"""Hoffmann's delta: residuals of the log loss count squared below it, by their size above."""
EXPONENTS = (0.01, 3.0)
"""Where exponents are looked for."""
VANISHED = 12.0
"""A term is taken no lower than e^-12 of the smallest loss: there it has no effect."""
AGREE = 1e-6
"""Objectives (in units of delta^2) are equal within this, relative to 1 + objective."""

_GRID = (0.05, 0.1, 0.2, 0.3, 0.45, 0.7, 1.0, 1.6)
_STARTS = 8
_ROUNDS = 20
_OPTIONS = {"maxiter": 3000, "maxfun": 6000, "maxcor": 20, "ftol": 1e-11, "gtol": 1e-6}
_COLLINEAR = 0.999


@dataclasses.dataclass(frozen=True)
class Law:
    """L(N, D) = E + A / N^alpha + B / D^beta."""

    E: float
    A: float
    alpha: float
    B: float
    beta: float

    VARIABLES: ClassVar[tuple[str, ...]] = ("parameters", "tokens")

    def loss(self, parameters: Any, tokens: Any) -> Any:
        """Loss at N parameters and D tokens: numbers or arrays that broadcast."""
        return self.E + self.A * parameters**-self.alpha + self.B * tokens**-self.beta


@dataclasses.dataclass(frozen=True)
class PowerLaw:
    """L(x) = E + A / x^alpha, with x the parameters, the tokens or the FLOPs."""

    E: float
    A: float
    alpha: float

    VARIABLES: ClassVar[tuple[str, ...]] = ("x",)

    def loss(self, x: Any) -> Any:
        """Loss at x: a number or an array."""
        return self.E + self.A * x**-self.alpha


Form = TypeVar("Form", Law, PowerLaw)


@dataclasses.dataclass(frozen=True)
class Data(Generic[Form]):
    """Runs to fit a law to."""

    form: type[Form]
    variables: Float[np.ndarray, "K n"]
    loss: Float[np.ndarray, " n"]
    floor: float | None
    """The irreducible loss E where it is given; None where it is fitted."""
    delta: float = HUBER

    @property
    def free(self) -> tuple[str, ...]:
        """Names of the parameters that are fitted."""
        names = tuple(field.name for field in dataclasses.fields(self.form))
        return names if self.floor is None else names[1:]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the variables."""
        form: type[Law] | type[PowerLaw] = self.form
        return form.VARIABLES

    def take(self, rows: Sequence[int] | np.ndarray) -> "Data[Form]":
        """Only these runs, each as often as it is named."""
        return dataclasses.replace(self, variables=self.variables[:, rows], loss=self.loss[rows])

    def lacking(self) -> str:
        """Why these runs cannot tell the parameters apart; the empty string if they can."""
        points = len(np.unique(self.variables, axis=1).T)
        if points < len(self.free):
            return f"{points} different runs for {len(self.free)} parameters"
        counts = [len(np.unique(row)) for row in self.variables]
        # The constant can be shared among the terms unless E is known, or a third value tells.
        least = [3] * len(counts)
        if self.floor is not None:
            least[int(np.argmin(counts))] = 2
        for name, count, needed in zip(self.names, counts, least, strict=True):
            if count < needed:
                return f"{name}: {count} different values, {needed} are needed"
        if len(counts) == 2 and abs(np.corrcoef(np.log(self.variables))[0, 1]) > _COLLINEAR:
            return "parameters and tokens rise together: nothing tells their terms apart"
        return ""


@dataclasses.dataclass(frozen=True)
class Fit(Generic[Form]):
    """A fitted law and how well it is determined."""

    law: Form
    data: Data[Form]
    objective: float
    """Sum over the runs of the Huber loss of log residuals."""
    residuals: Float[np.ndarray, " n"]
    """log measured - log fitted."""
    converged: bool
    """L-BFGS, started anew from this answer, found nothing better."""
    agreed: int
    """Starts that came to this objective, this one included."""
    starts: int
    on_bound: tuple[str, ...]
    """Parameters at the end of their range: exponents, and terms that have vanished."""

    @property
    def r2(self) -> float:
        """1 - squared residuals over squared deviations, of log losses; NaN if all are equal."""
        logs = np.log(self.data.loss)
        total = float(np.sum((logs - logs.mean()) ** 2))
        return 1 - float(np.sum(self.residuals**2)) / total if total else math.nan


def fit_law(
    parameters: Float[np.ndarray, " n"],
    tokens: Float[np.ndarray, " n"],
    loss: Float[np.ndarray, " n"],
    floor: float | None = None,
) -> Fit[Law]:
    """The law of both variables; `floor` is E where it is known (0 for none), in the loss's unit.

    Raises InputError for numbers that are not positive and for runs that cannot determine the law.
    """
    return _fit_checked(Data(Law, np.stack([parameters, tokens]), loss, floor))


def fit_power_law(
    x: Float[np.ndarray, " n"], loss: Float[np.ndarray, " n"], floor: float | None = None
) -> Fit[PowerLaw]:
    """The law of one variable, for example N at equal tokens; raises as `fit_law` does."""
    return _fit_checked(Data(PowerLaw, x[None], loss, floor))


def _fit_checked(data: Data[Form]) -> Fit[Form]:
    for name, values in zip((*data.names, "loss"), (*data.variables, data.loss), strict=True):
        bad = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
        if bad.size:
            raise InputError(
                f"run {bad[0]}: {name} is {values[bad[0]]:g}; a law needs finite numbers above 0"
            )
    name, runs, needed = data.form.__name__, len(data.loss), len(data.free) + 1
    if runs < needed:
        raise InputError(f"{runs} runs: {name} has {needed - 1} parameters, so it needs {needed}")
    if reason := data.lacking():
        raise InputError(f"{name} cannot be fitted: {reason}")
    if data.floor is not None and not 0 <= data.floor < data.loss.min():
        raise InputError(
            f"floor {data.floor:g}: at least 0 and below the smallest loss, {data.loss.min():g}"
        )
    return fit(data)


def fit(data: Data[Form], start: Form | None = None) -> Fit[Form]:
    """Fits without the checks; from one law, or from the best points of the grid.

    `data.lacking()` must be empty.
    """
    problem = _Problem(data)
    starts = list(problem.grid()) if start is None else [problem.theta(start)]
    # L-BFGS solves systems of 20 rows: threads that wait for each other made that 10 to 70 times
    # slower on a busy machine.
    with threadpool_limits(1, "blas"):
        found = [problem.minimise(theta) for theta in starts]
    theta, objective, converged = min(found, key=lambda one: one[1])
    law = problem.law(theta)
    same = AGREE * (1 + objective)
    return Fit(
        law=law,
        data=data,
        objective=objective * data.delta**2,
        residuals=np.log(data.loss) - np.log(law.loss(*data.variables)),
        converged=converged,
        agreed=sum(other <= objective + same for _, other, _ in found),
        starts=len(starts),
        on_bound=problem.on_bound(theta),
    )


class _Problem(Generic[Form]):
    """The objective in the optimiser's parameters.

    theta = (log of each term where its variable is at the geometric mean, exponents); the first
    term is E unless it is given.
    """

    def __init__(self, data: Data[Form]):
        self.data: Data[Form] = data
        self.y = np.log(data.loss)
        logs = np.log(data.variables)
        self.centre = logs.mean(axis=1)
        self.x = logs - self.centre[:, None]
        self.fitted = int(data.floor is None)
        self.terms = self.fitted + len(self.x)
        low = float(self.y.min())
        # Where every run is on one side of the centre, a term may exceed the losses there.
        high = float(self.y.max()) + EXPONENTS[1] * float(np.abs(self.x).max())
        self.low = np.array([low - VANISHED] * self.terms + [EXPONENTS[0]] * len(self.x))
        self.high = np.array([high] * self.terms + [EXPONENTS[1]] * len(self.x))
        self.constant = np.full(len(self.y), data.floor or 0.0)

    def value(self, theta: Float[np.ndarray, " P"]) -> tuple[float, Float[np.ndarray, " P"]]:
        """Objective in units of delta^2, and its gradient."""
        logs = np.repeat(theta[: self.terms, None], len(self.y), axis=1)
        logs[self.fitted :] -= theta[self.terms :, None] * self.x
        sizes = np.exp(logs)
        total = self.constant + sizes.sum(axis=0)
        residual = (np.log(total) - self.y) / self.data.delta
        pull = np.minimum(np.maximum(residual, -1.0), 1.0)
        # Huber: r^2 / 2 up to 1 and |r| - 1/2 above, both of which are pull * (r - pull / 2).
        objective = float(pull @ (residual - pull / 2))
        slopes = sizes * (pull / (total * self.data.delta))
        exponents = -(slopes[self.fitted :] * self.x).sum(axis=1)
        return objective, np.concatenate([slopes.sum(axis=1), exponents])

    def minimise(self, theta: Float[np.ndarray, " P"]) -> tuple[np.ndarray, float, bool]:
        """(theta, objective, whether a fresh start from there finds nothing better)."""
        best, previous = theta, math.inf
        for _ in range(_ROUNDS):
            found = scipy.optimize.minimize(
                self.value, best, jac=True, method="L-BFGS-B",
                bounds=np.stack([self.low, self.high], axis=1),
                options=_OPTIONS,
            )  # fmt: skip
            best = found.x
            if previous - found.fun <= AGREE * (1 + found.fun):
                return best, float(found.fun), True
            previous = found.fun
        return best, float(previous), False

    def grid(self) -> Iterator[Float[np.ndarray, " P"]]:
        """The best starts: with the exponents given the law is linear in E, A and B.

        Those are found by non-negative least squares of relative errors.
        """
        target = 1.0 - self.constant / self.data.loss
        ones = np.ones((self.fitted, len(self.y)))
        tried = []
        for exponents in itertools.product(_GRID, repeat=len(self.x)):
            powers = np.exp(-np.array(exponents)[:, None] * self.x)
            design = np.concatenate([ones, powers]) / self.data.loss
            sizes, _ = scipy.optimize.nnls(design.T, target)
            # A term that is absent would have no gradient.
            sizes = np.log(np.maximum(sizes, 0.01 * self.data.loss.min()))
            theta = np.clip(np.concatenate([sizes, exponents]), self.low, self.high)
            tried.append((self.value(theta)[0], theta))
        tried.sort(key=lambda one: one[0])
        yield from (theta for _, theta in tried[:_STARTS])

    def law(self, theta: Float[np.ndarray, " P"]) -> Form:
        """From the optimiser's parameters."""
        floor = self.data.floor if self.data.floor is not None else math.exp(theta[0])
        exponents = theta[self.terms :]
        sizes = np.exp(theta[self.fitted : self.terms] + exponents * self.centre)
        pairs = zip(sizes, exponents, strict=True)
        return self.data.form(float(floor), *(float(x) for pair in pairs for x in pair))

    def theta(self, law: Form) -> Float[np.ndarray, " P"]:
        """To the optimiser's parameters, within their range."""
        floor, *rest = dataclasses.astuple(law)
        sizes, exponents = np.array(rest[::2]), np.array(rest[1::2])
        logs = np.log(sizes) - exponents * self.centre
        first = [math.log(floor)] if self.fitted else []
        return np.clip(np.concatenate([first, logs, exponents]), self.low, self.high)

    def on_bound(self, theta: Float[np.ndarray, " P"]) -> tuple[str, ...]:
        """Names of the parameters at an end of their range."""
        at = (theta <= self.low + 1e-6) | (theta >= self.high - 1e-6)
        names: tuple[str, ...] = self.data.free
        pairs: tuple[str, ...] = names[self.fitted :]
        order = (*names[: self.fitted], *pairs[::2], *pairs[1::2])
        return tuple(name for name in names if at[order.index(name)])
