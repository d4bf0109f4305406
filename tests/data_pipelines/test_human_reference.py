"""The human reference: its chromosomes by any of their names, and nothing else.

Random letters of small lengths stand for the 3.1 billion bases.
"""

import json

import numpy as np
import pytest

from data_pipelines import human_reference
from data_pipelines.human_reference import LENGTHS, MANIFEST, source
from data_pipelines.manifest import write_manifest
from nt_jax import cli
from nt_jax.errors import InputError

REFSEQ = {name: accession for accession, name in human_reference._REFSEQ.items()}
NAMES = {
    "ucsc": lambda name: name,
    "ensembl": lambda name: name.removeprefix("chr"),
    "refseq": REFSEQ.__getitem__,
}
EXTRAS = {"chrM": 300, "NT_187361.1": 400, "chr1_KI270706v1_random": 500, "NC_012920.1": 50}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(
        human_reference, "LENGTHS", {name: LENGTHS[name] // 50_000 for name in LENGTHS}
    )


def write(path, naming, lengths=None):
    letters = np.random.default_rng(0).choice(list("ACGT"), 10_000)
    lengths = human_reference.LENGTHS if lengths is None else lengths
    records = {naming(name): length for name, length in lengths.items()} | EXTRAS
    text = "".join(
        f">{name} Homo sapiens\n{''.join(np.roll(letters, i * 7)[:length])}\n"
        for i, (name, length) in enumerate(records.items())
    )
    path.write_text(text)
    return path


def test_the_published_assembly():
    assert sum(LENGTHS.values()) == 3_088_269_832
    assert len(set(human_reference._REFSEQ.values())) == len(LENGTHS) == 24


def test_its_manifest_can_be_written(tmp_path):
    write_manifest(tmp_path / "m.tsv", MANIFEST.assemblies)


@pytest.mark.parametrize("naming", NAMES)
def test_the_published_split_whatever_the_names(tmp_path, naming, capfd):
    path = write(tmp_path / "g.fa", NAMES[naming])
    command = ["data", "build", "human_reference", "--fasta", str(path)]
    command += ["--out", str(tmp_path / "out"), "--recipe", "window=100,stride=100,jitter=0"]
    assert cli.main(command) == 0
    assert "4 contigs of 1,250 bases are no primary chromosomes" in " ".join(
        capfd.readouterr().err.split()
    )
    card = json.loads((tmp_path / "out" / "datacard.json").read_text())
    assert (card["validation"], card["test"]) == (["chr21"], ["chr22"])
    (genome,) = card["sources"]
    assert (genome["contigs"], genome["left_out_contigs"], genome["left_out_bases"]) == (
        24,
        4,
        1250,
    )
    windows = {name: length // 100 for name, length in human_reference.LENGTHS.items()}
    assert card["splits"]["validation"] == windows.pop("chr21")
    assert card["splits"]["test"] == windows.pop("chr22")
    assert card["splits"]["train"] == sum(windows.values())


def test_another_assembly_is_refused(tmp_path):
    lengths = human_reference.LENGTHS
    other = write(tmp_path / "g.fa", NAMES["ucsc"], lengths | {"chr2": lengths["chr2"] + 1})
    with pytest.raises(InputError, match="chr2 has 4,844 bases, 4,843 in GRCh38; another assembly"):
        source(other)
    some = write(tmp_path / "g.fa", NAMES["ucsc"], {"chr1": lengths["chr1"]})
    with pytest.raises(InputError, match=r"23 of 24 chromosomes are missing \(first: chr2"):
        source(some)
    twice = write(tmp_path / "g.fa", NAMES["ucsc"])
    with twice.open("a") as file:
        file.write(">NC_000001.11\nACGT\n")
    with pytest.raises(InputError, match=r"NC_000001\.11: chr1 is there twice"):
        source(twice)


def test_without_a_file_the_fetching_command_is_named(tmp_path, capfd):
    command = ["data", "build", "human_reference", "--out", str(tmp_path / "out")]
    assert cli.main(command) == 2
    assert "`nt-jax data fetch human_reference --out DIR`" in capfd.readouterr().err
    assert cli.main([*command, "--data-dir", str(tmp_path)]) == 2
    assert f"`nt-jax data fetch human_reference --out {tmp_path}` first" in capfd.readouterr().err


def test_people_of_one_file_a_chromosome(tmp_path, capfd):
    """The genotypes name the chromosomes as UCSC does, the reference as RefSeq."""
    path = write(tmp_path / "g.fa", NAMES["refseq"])
    lines = path.read_text().splitlines()
    contigs = {name: lines[2 * i + 1] for i, name in enumerate(LENGTHS)}
    files = []
    for name in ("chr1", "chr22"):
        ref = contigs[name][49]
        alt = "A" if ref != "A" else "C"
        columns = [name, "50", ".", ref, alt, ".", ".", ".", "GT", "0|1", "1|1"]
        header = ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT", "a", "b"]
        head = f"##fileformat=VCFv4.2\n##contig=<ID={name}>\n"
        head += '##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">\n'
        files.append(tmp_path / f"{name}.vcf")
        files[-1].write_text(head + "\t".join(header) + "\n" + "\t".join(columns) + "\n")
    command = ["data", "build", "thousand_genomes", "--fasta", str(path), "--vcf", *map(str, files)]
    command += ["--out", str(tmp_path / "out"), "--recipe", "window=100,stride=100,jitter=0"]
    assert cli.main([*command, "--workers", "2"]) == 0
    assert "GRCh38: 4 haplotypes" in capfd.readouterr().err
    card = json.loads((tmp_path / "out" / "datacard.json").read_text())
    assert (card["validation"], card["test"]) == (["chr21"], ["chr22"])
    read = card["sources"][0]["haplotypes"]["read"]
    assert [(counts["records"], counts["carriers"]) for counts in read] == [(1, 3), (1, 3)]
