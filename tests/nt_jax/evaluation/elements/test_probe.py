"""The element probe: what is averaged, that it finds what is there, and its controls."""

import dataclasses

import numpy as np
import pytest
from sklearn.metrics import f1_score, matthews_corrcoef

from nt_jax.evaluation.elements.pieces import CLASSES, find_pieces, group_folds
from nt_jax.evaluation.elements.probe import METRICS, block_scores, embed_pieces, probe_elements
from tests.nt_jax.evaluation.elements.test_pieces import genome


@pytest.fixture(scope="module")
def made():
    """CDS are GC-rich, introns AT-rich; the others differ in nothing but their lengths."""
    plain = genome(12_000)
    bases = plain.contigs[0].bases.copy()
    rng = np.random.default_rng(2)
    for name, letters in (("CDS", b"GC"), ("intron", b"AT")):
        for a, b in plain.elements[0].intervals[name]:
            bases[a:b] = rng.choice(np.frombuffer(letters, np.uint8), b - a)
    contig = dataclasses.replace(plain.contigs[0], bases=bases)
    return dataclasses.replace(plain, contigs=(contig,))


@pytest.fixture(scope="module")
def pieces(made):
    return find_pieces(made, 69, most=12, seed=0)


def test_features_are_the_mean_of_the_tokens_wholly_inside(loaded, made, pieces):
    heard = []
    found = embed_pieces(
        loaded, made, pieces, progress=lambda *pair: heard.append(pair), batch_tokens=24 * 7
    )
    assert list(found) == [1, 2]
    assert heard[-1] == (len(pieces.pieces), len(pieces.pieces))
    for number in (0, 13, len(pieces.pieces) - 1):
        piece = pieces.pieces[number]
        left, right = piece.window
        text = made.contigs[0].bases[left:right].tobytes().decode()
        ids = loaded.tokenizer.encode(text)[None]
        for layer in (1, 2):
            values = np.asarray(loaded.apply(ids, layers=(layer,))["embeddings"][layer][0])
            inside = [
                values[t] for t in range(1, 24)
                if left + 3 * (t - 1) >= piece.start and left + 3 * t <= piece.end
            ]  # fmt: skip
            assert inside
            np.testing.assert_allclose(found[layer][number], np.mean(inside, axis=0), atol=1e-5)


def test_the_probe_and_its_controls(loaded, made, pieces):
    folds = group_folds(pieces, 3, seed=0)
    assert not isinstance(folds, str)
    families = probe_elements(loaded, made, pieces, folds, seed=0, kmers=(2,))
    assert [family.name for family in families] == [
        "trained", "random init", "k-mers", "element length",
    ]  # fmt: skip
    trained, untrained, kmers, length = families
    assert list(trained.variants) == list(untrained.variants) == [1, 2]
    assert set(trained.picks) <= {1, 2}
    for family in families:
        assert family.confusion.sum() == len(pieces.pieces)
        assert family.confusion.sum(axis=1).tolist() == np.bincount(pieces.labels).tolist()
        for scores in (family.chosen, *family.variants.values()):
            assert tuple(scores) == METRICS
            assert all(s.low <= s.value <= s.high for s in scores.values())
        share = np.trace(family.confusion) / family.confusion.sum()
        assert family.chosen["accuracy"].value == pytest.approx(share)
    # k-mers know CDS and introns; lengths (40, 150, 60, 80, 150 bases) know all but one.
    cds, intron = CLASSES.index("CDS"), CLASSES.index("intron")
    assert kmers.confusion[cds, cds] + kmers.confusion[intron, intron] >= 22
    assert length.chosen["accuracy"].value > 0.5
    assert kmers.chosen["mcc"].value > 0.25


def test_intervals_draw_whole_blocks(pieces):
    rng = np.random.default_rng(0)
    labels, groups = pieces.labels, pieces.groups
    probabilities = rng.dirichlet(np.ones(5), len(labels))
    # All pieces of one block right, all others wrong: only drawing blocks makes this uncertain.
    right = groups == 0
    probabilities[:] = np.eye(5)[np.where(right, labels, (labels + 1) % 5)]
    found = block_scores(pieces, probabilities, seed=3)
    predicted = probabilities.argmax(axis=1)
    assert found["mcc"].value == pytest.approx(matthews_corrcoef(labels, predicted))
    assert found["f1"].value == pytest.approx(f1_score(labels, predicted, average="macro"))
    shares = []
    drawn = np.random.default_rng(3).integers(groups.max() + 1, size=(1000, groups.max() + 1))
    for blocks in drawn:
        rows = np.concatenate([np.flatnonzero(groups == b) for b in blocks])
        shares.append(right[rows].mean())
    expected = np.percentile(shares, [2.5, 97.5])
    np.testing.assert_allclose(found["accuracy"][1:], expected, atol=1e-9)
