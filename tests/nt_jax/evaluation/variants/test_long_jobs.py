"""`nt-jax score` killed, taken up again, mixed up with another call, and on many genotypes."""

import itertools
import os
import random
import resource
import signal
import time

import pysam
import pysam.bcftools
import pytest

from nt_jax.evaluation.results import read_rows
from nt_jax.evaluation.variants import job
from tests.nt_jax.evaluation.variants.calls import finished, many, score, start, write_vcf
from tests.nt_jax.evaluation.variants.conftest import WINDOW


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
