"""FASTA reading: what is accepted and counted, and what is refused with file, record and line."""

import gzip
import json
import re
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines import fasta
from data_pipelines.fasta import read_fasta, reverse_complement
from nt_jax.errors import InputError

BGZF_EOF = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")


def bgzf_block(data: bytes) -> bytes:
    """One BGZF block (SAM specification, section 4.1)."""
    deflate = zlib.compressobj(6, zlib.DEFLATED, -15)
    body = deflate.compress(data) + deflate.flush()
    head = b"\x1f\x8b\x08\x04" + bytes(4) + b"\x00\xff" + struct.pack("<H", 6)
    extra = b"BC" + struct.pack("<HH", 2, len(body) + 25)
    return head + extra + body + struct.pack("<II", zlib.crc32(data), len(data))


@pytest.fixture
def write(tmp_path):
    """Writes bytes to a file and returns its path."""

    def _write(content, name="genome.fa"):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return _write


def texts(path):
    return [(contig.name, contig.bases.tobytes()) for contig in read_fasta(path)]


def refusal(path):
    with pytest.raises(InputError) as caught:
        list(read_fasta(path))
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_blank_lines_may_come_first_but_no_blanks_before_a_header(write):
    (contig,) = read_fasta(write(b"\n \t\r\n>a\nACGT\n"))
    assert contig.bases.tobytes() == b"ACGT"
    with pytest.raises(InputError, match=r"line 2 is b' >a': not FASTA"):
        list(read_fasta(write(b"\n >a\nACGT\n")))


def test_reads_names_and_bases_over_several_lines(write):
    path = write(b">chr1 the first\nACGT\nAC\n>chr2\nGG\n")
    assert texts(path) == [("chr1", b"ACGTAC"), ("chr2", b"GG")]


@pytest.mark.parametrize(
    "content",
    [
        b">a\r\nAC\r\nGT\r\n",
        b">a\nACGT",
        b"\n\n>a\n\nAC\n\nGT\n\n",
        b">a\nAC GT \n",
    ],
    ids=["crlf", "no final newline", "empty lines", "spaces"],
)
def test_line_ends_and_blanks_do_not_matter(write, content):
    assert texts(write(content)) == [("a", b"ACGT")]


def test_counts_lower_case_uracil_and_iupac_codes(write):
    (contig,) = read_fasta(write(b">a\nACgtnN\nUuRy\n"))
    assert contig.bases.tobytes() == b"ACGTNNTTNN"
    assert (contig.soft_masked, contig.converted_u, contig.iupac) == (5, 2, 2)
    assert contig.bases.dtype == np.uint8
    assert not contig.bases.flags.writeable


@pytest.mark.parametrize("name", ["genome.fa.gz", "genome.txt"])
def test_compression_is_told_by_the_bytes_not_the_name(write, name):
    content = b">a\nACGT\n>b\nGG\n"
    for packed in (gzip.compress(content), bgzf_block(content) + BGZF_EOF, content):
        assert texts(write(packed, name)) == [("a", b"ACGT"), ("b", b"GG")]


def test_concatenated_gzip_members_are_one_file(write):
    path = write(gzip.compress(b">a\nAC") + gzip.compress(b"GT\n>b\nA\n"))
    assert texts(path) == [("a", b"ACGT"), ("b", b"A")]


def test_region_header_gives_true_coordinates(write):
    (contig,) = read_fasta(write(b">chr20:1000001-1000004 GRCh37\nACGT\n"))
    assert (contig.name, contig.start) == ("chr20", 1_000_000)


def test_pieces_of_one_contig_may_share_a_file_unless_they_overlap(write):
    pieces = list(read_fasta(write(b">c:1-4\nACGT\n>c:9-10\nGG\n")))
    assert [(piece.name, piece.start) for piece in pieces] == [("c", 0), ("c", 8)]
    message = refusal(write(b">c:1-4\nACGT\n>c:4-5\nGG\n"))
    assert "record 2, line 3" in message
    assert "c:4-5 overlaps" in message


@pytest.mark.parametrize(
    ("header", "bases", "hint"),
    [(b"c:1-4", b"ACG", "names 4 bases from 1, but 3 follow"), (b"c:0-4", b"ACGT", "bedtools")],
)
def test_region_header_must_fit_the_length(write, header, bases, hint):
    message = refusal(write(b">" + header + b"\n" + bases + b"\n"))
    assert hint in message
    assert "record 1, line 1" in message


def test_names_with_colons_that_are_no_region_stay(write):
    name = "chromosome:GRCh37:7:86000000:87000000:1"
    assert texts(write(f">{name} chromosome 7\nAC\n".encode())) == [(name, b"AC")]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "empty"),
        (b"\n \n", "only blank lines"),
        (b"hello\n", "line 1 is b'hello': not FASTA"),
        (b"\n\nACGT\n", "line 3"),
        (b"@r1\nACGT\n+\nIIII\n", "FASTQ"),
        (b">a\nAC\n>b\n>c\nAC\n", "record 2 (b), line 3: no bases"),
        (b">a\nAC\n>b\n", "record 2 (b), line 3: no bases"),
        (b">a\nAC\n>a\nGT\n", "record 2, line 3: the contig name a appears twice"),
        (b">a\nAC\n>\nGT\n", "record 2, line 3: no name"),
        (b">a\rACGT\r", "carriage return"),
        (b"BZh91AY", "bzip2"),
        (b"\x28\xb5\x2f\xfd....", "zstd"),
        (b">c:1-" + b"9" * 20 + b"\nAC\n", "coordinates of more than 18 digits"),
        (b">c:" + b"1" * 19 + b"-" + b"1" * 18 + b"2\nAC\n", "more than 18 digits"),
        (b">" + b"n" * 60 + b"ACGT" * 50 + b"\nAC\n", f"the name {'n' * 60}... has 260 letters"),
    ],
)
def test_refuses_what_is_no_genome(write, content, expected):
    assert expected in refusal(write(content))


@pytest.mark.parametrize("letter", "EFILPQZ*")
def test_names_the_first_protein_letter(write, letter):
    message = refusal(write(f">d\nAC\n>p x\nACGT\nAC{letter}T{letter}\n".encode()))
    assert f"record 2 (p), line 5, position 3: '{letter}'" in message
    assert "protein" in message


def test_gaps_and_digits_are_no_bases(write):
    assert "alignment" in refusal(write(b">a\nAC-T\n"))
    assert "position 1: '1'" in refusal(write(b">a\n1 acgt\n"))


def test_missing_file_and_folder_are_refused(tmp_path):
    refusal(tmp_path / "none.fa")
    refusal(tmp_path)


@pytest.mark.parametrize("cut", [5, 20, -9, -1])
def test_truncated_gzip_is_refused(write, cut):
    packed = gzip.compress(b">a\n" + b"ACGTTGCA" * 50 + b"\n")
    message = refusal(write(packed[:cut], "a.fa.gz"))
    assert "too early" in message or "gzip" in message


def test_damaged_gzip_is_refused(write):
    packed = bytearray(gzip.compress(b">a\n" + b"ACGTTGCATT" * 50 + b"\n"))
    packed[-6] ^= 1
    assert "damaged gzip" in refusal(write(bytes(packed)))


def test_bgzf_without_its_last_block_is_refused(write):
    """Cut between two blocks it is valid gzip and would read as half a genome."""
    first, second = bgzf_block(b">a\nACGT\n"), bgzf_block(b">b\nGG\n")
    assert len(texts(write(first + second + BGZF_EOF))) == 2
    for content in (first, first + second):
        assert "end-of-file block" in refusal(write(content))


def test_small_read_blocks_give_the_same_records(write, monkeypatch):
    content = b"\n>a x\nACGT\nAC\n>b\n\nGGN\n>c:3-4\nat"
    path = write(content)
    whole = texts(path)
    for size in range(1, len(content)):
        monkeypatch.setattr(fasta, "_BLOCK", size)
        assert texts(path) == whole


LINES = st.lists(st.text("ACGTNacgtnURYKM", min_size=1, max_size=12), min_size=1, max_size=5)


@settings(deadline=None)
@given(
    records=st.lists(LINES, min_size=1, max_size=5),
    end=st.sampled_from(["\n", "\r\n"]),
    last=st.booleans(),
    pack=st.sampled_from([bytes, gzip.compress]),
)
def test_any_layout_gives_the_bases_back(tmp_path_factory, records, end, last, pack):
    content = end.join(f">r{i}{end}{end.join(lines)}" for i, lines in enumerate(records))
    path = tmp_path_factory.mktemp("fasta") / "x"
    path.write_bytes(pack((content + (end if last else "")).encode()))
    contigs = list(read_fasta(path))
    assert [contig.name for contig in contigs] == [f"r{i}" for i in range(len(records))]
    for contig, lines in zip(contigs, records, strict=True):
        raw = "".join(lines)
        expected = re.sub("[^ACGTN]", "N", raw.upper().replace("U", "T"))
        assert contig.bases.tobytes().decode() == expected
        assert contig.soft_masked == sum(letter.islower() for letter in raw)
        assert contig.converted_u == raw.upper().count("U")
        assert contig.iupac == len(re.findall("[RYKM]", raw.upper()))


@settings(deadline=None)
@given(st.text("ACGTN", max_size=50))
def test_reverse_complement_undoes_itself(text):
    bases = np.frombuffer(text.encode(), np.uint8)
    other = reverse_complement(bases)
    assert other.dtype == np.uint8
    assert reverse_complement(other).tobytes() == bases.tobytes()
    pairs = dict(zip("ACGTN", "TGCAN", strict=True))
    assert other.tobytes().decode() == "".join(pairs[base] for base in reversed(text))


def test_yeast_has_the_published_size(real_data):
    manifest = json.loads((real_data / "MANIFEST.json").read_text())
    name = "genomes/species/saccharomyces_cerevisiae_R64-1-1.fa.gz"
    (entry,) = [entry for entry in manifest if entry["file"] == name]
    contigs = list(read_fasta(real_data / name))
    bases = sum(len(contig.bases) for contig in contigs)
    assert entry["content"].startswith(f"{len(contigs)} seq, {bases:,} bp")
    assert (len(contigs), bases) == (17, 12_157_105)


@pytest.mark.parametrize("name", ["GRCh37_chr20_1000001-2000000", "GRCh38_chr22_20000001-21000000"])
def test_real_pieces_carry_their_coordinates(real_data, name):
    (contig,) = read_fasta(real_data / "genomes" / "human" / f"{name}.fa.gz")
    start, end = map(int, name.rsplit("_", 1)[1].split("-"))
    assert (contig.start, contig.start + len(contig.bases)) == (start - 1, end)
