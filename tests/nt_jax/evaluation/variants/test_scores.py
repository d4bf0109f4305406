"""Scores of alleles against the same definitions computed one window at a time."""

import pathlib

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nt_jax.evaluation.loading import LoadedModel, from_params
from nt_jax.evaluation.variants import haplotypes, scores
from nt_jax.evaluation.variants.haplotypes import Reason
from nt_jax.evaluation.variants.reference import Piece, Reference
from nt_jax.model.factory import build_model
from nt_jax.tokenizers import KmerTokenizer
from tests.nt_jax.evaluation.conftest import EXPERIMENT
from tests.nt_jax.evaluation.variants import reference as brute

WINDOW = 8
RELAXED = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def sharp() -> LoadedModel:
    """Larger random weights than at initialisation: every base of the context matters."""
    model = build_model(EXPERIMENT.model, KmerTokenizer(k=3))
    params = jax.jit(model.init)(jax.random.key(7))
    params = jax.tree.map(lambda x: x * 4 if x.ndim > 1 else x, params)
    return from_params(params, 5, EXPERIMENT)


def genome(*contigs: str, **starts: int) -> Reference:
    """Contigs named c0, c1 ..."""
    pieces = {
        f"c{number}": [Piece(starts.get(f"c{number}", 0), haplotypes.letters(bases))]
        for number, bases in enumerate(contigs)
    }
    return Reference(pathlib.Path("ref.fa"), pieces)


def located(reference: Reference, variants, window: int = WINDOW, k: int = 3):
    """`variants` are (contig, 0-based start, ref, alt); an empty ref is given as VCF would."""
    reach, longest = scores.reach(window, k), scores.longest_allele(window, k)
    return [
        haplotypes.locate(reference, name, start + bool(ref), ref, alt, reach, longest)
        for name, start, ref, alt in variants
    ]


def scored(loaded: LoadedModel, reference: Reference, variants, window: int = WINDOW, **more):
    prepared = scores.prepare(located(reference, variants, window), loaded.tokenizer, window)
    # Few rows a batch: few shapes to compile, and most problems need several batches.
    options = {"layers": (1, 2), "pooling": "mean", "batch_tokens": 8 * window} | more
    return prepared.reasons, scores.model_scores(loaded, prepared, **options)


@st.composite
def problems(draw):
    """A contig, where Ns may occur, and variants of all kinds that fit it."""
    letters = draw(st.sampled_from(["ACGT", "AC", "ACGTACGTACGTACGTACGTN"]))
    contig = draw(st.text(letters, min_size=2, max_size=80))
    variants = []
    for _ in range(draw(st.integers(1, 5))):
        start = draw(st.integers(0, len(contig)))
        ref = contig[start : start + draw(st.integers(0, 7))]
        alt = draw(st.text("ACGT", max_size=7))
        if start or ref:
            variants.append(("c0", start, ref, alt))
    return contig, variants


@RELAXED
@given(problem=problems())
def test_scores_are_those_of_one_window_at_a_time(sharp: LoadedModel, problem):
    contig, variants = problem
    reasons, found = scored(sharp, genome(contig), variants)
    for number, ((_, start, ref, alt), reason) in enumerate(zip(variants, reasons, strict=True)):
        mine = {name: values[number] for name, values in found.items()}
        if reason is not None:
            assert all(np.isnan(value) for value in mine.values())
            if "N" in ref:
                assert reason == Reason.UNKNOWN_REF
            elif ref == alt:
                assert reason == Reason.SAME
            elif reason != Reason.LONG:
                assert reason in (Reason.NEAR_N, Reason.NEAR_END)
                assert brute.llrs(sharp, contig, start, ref, alt, WINDOW) is None
            continue
        llr, kmer = brute.llrs(sharp, contig, start, ref, alt, WINDOW)
        np.testing.assert_allclose(mine["llr"], llr, atol=2e-4)
        np.testing.assert_allclose(mine["llr_kmer"], kmer, atol=2e-4)
        for layer in (1, 2):
            expected = brute.distances(sharp, contig, start, ref, alt, WINDOW, layer)
            for name, value in expected.items():
                np.testing.assert_allclose(mine[name], value, rtol=2e-3, atol=2e-5, err_msg=name)
