"""Minima at equal FLOPs and the closed form of a law come to the same best sizes."""

import dataclasses

import numpy as np
import pytest
import scipy.optimize

from nt_jax.config import ModelConfig
from nt_jax.errors import InputError
from nt_jax.studies.intervals import bootstrap
from nt_jax.studies.isoflop import (
    Level,
    cost_of,
    groups,
    growth,
    level_of,
    minima,
    optimal_parameters,
    optimum,
    optimum_intervals,
)
from nt_jax.studies.laws import Law, fit_law
from nt_jax.studies.points import Run
from nt_jax.throughput import train_flops_per_sequence

CHINCHILLA = Law(1.8172, 482.01, 0.3478, 2085.43, 0.3658)
DNA = Law(5.6, 12.0, 0.25, 60.0, 0.22)
BUDGETS = (1e18, 1e19, 1e20, 1e21)


def levels(runs: list[Run], **more: float) -> list[Level]:
    return [level_of(group) for group in groups(runs, **more)]


def runs(law: Law, noise: float = 0.0, seed: int = 0, ratios: tuple[float, ...] = ()) -> list[Run]:
    """Seven sizes around the best one of every budget."""
    rng = np.random.default_rng(seed)
    made = []
    for flops in BUDGETS:
        for ratio in ratios or np.geomspace(0.15, 6, 7):
            n = optimum(law, flops).parameters * float(ratio)
            d = flops / 6 / n
            loss = float(law.loss(n, d) * np.exp(noise * rng.normal()))
            made.append(Run(f"{flops:.0e} x {ratio:.2f}", n, d, flops, loss))
    return made


@pytest.mark.parametrize("law", [CHINCHILLA, DNA])
@pytest.mark.parametrize("k", [6.0, 2.5])
def test_the_closed_form_is_the_minimum(law: Law, k: float) -> None:
    found = optimum(law, 1e20, k)
    numeric = scipy.optimize.minimize_scalar(
        lambda x: law.loss(np.exp(x), 1e20 / k / np.exp(x)),
        bounds=(np.log(1e5), np.log(1e13)), method="bounded", options={"xatol": 1e-10},
    )  # fmt: skip
    assert found.parameters == pytest.approx(np.exp(numeric.x), rel=1e-4)
    assert found.loss == pytest.approx(numeric.fun, rel=1e-12)
    assert k * found.parameters * found.tokens == pytest.approx(1e20)


def test_the_exponents_of_chinchilla() -> None:
    """Besiroglu et al. 2024: about 20 tokens a parameter at Chinchilla's 5.76e23 FLOPs."""
    found = optimum(CHINCHILLA, 5.76e23)
    assert 15 < found.tokens / found.parameters < 35
    ratio = optimum(CHINCHILLA, 1e22).parameters / optimum(CHINCHILLA, 1e20).parameters
    assert np.log(ratio) / np.log(100) == pytest.approx(0.3658 / (0.3478 + 0.3658))


def test_a_cost_by_formula_is_searched() -> None:
    flops = np.array(BUDGETS)
    np.testing.assert_allclose(
        optimal_parameters(DNA, flops, lambda n: 6 * n), optimal_parameters(DNA, flops), rtol=1e-6
    )
    # Where large models cost more than their share, smaller ones are best.
    dear = optimum(DNA, 1e20, lambda n: 6 * n * (n / 1e7) ** 0.3)
    assert dear.parameters < optimum(DNA, 1e20).parameters


def test_the_cost_of_a_token_is_read_from_the_runs() -> None:
    """Attention and the head make small models cost more than 6 FLOPs a parameter."""
    made = []
    for layers, width in ((2, 128), (6, 256), (12, 512), (24, 1024)):
        model = ModelConfig(
            num_layers=layers, num_heads=width // 64, embed_dim=width, ffn_dim=4 * width
        )
        parameters = 12.0 * layers * width**2
        flops = train_flops_per_sequence(model, 4105, 1000, 0.15) / 1000 * 1e9
        made.append(Run(str(width), parameters, 1e9, flops, 6.0))
    cost = cost_of(made)
    for run in made:
        assert cost(run.parameters) * run.tokens == pytest.approx(run.flops)
    ends = cost(np.array([made[2].parameters, made[3].parameters, made[3].parameters ** 2]))
    between = cost(np.sqrt(made[2].parameters * made[3].parameters))
    assert between == pytest.approx(np.sqrt(ends[0] * ends[1]))
    assert cost(2 * made[3].parameters) > cost(made[3].parameters)
    with pytest.raises(InputError, match="two sizes"):
        cost_of(made[:1])


@pytest.mark.parametrize("law", [CHINCHILLA, DNA])
def test_minima_without_noise_are_the_optimum(law: Law) -> None:
    found = minima(levels(runs(law, ratios=(0.6, 0.8, 1.0, 1.25, 1.6))), 0)
    for one, flops in zip(found, BUDGETS, strict=True):
        best = optimum(law, flops)
        assert one.place == "inside"
        assert one.parameters == pytest.approx(best.parameters, rel=0.03)
        assert one.loss == pytest.approx(best.loss, rel=1e-4)
        assert one.curve(one.parameters) == pytest.approx(one.loss)
    fitted = growth(found)
    share = law.beta / (law.alpha + law.beta)
    assert fitted.a == pytest.approx(share, abs=0.005)
    assert fitted.a + fitted.b == pytest.approx(1)
    assert fitted.optimum(1e22) == pytest.approx(
        dataclasses.astuple(optimum(law, 1e22))[:2], rel=0.1
    )
    assert fitted.left_out == ()


def test_minima_and_exponents_lie_within_their_intervals() -> None:
    """Against the parabola of the law without noise: its skew is no matter of chance."""
    truth = minima(levels(runs(DNA)), 0)
    slope = growth(truth).a
    sizes, losses, powers, widths = [], [], [], []
    for seed in range(60):
        found = minima(levels(runs(DNA, 0.001, seed)), seed, 200)
        for one, true in zip(found, truth, strict=True):
            low, high = one.parameters_interval
            sizes.append(low < true.parameters < high)
            widths.append(high / low)
            low, high = one.loss_interval
            losses.append(low < true.loss < high)
        low, high = growth(found).a_interval
        powers.append(low < slope < high)
    assert 0.88 <= np.mean(sizes) <= 0.995
    assert 0.88 <= np.mean(losses) <= 0.995
    assert 0.85 <= np.mean(powers) < 1
    assert np.median(widths) < 3


def test_the_place_of_a_minimum_is_told() -> None:
    best = optimum(DNA, 1e19).parameters

    def place(ratios: np.ndarray) -> str:
        n = best * ratios
        return minima([Level(1e19, n, DNA.loss(n, 1e19 / 6 / n))], 0, 10)[0].place

    assert place(np.geomspace(0.3, 3, 5)) == "inside"
    assert place(np.geomspace(3, 20, 5)) == "below"
    assert place(np.geomspace(0.03, 0.3, 5)) == "above"
    x = np.array([1e6, 1e7, 1e8, 1e9])
    (none,) = minima([Level(1e19, x, np.array([6.0, 6.1, 6.11, 6.0]))], 0, 50)
    assert none.place == "none"
    assert np.isnan(none.parameters)
    assert none.without > 25


def test_three_runs_leave_no_interval() -> None:
    (one,) = minima([Level(1e19, np.array([1e6, 1e7, 1e8]), np.array([6.2, 6.0, 6.1]))], 0)
    assert one.place == "inside"
    assert np.isnan(one.parameters_interval).all()


def test_levels_are_runs_of_nearly_equal_flops() -> None:
    made = [
        Run(f"{flops}", size, 1e9, flops * (1 + 0.03 * k), 6.0 + size / 1e9)
        for flops in (1e20, 1e19)
        for k, size in enumerate((1e7, 3e7, 1e8))
    ]
    found = levels(made)
    assert [len(level.loss) for level in found] == [3, 3]
    assert found[0].flops == pytest.approx(1e19, rel=0.05)
    assert found[1].flops == pytest.approx(1e20, rel=0.05)
    with pytest.raises(InputError, match=r"1e\+19 FLOPs: runs of 1 sizes"):
        levels(made, within=1.01)


def test_growth_leaves_out_minima_that_no_run_surrounds() -> None:
    inside = levels(runs(DNA))
    n = optimum(DNA, 1e22).parameters * np.geomspace(3, 20, 5)
    outside = Level(1e22, n, DNA.loss(n, 1e22 / 6 / n))
    fitted = growth(minima([*inside, outside], 0, 10))
    assert fitted.left_out == (1e22,)
    assert fitted.used == pytest.approx(BUDGETS)
    with pytest.raises(InputError, match="at 1 of 2 compute levels"):
        growth(minima([inside[0], outside], 0, 10))


def test_the_optimum_of_a_fit_lies_within_its_interval() -> None:
    made = runs(DNA, 0.001, 1)
    n, d, loss = np.array([(run.parameters, run.tokens, run.loss) for run in made]).T
    sample = bootstrap(fit_law(n, d, loss), 0, 40)
    found = optimum_intervals(sample, 1e21)
    best = optimum(DNA, 1e21)
    for name in ("parameters", "tokens", "loss"):
        low, high = found[name]
        assert low < getattr(best, name) < high
    low, high = found["parameters"]
    assert high / low < 20
