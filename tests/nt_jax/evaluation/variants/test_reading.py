"""Variants from VCF, BCF and tables; bad files are refused in one line."""

import gzip
import pathlib

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pysam
import pysam.bcftools
import pytest

from nt_jax.errors import InputError
from nt_jax.evaluation.variants.reading import open_vcf
from nt_jax.evaluation.variants.tables import open_table

HEADER = """##fileformat=VCFv4.2
##contig=<ID=chr1,length=5000>
##INFO=<ID=AF,Number=A,Type=Float,Description="frequency">
##INFO=<ID=AD,Number=R,Type=Integer,Description="depth">
##INFO=<ID=CLNSIG,Number=.,Type=String,Description="significance">
##INFO=<ID=DB,Number=0,Type=Flag,Description="known">
##INFO=<ID=AFX,Number=1,Type=Float,Description="not AF">
##FILTER=<ID=q10,Description="low">
##FORMAT=<ID=GT,Number=1,Type=String,Description="genotype">
"""
COLUMNS = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"
RECORDS = [
    "chr1\t10\trs1\tA\tC,G\t50\tPASS\tAFX=0.5;AF=0.25,.;AD=3,4,5;DB",
    "chr1\t20\t.\tAC\tA\t.\t.\t.",
    "chr1\t20\t.\tA\t<DEL>\t.\tq10\tCLNSIG=Benign/Likely_benign",
]


def write_vcf(path: pathlib.Path, records=RECORDS, samples=2) -> pathlib.Path:
    names = "".join(f"\ts{i}" for i in range(samples))
    lines = [HEADER + COLUMNS + (f"\tFORMAT{names}" if samples else "")]
    genotypes = "\tGT" + "\t0|1" * samples if samples else ""
    text = "\n".join([*lines, *(record + genotypes for record in records)]) + "\n"
    if path.suffix == ".gz":
        with pysam.BGZFile(str(path), "wb") as file:
            file.write(text.encode())
    else:
        path.write_text(text)
    return path


@pytest.mark.parametrize("name", ["a.vcf", "a.vcf.gz", "plain.vcf.gz", "a.bcf"])
@pytest.mark.parametrize("samples", [0, 2])
def test_all_formats_give_the_same_records(tmp_path, name, samples):
    text = write_vcf(tmp_path / "a.vcf", samples=samples)
    path = tmp_path / name
    if name == "a.vcf.gz":
        write_vcf(path, samples=samples)
    elif name == "plain.vcf.gz":
        path.write_bytes(gzip.compress(text.read_bytes()))
    elif name == "a.bcf":
        pysam.bcftools.view("-Ob", "-o", str(path), str(text), catch_stdout=False)
    source = open_vcf(path, ("AF", "AD", "CLNSIG", "DB"))
    sites = list(source.sites())
    assert [site.columns[:5] for site in sites] == [
        tuple(record.split("\t")[:5]) for record in RECORDS
    ]
    assert [site.pos for site in sites] == [10, 20, 20]
    assert sites[0].alts == ("C", "G")
    assert sites[0].values == (("0.25", "4", None, "1"), (None, "5", None, "1"))
    assert sites[1].values == ((None, None, None, "0"),)
    assert sites[2].values[0][2] == "Benign/Likely_benign"
    assert all(len(site.columns) == 8 for site in sites)
    assert {"AF", "CLNSIG"} <= source.declared()[0]
    assert source.declared()[1] == {"chr1"}
    assert list(source.sites()) == sites


def test_text_of_a_vcf_is_kept_to_the_letter(tmp_path):
    odd = "chr1\t10\trs1\tA\tC\t50.000\tPASS\tAF=0.12345678901;X=%3D;FLAG;E=1e-300"
    path = write_vcf(tmp_path / "a.vcf.gz", [odd])
    assert next(open_vcf(path).sites()).columns == tuple(odd.split("\t"))


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (["chr1\t10\t.\tA"], "line 11 has 4 columns where a VCF record has 8 or more"),
        (["chr1\tten\t.\tA\tC\t.\t.\t."], "line 11: POS is 'ten', no number"),
        (
            ["chr1\t9\t.\tA\tC\t.\t.\tAF=0.1", "chr1\t10\t.\tA\tC,G\t.\t.\tAF=0.1"],
            "line 12: AF has 1 values where Number=A asks for 2",
        ),
    ],
)
def test_bad_records_are_named(tmp_path, records, message):
    path = write_vcf(tmp_path / "a.vcf", records, samples=0)
    with pytest.raises(InputError, match=f"^{path}: {message}"):
        list(open_vcf(path, ("AF",)).sites())


def test_bad_files_are_refused(tmp_path, capfd):
    for name, content, message in [
        ("empty.vcf", b"", "neither VCF .* nor BCF"),
        ("text.vcf", b"hello\n", "neither VCF .* nor BCF"),
        ("reads.fa", b">a\nACGT\n", "a table of variants is given with --table"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=message):
            open_vcf(tmp_path / name)
    with pytest.raises(InputError, match="no such file"):
        open_vcf(tmp_path / "none.vcf")
    with pytest.raises(InputError, match="declares no INFO field 'AFF'; did you mean 'AF'"):
        open_vcf(write_vcf(tmp_path / "a.vcf"), ("AFF",))
    whole = write_vcf(tmp_path / "b.vcf.gz", RECORDS * 3000).read_bytes()
    cut = tmp_path / "cut.vcf.gz"
    # Between two blocks: valid gzip of half the records.
    at = whole.index(b"\x1f\x8b\x08\x04", len(whole) // 2)
    for size in (at, at + 100):
        cut.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"cut\.vcf\.gz: "):
            list(open_vcf(cut).sites())
    spoilt = bytearray(whole)
    spoilt[at + 60] ^= 255
    cut.write_bytes(bytes(spoilt))
    with pytest.raises(InputError, match=r"damaged .*copy or download it again"):
        list(open_vcf(cut).sites())
    # htslib writes to the process's own standard error.
    assert capfd.readouterr().err == ""


ROWS = {
    "Chrom": ["chr1", "chr1", "chr2"],
    "POS": ["10", "11", "5"],
    "Ref": ["A", "C", "-"],
    "ALT": ["c", "-", "GG"],
    "effect": ["0.5", "NA", "-1e-3"],
}


@pytest.mark.parametrize("name", ["t.tsv", "t.csv", "t.tsv.gz", "t.txt", "t.parquet"])
def test_tables(tmp_path, name):
    path = tmp_path / name
    table = pa.table(ROWS)
    if name.endswith("parquet"):
        numbers = pa.array([10, 11, 5], pa.int32())
        pq.write_table(table.set_column(1, "POS", numbers), path)
    else:
        mark = "," if "csv" in name else "\t"
        rows = [list(ROWS), *zip(*ROWS.values(), strict=True)]
        text = "".join(mark.join(row) + "\n" for row in rows).encode()
        path.write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    sites = list(open_table(path, ("effect",)).sites())
    assert [(s.chrom, s.pos, s.ref, s.alts, s.values) for s in sites] == [
        ("chr1", 10, "A", ("c",), (("0.5",),)),
        ("chr1", 11, "C", ("",), ((None,),)),
        ("chr2", 5, "", ("GG",), (("-1e-3",),)),
    ]
    assert [site.where for site in sites] == ["row 1", "row 2", "row 3"]


def test_ids_and_columns_with_two_roles(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("#chrom,pos,id,ref,alt\nx,3,rs9,A,T\n")
    (site,) = open_table(path, ("#chrom",)).sites()
    assert (site.id, site.values) == ("rs9", (("x",),))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "chrom,pos,ref\n1,2,A\n", "no column 'alt'"),
        ("t.csv", "chrom,pos,ref,alt\n1,x,A,C\n", "row 1: pos is 'x', no number"),
        ("t.csv", "chrom,pos,ref,alt\n1,2,A,C\n1,2\n", "cannot be read as a table"),
        ("t.csv", "", "cannot be read as a table"),
        ("t.xlsx", "chrom,pos,ref,alt\n1,2,A,C\n", "which format"),
        ("t.parquet", "chrom", "cannot be read as a table"),
    ],
)
def test_bad_tables_are_refused(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        list(open_table(path).sites())
    with pytest.raises(InputError, match="no such file"):
        open_table(tmp_path / "none.tsv")
