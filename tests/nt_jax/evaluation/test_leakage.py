"""Overlap of a labelled set with the windows of a real dataset folder."""

import numpy as np
import pytest

from nt_jax import data
from nt_jax.evaluation.leakage import overlap
from tests.nt_jax.runs import make_dataset

COMPLEMENT = str.maketrans("ACGT", "TGCA")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> data.WindowDataset:
    folder = tmp_path_factory.mktemp("windows")
    return data.open_dataset(make_dataset(folder))


def test_pieces_of_windows_are_seen_on_both_strands_and_others_are_not(dataset):
    bases = [dataset.window("train", i)["sequence"].decode() for i in range(3)]
    inside = [text[10:90] for text in bases]
    reverse = [text[::-1].translate(COMPLEMENT) for text in inside]
    rng = np.random.default_rng(0)
    new = ["".join(rng.choice(list("ACGT"), size=80)) for _ in range(5)]
    short = ["ACGT"]
    heard = []
    found = overlap(
        dataset, [*inside, *reverse, *new, *short], lambda done, total: heard.append((done, total))
    )
    assert (found.seen, found.sequences) == (6, 11)
    assert found.windows == found.of == dataset.splits["train"]
    assert heard[-1] == (found.windows, found.windows)
    assert "6 of 11 scored sequences share at least half of their 24-mers" in found.line()


def test_half_of_a_sequence_decides(dataset):
    bases = dataset.window("train", 0)["sequence"].decode()[:100]
    rng = np.random.default_rng(0)
    strange = "".join(rng.choice(list("ACGT"), size=300))
    assert overlap(dataset, [bases + strange[:20]]).seen == 1
    assert overlap(dataset, [bases + strange]).seen == 0
