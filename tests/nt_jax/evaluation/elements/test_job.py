"""`nt-jax attention` from files to files, as people run it."""

import json
import pathlib

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest

from data_pipelines.elements import CLASSES
from nt_jax import cli, workdir
from nt_jax.checkpoint import Checkpoints
from nt_jax.config import to_dict
from nt_jax.evaluation.elements.windows import element_windows, read_genome
from nt_jax.evaluation.results import read_rows
from nt_jax.optim import optimizer
from nt_jax.step import TrainState
from tests.nt_jax.evaluation.conftest import EXPERIMENT
from tests.nt_jax.evaluation.elements.conftest import write_genome

FILES = {
    "attention.md", "attention.parquet", "results.parquet", "attention.png", "attention_pairs.png",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory, loaded) -> pathlib.Path:
    """A workdir with a checkpoint, and a genome with its annotation."""
    folder = tmp_path_factory.mktemp("attention")
    write_genome(folder, 12_000)
    workdir.create(folder / "run", EXPERIMENT, {"dataset": "x", "init_from": None})
    saver = Checkpoints(folder / "run", EXPERIMENT.checkpoint)
    opt_state = optimizer(EXPERIMENT.optim, 10).init(loaded.params)
    saver.save(TrainState(jax.numpy.int32(5), loaded.params, opt_state), EXPERIMENT, {})
    saver.wait()
    saver.close()
    assert to_dict(EXPERIMENT)
    return folder


def arguments(folder: pathlib.Path, out: str = "out") -> list[str]:
    return [
        "attention", "--checkpoint", str(folder / "run"), "--fasta", str(folder / "g.fa"),
        "--gff", str(folder / "g.gff3"), "--out", str(folder / out), "--elements", "8",
        "--threshold", "0.05",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def ran(folder) -> pathlib.Path:
    assert cli.main(arguments(folder)) == 0
    return folder / "out"


@pytest.mark.slow
def test_tables_rows_text_and_figures_are_written(ran, folder):
    assert {path.name for path in ran.iterdir()} == FILES | {".lock"}
    table = pq.read_table(ran / "attention.parquet").to_pylist()
    assert len(table) == 3 * 2 * len(CLASSES) * 2 * 2
    tested = [row for row in table if row["p"] is not None]
    assert tested
    assert all(row["q"] >= row["p"] for row in tested)
    genome = read_genome(folder / "g.fa", folder / "g.gff3")
    total = len(element_windows(genome, EXPERIMENT.tokenizer.make(), 24).chosen)
    assert {row["windows"] + row["without"] + row["wholly"] for row in table} == {total}

    rows = read_rows(ran / "results.parquet")
    ratios = {(r.task, r.method, r.layer): r.value for r in rows if r.metric == "ratio"}
    one = next(
        row for row in table
        if (row["source"], row["measure"], row["element"], row["layer"], row["head"])
        == ("random init", "pairs", "CDS", 2, 1)
    )  # fmt: skip
    key = ("g.gff3: CDS", "attention above 0.05, head 1, random init", 2)
    assert ratios[key] == pytest.approx(one["ratio"])
    assert {r.control for r in rows if r.method.endswith("trained")} == {False}
    assert {r.step for r in rows} == {5}
    assert min(r.tokens for r in rows) > 0
    text = (ran / "attention.md").read_text()
    assert "chr1 of the sequences is read as 1 of the annotation" in text
    for line in text.splitlines():
        if line.startswith("|"):
            block = next(other for other in text.split("\n\n") if line in other)
            assert len({len(row) for row in block.splitlines() if row.startswith("|")}) == 1


@pytest.mark.slow
def test_the_same_call_writes_the_same_numbers(ran, folder, capfd):
    assert cli.main([*arguments(folder, "again"), "--json"]) == 0
    out, err = capfd.readouterr()
    for name in ("attention.parquet", "results.parquet"):
        first, second = (pq.read_table(folder / run / name) for run in ("out", "again"))
        assert first.equals(second)
    said = json.loads(out)
    assert said["windows"] > 100
    assert said["classes"]["exon"]["bases"] == 39 * 140
    assert "chr1 of the sequences is read as 1 of the annotation" in err
    loss = next(
        r for r in read_rows(folder / "again" / "results.parquet")
        if (r.task, r.metric) == ("g.gff3: exon", "mask_loss")
    )  # fmt: skip
    assert said["classes"]["exon"]["masked"]["mask_loss"]["value"] == loss.value
    assert np.isfinite(loss.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["--threshold", "1.5"], "--threshold 1.5: attention is between 0 and 1"),
        (["--windows", "-1"], "--windows -1 is below 0"),
        (["--length", "400"], "takes 2 to 40 tokens"),
        (["--promoter", "0"], "--promoter 0 is below 1"),
        (["--contig", "chr2"], "has no such contig; did you mean 'chr1'?"),
        (["--gff", "/nowhere"], "/nowhere: cannot be read: No such file or directory"),
        (["--fasta", "/nowhere"], "/nowhere: cannot be read: No such file or directory"),
        (["--checkpoint", "/nowhere"], "/nowhere"),
        (["--treshold", "0.2"], "did you mean '--threshold'?"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(folder, changed, message, capfd):
    assert cli.main([*arguments(folder, "bad"), *changed]) == 2
    out, err = capfd.readouterr()
    assert (out, len(err.splitlines())) == ("", 1), err
    assert message in err
    assert not (folder / "bad").exists()
