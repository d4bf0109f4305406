"""Datasets with phased genotypes: what training reads is what bcftools makes of the same people."""

import dataclasses
import functools
import json
import struct

import numpy as np
import pysam
import pysam.bcftools
import pytest

from data_pipelines import staged
from data_pipelines.builders import build
from data_pipelines.fasta import read_fasta
from data_pipelines.genotypes import open_panel
from data_pipelines.sources import fasta_sources
from data_pipelines.verify import verify
from nt_jax import cli, data
from nt_jax.config import DataConfig
from nt_jax.errors import InputError
from nt_jax.tokenizers import KmerTokenizer
from tests.data_pipelines.test_genotypes import consensus
from tests.nt_jax import runs

RECIPE = "window=3000,stride=2900,jitter=50,tokens=401"
TOKENS = 401
TOKENIZER = KmerTokenizer(k=6)
SAMPLES = 40


@pytest.fixture(scope="module")
def vcf(real_data):
    return real_data / "variants" / "1kg30x_chr22_16.6-16.8Mb_3202samples_GRCh38.vcf.gz"


@pytest.fixture(scope="module")
def fasta(real_data):
    return real_data / "genomes" / "human" / "GRCh38_chr22_16600000-16800000.fa.gz"


@pytest.fixture(scope="module")
def people(vcf):
    """Every 80th sample of the panel."""
    return open_panel(vcf).samples[::80][:SAMPLES]


@pytest.fixture(scope="module")
def source(vcf, fasta, people):
    (source,) = fasta_sources([fasta])
    return dataclasses.replace(source, panels=(open_panel(vcf, people),))


@pytest.fixture(scope="module")
def folder(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("haplotypes") / "data"
    build([source], folder, recipe=RECIPE)
    return folder


@pytest.fixture(scope="module")
def plain(fasta, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain") / "data"
    build([fasta], folder, recipe=RECIPE)
    return folder


def batches(folder, steps=6, start=0, **options):
    config = DataConfig(sequence_length=TOKENS, **options)
    stream = data.train_batches(
        data.open_dataset(folder),
        TOKENIZER,
        config,
        global_batch=8,
        seed=3,
        start_step=start,
        stop_step=steps,
    )
    return np.stack(list(stream))


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_windows_that_training_reads_are_those_of_bcftools(
    folder, vcf, fasta, people, tmp_path
):
    """Base for base, at the place that trace names."""
    dataset = data.open_dataset(folder)
    (reference,) = read_fasta(fasta)
    written, indexed = tmp_path / "reference.fa", tmp_path / "panel.bcf"
    span = f"{reference.start + 1}-{reference.start + len(reference.bases)}"
    written.write_text(f">{reference.name}:{span}\n{reference.bases.tobytes().decode()}\n")
    chosen = ",".join(people)
    pysam.bcftools.view("-Ob", "-s", chosen, "-o", str(indexed), str(vcf), catch_stdout=False)
    pysam.bcftools.index(str(indexed))
    whole = functools.cache(functools.partial(consensus, str(indexed), written))
    config = DataConfig(sequence_length=TOKENS)
    order = data.train_order(dataset, TOKENIZER, config, global_batch=8, seed=3)
    read = data.window_reader(dataset, config)
    seen, compared, changed = set(), 0, 0
    for row in range(160):
        ref = data.locate(order, row // 8, row % 8)
        record = dataset.records("train")[ref.index]
        drawn = read(record, ref.draw)
        window = dataset.window("train", ref.index)
        sample, side = dataset.sample(window["source"], drawn.haplotype)
        seen.add((sample, side))
        haplotype, left_out = whole(sample, side - 1)
        if left_out:
            continue
        at = haplotype.find(drawn.bases.decode())
        assert at >= 0, (sample, side, window["start"])
        # What stands in front of the window is the haplotype of the bases in front of its start.
        start = drawn.position(0) - reference.start
        assert abs(at - start) <= 200
        compared += 1
        changed += drawn.bases != window["sequence"]
    assert compared > 120
    assert changed > 100
    assert len(seen) > SAMPLES


def test_the_reference_alone_is_the_dataset_without_genotypes(folder, plain):
    np.testing.assert_array_equal(batches(folder, haplotypes="reference"), batches(plain))
    assert (batches(folder) != batches(plain)).any()


def test_a_haplotype_depends_on_the_step_and_the_row_alone(folder):
    whole = batches(folder)
    np.testing.assert_array_equal(batches(folder, start=4), whole[4:])
    np.testing.assert_array_equal(batches(folder, workers=2), whole)


def test_every_haplotype_is_drawn_about_as_often(folder):
    dataset = data.open_dataset(folder)
    config = DataConfig(sequence_length=TOKENS)
    order = data.train_order(dataset, TOKENIZER, config, global_batch=8, seed=0)
    read = data.window_reader(dataset, config)
    record = dataset.records("train")[0]
    drawn = [read(record, data.locate(order, i // 8, i % 8).draw).haplotype for i in range(8000)]
    counts = np.bincount(drawn, minlength=2 * SAMPLES)
    assert len(counts) == 2 * SAMPLES
    assert ((counts - 100) ** 2 / 100).sum() < 130  # chi-square, 79 degrees of freedom: p > 0.0003


def test_any_number_of_workers_gives_the_same_bytes(source, folder, tmp_path):
    build([source], tmp_path / "data", recipe=RECIPE, workers=2)
    assert contents(tmp_path / "data") == contents(folder)


def test_an_interrupted_build_keeps_the_genotypes_it_has_read(
    source, folder, tmp_path, monkeypatch
):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("data_pipelines.builders.write_shards", interrupted)
        with pytest.raises(KeyboardInterrupt):
            build([source], tmp_path / "data", recipe=RECIPE)
    (tmp_path / "data.incomplete" / "part-alleles-00000-00001").mkdir()  # as a kill leaves it
    monkeypatch.setattr(staged, "_read", interrupted)
    build([source], tmp_path / "data", recipe=RECIPE)
    assert contents(tmp_path / "data") == contents(folder)


def test_verify_reads_the_haplotypes_too(source, folder, tmp_path, monkeypatch):
    assert not verify(folder).problems
    torn = struct.pack("<II", 5, 2 * SAMPLES)  # five alleles, and none of them is there
    monkeypatch.setattr("data_pipelines.shards.pack", lambda *_: torn)
    build([source], tmp_path / "data", recipe=RECIPE)
    (problem, *_) = verify(tmp_path / "data").problems
    assert "record 0 has alleles that cannot be read" in problem


def test_the_command_line_builds_trains_and_traces(vcf, fasta, tmp_path, capsys):
    names = tmp_path / "names.txt"
    names.write_text("HG00096\nHG00097\nHG00099\n")
    out = tmp_path / "data"
    chosen = ["--samples", str(names), "--exclude-samples", "HG00097", "--min-allele-count", "2"]
    recipe = ["--recipe", "window=200,stride=200,jitter=0,tokens=33"]
    where = ["--fasta", str(fasta), "--vcf", str(vcf), "--out", str(out)]
    assert cli.main(["data", "build", "fasta", *where, *chosen, *recipe]) == 0
    card = json.loads((out / "datacard.json").read_text())
    assert card["sources"][0]["haplotypes"]["samples"] == ["HG00096", "HG00099"]
    assert card["sources"][0]["haplotypes"]["read"][0]["skipped"]["too_rare"] > 4000
    assert "4 haplotypes" in capsys.readouterr().err
    assert cli.main(["data", "verify", str(out)]) == 0
    experiment = runs.make_experiment(tmp_path)
    workdir = tmp_path / "run"
    train = ["--train.steps", "12", "--data", str(out), "--workdir", str(workdir)]
    assert cli.main(["pretrain", str(experiment), *train]) == 0
    capsys.readouterr()
    assert cli.main(["data", "trace", str(workdir), "--step", "2", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["sample"] for row in rows} <= {"HG00096", "HG00099"}
    assert {row["haplotype"] for row in rows} == {1, 2}
    assert cli.main(["data", "trace", str(workdir), "--step", "2"]) == 0
    assert f"{rows[0]['sample']}:{rows[0]['haplotype']}" in capsys.readouterr().out


def test_populations_are_chosen_by_name(vcf, fasta, tmp_path, capsys):
    table = tmp_path / "people.tsv"
    rows = ["HG00096\tGBR\tEUR", "HG00171\tFIN\tEUR", "NA18486\tYRI\tAFR", "HG00097\tGBR\tEUR"]
    table.write_text("\n".join(["sample\tpop\tsuper_pop", *rows]) + "\n")
    where = ["--fasta", str(fasta), "--vcf", str(vcf), "--out", str(tmp_path / "data")]
    chosen = ["--samples", "EUR", "NA18486", "--exclude-samples", "FIN"]
    recipe = ["--recipe", "window=200,stride=2000,jitter=0,tokens=33"]
    build_them = ["data", "build", "fasta", *where, *chosen, *recipe]
    assert cli.main([*build_them, "--sample-table", str(table)]) == 0
    card = json.loads((tmp_path / "data" / "datacard.json").read_text())
    samples = set(card["sources"][0]["haplotypes"]["samples"])
    assert samples == {"HG00096", "HG00097", "NA18486"}
    assert cli.main(build_them) == 2
    assert "EUR" in capsys.readouterr().err
    table.write_text("sample\n")
    assert cli.main([*build_them, "--sample-table", str(table)]) == 2
    assert "no samples with populations" in capsys.readouterr().err


def test_genotypes_that_do_not_fit_are_refused(source, vcf, fasta, tmp_path, capsys):
    other = dataclasses.replace(source, panels=(source.panels[0], open_panel(vcf, ["HG00096"])))
    with pytest.raises(InputError, match="other samples, or another order of them"):
        build([other], tmp_path / "data", recipe=RECIPE)
    twice = dataclasses.replace(source, panels=source.panels * 2)
    with pytest.raises(InputError, match="contig chr22 is in another file too; concatenate"):
        build([twice], tmp_path / "twice", recipe=RECIPE)
    assert not (tmp_path / "twice.incomplete").exists()
    where = ["--fasta", str(fasta), str(fasta), "--vcf", str(vcf), "--out", str(tmp_path / "x")]
    assert cli.main(["data", "build", "fasta", *where]) == 2
    assert "given twice" in capsys.readouterr().err
    where = ["--fasta", str(fasta), "--out", str(tmp_path / "x")]
    assert cli.main(["data", "build", "fasta", *where, "--samples", "HG00096"]) == 2
    assert "name the genotypes with --vcf" in capsys.readouterr().err
    assert cli.main(["data", "build", "thousand_genomes", *where]) == 2
    assert "name the phased genotypes with --vcf" in capsys.readouterr().err
