import dataclasses
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nt_jax.errors import InputError
from nt_jax.evaluation.tasks import Audit, Kind, Split, Task, make_folds, subsample

KINDS: tuple[Kind, ...] = ("classes", "multilabel", "values")


def task(kind: Kind, rows: int, groups: list[str] | None = None, seed: int = 0) -> Task:
    rng = np.random.default_rng(seed)
    labels = {
        "classes": np.arange(rows) % 2,
        "multilabel": rng.random((rows, 3)) < 0.3,
        "values": rng.normal(size=rows),
    }[kind]
    names = {"classes": ("a", "b"), "multilabel": ("a", "b", "c"), "values": ()}[kind]
    sequences = tuple("".join(rng.choice(list("ACGT"), 12)) for _ in range(rows))
    split = Split(sequences, labels, None if groups is None else tuple(groups))
    return Task("t", names, split, None, Audit({}, 0, 0, 0, 0, 0), kind=kind)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_held_out_once_and_the_seed_decides(kind: Kind):
    given = task(kind, 30)
    folds = make_folds(given, 5, seed=1)
    assert np.array_equal(np.sort(np.concatenate([fold.test for fold in folds])), np.arange(30))
    for fold in folds:
        assert len(fold.test) == 6
        assert np.array_equal(np.sort(np.concatenate([fold.train, fold.test])), np.arange(30))
    again, other = make_folds(given, 5, seed=1), make_folds(given, 5, seed=2)
    assert all(np.array_equal(a.test, b.test) for a, b in zip(folds, again, strict=True))
    assert not all(np.array_equal(a.test, b.test) for a, b in zip(folds, other, strict=True))


@settings(deadline=None, max_examples=40)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=4, max_size=12),
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 99),
)
def test_groups_are_never_torn_apart(sizes: list[int], kind: Kind, seed: int):
    groups = [f"chr{index}" for index, size in enumerate(sizes) for _ in range(size)]
    given = task(kind, len(groups), groups)
    try:
        folds = make_folds(given, 3, seed)
    except InputError as error:
        # A few large groups may leave a fold empty, or hold all of a class.
        said = str(error)
    else:
        said = ""
    if said:
        allowed = r"class '[ab]' (has|stands in so few groups)|leave one of 3 folds empty"
        assert kind == "classes"
        assert re.search(allowed, said)
        return
    for fold in folds:
        held_out = {groups[row] for row in fold.test}
        assert held_out
        assert not held_out & {groups[row] for row in fold.train}
    assert sorted(row for fold in folds for row in fold.test) == list(range(len(groups)))


def test_classes_keep_their_proportions_as_far_as_groups_allow():
    groups = [f"chr{row // 10}" for row in range(200)]
    for fold in make_folds(task("classes", 200, groups), 4, seed=0):
        assert np.bincount(np.arange(200)[fold.test] % 2).tolist() == [25, 25]


@pytest.mark.parametrize(
    ("given", "folds", "message"),
    [
        (task("values", 3), 5, "t: 3 training sequences, at least 5 are needed; ask for fewer"),
        (task("multilabel", 3), 5, "t: 3 training sequences, at least 5 are needed; ask for fewer"),
        (task("values", 9, list("aaabbbccc")), 5, "t: 3 groups cannot be spread over 5 folds; ask"),
        (
            task("classes", 9, list("ababcbcbd")),
            3,
            "t: class 'b' stands in so few groups that one of 3 folds trains without it; ask for",
        ),
        (task("values", 9), 1, "1 folds: cross-validation needs at least 2"),
    ],
)
def test_too_little_for_the_folds_is_refused(given: Task, folds: int, message: str):
    with pytest.raises(InputError, match=message):
        make_folds(given, folds, seed=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_given_split_is_one_fold_of_every_kind(kind: Kind):
    whole = task(kind, 10, list("aabbccddee"))
    given = dataclasses.replace(
        whole, train=whole.train.take(range(6)), test=whole.train.take(range(6, 10))
    )
    (fold,) = make_folds(given, 10, seed=0)
    assert (fold.train.tolist(), fold.test.tolist()) == ([0, 1, 2, 3, 4, 5], [6, 7, 8, 9])


@pytest.mark.parametrize("kind", KINDS)
def test_subsampling_keeps_labels_and_groups_with_their_sequences(kind: Kind):
    whole = task(kind, 40, [f"g{row}" for row in range(40)])
    part = subsample(whole, 16, seed=3)
    assert len(part.train) == 16
    assert part.groups is not None
    for bases, label, group in zip(
        part.train.sequences, part.train.labels, part.groups, strict=True
    ):
        row = int(group[1:])
        assert whole.train.sequences[row] == bases
        assert np.array_equal(whole.train.labels[row], label)


def test_the_fingerprint_sees_labels_groups_and_kind():
    prints = [
        task(kind, 12, groups, seed).fingerprint
        for kind in KINDS
        for groups in (None, ["a", "b"] * 6, ["a", "c"] * 6)
        for seed in (0, 1)
    ]
    assert len(set(prints)) == len(prints)
