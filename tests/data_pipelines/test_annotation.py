"""Annotation reading: three formats, one set of coordinates, and what is refused with its line."""

import gzip
import json
import pathlib
import re

import pytest

from data_pipelines.annotation import Feature, bare, match_contigs, read_annotation
from nt_jax.errors import InputError
from tests.data_pipelines.test_fasta import BGZF_EOF, bgzf_block

GFF3 = (
    "##gff-version 3\n"
    "# made by hand\n"
    "\n"
    "chr1\thand\tgene\t11\t50\t.\t+\t.\tID=gene%3A1;Name=x\n"
    "chr1\thand\tmRNA\t11\t50\t.\t+\t.\tID=t1;Parent=gene%3A1\n"
    "chr1\thand\texon\t11\t20\t.\t+\t.\tParent=t1,t2\n"
    "chr2\thand\tregion\t1\t1\t.\t?\t.\t.\n"
)
GTF = (
    'chr1\thand\tgene\t11\t50\t.\t-\t.\tgene_id "g1"; gene_name "a=b";\n'
    'chr1\thand\ttranscript\t11\t50\t.\t-\t.\tgene_id "g1"; transcript_id "t1"; tag "x; y";\n'
    'chr1\thand\tCDS\t13\t20\t.\t-\t0\ttranscript_id "t1"; gene_id "g1"\n'
)


def write(folder: pathlib.Path, content: str | bytes, name: str = "a.gff") -> pathlib.Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_gff3_counts_from_one_and_includes_its_end(tmp_path):
    read = read_annotation(write(tmp_path, GFF3))
    assert read.form == "GFF3"
    assert read.features["chr1"] == [
        Feature("gene", 10, 50, "+", "gene:1", ()),
        Feature("mRNA", 10, 50, "+", "t1", ("gene:1",)),
        Feature("exon", 10, 20, "+", "", ("t1", "t2")),
    ]
    assert read.features["chr2"] == [Feature("region", 0, 1, ".", "", ())]
    assert (read.contigs, read.kinds["exon"]) == ({"chr1": 3, "chr2": 1}, 1)


def test_gtf_names_its_transcripts_in_quotes(tmp_path):
    read = read_annotation(write(tmp_path, GTF))
    assert read.form == "GTF"
    assert read.features["chr1"] == [
        Feature("gene", 10, 50, "-", "g1", ()),
        Feature("transcript", 10, 50, "-", "t1", ("g1",)),
        Feature("CDS", 12, 20, "-", "", ("t1",)),
    ]


def test_bed_counts_from_zero_and_excludes_its_end(tmp_path):
    rows = "track name=x\nchr1\t10\t20\texon\t0\t+\nchr1\t30\t40\tSEO1\t0\t-\nchr1\t50\t60\tpeak\n"
    read = read_annotation(write(tmp_path, rows))
    assert read.form == "BED"
    assert read.features["chr1"] == [
        Feature("exon", 10, 20, "+", "", ()),
        Feature("transcript", 30, 40, "-", "", ()),
        Feature("peak", 50, 60, ".", "", ()),
    ]
    assert read.notes == {"rows with a strand read as transcripts": 1}


def test_bed_of_twelve_columns_is_a_gene_model(tmp_path):
    row = "chr1\t100\t200\tx\t0\t+\t105\t190\t0\t2\t10,20,\t0,80,\n"
    read = read_annotation(write(tmp_path, row))
    assert read.features["chr1"] == [
        Feature("transcript", 100, 200, "+", "line 1", ()),
        Feature("exon", 100, 110, "+", "", ("line 1",)),
        Feature("exon", 180, 200, "+", "", ("line 1",)),
        Feature("CDS", 105, 110, "+", "", ("line 1",)),
        Feature("CDS", 180, 190, "+", "", ("line 1",)),
    ]


@pytest.mark.parametrize("end", ["##FASTA\n>chr1\nACGT\n", ">chr1\nACGT\n"])
def test_sequences_at_the_end_are_not_read(tmp_path, end):
    assert read_annotation(write(tmp_path, GFF3 + end)).contigs == {"chr1": 3, "chr2": 1}


def test_compression_and_line_ends_change_nothing(tmp_path):
    plain = read_annotation(write(tmp_path, GFF3)).features
    for number, content in enumerate(
        [
            gzip.compress(GFF3.encode()),
            bgzf_block(GFF3.encode()) + BGZF_EOF,
            GFF3.replace("\n", "\r\n").encode(),
            GFF3.rstrip("\n").encode(),
        ]
    ):
        assert read_annotation(write(tmp_path, content, f"{number}.txt")).features == plain


def test_only_the_contigs_asked_for_are_kept_but_all_are_counted(tmp_path):
    read = read_annotation(write(tmp_path, GFF3), ["1"])
    assert list(read.features) == ["chr1"]
    assert read.contigs == {"chr1": 3, "chr2": 1}


def test_features_of_no_bases_are_counted(tmp_path):
    read = read_annotation(write(tmp_path, GFF3 + "chr1\tx\tCDS\t30\t29\t.\t+\t.\tParent=t1\n"))
    assert len(read.features["chr1"]) == 3
    assert read.notes == {"features of no bases (the end is before the start), not used": 1}


ROW = "chr1\thand\texon\t{0}\t{1}\t.\t{2}\t.\t{3}\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty; give a GFF3, GTF or BED file"),
        ("# nothing\n", "holds no feature; give a GFF3, GTF or BED file"),
        (GFF3 + ROW.format("x", 4, "+", ""), "line 8: start 'x' and end '4' must be whole numbers"),
        (GFF3 + ROW.format(9, 4, "+", ""), "line 8: start 9 and end 4: GFF counts from 1, and"),
        (GFF3 + ROW.format(0, 4, "+", ""), "line 8: start 0 and end 4: GFF counts from 1, and"),
        (GFF3 + ROW.format(1, 4, "x", ""), "line 8: strand 'x' is none of + - . ?"),
        (GFF3 + "chr1\thand\texon\t1\n", "line 8: 4 columns, not the 9 of GFF"),
        (GFF3 + "\thand\texon\t1\t2\t.\t.\t.\t\n", "line 8: no contig or no type"),
        (GTF + ROW.format(1, 4, "+", 'gene_id "g1"'), "line 4: exon without a transcript_id"),
        ("chr1 10 20\n", "line 1: 1 columns: neither GFF3 or GTF (9) nor BED (3 to 12, the second"),
        ("chr1\t10\t20\nchr1\t10\tx\n", "line 2: start '10' and end 'x' must be whole numbers"),
        ("chr1\t20\t20\n", "line 1: start 20 is not below end 20; BED counts from 0"),
        (
            "chr1\t1\t9\tx\t0\t+\t1\t9\t0\t2\t4,\t0,\n",
            "line 1: 2 blocks, but 1 sizes and 1 starts",
        ),
        (
            "chr1\t1\t9\tx\t0\t+\t1\t9\t0\t1\t4,\t0,\n",
            "line 1: the blocks do not reach from start to end",
        ),
        (
            "chr1\t1\t9\tx\t0\t+\t1\t9\t0\t1\t,\t0,\n",
            "line 1: columns 7, 8, 10, 11 and 12 must be whole numbers",
        ),
        (gzip.compress(GFF3.encode() * 50)[:-20], "gzip data end too early"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path, content, message):
    path = write(tmp_path, content)
    with pytest.raises(InputError, match=f"^{re.escape(f'{path}: {message}')}") as refused:
        read_annotation(path)
    assert "\n" not in str(refused.value)


def test_a_missing_file_is_an_error_of_one_line(tmp_path):
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_annotation(tmp_path / "none.gff")


def test_contigs_match_exactly_first_then_without_chr():
    pairs, assumed = match_contigs("a.gff", ["1", "chrX", "V"], ["1", "chr1", "X", "II"])
    assert pairs == {"1": "1", "chrX": "X"}
    assert assumed == ["chrX of the sequences is read as X of the annotation"]
    assert match_contigs("a.gff", ["XVI"], ["chrXVI"])[0] == {"XVI": "chrXVI"}
    assert match_contigs("a.gff", ["chr5"], ["Chr5"])[0] == {"chr5": "Chr5"}
    assert bare("chr21") == bare("21") == "21"
    assert bare("chr") == "chr"


def test_contigs_that_do_not_match_name_both_files():
    with pytest.raises(InputError, match=r"a.gff: no contig .* has NC_1, NC_2; .* are I, II; rena"):
        match_contigs("a.gff", ["I", "II"], ["NC_1", "NC_2"])
    with pytest.raises(InputError, match="the sequence 1 may be CHR1 or chr1 of the annotation"):
        match_contigs("a.gff", ["1"], ["chr1", "CHR1"])


def test_real_files_hold_what_their_manifest_says(real_data):
    manifest = json.loads((real_data / "MANIFEST.json").read_text())
    entries = [entry for entry in manifest if entry["file"].startswith("annotation/")]
    assert len(entries) >= 14
    for entry in entries:
        read = read_annotation(real_data / entry["file"])
        total = int(re.match(r"[\d,]+", entry["content"])[0].replace(",", ""))
        assert sum(read.contigs.values()) == total, entry["file"]
        for kind, count in re.findall(
            r"([\w']+) ([\d,]+)(?:,|$)", entry["content"].split(": ")[-1]
        ):
            if read.form != "BED":
                assert read.kinds[kind] == int(count.replace(",", "")), (entry["file"], kind)
        assert {"gtf": "GTF", "bed": "BED"}.get(entry["file"].split(".")[-2], "GFF3") == read.form
