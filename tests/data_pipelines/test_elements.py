"""Element classes from features: given, derived, and against a base-by-base reference."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.annotation import Feature, read_annotation
from data_pipelines.elements import CLASSES, complement, find_elements, merged

pairs = st.tuples(st.integers(0, 60), st.integers(0, 60)).map(lambda p: (min(p), max(p)))


def part(kind: str, start: int, end: int, strand: str = "+", *parents: str) -> Feature:
    return Feature(kind, start, end, strand, "", parents or ("t",))


def found(features: list[Feature], end: int = 1000, promoter: int = 20) -> dict[str, list]:
    elements = find_elements(features, 0, end, promoter)
    return {name: own.tolist() for name, own in elements.intervals.items() if len(own)}


@given(st.lists(pairs, max_size=12))
def test_merging_is_the_union_of_bases(intervals):
    joined = merged(intervals)
    bases = np.zeros(61, bool)
    for start, end in intervals:
        bases[start:end] = True
    again = np.zeros(61, bool)
    for start, end in joined:
        assert start < end
        again[start:end] = True
    assert np.array_equal(bases, again)
    assert (joined[1:, 0] > joined[:-1, 1]).all()
    outside = np.zeros(61, bool)
    for start, end in complement(joined, 0, 60):
        outside[start:end] = True
    assert np.array_equal(outside[:60], ~bases[:60])


def gene(strand: str) -> list[Feature]:
    return [
        Feature("gene", 100, 400, strand, "g", ()),
        Feature("mRNA", 100, 400, strand, "t", ("g",)),
        part("exon", 100, 200, strand),
        part("exon", 300, 400, strand),
        part("CDS", 150, 200, strand),
        part("CDS", 300, 330, strand),
    ]


def test_what_is_not_given_is_derived_on_the_forward_strand():
    assert found(gene("+")) == {
        "exon": [[100, 200], [300, 400]],
        "intron": [[200, 300]],
        "CDS": [[150, 200], [300, 330]],
        "5'UTR": [[100, 150]],
        "3'UTR": [[330, 400]],
        "promoter": [[80, 100]],
        "splice donor": [[194, 206]],
        "splice acceptor": [[294, 306]],
        "intergenic": [[0, 100], [400, 1000]],
    }


def test_the_reverse_strand_is_read_from_its_end():
    own = found(gene("-"))
    assert own["5'UTR"] == [[330, 400]]
    assert own["3'UTR"] == [[100, 150]]
    assert own["promoter"] == [[400, 420]]
    assert own["splice donor"] == [[294, 306]]
    assert own["splice acceptor"] == [[194, 206]]


def test_without_exon_features_they_are_cds_and_utrs_joined():
    features = [
        part("five_prime_UTR", 90, 100),
        part("CDS", 100, 200),
        part("CDS", 300, 330),
        part("three_prime_UTR", 330, 350),
    ]
    own = found(features)
    assert own["exon"] == [[90, 200], [300, 350]]
    assert own["intron"] == [[200, 300]]
    assert own["5'UTR"] == [[90, 100]]
    assert own["promoter"] == [[70, 90]]
    assert own["intergenic"] == [[0, 90], [350, 1000]]
    notes = find_elements(features, 0, 1000).notes
    assert notes["introns derived from gaps between exons"] == 1


def test_plain_utrs_take_their_side_from_the_cds_and_stop_codons_are_coding():
    features = [
        part("exon", 100, 200, "-"), part("UTR", 100, 123, "-"), part("UTR", 180, 200, "-"),
        part("CDS", 123, 180, "-"), part("stop_codon", 120, 123, "-"),
    ]  # fmt: skip
    own = found(features)
    assert own["CDS"] == [[120, 180]]
    assert own["3'UTR"] == [[100, 120]]
    assert own["5'UTR"] == [[180, 200]]


def test_short_gaps_are_no_introns_and_gene_features_without_parts_are_transcripts():
    features = [
        part("exon", 100, 200), part("exon", 205, 300),
        Feature("tRNA_gene", 500, 570, "-", "r", ()), Feature("region", 0, 900, ".", "", ()),
    ]  # fmt: skip
    own = found(features)
    assert "intron" not in own
    assert own["promoter"] == [[80, 100], [570, 590]]
    assert own["intergenic"] == [[0, 100], [300, 500], [570, 1000]]
    elements = find_elements(features, 0, 1000)
    assert elements.unused == {"region": 1}
    assert elements.notes == {
        "gaps shorter than 10 bases, no introns": 1,
        "genes and RNAs without parts, taken as transcripts of one piece": 1,
    }


def test_without_a_strand_there_is_no_promoter_and_no_splice_site():
    own = found(gene("."))
    assert {"promoter", "splice donor", "splice acceptor", "5'UTR"}.isdisjoint(own)
    assert own["intron"] == [[200, 300]]
    notes = find_elements(gene("."), 0, 1000).notes
    assert notes["transcripts without a strand: no promoter, no splice sites"] == 1
    assert notes["UTRs without a side: no strand"] == 1


def test_introns_of_no_transcript_are_evidence_not_gene_models():
    loose = Feature("intron", 210, 290, "+", "", ())
    elements = find_elements([*gene("+"), loose], 0, 1000)
    assert elements.intervals["intron"].tolist() == [[200, 300]]
    assert elements.notes["intron features without a transcript, not used"] == 1
    assert found([loose])["intron"] == [[210, 290]]


def test_a_protein_is_no_transcript_of_its_own():
    features = [
        *gene("+")[:4],
        part("CDS", 150, 200, "+", "t", "p"),
        Feature("protein", 150, 200, "+", "p", ()),
    ]
    assert found(features)["promoter"] == [[80, 100]]


def test_a_piece_of_a_contig_keeps_true_coordinates_and_is_clipped():
    elements = find_elements(gene("+"), 150, 320)
    assert elements.intervals["exon"].tolist() == [[150, 200], [300, 320]]
    assert elements.intervals["intergenic"].tolist() == []
    assert elements.intervals["promoter"].tolist() == []
    outside = find_elements(gene("+"), 250, 320).notes
    assert outside["features outside of the sequence"] == 2


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("+-"), st.lists(pairs, min_size=1, max_size=4)),
        max_size=4,
    )
)
def test_classes_equal_a_base_by_base_reference(transcripts):
    features, exon, genic = [], np.zeros(80, bool), np.zeros(80, bool)
    promoter, intron = np.zeros(80, bool), np.zeros(80, bool)
    for number, (strand, exons) in enumerate(transcripts):
        exons = [(a, b + 1) for a, b in exons]
        features += [part("exon", a, b, strand, str(number)) for a, b in exons]
        own = np.zeros(80, bool)
        for a, b in exons:
            own[a:b] = True
        first, last = min(a for a, _ in exons), max(b for _, b in exons)
        exon |= own
        genic[first:last] = True
        promoter[max(0, first - 5) : first] |= strand == "+"
        promoter[last : last + 5] |= strand == "-"
        gap = ~own
        gap[:first] = gap[last:] = False
        edges = np.flatnonzero(np.diff(np.concatenate([[0], gap, [0]])))
        for a, b in edges.reshape(-1, 2):
            intron[a:b] |= b - a >= 10
    elements = find_elements(features, 0, 80, promoter=5)
    for name, expected in (
        ("exon", exon), ("intron", intron), ("promoter", promoter), ("intergenic", ~genic),
    ):  # fmt: skip
        bases = np.zeros(80, bool)
        for a, b in elements.intervals[name]:
            bases[a:b] = True
        assert np.array_equal(bases, expected), name


def test_the_two_files_of_yeast_chromosome_four_agree(real_data):
    cover = []
    for name in ("yeast_R64_UTR_CDS_intron.gff.gz", "yeast_chrIV_ucsc_ensgene.gtf.gz"):
        read = read_annotation(real_data / "annotation" / name, ["chrIV"])
        elements = find_elements(read.features["chrIV"], 0, 1_531_933)
        bases = np.zeros((len(CLASSES), 1_531_933), bool)
        for row, own in zip(bases, CLASSES, strict=True):
            for a, b in elements.intervals[own]:
                row[a:b] = True
        cover.append(dict(zip(CLASSES, bases, strict=True)))
    ours, theirs = cover
    # The first file holds verified reading frames only, so its CDS lie within those of the second.
    assert (ours["CDS"] & theirs["CDS"]).sum() > 0.99 * ours["CDS"].sum()
    both = (ours["intron"] & theirs["intron"]).sum()
    assert both > 0.75 * theirs["intron"].sum()


@pytest.mark.parametrize("promoter", [1, 200])
def test_promoters_have_the_length_asked_for(promoter):
    for strand, expected in (("+", [max(0, 100 - promoter), 100]), ("-", [400, 400 + promoter])):
        own = find_elements(gene(strand), 0, 1000, promoter).intervals["promoter"]
        assert own.tolist() == [expected]
