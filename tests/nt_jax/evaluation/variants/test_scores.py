"""Scores of alleles against the same definitions computed one window at a time."""

import pathlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nt_jax.evaluation.loading import LoadedModel
from nt_jax.evaluation.variants import haplotypes, scores
from nt_jax.evaluation.variants.haplotypes import Reason
from nt_jax.evaluation.variants.reference import Piece, Reference
from tests.nt_jax.evaluation.variants import reference as brute

WINDOW = 8
RELAXED = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


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


@RELAXED
@given(problem=problems())
def test_the_other_strand_has_the_same_ratios(sharp: LoadedModel, problem):
    contig, variants = problem
    turned = [
        (name, len(contig) - start - len(ref), brute.other_strand(ref), brute.other_strand(alt))
        for name, start, ref, alt in variants
    ]
    # In front of an insertion there must be a base on either strand.
    kept = [pair for pair in zip(variants, turned, strict=True) if pair[1][1] or pair[1][2]]
    if not kept:
        return
    here, there = ([pair[side] for pair in kept] for side in (0, 1))
    _, found = scored(sharp, genome(contig), here)
    _, other = scored(sharp, genome(brute.other_strand(contig)), there)
    for name in ("llr", "llr_kmer"):
        np.testing.assert_allclose(found[name], other[name], atol=2e-4)


@RELAXED
@given(problem=problems())
def test_swapping_ref_and_alt_turns_the_sign(sharp: LoadedModel, problem):
    contig, variants = problem
    for name, start, ref, alt in variants:
        if not (start or alt):
            continue
        changed = contig[:start] + alt + contig[start + len(ref) :]
        there, found = scored(sharp, genome(contig), [(name, start, ref, alt)])
        back, other = scored(sharp, genome(changed), [(name, start, alt, ref)])
        if there == back == [None]:
            for ratio in ("llr", "llr_kmer"):
                np.testing.assert_allclose(found[ratio], -other[ratio], atol=2e-4)


def test_two_spellings_of_one_change_have_one_score(sharp: LoadedModel):
    contig = "ACGGTACCATTTTTTGCAGGATCACACACACGTTGACCA"
    same = [
        # One T less of six: at the left, with a base in front, in the middle, too long on purpose.
        [("c0", 9, "T", ""), ("c0", 8, "AT", "A"), ("c0", 12, "T", ""), ("c0", 7, "CATT", "CAT")],
        # One CA more.
        [("c0", 22, "", "CA"), ("c0", 21, "T", "TCA"), ("c0", 29, "A", "ACA")],
        # An SNV with neighbours.
        [("c0", 3, "G", "T"), ("c0", 2, "GGT", "GTT"), ("c0", 0, "ACGG", "ACGT")],
    ]
    assert contig[9:15] == "TTTTTT"
    assert contig[22:31] == "CACACACAC"
    for spellings in same:
        reasons, found = scored(sharp, genome(contig), spellings)
        assert reasons == [None] * len(spellings)
        for name, values in found.items():
            assert len(set(values)) == 1, name
            assert np.isfinite(values).all()


def test_alleles_of_one_site_share_their_masked_windows(sharp: LoadedModel):
    contig = "ACGGTACCATTGCAGGATCACGTTGACCAGATTAC"
    window, k = WINDOW, 3
    at = {alt: ("c0", 16, "A", alt) for alt in "CGT"}
    one = scores.prepare(located(genome(contig), [at["C"]]), sharp.tokenizer, window)
    all_three = scores.prepare(located(genome(contig), at.values()), sharp.tokenizer, window)
    rows = [
        len({batch.tokens[row].tobytes() for batch in made.questions.batches(10**6)
             for row in batch.rows})
        for made in (one, all_three)
    ]  # fmt: skip
    assert rows == [2 * k, 2 * k]


def test_batches_of_any_size_give_the_same(sharp: LoadedModel):
    rng = np.random.default_rng(0)
    contig = "".join(rng.choice(list("ACGT"), 200))
    variants = [
        ("c0", start, contig[start : start + n], "".join(rng.choice(list("ACGT"), m)))
        for start, n, m in zip(
            *rng.integers((1, 0, 0), (190, 9, 9), (5, 3)).T.tolist(), strict=True
        )
    ]
    _, few = scored(sharp, genome(contig), variants, batch_tokens=1)
    _, many = scored(sharp, genome(contig), variants, batch_tokens=1 << 7)
    for name, values in few.items():
        np.testing.assert_allclose(values, many[name], atol=1e-4, rtol=1e-3, err_msg=name)


@pytest.mark.parametrize(
    ("variant", "reason"),
    [
        (("c1", 4, "A", "C"), Reason.ABSENT),
        (("c0", 40, "A", "C"), Reason.OUTSIDE),
        (("c0", 36, "GACCA", "G"), Reason.OUTSIDE),
        (("c0", -1, "A", "C"), Reason.OUTSIDE),
        (("c0", 4, "A", "C"), Reason.MISMATCH),
        (("c0", 4, "R", "C"), Reason.UNKNOWN_REF),
        (("c0", 4, "N", "C"), Reason.UNKNOWN_REF),
        (("c0", 10, "A", "C"), Reason.UNKNOWN_REF),
        (("c0", 4, "T", "N"), Reason.UNKNOWN_ALT),
        (("c0", 4, "T", "Y"), Reason.UNKNOWN_ALT),
        (("c0", 4, "T", "<DEL>"), Reason.SYMBOLIC),
        (("c0", 4, "T", "G]17:198982]"), Reason.BREAKEND),
        (("c0", 4, "T", ".TC"), Reason.BREAKEND),
        (("c0", 4, "T", "*"), Reason.STAR),
        (("c0", 4, "T", "."), Reason.NO_ALT),
        (("c0", 4, "T", "T"), Reason.SAME),
        (("c0", 4, "T", "t"), Reason.SAME),
        (("c0", 4, "T", "C1"), Reason.MALFORMED),
        (("c0", 4, "T", "T" + "ACGCGTATGCA"), Reason.LONG),
        (("c0", 12, "A", "C"), Reason.NEAR_N),
        (("c0", 38, "CA", "C"), Reason.NEAR_END),
    ],
)
def test_every_reason(loaded: LoadedModel, variant, reason: Reason):
    contig = "ACGGTACCATNTANGCAGGATCACACACACGTTGAGACCA"
    reasons, found = scored(loaded, genome(contig), [variant, ("c0", 20, "T", "a")])
    assert reasons == [reason, None]
    assert all(np.isnan(values[0]) and np.isfinite(values[1]) for values in found.values())


def test_lower_case_alleles_and_true_coordinates(loaded: LoadedModel):
    contig = "ACGGTACCATTGCAGGATCACACACACGTTGAGACCA"
    _, plain = scored(loaded, genome(contig), [("c0", 20, "C", "G")])
    _, shifted = scored(loaded, genome(contig, c0=1000), [("c0", 1020, "c", "g")])
    assert plain == shifted


@pytest.mark.parametrize("pooling", ["mean", "max", "cls"])
def test_pooling_is_that_of_embed(loaded: LoadedModel, pooling):
    rng = np.random.default_rng(1)
    contig = "".join(rng.choice(list("ACGT"), 100))
    contig = contig[:50] + "A" + contig[51:]
    _, found = scored(loaded, genome(contig), [("c0", 50, "A", "C")], pooling=pooling)
    # Centre of eight tokens of three bases: the allele is the middle base of its k-mer.
    left = 50 - 1 - 3 * 3
    ref = contig[left : left + 7 * 3]
    alt = ref[:10] + "C" + ref[11:]
    u, v = (loaded.embed([bases], layer=1, pooling=pooling)[0] for bases in (ref, alt))
    np.testing.assert_allclose(found["l1_window_l2"], [np.linalg.norm(u - v)], rtol=1e-4)
    np.testing.assert_allclose(found["l1_window_dot"], [u @ v], rtol=1e-4)


def test_unigram_ratio_is_that_of_the_bases_when_kmers_are_independent(loaded: LoadedModel):
    """Counts that are products of base frequencies give the ratio of the bases."""
    share = dict(zip("ATCG", (0.4, 0.3, 0.2, 0.1), strict=True))
    low, high = loaded.tokenizer.kmer_ids
    kmers = loaded.tokenizer.tokens[low:high]
    log_counts = np.array([sum(np.log(share[base]) for base in kmer) for kmer in kmers])
    contig = "ACGGTACCATTGCAGGATCACACACACGTTGAGACCA"
    prepared = scores.prepare(
        located(genome(contig), [("c0", 20, "C", "A")]), loaded.tokenizer, WINDOW
    )
    # On the other strand it is G against T.
    expected = np.log((0.4 + 0.3) / (0.2 + 0.1))
    np.testing.assert_allclose(scores.unigram_llr(prepared, log_counts), [expected], atol=1e-5)
