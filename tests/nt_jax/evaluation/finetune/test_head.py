"""The head's fit against scikit-learn on the same problem; standardisation of what varies."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from nt_jax.evaluation.finetune.head import (
    STRENGTHS,
    Examples,
    fit_head,
    mean_loss,
    natural_outputs,
)
from nt_jax.evaluation.finetune.objectives import OBJECTIVES

N, D = 120, 6


def features(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, D)) * [1, 10, 0.1, 3, 1, 0] + 5
    return x.astype(np.float32)


def noisy(seed: int) -> np.ndarray:
    x = features(seed)
    return x[:, 0] - 0.2 * x[:, 1] + np.random.default_rng(seed + 10).normal(size=N)


def sklearn_prediction(kind: str, strength: float, train, labels, test):
    scaler = StandardScaler().fit(train)
    x, held_out = scaler.transform(train), scaler.transform(test)
    if kind == "values":
        # Ours: mean square / spread^2 + strength / 2 |w|^2, so alpha = N strength / 2.
        spread = labels.std()
        found = Ridge(alpha=N * strength / 2).fit(x, labels / spread)
        return found.predict(held_out) * spread
    if kind == "multilabel":
        # The mean over C labels weighs each by 1 / C.
        models = [
            LogisticRegression(C=1 / (N * strength * labels.shape[1]), tol=1e-8, max_iter=1000)
            for _ in labels.T
        ]
        return np.stack(
            [
                model.fit(x, own).predict_proba(held_out)[:, 1]
                for model, own in zip(models, labels.T, strict=True)
            ],
            axis=1,
        )
    return (
        LogisticRegression(C=1 / (N * strength), tol=1e-8, max_iter=1000)
        .fit(x, labels)
        .predict_proba(held_out)
    )


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_the_fit_is_that_of_scikit_learn_at_the_strength_that_validation_chose(kind: str):
    labels, held_out = (
        {
            "classes": np.digitize(y, [-1.0, 1.0]),
            "multilabel": np.stack([y > 0, y > 1], axis=1),
            "values": 7.0 + 3.0 * y,
        }[kind]
        for y in (noisy(0), noisy(1))
    )
    objective = OBJECTIVES[kind]
    width = {"classes": 3, "multilabel": 2, "values": 1}[kind]
    train = Examples(features(0), objective.targets(labels))
    validation = Examples(features(1), objective.targets(held_out))
    head = fit_head(train, validation, width, objective)

    strength = float(head["strength"])
    assert min(abs(np.log(strength / np.array(STRENGTHS)))) < 1e-6
    ours = objective.predict(natural_outputs(head, features(1)))
    expected = sklearn_prediction(kind, strength, features(0), labels, features(1))
    if kind == "classes":
        # The symmetric softmax of both: equal up to a shift that the penalty removes.
        np.testing.assert_allclose(ours.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(ours, expected, atol=5e-3 * np.abs(expected).max())
    for other in STRENGTHS:
        alone = fit_head_at(other, train, width, objective)
        assert (
            mean_loss(head, validation, objective) <= mean_loss(alone, validation, objective) + 1e-6
        )


def fit_head_at(strength: float, train, width, objective):
    from nt_jax.evaluation.finetune import head as room

    grid, room.STRENGTHS = room.STRENGTHS, (strength,)
    try:
        return fit_head(train, train, width, objective)
    finally:
        room.STRENGTHS = grid


def test_a_feature_that_does_not_vary_stays_finite():
    head = fit_head(
        Examples(features(0), OBJECTIVES["values"].targets(noisy(0))),
        Examples(features(1), OBJECTIVES["values"].targets(noisy(1))),
        1,
        OBJECTIVES["values"],
    )
    assert head["scale"][5] == 1.0
    assert all(np.isfinite(array).all() for array in head.values())
    np.testing.assert_allclose(head["target_mean"], noisy(0).mean(), rtol=1e-5)
