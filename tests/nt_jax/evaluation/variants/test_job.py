"""`nt-jax score` from its files to its files; independent readers look at what comes out."""

import functools
import itertools
import json
import os
import pathlib
import random
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pysam
import pysam.bcftools
import pytest

from nt_jax import cli
from nt_jax.evaluation.results import read_rows
from nt_jax.evaluation.variants import job
from tests.nt_jax.evaluation.variants import reference as brute
from tests.nt_jax.evaluation.variants.conftest import CONTIG
from tests.nt_jax.runs import environment

WINDOW = 8
LOAD = functools.cache(job.load)
HEADER = """##fileformat=VCFv4.2
##INFO=<ID=AF,Number=A,Type=Float,Description="frequency">
##INFO=<ID=KIND,Number=1,Type=String,Description="kind">
##INFO=<ID=X,Number=1,Type=String,Description="text">
##FORMAT=<ID=GT,Number=1,Type=String,Description="genotype">
#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\ts1\ts2
"""


def base(position: int) -> str:
    """Base of chr1 at a 1-based position; the contig begins at 1001."""
    return CONTIG[position - 1001]


def others(position: int) -> list[str]:
    return [letter for letter in "ACGT" if letter != base(position)]


def write_vcf(path: pathlib.Path, records: list[str]) -> pathlib.Path:
    text = "".join(f"{record}\tGT\t0|1\t./.\n" for record in records)
    path.write_text(HEADER + text)
    return path


def many(count: int) -> list[str]:
    """Sorted SNVs and indels with a frequency each."""
    rng = np.random.default_rng(3)
    records = []
    for position in sorted(rng.integers(1010, 1600, count).tolist()):
        ref = CONTIG[position - 1001 : position - 1001 + rng.integers(1, 3)]
        alt = rng.choice(others(position)) + "ACG"[: rng.integers(0, 3)]
        records.append(f"chr1\t{position}\t.\t{ref}\t{alt}\t.\t.\tAF={rng.random():.4f};KIND=x")
    return records


def score(*arguments: object) -> int:
    return cli.main(["score", *map(str, arguments)])


@pytest.fixture
def base_options(workdir, fasta, monkeypatch) -> list[object]:
    # Loaded once for all tests, or each would compile its programs anew.
    monkeypatch.setattr(job, "load", LOAD)
    return ["--checkpoint", workdir, "--fasta", fasta, "--window", WINDOW, "--layers", 2]


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


SMALL_CHUNKS = "import sys; from nt_jax import cli; from nt_jax.evaluation.variants import job;"


def start(*arguments: object, chunk: int = 16) -> subprocess.Popen:
    """The command in a process of its own, with small chunks."""
    code = f"{SMALL_CHUNKS} job.CHUNK = {chunk}; sys.exit(cli.main(sys.argv[1:]))"
    return subprocess.Popen(
        [sys.executable, "-c", code, "score", *map(str, arguments)],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(out: pathlib.Path) -> int:
    return len(list(out.with_name(f"{out.name}.parts").glob("*.parquet")))


@pytest.mark.slow
def test_killed_at_any_moment_it_gives_the_same_bytes(tmp_path, base_options):
    vcf = write_vcf(tmp_path / "in.vcf", many(400))
    whole = [tmp_path / "whole" / name for name in ("out.vcf.gz", "out.parquet")]
    killed = [tmp_path / "killed" / name for name in ("out.vcf.gz", "out.parquet")]
    options = [*base_options, "--vcf", vcf, "--label", "AF<0.3", "--controls"]
    process = start(*options, "--out", *whole)
    assert process.wait(200) == 0, process.stderr.read()
    moments = sorted(random.Random(time.time_ns()).sample(range(1, 25), 2))
    print("killed after", moments, "parts")
    for number, moment in enumerate(moments):
        process = start(*options, "--out", *killed)
        while finished(killed[0]) < moment and process.poll() is None:
            time.sleep(0.01)
        stop = (signal.SIGKILL, signal.SIGTERM)[number]
        process.send_signal(stop)
        assert process.wait(60) == (-signal.SIGKILL, 75)[number], process.stderr.read()
        assert not any(out.exists() for out in killed)
    process = start(*options, "--out", *killed)
    assert process.wait(200) == 0
    assert "going on behind" in process.stderr.read()
    assert {path.name for path in killed[0].parent.iterdir()} == {
        path.name for path in whole[0].parent.iterdir()
    }
    for one, other in zip(whole, killed, strict=True):
        assert one.read_bytes() == other.read_bytes()
    results = [out.with_name("out.results.parquet") for out in (whole[0], killed[0])]
    assert read_rows(results[0]) == read_rows(results[1])


def test_parts_of_another_call_are_never_mixed(tmp_path, base_options, capsys, monkeypatch):
    monkeypatch.setattr(job, "CHUNK", 16)
    vcf = write_vcf(tmp_path / "in.vcf", many(64))
    out = tmp_path / "out.parquet"

    def stopped(*arguments, **keywords):
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(job.output, "write", stopped)
        assert score(*base_options, "--vcf", vcf, "--out", out) == 130
    assert finished(out) == 4
    changed = write_vcf(tmp_path / "other.vcf", many(65))
    for more, name in (
        (["--vcf", vcf, "--pooling", "max"], "pooling"),
        (["--vcf", vcf, "--window", 9], "window"),
        (["--vcf", vcf, "--controls"], "controls"),
        (["--vcf", changed], "variants"),
    ):
        assert score(*base_options, *more, "--out", out) == 2
        error = capsys.readouterr().err
        assert f"holds parts of a call with another {name} (" in error
        assert "or delete the folder to start anew" in error
    key = out.with_name(f"{out.name}.parts") / "key.json"
    hidden = key.rename(tmp_path / "key.json")
    assert score(*base_options, "--vcf", vcf, "--out", out) == 2
    assert "parts without key.json" in capsys.readouterr().err
    hidden.rename(key)
    # Where the variants lie is no matter, what they are is.
    moved = vcf.rename(tmp_path / "moved.vcf")
    assert score(*base_options, "--vcf", moved, "--out", out) == 0
    assert "going on behind 64 of 64 records" in capsys.readouterr().err
    assert not out.with_name(f"{out.name}.parts").exists()


def changed(ref, alt):
    """Bases of the longer allele without what both begin with, and then what both end with."""
    shared = begin_alike(ref, alt)
    ref, alt = ref[shared:], alt[shared:]
    return max(len(ref), len(alt)) - begin_alike(ref[::-1], alt[::-1])


def begin_alike(one, other):
    pairs = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return sum(1 for _ in pairs)


@pytest.mark.slow
def test_genotypes_of_thousands_are_never_in_memory(tmp_path, workdir, real_data):
    """5,496 sites with 3,202 samples take no more memory than a hundred sites without any."""
    large = real_data / "variants" / "1kg30x_chr22_16.6-16.8Mb_3202samples_GRCh38.vcf.gz"
    fasta = real_data / "genomes" / "human" / "GRCh38_chr22_16600000-16800000.fa.gz"
    small = tmp_path / "small.vcf"
    with pysam.BGZFile(str(large)) as file, small.open("w") as sites:
        records = 0
        for line in file:
            columns = line.decode().split("\t", 8)
            sites.write("\t".join(columns[:8]) + "\n" * (not line.startswith(b"##")))
            records += not line.startswith(b"#")
            if records == 100:
                break
    peaks = {}
    for name, vcf in (("small", small), ("large", large)):
        out = tmp_path / name / "out.vcf.gz"
        options = ["--checkpoint", workdir, "--fasta", fasta, "--window", WINDOW, "--vcf", vcf]
        process = start(*options, "--out", out, chunk=job.CHUNK)
        _, status, usage = os.wait4(process.pid, 0)
        assert status == 0, process.stderr.read()
        peaks[name] = usage.ru_maxrss / 1024
        assert isinstance(usage, resource.struct_rusage)
    print(f"peak memory in MiB: {peaks}")
    assert peaks["large"] < peaks["small"] + 200
    written = str(tmp_path / "large" / "out.vcf.gz")
    lines = pysam.bcftools.query("-f", "%REF %ALT %NT_LLR\n", written).splitlines()
    rows = [line.split() for line in lines]
    scored = [score != "." for _, _, score in rows]
    longest = (WINDOW - 1) * 3 // 2  # half of the 3-mers that a window holds beside `<cls>`
    assert scored == [changed(ref, alt) <= longest for ref, alt, _ in rows]
    assert len(scored) == 5496
    assert sum(scored) > 5400
