"""An annotated genome as windows: coordinates, names, what is said and what is refused."""

import re

import numpy as np
import pytest

from data_pipelines.elements import CLASSES
from data_pipelines.fasta import read_fasta
from nt_jax.errors import InputError
from nt_jax.evaluation.elements.windows import element_windows, read_genome, shares
from nt_jax.tokenizers import KmerTokenizer
from tests.nt_jax.evaluation.elements.conftest import write_genome

TOKENIZER = KmerTokenizer(k=3)


def test_tokens_and_classes_are_those_of_the_same_bases(files, windows):
    contig = next(iter(read_fasta(files[0])))
    intervals = windows.genome.elements[0].intervals
    seen = 0
    for batch in windows.batches(4, seed=0):
        for row in np.flatnonzero(batch.valid):
            start = int(batch.number[row]) * 69
            text = contig.bases[start : start + 69].tobytes().decode()
            assert batch.tokens[row].tolist() == TOKENIZER.encode_prefix(text, 24).tolist()
            first = start
            for t, size in enumerate(TOKENIZER.bases(batch.tokens[row])):
                for c, name in enumerate(CLASSES):
                    inside = sum(
                        a <= base < b for base in range(first, first + size)
                        for a, b in intervals[name]
                    )  # fmt: skip
                    expected = inside / size if size else 0
                    assert batch.fractions[row, c, t] == pytest.approx(expected, abs=1e-6)
                first += size
            seen += 1
    assert seen == 14


def test_any_number_of_rows_gives_the_same_windows(windows):
    def joined(rows: int) -> np.ndarray:
        found = list(windows.batches(rows, seed=1))
        return np.concatenate([batch.turned[batch.valid] for batch in found])

    assert np.array_equal(joined(5), joined(14))
    assert np.array_equal(joined(1), joined(14))


def test_names_without_chr_match_and_it_is_said(genome):
    assert "chr1 of the sequences is read as 1 of the annotation" in genome.notes
    assert "19 transcripts whose UTRs are derived from exons or UTR features and the CDS" in (
        genome.notes
    )


def test_contigs_without_annotation_are_said(files):
    notes = read_genome(*files).notes
    assert "contigs without annotation, left out: two" in notes


def test_shares_count_bases_of_the_whole_contig(windows):
    sizes = shares(windows)
    assert sizes["exon"] == (19 * 140, 19 * 140 / 6000)
    assert sizes["intron"][0] == 19 * 40
    assert sizes["5'UTR"][0] == 10 * 35 + 9 * 35
    assert sizes["splice donor"][0] == 19 * 12
    assert sizes["intergenic"][0] == 6000 - 19 * 180


def test_pieces_with_coordinates_of_their_own_lie_where_they_belong(tmp_path):
    fasta, gff = write_genome(tmp_path)
    whole = read_genome(fasta, gff, ["chr1"])
    text = next(iter(read_fasta(fasta))).bases.tobytes().decode()
    piece = tmp_path / "piece.fa"
    piece.write_text(f">1:1001-2000\n{text[1000:2000]}\n>1:4001-4300\n{text[4000:4300]}\n")
    parts = read_genome(piece, gff)
    assert [contig.start for contig in parts.contigs] == [1000, 4000]
    for contig, elements in zip(parts.contigs, parts.elements, strict=True):
        for name in ("exon", "intron", "CDS", "intergenic"):
            inside = np.zeros(6000, bool)
            for a, b in whole.elements[0].intervals[name]:
                inside[a:b] = True
            own = np.zeros(6000, bool)
            for a, b in elements.intervals[name]:
                own[a:b] = True
            end = contig.start + len(contig.bases)
            assert np.array_equal(own[contig.start : end], inside[contig.start : end]), name
            assert not own[: contig.start].any()
            assert not own[end:].any()
    assert not any("another assembly" in note or "beyond" in note for note in parts.notes)
    windows = element_windows(parts, TOKENIZER, 24)
    assert [len(starts) for starts in windows.starts] == [14, 4]
    text = text[4000:4069]
    last = next(windows.batches(18, seed=0))
    assert last.tokens[14].tolist() == TOKENIZER.encode_prefix(text, 24).tolist()


def test_features_beyond_the_end_are_said(tmp_path):
    fasta, gff = write_genome(tmp_path)
    with gff.open("a") as file:
        file.write("1\tx\tgene\t6100\t6200\t.\t+\t.\tID=far\n")
    notes = read_genome(fasta, gff, ["chr1"]).notes
    assert "1 features beyond the end of their contig, not used: is it the same assembly?" in notes


@pytest.mark.parametrize(
    ("contigs", "edit", "message"),
    [
        (["chr2"], None, "--contig chr2: {fasta} has no such contig; did you mean 'chr1'?; there"),
        (["two"], None, "{gff}: no contig has the name of a sequence, not even without 'chr': the"),
        (["chr1"], ("mRNA\t61", "mRNA\tx"), "{gff}: line 2: start 'x' and end '240' must be whole"),
    ],
)
def test_bad_pairs_of_files_are_refused(tmp_path, contigs, edit, message):
    fasta, gff = write_genome(tmp_path)
    if edit:
        gff.write_text(gff.read_text().replace(*edit))
    with pytest.raises(InputError, match=re.escape(message.format(fasta=fasta, gff=gff))):
        read_genome(fasta, gff, contigs)


def test_no_element_on_the_sequence_and_no_window_are_errors(tmp_path, genome):
    fasta, gff = write_genome(tmp_path)
    gff.write_text("1\tx\tgene\t9000\t9100\t.\t+\t.\tID=far\n")
    with pytest.raises(InputError, match=re.escape(f"{gff}: no element of it lies on")):
        read_genome(fasta, gff, ["chr1"])
    with pytest.raises(InputError, match="no window of 6141 bases is left: the longest contig has"):
        element_windows(genome, TOKENIZER, 2048)
