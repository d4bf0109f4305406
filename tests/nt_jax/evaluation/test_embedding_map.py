"""`nt-jax embed`: the file holds what `embed` gives, and the picture what the file holds."""

import json

import matplotlib.image
import numpy as np
import pyarrow.parquet as pq
import pytest

from nt_jax import cli
from nt_jax.evaluation import embedding_map
from nt_jax.evaluation.embeddings import read_vectors
from nt_jax.evaluation.loading import load
from nt_jax.evaluation.tasks import read_task
from tests.nt_jax.runs import make_dataset, make_experiment, run

COMPLEMENT = str.maketrans("ACGT", "TGCA")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A workdir with a checkpoint, a genome, intervals of it and a labelled table."""
    folder = tmp_path_factory.mktemp("embed")
    data, experiment = make_dataset(folder), make_experiment(folder)
    arguments = ["pretrain", experiment, "--workdir", folder / "run", "--data", data]
    assert run(*arguments, "--train.steps", 12).returncode == 0
    rng = np.random.default_rng(0)
    bases = {name: "".join(rng.choice(list("ACGT"), 500)) for name in ("one", "two")}
    (folder / "g.fa").write_text("".join(f">{name}\n{text}\n" for name, text in bases.items()))
    lines = [
        f"one\t{start}\t{start + 40}\t{name}\t0\t{strand}\n"
        for start, name, strand in [(0, "a", "+"), (10, "b", "-"), (20, "a", "+"), (30, "b", "-")]
    ]
    (folder / "g.bed").write_text("".join(lines))
    rows = [f"{''.join(rng.choice(list('ACGT'), 60))},{row % 2}" for row in range(12)]
    (folder / "task.csv").write_text("sequence,label\n" + "\n".join(rows) + "\n")
    return folder, bases


def embed(folder, *arguments) -> int:
    return cli.main(["embed", "--checkpoint", str(folder / "run"), *map(str, arguments)])


def test_intervals_of_a_genome_with_strand_and_label(folder, tmp_path):
    folder, bases = folder
    out = tmp_path / "x.parquet"
    assert embed(folder, "--fasta", folder / "g.fa", "--bed", folder / "g.bed", "--out", out) == 0
    pieces = [bases["one"][s : s + 40] for s in (0, 10, 20, 30)]
    pieces = [p[::-1].translate(COMPLEMENT) if i % 2 else p for i, p in enumerate(pieces)]
    loaded = load(folder / "run")
    np.testing.assert_allclose(read_vectors(out), loaded.embed(pieces), atol=1e-6)
    table = pq.read_table(out)
    assert table.column_names == ["chrom", "start", "end", "strand", "label", "embedding"]
    assert table["label"].to_pylist() == ["a", "b", "a", "b"]
    assert table["strand"].to_pylist() == ["+", "-", "+", "-"]
    about = json.loads(table.schema.metadata[b"nt-jax"])
    assert about["layer"] == loaded.num_layers
    assert about["step"] == 12
    height, width, _ = matplotlib.image.imread(tmp_path / "x.png").shape
    assert width > height > 400


def test_a_labelled_set_as_npz_and_whole_records(folder, tmp_path):
    folder, _ = folder
    out = tmp_path / "x.npz"
    arguments = ("--task", folder / "task.csv", "--out", out, "--layer", 1, "--pooling", "max")
    assert embed(folder, *arguments) == 0
    task = read_task(folder / "task.csv")
    with np.load(out) as arrays:
        expected = load(folder / "run").embed(task.train.sequences, 1, "max")
        np.testing.assert_allclose(arrays["embedding"], expected, atol=1e-6)
        assert arrays["label"].tolist() == [task.classes[label] for label in task.train.labels]
    whole = tmp_path / "whole.parquet"
    assert embed(folder, "--fasta", folder / "g.fa", "--out", whole) == 0
    assert pq.read_table(whole)["name"].to_pylist() == ["one", "two"]
    # Two records are no picture.
    assert not whole.with_suffix(".png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "task.csv", "--out", "x.csv"], "written as .parquet or .npz"),
        (["--bed", "g.bed", "--task", "task.csv", "--out", "x.npz"], "Give --fasta"),
        (["--task", "task.csv", "--out", "x.npz", "--projection", "pac"], "did you mean 'pca'"),
        (["--task", "task.csv", "--out", "x.npz", "--layer", "9"], "layer 9: the model has layers"),
        (["--task", "task.csv", "--out", "x.npz", "--pooling", "men"], "did you mean 'mean'"),
        (["--out", "x.npz"], "one of the arguments --fasta --task is required"),
    ],
)
def test_bad_input_is_one_line(folder, arguments, message, monkeypatch, capfd):
    monkeypatch.chdir(folder[0])
    assert embed(folder[0], *arguments) == 2
    line, *more = capfd.readouterr().err.splitlines()
    assert not more
    assert message in line


# UMAP is compiled when it is first used: half a minute.
@pytest.mark.parametrize("name", ["pca", pytest.param("umap", marks=pytest.mark.slow)])
def test_projections_put_two_clouds_apart(name: str):
    """Two clouds in 20 dimensions stay two clouds."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    vectors = rng.normal(size=(60, 20)) + 6.0 * labels[:, None]
    places, axes = embedding_map.PROJECTIONS[name](vectors, 0)
    assert places.shape == (60, 2)
    centres = [places[labels == own].mean(axis=0) for own in (0, 1)]
    nearest = np.argmin([np.linalg.norm(places - centre, axis=1) for centre in centres], axis=0)
    assert (nearest == labels).all()
    assert len(set(axes)) == 2


def test_rare_labels_are_gathered():
    labels = [str(number) for number in range(30)] + ["0", "1", "2"] * 5
    rows = embedding_map._frequent(labels)
    assert next(iter(rows)) == embedding_map.OTHERS
    assert len(rows) == embedding_map.MOST_COLOURS + 1
    assert sorted(row for own in rows.values() for row in own) == list(range(len(labels)))
    assert len(rows["0"]) == 6
