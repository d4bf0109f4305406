"""Damage that htslib or cyvcf2 read over, or do not survive: each of these files ended a run."""

import gzip
import itertools
import pathlib
import struct

import pysam.bcftools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.genotypes import Counts, Reference, open_panel, read_alleles
from data_pipelines.sites import samples_of, sites
from nt_jax.errors import InputError
from tests.data_pipelines.test_fasta import BGZF_EOF, bgzf_block
from tests.data_pipelines.test_genotypes import contig

META = (
    b"##fileformat=VCFv4.2\n"
    b"##contig=<ID=c>\n"
    b'##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">\n'
    b'##FORMAT=<ID=DP,Number=1,Type=Integer,Description="Depth">\n'
)
COLUMNS = b"#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tone\ttwo\n"
FIRST, LAST = b"2 C T GT 0|1 0|0", b"6 C A GT 1|0 0|0"
GOOD = META + COLUMNS


def row(text: bytes) -> bytes:
    """A line from `[CHROM] POS REF ALT FORMAT GT GT`; `_` is an empty column."""
    columns = [b"" if column == b"_" else column for column in text.split(b" ")]
    name = b"c" if columns[0][:1].isdigit() or not columns[0] else columns.pop(0)
    pos, ref, alt, *calls = columns
    return b"\t".join([name, pos, b".", ref, alt, b".", b".", b".", *calls]) + b"\n"


def read(path: pathlib.Path) -> Counts:
    panel, counts = open_panel(path), Counts()
    reference = Reference({"c", "d"}, lambda: [contig(), contig(name="d")])
    for _ in read_alleles(panel, reference, counts):
        pass
    return counts


def refusal(path: pathlib.Path) -> str:
    with pytest.raises(InputError) as caught:
        read(path)
    (line,) = str(caught.value).splitlines()
    assert str(path) in line
    return line


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (b"4 T A GT 0|1 0|0 1|1", "line 7: 12 columns, the header names 11"),
        (b"4 T A GT 0|1", "line 7: 10 columns, the header names 11"),
        (b"4 T A GT 0|1 0\0|1", "line 7: has a NUL byte"),
        (b"4 T A GT 0|1 0|0\0 x", "line 7: has a NUL byte"),
        (b" T A GT 0|1 0|0", "line 7: POS is ''"),
        (b"1e3 T A GT 0|1 0|0", "line 7: POS is '1e3'"),
        (b"9999999999999999999 T A GT 0|1 0|0", "line 7: POS is '9999999999999999999'"),
        (b"4 _ A GT 0|1 0|0", "line 7: REF is ''"),
        (b"4 T \xff GT 0|1 0|0", r"line 7: ALT is '\xff'"),
        (b"\xff 4 T A GT 0|1 0|0", r"line 7: CHROM is '\xff'"),
        (b"#c 4 T A GT 0|1 0|0", "line 7: starts with '#'"),
        (b"4 T A DP 7 7", "line 7: FORMAT is 'DP'"),
        (b"4 T A . . .", "line 7: FORMAT is '.'"),
        (b"4 T A DP:GT 7 7", "line 7: FORMAT is 'DP:GT'"),  # ended the process
        (b"4 T A GT 0|9 0|0", "record 2, c:4: a genotype has allele 9, but ALT names 1"),
        (b"4 T A GT 65537|0 0|0", "line 7: a genotype has an allele of more than four digits"),
        (b"4 T A GT:DP 65537|0:7 0|0:7", "line 7: a genotype has an allele of more than four"),
        (b"4 T A GT 0|1 |1", "damaged behind record 1"),
        (b"d 4 T A GT 0|1 0||1", "damaged behind record 1"),  # segmentation fault
    ],
)
def test_damaged_records_are_refused_with_their_place(tmp_path, record, message):
    path = tmp_path / "damaged.vcf"
    last = row(LAST) if not record.startswith(b"d") else b""
    path.write_bytes(GOOD + row(FIRST) + row(record) + last)
    assert message in refusal(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + row(FIRST) + b"\n" + row(LAST), "line 7: 1 columns, the header names 11"),
        (GOOD + row(FIRST) + META + row(LAST), "line 7: starts with '#'"),
        (GOOD + row(FIRST) + row(LAST)[:-3], "line 7: has no end, so the file was cut off"),
        (GOOD + row(FIRST) + row(LAST)[:-1], "line 7: has no end, so the file was cut off"),
        (GOOD[:-5], "line 5: has no end, so the file was cut off"),
        (GOOD.replace(b"two", b"t\0wo") + row(FIRST), "line 5: has a NUL byte"),
        (GOOD.replace(b"two", b"t,wo") + row(FIRST), "the name of a sample has a comma"),
        (GOOD.replace(b"one", b"^one") + row(FIRST), "the name of a sample has a comma or a '^'"),
        (GOOD.replace(b"two", b"\xff") + row(FIRST), "the name of a sample is no UTF-8"),
        (GOOD.replace(b"\ttwo", b"") + row(FIRST), "line 6: 11 columns, the header names 10"),
    ],
)
def test_damaged_files_are_refused(tmp_path, text, message):
    path = tmp_path / "damaged.vcf"
    path.write_bytes(text)
    assert message in refusal(path)


def test_every_cut_of_a_file_is_refused_or_ends_with_a_line(tmp_path):
    """No record is lost, and none is read from what is left of it."""
    text = GOOD + row(FIRST) + row(LAST)
    path = tmp_path / "cut.vcf"
    for size in range(len(GOOD) - 60, len(text)):
        path.write_bytes(text[:size])
        if size >= len(GOOD) and text[:size].endswith(b"\n"):
            assert read(path).records == text[:size].count(b"\n") - GOOD.count(b"\n")
        else:
            refusal(path)


def test_contigs_need_no_line_in_the_header(tmp_path):
    path = tmp_path / "undeclared.vcf"
    path.write_bytes(GOOD.replace(b"##contig=<ID=c>\n", b"") + row(FIRST) + row(b"d " + LAST))
    assert [site.contig for site in sites(path, samples_of(path))] == ["c", "d"]


def test_windows_line_ends_and_more_fields_are_read(tmp_path):
    path = tmp_path / "fields.vcf"
    path.write_bytes((GOOD + row(b"4 T A GT:DP 0|1:100000 0|0:7")).replace(b"\n", b"\r\n"))
    counts = read(path)
    assert (counts.records, counts.carriers) == (1, 1)


@pytest.fixture
def bcf(tmp_path):
    """(bytes of a BCF without its compression, where its first record begins)."""
    source, target = tmp_path / "good.vcf", tmp_path / "good.bcf"
    source.write_bytes(GOOD + row(FIRST) + row(LAST))
    pysam.bcftools.view("-Ob", "-o", str(target), str(source), catch_stdout=False)
    content = gzip.decompress(target.read_bytes())
    return bytearray(content), 9 + struct.unpack("<I", content[5:9])[0]


def packed(path: pathlib.Path, content: bytes) -> pathlib.Path:
    path.write_bytes(bgzf_block(bytes(content)) + BGZF_EOF)
    return path


def test_bcf_is_read_compressed_or_not(tmp_path, bcf):
    content, _ = bcf
    plain = tmp_path / "plain.bcf"
    plain.write_bytes(content)
    for path in (plain, packed(tmp_path / "packed.bcf", content)):
        counts = read(path)
        assert (counts.records, counts.carriers) == (2, 2)


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (8 + 20, 3, "record 1: 3 samples, the header has 2"),
        (8 + 18, 0, "record 1: no REF"),
        (8 + 23, 0, "record 1 is cut off or damaged"),
        (0, 255, "record 1 is cut off or damaged"),
        (8, 9, "record 1 is cut off or damaged"),
    ],
)
def test_bcf_records_that_contradict_themselves_are_refused(tmp_path, bcf, offset, value, message):
    content, begin = bcf
    content[begin + offset] = value
    assert message in refusal(packed(tmp_path / "damaged.bcf", content))


@pytest.mark.parametrize("kind", [0x20, 0x27, 0x25, 0x10])
def test_bcf_genotypes_of_another_type_are_refused(tmp_path, bcf, kind):
    """Of type "missing" they ended the process."""
    content, begin = bcf
    shared, own = struct.unpack_from("<II", content, begin)
    at = begin + 8 + shared + 2
    assert (content[at], own) == (0x21, 3 + 4)
    content[at] = kind
    assert "record 1" in refusal(packed(tmp_path / "damaged.bcf", content))


def test_every_cut_of_a_bcf_is_refused(tmp_path, bcf):
    content, begin = bcf
    sizes = struct.unpack_from("<II", content, begin)
    whole = {begin, begin + 8 + sum(sizes)}
    for size in itertools.chain(range(5, begin, 29), range(begin, len(content))):
        path = packed(tmp_path / "cut.bcf", content[:size])
        if size in whole:
            assert read(path).records == int(size > begin)
        else:
            refusal(path)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_bytes_in_a_record_are_refused_or_one_record_stays_one(tmp_path_factory, data):
    """What is read has as many records as the file has lines."""
    text = GOOD + row(FIRST) + row(LAST)
    low = data.draw(st.integers(len(GOOD), len(text)))
    high = data.draw(st.integers(low, min(len(text), low + 4)))
    letters = st.sampled_from([*b"\0\t\n\r#.,:|/<>*^019ACGTNc", 255])
    new = bytes(data.draw(st.lists(letters, max_size=4)))
    changed = text[:low] + new + text[high:]
    path = tmp_path_factory.getbasetemp() / "any.vcf"
    path.write_bytes(changed)
    try:
        found = read(path).records
    except InputError:
        refusal(path)
    else:
        assert found == changed.count(b"\n") - GOOD.count(b"\n")
