"""`nt-jax score` from its files to its files; independent readers look at what comes out."""

import json
import pathlib
import random

import numpy as np
import pyarrow.parquet as pq
import pysam
import pysam.bcftools
import pytest

from nt_jax.evaluation.results import read_rows
from tests.nt_jax.evaluation.variants import reference as brute
from tests.nt_jax.evaluation.variants.calls import base, many, others, score, write_vcf
from tests.nt_jax.evaluation.variants.conftest import CONTIG, WINDOW


def test_annotated_vcf_and_parquet(tmp_path, base_options, sharp, capsys):
    ref, (one, two, three) = base(1100), others(1100)
    records = [
        f"chr1\t1005\trs5\t{base(1005)}\t{others(1005)[0]}\t.\tPASS\tAF=0.000123456789;X=%3D",
        f"chr1\t1100\t.\t{ref}\t{one},*,{two}\t50.0\t.\t.",
        f"chr1\t1200\t.\t{CONTIG[199:204]}\t{CONTIG[199]}\t.\t.\tKIND=del",
        f"chr1\t1300\t.\t{base(1300)}\t<DEL>\t.\t.\tKIND=sv",
        f"chr1\t1301\t.\t{base(1301)}\t.\t.\t.\tKIND=none",
        f"chr1\t1400\t.\t{others(1400)[0]}\tN\t.\t.\tKIND=wrong",
        "chrUn\t5\t.\tA\tC\t.\t.\tKIND=absent",
    ]
    vcf = write_vcf(tmp_path / "in.vcf", records)
    outs = [tmp_path / "out.vcf.gz", tmp_path / "out.parquet"]
    assert score(*base_options, "--vcf", vcf, "--out", *outs, "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["records"] == 7
    assert (summary["alleles"], summary["scored"]) == (9, 4)
    assert summary["skipped"] == {
        "star": 1, "symbolic": 1, "no_alt": 1, "ref_mismatch": 1, "contig_absent": 1,
    }  # fmt: skip
    assert not list(tmp_path.glob("*.parts"))

    # bcftools is the reader; INFO of the input stands in front, to the letter.
    lines = pysam.bcftools.view("-H", str(outs[0])).splitlines()
    assert len(lines) == len(records)
    for line, record in zip(lines, records, strict=True):
        there, given = line.split("\t"), record.split("\t")
        assert len(there) == 8
        assert there[:5] == given[:5]
    with pysam.BGZFile(str(outs[0])) as file:
        raw = [line.decode().split("\t") for line in file if not line.startswith(b"#")]
    for columns, record in zip(raw, records, strict=True):
        given = record.split("\t")
        assert columns[:7] == given[:7]
        assert given[7] == "." or columns[7].startswith(f"{given[7]};NT_")
    assert raw[3][7] == "KIND=sv;NT_SKIPPED=symbolic"
    assert raw[1][7].endswith("NT_SKIPPED=.,star,.")
    query = ["-f", "%POS %NT_LLR %NT_L2_TOKENS_L1\n"]
    found = pysam.bcftools.query(*query, "-r", "chr1:1100-1200", str(outs[0])).splitlines()
    assert [line.split()[0] for line in found] == ["1100", "1200"]
    _, llr, l1 = found[0].split()
    first, starred, second = llr.split(",")
    assert starred == "."

    table = pq.read_table(outs[1])
    rows = table.to_pylist()
    assert [row["alt"] for row in rows[1:4]] == [one, "*", two]
    assert (rows[0]["id"], rows[1]["id"]) == ("rs5", None)
    assert rows[2]["skipped"] == "star"
    assert rows[2]["llr"] is None
    for row, text in ((rows[1], first), (rows[3], second)):
        expected, _ = brute.llrs(sharp, CONTIG, 99, ref, row["alt"], WINDOW)
        np.testing.assert_allclose(row["llr"], expected, atol=1e-4)
        np.testing.assert_allclose(float(text), row["llr"], rtol=1e-5)
    np.testing.assert_allclose(float(l1.split(",")[0]), rows[1]["l2_tokens_l1"], rtol=1e-5)
    assert {name for name in table.column_names if name.startswith("l1_")} == set()
    assert three not in [row["alt"] for row in rows[1:4]]
    # The same again, from a BCF.
    contigs = "##contig=<ID=chr1>\n##contig=<ID=chrUn>\n"
    vcf.write_text(vcf.read_text().replace("##FORMAT", f"{contigs}##FORMAT"))
    bcf = tmp_path / "in.bcf"
    pysam.bcftools.view("-Ob", "-o", str(bcf), str(vcf), catch_stdout=False)
    again = tmp_path / "again.parquet"
    assert score(*base_options, "--vcf", bcf, "--out", again) == 0
    assert pq.read_table(again).equals(table)


def test_far_positions_get_the_index_that_holds_them(tmp_path, base_options):
    start = 1 << 29
    fasta = tmp_path / "far.fa"
    fasta.write_text(f">chr1:{start + 1}-{start + len(CONTIG)}\n{CONTIG}\n")
    position = start + 100
    vcf = write_vcf(tmp_path / "in.vcf", [f"chr1\t{position}\t.\t{CONTIG[99]}\tN\t.\t.\t."])
    out = tmp_path / "out.vcf.gz"
    given = [fasta if option == base_options[3] else option for option in base_options]
    assert score(*given, "--vcf", vcf, "--out", out) == 0
    assert sorted(path.name for path in tmp_path.glob("out*")) == ["out.vcf.gz", "out.vcf.gz.csi"]
    where = f"chr1:{position}-{position}"
    assert pysam.bcftools.view("-H", str(out), where).count("\n") == 1


def test_effects_beside_controls(tmp_path, base_options, workdir, capsys):
    rng = np.random.default_rng(0)
    lines = ["locus\tPos\tRef\tAlt\tEffect\tchrom"]
    for position in range(1050, 1110):
        lines += [
            f"x\t{position}\t{base(position)}\t{alt}\t{rng.normal():.4f}\tchr1"
            for alt in [*others(position)[:2], "-"]
        ]
    lines += [f"x\t1200\t{base(1200)}\t-\tNA\tchr1", f"x\t5\t{'A'}\tC\t1.0\tshort"]
    table = tmp_path / "mpra.tsv"
    table.write_text("\n".join(lines) + "\n")
    out = tmp_path / "out.parquet"
    more = ["--label", "Effect", "--group", "chrom", "--controls", "--json"]
    assert score(*base_options, "--table", table, "--out", out, *more) == 0
    summary = json.loads(capsys.readouterr().out)
    label = summary["label"]
    assert (label["kind"], label["alleles"], label["unlabelled"]) == ("correlation", 181, 1)
    assert label["groups"] == {"chr1": 180, "short": 1}
    columns = pq.read_table(out)
    mine = {entry["column"]: entry for entry in label["scores"] if entry["group"] is None}
    assert {"llr", "control_unigram_llr", "control_random_llr", "control_gc"} <= set(mine)
    from scipy.stats import spearmanr

    keep = np.isfinite(columns["label"].to_numpy())
    effect = columns["label"].to_numpy()[keep]
    for column, sign in (("llr", -1), ("l2_tokens_l2", 1), ("control_random_llr", -1)):
        values = sign * columns[column].to_numpy()[keep].astype(float)
        entry = mine[column]
        np.testing.assert_allclose(entry["spearman"]["value"], spearmanr(effect, values)[0])
        wanted = spearmanr(np.abs(effect), values)[0]
        np.testing.assert_allclose(entry["abs_spearman"]["value"], wanted)
        low, high = entry["spearman"]["low"], entry["spearman"]["high"]
        assert low < entry["spearman"]["value"] < high
    assert mine["llr"]["score"] == "-llr"
    # One allele alone has no correlation, and says so.
    alone = next(entry for entry in label["scores"] if entry["group"] == "short")
    assert alone["spearman"] == {"value": None, "low": None, "high": None}

    rows = read_rows(tmp_path / "out.results.parquet")
    assert {row.control for row in rows if row.method.startswith("random init, ")} == {True}
    assert {row.control for row in rows if row.method == "-llr"} == {False}
    assert {row.task for row in rows} == {
        f"mpra.tsv: Effect{group}" for group in ("", ": chr1", ": short")
    }
    (row,) = [
        row for row in rows
        if (row.method, row.layer, row.metric) == ("tokens_l2", 2, "spearman")
        and row.task == "mpra.tsv: Effect"
    ]  # fmt: skip
    assert (row.value, row.step, row.checkpoint) == (
        mine["l2_tokens_l2"]["spearman"]["value"], 5, str(workdir),
    )  # fmt: skip


def test_classes(tmp_path, base_options, capsys):
    vcf = write_vcf(tmp_path / "in.vcf", many(60))
    out = tmp_path / "out.parquet"
    assert score(*base_options, "--vcf", vcf, "--out", out, "--label", "AF<0.3") == 0
    said = capsys.readouterr().out
    table = pq.read_table(out)
    positive = table["label"].to_numpy() == 1
    assert f"60 labelled alleles (0 without a label), {positive.sum()} positive" in said
    from sklearn.metrics import average_precision_score, roc_auc_score

    minus = -table["llr"].to_numpy().astype(float)
    line = next(line for line in said.splitlines() if line.startswith("  -llr "))
    assert f"{roc_auc_score(positive, minus):.3f} [" in line
    assert f"{average_precision_score(positive, minus):.3f} [" in line


CLINVAR = {
    "Pathogenic": 12,
    "Likely_pathogenic": 5,
    "Pathogenic/Likely_pathogenic": 3,
    "Uncertain_significance": 9,
    "Conflicting_classifications_of_pathogenicity": 4,
    "Likely_benign": 6,
    "Benign": 8,
    None: 2,
}
"""CLNSIG of a file like ClinVar's, and how many records have it."""


@pytest.fixture
def clinvar(tmp_path) -> pathlib.Path:
    records = [record.partition("AF=")[0] for record in many(sum(CLINVAR.values()))]
    texts = [text for text, count in CLINVAR.items() for _ in range(count)]
    random.Random(0).shuffle(texts)
    lines = [
        record + (f"ALLELEID=1;CLNSIG={text};ORIGIN=1" if text else "ALLELEID=1;ORIGIN=1")
        for record, text in zip(records, texts, strict=True)
    ]
    path = write_vcf(tmp_path / "clinvar.vcf", lines)
    declared = '##INFO=<ID=CLNSIG,Number=.,Type=String,Description="classification">\n##FORMAT'
    path.write_text(path.read_text().replace("##FORMAT", declared))
    return path


def test_positives_and_negatives_of_clinvar_are_named_and_the_rest_has_no_label(
    tmp_path, base_options, clinvar, capsys
):
    out = tmp_path / "out.parquet"
    label = "CLNSIG=Pathogenic,Likely_pathogenic:Benign,Likely_benign,Benign/Likely_benign"
    options = [*base_options, "--vcf", clinvar, "--out", out]
    assert score(*options, "--label", label) == 0
    said = capsys.readouterr().out
    values = pq.read_table(out)["label"].to_pylist()
    assert (values.count(1), values.count(0), values.count(None)) == (17, 14, 18)
    assert f"{label}: 31 labelled alleles (18 without a label), 17 positive (label 1)" in said
    assert "  positive: Pathogenic 12, Likely_pathogenic 5\n" in said
    assert "  negative: Benign 8, Likely_benign 6, Benign/Likely_benign 0\n" in said
    assert (
        "  unlabelled: Uncertain_significance 9, Conflicting_classifications_of_pathogenicity 4, "
        "Pathogenic/Likely_pathogenic 3, no value 2\n"
    ) in said
    from sklearn.metrics import roc_auc_score

    known = [row for row, value in enumerate(values) if value is not None]
    minus = -pq.read_table(out)["llr"].to_numpy().astype(float)
    expected = roc_auc_score([values[row] for row in known], minus[known])
    line = next(line for line in said.splitlines() if line.startswith("  -llr "))
    assert f"{expected:.3f} [" in line


def test_with_one_text_all_others_are_negatives_and_are_named(
    tmp_path, base_options, clinvar, capsys
):
    out = tmp_path / "out.parquet"
    options = ["--vcf", clinvar, "--out", out, "--label", "CLNSIG=Pathogenic", "--json"]
    assert score(*base_options, *options) == 0
    label = json.loads(capsys.readouterr().out)["label"]
    assert (label["alleles"], label["unlabelled"], label["positives"]) == (47, 2, 12)
    assert label["texts"] == {
        "positive": {"Pathogenic": 12},
        "negative": {name: n for name, n in CLINVAR.items() if name not in (None, "Pathogenic")},
        "unlabelled": {"no value": 2},
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "x.vcf"], "written as .vcf.gz or .parquet"),
        (["--out", "x.parquet", "--out", "x.parquet"], "named twice"),
        (["--window", "3"], "--window 3: the model takes 4 to 40 tokens"),
        (["--window", "41"], "--window 41: the model takes 4 to 40 tokens"),
        (["--layers", "3"], r"layer 3: the model has layers 1..2"),
        (["--label", "AFF"], "declares no INFO field 'AFF'; did you mean 'AF'"),
        (["--label", "AF<low"], "'low' is no number"),
        (["--label", "KIND"], "line 7: KIND is 'x', no number; name the texts of positives"),
        (["--label", "KIND=x"], "in.vcf: --label KIND=x gives only 1, nothing to rank"),
        (["--label", "KIND=x:y"], "in.vcf: --label KIND=x:y gives only 1, nothing to rank"),
        (["--label", "KIND=x:"], "--label 'KIND=x:': an empty text"),
        (["--label", "<3"], "NAME, NAME<X, NAME>X, NAME=POSITIVE,...:NEGATIVE,... or NAME=TEXT"),
        (
            ["--group", "KIND"],
            "--group: scores are compared within groups where there is a --label",
        ),
        (["--fasta", "none.fa"], "none.fa: cannot be read"),
    ],
)
def test_bad_calls_are_refused_and_leave_nothing(
    tmp_path, base_options, capsys, monkeypatch, options, message
):
    monkeypatch.chdir(tmp_path)
    vcf = write_vcf(tmp_path / "in.vcf", many(20))
    given = [*base_options, "--vcf", vcf, *options]
    if "--out" not in options:
        given += ["--out", "out.parquet"]
    assert score(*given) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert [path.name for path in tmp_path.iterdir()] == ["in.vcf"]


def test_bad_variants_are_refused_with_the_way_out(tmp_path, base_options, capsys):
    def error(records: list[str], *outs: str, header: str = "") -> str:
        vcf = write_vcf(tmp_path / "in.vcf", records)
        vcf.write_text(vcf.read_text().replace("##FORMAT", f"{header}##FORMAT"))
        given = [*base_options, "--vcf", vcf]
        assert score(*given, "--out", *(tmp_path / out for out in outs)) == 2
        return capsys.readouterr().err

    plain = [record.removeprefix("chr") for record in many(3)]
    assert "ref.fa has 'chr1': rename the contigs" in error(plain, "a.parquet")
    other = [record.replace("chr1", "scaffold", 1) for record in many(3)]
    assert "none of its contigs is in the reference: scaffold; " in error(other, "a.parquet")
    turned = [f"chr1\t{p}\t.\t{base(p)}\t{others(p)[0]}\t.\t.\t." for p in (1200, 1100)]
    said = error(turned, "a.vcf.gz", "a.parquet")
    assert "line 8: chr1:1100 comes after chr1:1200" in said
    assert "sort them with bcftools sort" in said
    assert score(*base_options, "--vcf", tmp_path / "in.vcf", "--out", tmp_path / "b.parquet") == 0
    assert "no variant in it" in error([], "a.parquet")
    mine = '##INFO=<ID=NT_LLR,Number=A,Type=Float,Description="old">\n'
    assert "bcftools annotate -x INFO/NT_LLR" in error(many(2), "a.vcf.gz", header=mine)
    table = tmp_path / "t.tsv"
    table.write_text("chrom\tpos\tref\talt\nchr1\t1100\t-\tA\n")
    assert score(*base_options, "--table", table, "--out", tmp_path / "a.vcf.gz") == 2
    assert "a table has no VCF header" in capsys.readouterr().err
