"""What the figures say: axes and units, the law where it is, predictions beside measurements."""

import dataclasses
import io

import matplotlib.image
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nt_jax.errors import InputError
from nt_jax.pictures import png
from nt_jax.report.plots import styled, svg
from nt_jax.studies import figures
from nt_jax.studies.intervals import Bootstrap, bootstrap, predict
from nt_jax.studies.isoflop import Level, groups, growth, level_of, minima, optimum
from nt_jax.studies.laws import Law, fit_law
from nt_jax.studies.points import Run, column

LAW = Law(5.6, 12.0, 0.25, 60.0, 0.22)
SIZES, BUDGETS = (1e7, 3e7, 1e8), (1e9, 3e9, 1e10)


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    rng = np.random.default_rng(0)
    made = []
    for n in SIZES:
        for d in BUDGETS:
            loss = float(LAW.loss(n, d) * np.exp(0.002 * rng.normal()))
            tags = {"mcc": 7.0 - loss, "mcc low": 6.98 - loss, "mcc high": 7.03 - loss}
            made.append(Run(f"{n:g} {d:g}", n, d, 6 * n * d, loss, tags))
    return made


@pytest.fixture(scope="module")
def sample(runs: list[Run]) -> Bootstrap[Law]:
    fitted = fit_law(*(column(runs, name) for name in ("parameters", "tokens", "loss")))
    return bootstrap(fitted, 0, 12)


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def only(figure: Figure) -> Axes:
    (axes,) = figure.axes
    return axes


def held_out(sample: Bootstrap[Law], x: float) -> figures.HeldOut:
    found = predict(sample, np.array([1e9]), np.array([3e10]))
    value, low, high = (float(part[0]) for part in (found.value, found.low, found.high))
    return figures.HeldOut("largest", x, value, low, high, measured=value * 1.001)


def test_loss_against_tokens_shows_law_prediction_and_measurement(
    runs: list[Run], sample: Bootstrap[Law]
) -> None:
    curves = figures.law_curves(sample, "tokens", (1e9, 3e10), SIZES)
    one = held_out(sample, 3e10)
    figure = figures.tokens_figure(runs, curves, [one], "nats a base", "bases")
    axes = only(figure)
    assert axes.get_xlabel() == "bases seen in training"
    assert axes.get_ylabel() == "held-out loss (nats a base)"
    assert axes.get_xscale() == "log"
    named = legend(figure)
    assert {"10M parameters", "100M parameters", "law, 95 % band", "measured, held out"} < {*named}
    for curve, n in zip(curves, SIZES, strict=True):
        np.testing.assert_allclose(curve.value, sample.fit.law.loss(n, curve.x))
        assert (curve.low <= curve.high).all()
        assert any(np.array_equal(line.get_ydata(), curve.value) for line in axes.lines)
    bars = next(c for c in axes.containers if c.get_label() == "predicted, 95 % of a run")
    (segment,) = bars[2][0].get_segments()
    np.testing.assert_allclose(segment[:, 1], [one.low, one.high])
    cross = next(line for line in axes.lines if line.get_label() == "measured, held out")
    assert cross.get_ydata()[0] == one.measured


def test_without_a_law_the_runs_of_a_group_are_joined(runs: list[Run]) -> None:
    axes = only(figures.parameters_figure(runs))
    assert axes.get_xlabel() == "parameters"
    joined = {line.get_label(): line for line in axes.lines}
    assert list(joined) == ["1B tokens", "3B tokens", "10B tokens"]
    np.testing.assert_array_equal(joined["3B tokens"].get_xdata(), SIZES)
    assert joined["3B tokens"].get_linestyle() == "-"
    assert len({line.get_marker() for line in axes.lines}) == 3


def test_loss_against_flops_shows_the_frontier(runs: list[Run], sample: Bootstrap[Law]) -> None:
    curve = figures.frontier(sample, (1e16, 1e20))
    best = optimum(sample.fit.law, float(curve.x[-1]))
    assert curve.value[-1] == pytest.approx(best.loss)
    figure = figures.flops_figure(runs, [curve], [held_out(sample, 6 * 3e19)])
    assert only(figure).get_xlabel() == "training FLOPs"
    assert "compute-optimal, by the law" in legend(figure)
    # No run of these lies below what the law thinks possible by more than noise.
    possible = np.interp(np.log(column(runs, "flops")), np.log(curve.x), curve.value)
    assert (column(runs, "loss") > 0.99 * possible).all()


def test_a_band_that_says_nothing_does_not_flatten_the_runs(
    runs: list[Run], sample: Bootstrap[Law]
) -> None:
    curve = figures.frontier(sample, (1e16, 1e20))
    plain = only(figures.flops_figure(runs, [curve])).get_ylim()
    narrow = curve._replace(low=curve.value, high=curve.value)
    low, high = only(figures.flops_figure(runs, [narrow])).get_ylim()
    assert low - (high - low) <= plain[0] <= low
    wide = curve._replace(low=curve.value / 10, high=curve.value * 10)
    assert only(figures.flops_figure(runs, [wide])).get_ylim() == pytest.approx(
        (2 * low - high, 2 * high - low)
    )


def test_losses_that_differ_by_more_than_twice_are_on_a_log_scale(runs: list[Run]) -> None:
    assert only(figures.flops_figure(runs)).get_yscale() == "linear"
    far = [dataclasses.replace(run, loss=run.loss**12) for run in runs]
    assert only(figures.flops_figure(far)).get_yscale() == "log"


def test_of_many_groups_the_legend_names_some() -> None:
    many = [Run("r", float(n), 1e9, 6e9 * n, 6.0) for n in np.geomspace(1e6, 1e9, 25)]
    figure = figures.flops_figure(many)
    assert len(only(figure).lines) == 25
    assert 5 <= len(legend(figure)) <= 10


def test_isoflop_minima_are_drawn_where_runs_surround_them() -> None:
    made = []
    for flops in (1e18, 1e19, 1e20):
        for n in optimum(LAW, flops).parameters * np.geomspace(0.2, 5, 5):
            d = flops / 6 / n
            made.append(
                Run("r", float(n), float(d), flops, float(LAW.loss(n, d) + 0.002 * (n % 2)))
            )
    n = optimum(LAW, 1e21).parameters * np.geomspace(3, 20, 5)
    outside = Level(1e21, n, LAW.loss(n, 1e21 / 6 / n))
    found = minima([*map(level_of, groups(made)), outside], 0, 50)
    figure = figures.isoflop_figure(found)
    assert "1e18 FLOPs" in legend(figure)
    assert "1e21 FLOPs, no minimum inside" in legend(figure)
    stars = [c[0] for c in only(figure).containers]
    drawn = [(star.get_xdata()[0], star.get_ydata()[0]) for star in stars]
    assert drawn == [(one.parameters, one.loss) for one in found[:3]]

    fitted = growth(found)
    left, right = figures.growth_figure(fitted, found).axes
    assert f"a = {fitted.a:.2f}" in left.get_title()
    assert f"b = {fitted.b:.2f}" in right.get_title()
    assert left.get_yscale() == right.get_yscale() == "log"


def test_scores_stand_against_the_loss(runs: list[Run]) -> None:
    unscored = dataclasses.replace(runs[0], tags={})
    figure = figures.score_figure([unscored, *runs[1:]], "mcc")
    axes = only(figure)
    left, right = axes.get_xlim()
    assert left > right
    assert axes.get_ylabel() == "mcc"
    assert sum(len(container[0].get_xdata()) for container in axes.containers) == 8
    (segment, *_) = axes.containers[-1][2][0].get_segments()
    assert np.ptp(segment[:, 1]) == pytest.approx(0.05)
    with pytest.raises(InputError, match="no run has the score 'f1'"):
        figures.score_figure(runs, "f1")


def test_sources_are_compared_at_equal_tokens() -> None:
    made = [
        Run(f"{source} {seed}", 1e7, 1e9, 6e16, 6.0 + 0.1 * place + 0.01 * seed, {"source": source})
        for place, source in enumerate(("human", "multispecies"))
        for seed in range(3)
    ]
    axes = only(figures.sources_figure(made))
    assert [text.get_text() for text in axes.get_xticklabels()] == ["human", "multispecies"]
    assert axes.get_xlabel() == "source (1B tokens each)"
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [6.0, 6.01, 6.02])
    mean, spread = (collection.get_segments()[0] for collection in axes.collections[:2])
    np.testing.assert_allclose(mean[:, 1], 6.01)
    np.testing.assert_allclose(spread[:, 1], [6.0, 6.02])
    with pytest.raises(InputError, match="these runs have 1B to 2B"):
        figures.sources_figure([*made, dataclasses.replace(made[0], tokens=2e9)])
    with pytest.raises(InputError, match="run human 0: no tag 'kind'"):
        figures.sources_figure(made, "kind")


def test_figures_go_to_a_page_and_to_a_file(runs: list[Run]) -> None:
    with styled("study"):
        text = svg(figures.flops_figure(runs))
    assert text.startswith("<svg")
    assert "training FLOPs" in text
    assert "currentColor" in text
    picture = matplotlib.image.imread(io.BytesIO(png(figures.flops_figure(runs))))
    assert picture.shape[:2] == (660, 1350)
    assert np.ptp(picture) > 0.5
