"""Building a dataset: complete or absent, the same bytes however it is made, nothing uncounted."""

import functools
import hashlib
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines import shards
from data_pipelines.builders import build
from data_pipelines.fasta import Contig, read_fasta
from data_pipelines.records import parse_record
from data_pipelines.sources import Source, fasta_sources
from data_pipelines.windows import Recipe
from nt_jax.errors import InputError

RECIPE = "window=60,stride=50,jitter=10,tokens=9"


def simulated(length, seed=0):
    """Uniform random bases: simulated, not a genome."""
    letters = np.frombuffer(b"ACGT", np.uint8)
    return np.random.default_rng(seed).choice(letters, length).tobytes()


def write_fasta(path, **contigs):
    path.write_bytes(b"".join(b">%s\n%s\n" % (n.encode(), s) for n, s in contigs.items()))
    return path


@pytest.fixture
def genome(tmp_path):
    return write_fasta(tmp_path / "g.fa", a=simulated(30_000), b=simulated(9_000, 1), c=b"ACGT")


build_simulated = functools.partial(build, recipe=RECIPE, kind="simulated", shard_windows=100)


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def records(folder, split):
    source = tfds.builder_from_directory(folder).as_data_source(split)
    return [source[i] for i in range(len(source))]


def test_tfds_reads_the_windows_at_their_coordinates(genome, tmp_path):
    built = build_simulated([genome], tmp_path / "out")
    assert built.path == tmp_path / "out"
    contigs = {contig.name: contig.bases.tobytes() for contig in read_fasta(genome)}
    seen = 0
    for split, count in built.datacard["splits"].items():
        rows = records(built.path, split)
        assert len(rows) == count
        for row in rows:
            start = row["start"]
            assert row["sequence"] == contigs[row["contig"].decode()][start : start + 60]
            assert row["source"] == b"g"
        seen += count
    dropped = built.datacard["dropped"]
    planned = sum(len(range(0, len(bases) - 59, 50)) for bases in contigs.values())
    assert seen + dropped["boundary_windows"] == planned
    assert dropped["short_contigs"] == 1


def test_no_base_is_in_two_splits(genome, tmp_path):
    built = build_simulated([genome], tmp_path / "out", validation_share=0.3)
    owner = {}
    for split in built.datacard["splits"]:
        for row in records(built.path, split):
            for base in range(row["start"], row["start"] + 60):
                assert owner.setdefault((row["contig"], base), split) == split
    assert set(owner.values()) == {"train", "validation"}


def test_named_contigs_are_the_splits(genome, tmp_path):
    built = build_simulated([genome], tmp_path / "out", validation=["b"])
    assert {row["contig"] for row in records(built.path, "train")} == {b"a"}
    assert {row["contig"] for row in records(built.path, "validation")} == {b"b"}
    assert built.datacard["dropped"]["boundary_windows"] == 0


def test_region_header_gives_records_their_true_start(tmp_path):
    path = write_fasta(tmp_path / "g.fa", **{"chr2:1001-1130": simulated(130)})
    built = build_simulated([path], tmp_path / "out")
    assert [(row["contig"], row["start"]) for row in records(built.path, "train")] == [
        (b"chr2", 1000),
        (b"chr2", 1050),
    ]


def test_the_datacard_counts_everything(tmp_path):
    bases = simulated(600)[:300].lower() + b"N" * 200 + b"U" * 10 + b"R" * 5 + simulated(485)
    path = write_fasta(tmp_path / "g.fa", a=bases, b=b"ACGT")
    card = build_simulated([path], tmp_path / "out").datacard
    (source,) = card["sources"]
    assert (source["contigs"], source["bases"]) == (2, len(bases) + 4)
    assert (source["n"], source["soft_masked"]) == (205, 300)
    assert (source["converted_u"], source["iupac"]) == (10, 5)
    sequence = b"".join(contig.bases.tobytes() for contig in read_fasta(path))
    gc = (sequence.count(b"G") + sequence.count(b"C")) / (len(sequence) - 205)
    assert source["gc"] == pytest.approx(gc, abs=1e-6)
    assert source["files"][0]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    starts = range(0, len(bases) - 59, 50)
    mostly_n = [s for s in starts if bases[s : s + 60].replace(b"R", b"N").count(b"N") > 30]
    assert source["dropped"]["n_windows"] == len(mostly_n) > 0
    assert card["kind"] == "simulated"
    for shard in card["shards"]:
        stored = (tmp_path / "out" / shard["file"]).read_bytes()
        assert shard["sha256"] == hashlib.sha256(stored).hexdigest()
        assert shard["bytes"] == len(stored)
    assert json.loads((tmp_path / "out" / "datacard.json").read_text()) == card


def test_any_number_of_workers_and_any_folder_give_the_same_bytes(genome, tmp_path):
    one = build_simulated([genome], tmp_path / "one").path
    (tmp_path / "deep").mkdir()
    two = build_simulated([genome], tmp_path / "deep" / "two", workers=2).path
    assert contents(one) == contents(two)
    assert len([name for name in contents(one) if "train" in name]) > 5


def test_the_seed_moves_the_validation_blocks(genome, tmp_path):
    zero = build_simulated([genome], tmp_path / "0").path
    one = build_simulated([genome], tmp_path / "1", seed=1).path
    assert records(zero, "validation")[0] != records(one, "validation")[0]


def test_building_again_does_nothing_and_other_arguments_are_refused(genome, tmp_path):
    first = build_simulated([genome], tmp_path / "out")
    before = contents(first.path)
    again = build_simulated([genome], tmp_path / "out", workers=2)
    assert (first.existed, again.existed) == (False, True)
    assert again.datacard == first.datacard
    assert contents(first.path) == before
    with pytest.raises(InputError, match="other input or arguments"):
        build_simulated([genome], tmp_path / "out", seed=5)
    write_fasta(genome, a=simulated(30_000, 9))
    with pytest.raises(InputError, match="other input or arguments"):
        build_simulated([genome], tmp_path / "out")


def test_a_folder_of_something_else_is_never_touched(genome, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="no dataset of this program"):
        build_simulated([genome], tmp_path / "out")
    assert contents(tmp_path / "out") == {"thesis.txt": b"precious"}
    (tmp_path / "empty").mkdir()
    assert build_simulated([genome], tmp_path / "empty").path.is_dir()


def test_a_failed_build_leaves_nothing(tmp_path):
    path = write_fasta(tmp_path / "g.fa", a=simulated(900), b=b"ACGTQ")
    with pytest.raises(InputError, match="'Q'"):
        build_simulated([path], tmp_path / "out")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["g.fa"]


def test_sources_are_told_apart(tmp_path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        write_fasta(tmp_path / folder / "g.fa", a=simulated(3_000, len(folder + "x") + ord(folder)))
    other = write_fasta(tmp_path / "h.fna", a=simulated(3_000, 3))
    paths = [tmp_path / "x" / "g.fa", tmp_path / "y" / "g.fa", other]
    assert [source.name for source in fasta_sources(paths)] == ["x/g", "y/g", "h"]
    built = build_simulated(paths, tmp_path / "out", validation=["y/g:a"])
    assert {row["source"] for row in records(built.path, "train")} == {b"x/g", b"h"}
    with pytest.raises(InputError, match="given twice"):
        fasta_sources([other, other])
    copy = tmp_path / "copy.fa"
    copy.write_bytes(other.read_bytes())
    with pytest.raises(InputError, match="same content"):
        build_simulated([other, copy], tmp_path / "out2")


def test_contigs_may_come_from_elsewhere(tmp_path):
    """Haplotypes and manifests hand in their own sources."""
    bases = np.frombuffer(simulated(5_000), np.uint8)

    def read():
        yield Contig("made", bases, 100, 0, 0, 0)

    built = build_simulated([Source("elsewhere", (), read)], tmp_path / "out")
    rows = records(built.path, "train")
    assert rows[0]["source"] == b"elsewhere"
    assert all(
        row["sequence"] == bases.tobytes()[row["start"] - 100 : row["start"] - 40] for row in rows
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"recipe": "hf6200"}, "no window of 6200 bases is left of 3 contigs .the longest, a"),
        ({"validation": ["a", "b"]}, "no window is left for training"),
        ({"validation": ["c"]}, "--validation c: no window of 60 bases"),
        ({"test": ["d"]}, "--test d: no contig has this name"),
        ({"kind": "imagined"}, "'real' or 'simulated'"),
    ],
)
def test_impossible_requests_are_refused(tmp_path, arguments, expected):
    path = write_fasta(tmp_path / "g.fa", a=simulated(900), b=simulated(900, 1), c=b"ACGT")
    with pytest.raises(InputError, match=expected):
        build_simulated([path], tmp_path / "out", **arguments)
    with pytest.raises(InputError, match="at least one FASTA"):
        build_simulated([], tmp_path / "out")


@settings(deadline=None, max_examples=15)
@given(
    lengths=st.lists(st.integers(1, 900), min_size=1, max_size=5),
    length=st.integers(5, 60),
    stride=st.integers(5, 60),
    shard_windows=st.integers(1, 20),
)
def test_every_window_is_in_exactly_one_shard(
    tmp_path_factory, lengths, length, stride, shard_windows
):
    folder = tmp_path_factory.mktemp("build")
    contigs = {f"c{i}": simulated(n, i) for i, n in enumerate([200, *lengths])}
    path = write_fasta(folder / "g.fa", **contigs)
    cutting = Recipe("any", length, stride, jitter=0, tokens=2)
    built = build([path], folder / "out", recipe=cutting, shard_windows=shard_windows)
    found = []
    for shard in built.datacard["shards"]:
        reader = builders_reader(folder / "out" / shard["file"])
        assert len(reader) == shard["records"] <= shard_windows
        found += [(row["contig"], row["start"]) for row in map(parse_record, reader)]
    planned = [(n, s) for n, b in contigs.items() for s in range(0, len(b) - length + 1, stride)]
    assert len(set(found)) == len(found)
    assert set(found) <= set(planned)
    assert len(planned) - len(found) == built.datacard["dropped"]["boundary_windows"]


def builders_reader(path):
    reader = shards.ArrayRecordReader(str(path))
    return reader.read_all()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text("ACGTN", min_size=1, max_size=400), min_size=1, max_size=4),
    st.integers(5, 40),
    st.integers(1, 60),
    st.integers(0, 3),
)
def test_every_base_is_in_a_window_or_counted_as_dropped(letters, length, stride, seed):
    # Runs of N as long as windows are not drawn by chance.
    bases = [text.replace("N", "N" * 30).encode() for text in letters]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        path = write_fasta(folder / "g.fa", **{f"c{i}": text for i, text in enumerate(bases)})
        try:
            recipe = f"window={length},stride={stride},jitter=0,tokens=2"
            built = build([path], folder / "out", recipe=recipe, seed=seed, kind="simulated")
        except InputError:  # no window, or none for training
            return
        (source,) = built.datacard["sources"]
        covered = {
            (row["contig"], base)
            for shard in built.datacard["shards"]
            for row in map(parse_record, builders_reader(built.path / shard["file"]))
            for base in range(row["start"], row["start"] + length)
        }
    assert source["bases_in_windows"] == len(covered)
    assert source["bases"] == len(covered) + sum(source["dropped_bases"].values())
    short = sum(len(text) for text in bases if len(text) < length)
    assert source["dropped_bases"]["short_contigs"] == short


@pytest.mark.parametrize("bucket", ["gs://bucket/data", "s3://bucket", pathlib.Path("gs://b/d")])
def test_a_bucket_is_no_folder_of_that_name(genome, bucket):
    with pytest.raises(InputError, match="mount the bucket"):
        build_simulated([genome], bucket)


def test_thousands_of_small_contigs_are_not_thousands_of_open_files(tmp_path):
    path = write_fasta(tmp_path / "g.fa", **{f"c{i}": simulated(70, i) for i in range(3_000)})
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
    try:
        card = build([path], tmp_path / "out", recipe=RECIPE, kind="simulated").datacard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert sum(card["splits"].values()) == 3_000


def test_a_real_genome_is_counted_whole(real_data, tmp_path):
    path = real_data / "genomes" / "species" / "saccharomyces_cerevisiae_R64-1-1.fa.gz"
    card = build([path], tmp_path / "out", recipe="hf6200").datacard
    (source,) = card["sources"]
    assert (source["contigs"], source["bases"], source["n"]) == (17, 12_157_105, 0)
    lengths = [len(contig.bases) for contig in read_fasta(path)]
    planned = sum(len(range(0, length - 6199, 6000)) for length in lengths)
    assert sum(card["splits"].values()) + card["dropped"]["boundary_windows"] == planned
    assert 0.05 <= card["splits"]["validation"] / planned < 0.1


def test_neither_tensorflow_nor_jax_is_imported(genome, tmp_path):
    script = f"""
import pkgutil, sys
import data_pipelines
names = [module.name for module in pkgutil.iter_modules(data_pipelines.__path__)]
assert "builders" in names and "verify" in names
for name in ("fasta", "windows", "sources", "survey", "shards", "builders", "verify"):
    __import__("data_pipelines." + name)
import tensorflow_datasets as tfds
from data_pipelines.builders import build
built = build([{str(genome)!r}], {str(tmp_path / "out")!r}, recipe={RECIPE!r}, kind="simulated")
source = tfds.builder_from_directory(built.path).as_data_source("train")
assert len(source[0]["sequence"]) == 60
assert "tensorflow" not in sys.modules and "jax" not in sys.modules, "imported"
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=pathlib.Path(os.getcwd()))
