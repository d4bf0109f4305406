"""How well a fitted law is known: resampled runs, predictions with intervals, runs left out.

Runs are drawn with replacement and the law is fitted again (pairs bootstrap: Efron and Tibshirani
1993, "An Introduction to the Bootstrap", section 9.5), starting from the law of all runs. Intervals
are the 95 % percentiles. A draw whose runs cannot tell the parameters apart is drawn again and
counted.

A prediction has two intervals. That of the law says where the curve may lie. That of a run adds
the scatter of single runs: to every replicate's log loss each residual of the fit in turn,
stretched by sqrt(n / (n - p)) for the p parameters that were fitted to the n runs (Davison and
Hinkley 1997, "Bootstrap Methods and their Application", section 6.3). It assumes the same
relative scatter everywhere, also where nothing was measured.

R is the number of replicates, M of predictions, n of runs.
"""

import collections
import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Generic, NamedTuple

import numpy as np
from jaxtyping import Float

from nt_jax.errors import InputError
from nt_jax.evaluation.metrics import interval
from nt_jax.studies.laws import Fit, Form, fit

REPLICATES = 500
_PATIENCE = 20
"""Draws for each replicate that is wanted, before the runs are said to be too few."""


@dataclasses.dataclass(frozen=True)
class Bootstrap(Generic[Form]):
    """A fit and the laws of its resampled runs."""

    fit: Fit[Form]
    laws: tuple[Form, ...]
    redrawn: int
    """Draws that could not be fitted, beside the replicates."""
    unconverged: int
    """Replicates for which L-BFGS did not come to rest."""
    on_bound: Mapping[str, int]
    """Replicates by the parameter that is at an end of its range."""

    def interval(self, name: str) -> tuple[float, float]:
        """95 % interval of a parameter, such as `alpha`."""
        return self.interval_of(lambda law: getattr(law, name))

    def interval_of(self, quantity: Callable[[Form], float]) -> tuple[float, float]:
        """95 % interval of anything that follows from a law."""
        return interval(np.array([quantity(law) for law in self.laws], np.float64))


def bootstrap(fitted: Fit[Form], seed: int, replicates: int = REPLICATES) -> Bootstrap[Form]:
    """Fits the law to `replicates` resamples of the runs.

    Raises InputError where hardly any resample determines the law.
    """
    rng = np.random.default_rng(seed)
    runs = len(fitted.data.loss)
    laws: list[Form] = []
    redrawn = unconverged = 0
    on_bound: collections.Counter[str] = collections.Counter()
    while len(laws) < replicates:
        data = fitted.data.take(rng.integers(runs, size=runs))
        if data.lacking():
            redrawn += 1
            if redrawn > _PATIENCE * replicates:
                raise InputError(
                    f"{runs} runs are too few to resample: of {redrawn + len(laws)} draws "
                    f"{len(laws)} determine the law"
                )
            continue
        again = fit(data, fitted.law)
        laws.append(again.law)
        unconverged += not again.converged
        on_bound.update(again.on_bound)
    return Bootstrap(fitted, tuple(laws), redrawn, unconverged, dict(on_bound))


class Prediction(NamedTuple):
    """Losses that a law predicts, in the unit of the losses it was fitted to."""

    value: Float[np.ndarray, " M"]
    low: Float[np.ndarray, " M"]
    """95 % interval of a single run: the law's, and the scatter of runs."""
    high: Float[np.ndarray, " M"]
    law_low: Float[np.ndarray, " M"]
    """95 % interval of the law alone."""
    law_high: Float[np.ndarray, " M"]


def predict(sample: Bootstrap[Form], *variables: Float[np.ndarray, " M"]) -> Prediction:
    """Loss at each point: N and D for a `Law`, x for a `PowerLaw`."""
    fitted = sample.fit
    logs = np.stack([np.log(law.loss(*variables)) for law in sample.laws])
    scattered = logs[:, None, :] + scatter(fitted)[None, :, None]
    low, high = np.percentile(scattered, [2.5, 97.5], axis=(0, 1))
    law_low, law_high = np.percentile(logs, [2.5, 97.5], axis=0)
    return Prediction(
        fitted.law.loss(*variables), np.exp(low), np.exp(high), np.exp(law_low), np.exp(law_high)
    )


def scatter(fitted: Fit[Form]) -> Float[np.ndarray, " n"]:
    """Residuals of the log loss, stretched by sqrt(n / (n - p)): fitting has shrunk them."""
    runs, fitted_to_them = len(fitted.residuals), len(fitted.data.free)
    return fitted.residuals * math.sqrt(runs / (runs - fitted_to_them))


def leave_one_out(fitted: Fit[Form]) -> Float[np.ndarray, " n"]:
    """log measured - log predicted of every run, by the law of the other runs.

    NaN where the others cannot determine the law.
    """
    runs = np.arange(len(fitted.data.loss))
    errors = np.full(len(runs), np.nan)
    for left in runs:
        others = fitted.data.take(np.delete(runs, left))
        if not others.lacking():
            law = fit(others, fitted.law).law
            predicted = law.loss(*fitted.data.variables[:, left])
            errors[left] = math.log(fitted.data.loss[left] / predicted)
    return errors
