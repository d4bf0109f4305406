"""The heads of a probe against scikit-learn on the same problems."""

import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nt_jax.evaluation import heads, metrics

STRENGTHS = (1e-4, 1e-2, 1.0)


def problem(kind: str, classes: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of unequal scale and offset, truth, and two different sets of training rows."""
    rng = np.random.default_rng(0)
    count, width = 160, 12
    features = rng.normal(size=(count, width)) @ rng.normal(size=(width, width))
    features = (features * rng.uniform(0.01, 30, width) + rng.normal(size=width) * 100).astype(
        np.float32
    )
    plain = StandardScaler().fit_transform(features)
    scores = plain @ rng.normal(size=(width, 3)) + rng.normal(size=(count, 3))
    truth = {
        "classes": scores[:, : max(classes, 2)].argmax(axis=1),
        "multilabel": scores > 0.5,
        "values": 3.0 + 20.0 * scores[:, 0],
    }[kind]
    rows = np.ones((2, count), bool)
    rows[0, 100:], rows[1, :60] = False, False
    return features, truth, rows


def reference(kind: str, strength: float) -> object:
    if kind == "values":
        # Ridge on the target as it is; the head standardises it, which scales the penalty alike.
        return make_pipeline(StandardScaler(), Ridge(alpha=1.0 / strength))
    logistic = LogisticRegression(C=strength, max_iter=2000, tol=1e-8)
    if kind == "multilabel":
        logistic = MultiOutputClassifier(logistic)
    return make_pipeline(StandardScaler(), logistic)


@pytest.mark.parametrize(
    ("kind", "classes"), [("classes", 2), ("classes", 3), ("multilabel", 3), ("values", 0)]
)
def test_all_problems_of_a_batch_are_those_of_scikit_learn(kind: str, classes: int):
    features, truth, rows = problem(kind, classes)
    solved = heads.solve(
        heads.linear,
        kind,
        features,
        heads.targets_of(kind, truth, classes),
        np.repeat(rows, len(STRENGTHS), axis=0),
        {"C": np.tile(STRENGTHS, 2)},
        np.zeros(6, int),
    )
    assert solved.converged.all()
    names = metrics.SCORERS[kind]
    for number, outputs in enumerate(solved.predictions):
        mine = rows[number // 3]
        found = heads.predictions_of(kind, outputs)
        model = reference(kind, STRENGTHS[number % 3]).fit(features[mine], truth[mine])
        if kind == "values":
            expected = model.predict(features)
            np.testing.assert_allclose(found, expected, atol=2e-3 * np.ptp(truth))
        else:
            expected = model.predict_proba(features)
            if kind == "multilabel":
                expected = np.stack([each[:, 1] for each in expected], axis=1)
            np.testing.assert_allclose(found, expected, atol=3e-3)
        ours, theirs = (names.scores(truth[~mine], p[~mine]) for p in (found, expected))
        assert abs(ours[names.names[0]] - theirs[names.names[0]]) < 0.01


def test_parts_of_a_batch_give_what_the_whole_gives(monkeypatch):
    features, truth, rows = problem("classes")
    targets = heads.targets_of("classes", truth, 2)
    args = (rows.repeat(3, axis=0)[:5], {"C": np.tile(STRENGTHS, 2)[:5]}, np.zeros(5, int))
    whole = heads.solve(heads.linear, "classes", features, targets, *args)
    monkeypatch.setattr(heads, "_NUMBERS", 2 * len(features))
    parts = heads.solve(heads.linear, "classes", features, targets, *args)
    np.testing.assert_allclose(parts.predictions, whole.predictions, atol=1e-4)


def test_constant_features_say_nothing():
    features, truth, rows = problem("classes")
    targets = heads.targets_of("classes", truth, 2)
    args = (rows, {"C": np.ones(2)}, np.zeros(2, int))
    plain = heads.solve(heads.linear, "classes", features, targets, *args)
    wider = np.hstack([features, np.full((len(features), 2), 7.5, np.float32)])
    wide = heads.solve(heads.linear, "classes", wider, targets, *args)
    np.testing.assert_allclose(wide.predictions, plain.predictions, atol=1e-3)


@pytest.mark.parametrize("hidden", [(32,), (16, 16)])
def test_an_mlp_learns_what_no_line_can_separate(hidden: tuple[int, ...]):
    """As well as scikit-learn's with the same layers, rate, number of steps and whole batches.

    Initialisation, schedule and decay differ, so only the scores can be compared: 0.1 MCC is about
    five of the 100 held-out rows.
    """
    rng = np.random.default_rng(1)
    features = rng.normal(size=(400, 2)).astype(np.float32)
    truth = (features[:, 0] * features[:, 1] > 0).astype(int)
    rows = np.arange(400)[None] < 300
    args = (features, heads.targets_of("classes", truth, 2), rows)
    hyper = {"learning_rate": np.array([1e-2]), "decay": np.array([1e-4])}
    linear = heads.solve(heads.linear, "classes", *args, {"C": np.ones(1)}, np.zeros(1, int))
    deep = heads.solve(heads.mlp(hidden), "classes", *args, hyper, np.zeros(1, int), max(hidden))
    again = heads.solve(heads.mlp(hidden), "classes", *args, hyper, np.zeros(1, int), max(hidden))
    held = slice(300, None)
    scores = [
        metrics.class_scores(truth[held], heads.predictions_of("classes", p[0])[held])["mcc"]
        for p in (linear.predictions, deep.predictions)
    ]
    assert scores[0] < 0.3
    assert scores[1] > 0.8
    theirs = MLPClassifier(
        hidden,
        learning_rate_init=1e-2,
        batch_size=300,
        max_iter=heads.MLP_STEPS,
        n_iter_no_change=heads.MLP_STEPS,
        random_state=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        theirs.fit(features[:300], truth[:300])
    expected = metrics.class_scores(truth[held], theirs.predict_proba(features[held]))["mcc"]
    assert abs(scores[1] - expected) < 0.1
    assert np.array_equal(deep.predictions, again.predictions)
