"""The command line: exit codes and one clear line for everything a user can get wrong."""

import gzip
import json
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from nt_jax import cli
from nt_jax.config import MaskingConfig
from nt_jax.evaluation.results import read_rows
from nt_jax.masking import mask_tokens, row_keys
from nt_jax.tokenizers import KmerTokenizer
from tests.nt_jax.runs import make_dataset, make_experiment, run


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("cli")
    make_dataset(folder)
    make_experiment(folder)
    return folder


def refused(capfd, *arguments: object) -> str:
    """Runs a command that must exit with 2 and exactly one line on stderr; returns the line."""
    code = cli.main([str(argument) for argument in arguments])
    out, err = capfd.readouterr()
    assert code == 2, err
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("nt-jax: ")
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pretain", "x"], "did you mean 'pretrain'"),
        (["pretrain", "nt_v2_nan", "--workdir", "w"], "did you mean 'nt_v2_nano'"),
        (["pretrain", "nt_v2_nano"], "required: --workdir"),
        (["pretrain", "nt_v2_nano", "--workdir", "w"], "which data? Give --data DIR"),
        (["pretrain", "nt_v2_nano", "--workdir", "w", "--optim.peek-lr", "1"], "--optim.peak-lr"),
        (["pretrain", "nt_v2_nano", "--workdir", "w", "--train.steps", "x"], "not an integer"),
        (["pretrain", "no_such_file.py", "--workdir", "w"], "no such experiment file"),
        (["pretrain", "nt_v2_nano", "--workdir", "w", "--data", "/nowhere"], "/nowhere"),
        (["data", "build", "fasta", "--out", "d"], "--fasta"),
        (["data", "build", "fasta", "--out", "d", "--fasta", "/nowhere.fa"], "/nowhere.fa"),
        (["data", "build", "manifest", "--out", "d"], "name the table with --manifest"),
        (["data", "build", "manifest", "--out", "d", "--manifest", "/no.tsv"], "/no.tsv"),
        (["data", "build", "fasta", "--out", "d", "--fasta", "f", "--manifest", "m"], "--manifest"),
        (["data", "build", "manifets", "--out", "d"], "did you mean 'manifest'"),
        (["data", "fetch", "/no.tsv", "--out", "d"], "/no.tsv"),
        (["data", "fetch", "/no.tsv", "--out", "d", "--workers", "0"], "--workers 0"),
        (
            ["data", "manifest", "multispecies", "--assembly-summary", "/no.txt", "--out", "m.tsv"],
            "/no.txt",
        ),
        (["data", "biuld"], "did you mean 'build'"),
        (["data", "verify", "/nowhere"], "/nowhere"),
        (["data", "trace", "/nowhere", "--step", "1"], "not a workdir"),
        (["evaluate", "--checkpoint", "/nowhere", "--data", "d"], "no committed checkpoint"),
        (
            ["evaluate", "--checkpoint", "x", "--data", "d", "--btach", "3"],
            "did you mean '--batch'",
        ),
        (["report", "/nowhere"], "/nowhere"),
    ],
)
def test_bad_input_is_one_clear_line(arguments, message, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in refused(capfd, *arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not a genome\n", "bad.fa"),
        (b"", "empty"),
        (b">p\nMKVLAAGIFE\n", "bad.fa"),
        (b">a\nACGT\n>a\nACGT\n", "a"),
        (gzip.compress(b">a\n" + b"ACGTTGCA" * 4000)[:-300], "bad.fa"),
        (b">a\nACGTACGT\n", "window"),
    ],
)
def test_bad_fasta_files(content, message, capfd, tmp_path):
    (tmp_path / "bad.fa").write_bytes(content)
    arguments = ["data", "build", "fasta", "--fasta", tmp_path / "bad.fa", "--out", tmp_path / "d"]
    assert message in refused(capfd, *arguments)
    assert {path.name for path in tmp_path.iterdir()} == {"bad.fa"}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--train.global-batch", "9"], "train.global_batch=9"),
        (["--mesh.data", "3"], "does not cover the 8 devices"),
        (["--data.sequence-length", "64"], "data.sequence_length=64"),
        (["--data.sequence-length", "128"], "exceeds model.max_positions=64"),
        (["--model.num-heads", "3"], "num_heads"),
        (["--optim.warmup-steps", "1000"], "warmup_steps=1000"),
        (["--train.steps", "0"], "train.steps=0"),
        (["--init-from", "/nowhere"], "/nowhere"),
    ],
)
def test_configs_that_cannot_run(overrides, message, folder, capfd, tmp_path):
    train = ["pretrain", folder / "tiny.py", "--data", folder / "data"]
    assert message in refused(capfd, *train, "--workdir", tmp_path / "run", *overrides)


def test_a_workdir_of_another_experiment_or_of_something_else(folder, capfd, tmp_path):
    train = ["pretrain", folder / "tiny.py", "--data", folder / "data", "--train.steps", "20"]
    done = run(*train, "--workdir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    line = refused(capfd, *train, "--workdir", tmp_path / "run", "--optim.peak-lr", "1e-2")
    assert "optim.peak_lr=0.003, this one has 0.01" in line
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    assert "not empty" in refused(capfd, *train, "--workdir", tmp_path / "mine")
    capfd.readouterr()

    evaluate = ["evaluate", "--checkpoint", f"{tmp_path}/run", "--data", f"{folder}/data"]
    out = tmp_path / "evaluation.parquet"
    evaluate += ["--json", "--windows", "16", "--batch", "8"]
    assert cli.main([*evaluate, "--out", str(out)]) == 0
    result = json.loads(capfd.readouterr().out)
    rows = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    final = [json.loads(row) for row in rows if '"validation"' in row][-1]
    assert result["windows"] == final["windows"] == 16
    assert result["mask_loss"] == pytest.approx(final["mask_loss"], rel=1e-5)
    values = {row.metric: (row.value, row.tokens) for row in read_rows(out)}
    assert values["mask_loss"] == (result["mask_loss"], final["tokens"])

    assert cli.main(["data", "trace", f"{tmp_path}/run", "--step", "10", "--json"]) == 0
    traced = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [row["row"] for row in traced] == list(range(8))
    letters = (folder / "random.fa").read_text().split()
    genome = dict(zip((name[1:] for name in letters[::2]), letters[1::2], strict=True))
    complement = str.maketrans("ACGT", "TGCA")
    tokenizer = KmerTokenizer(k=3)
    for row in traced:
        piece = genome[row["contig"]][row["start"] : row["end"]]
        forward = row["strand"] == "+"
        assert row["bases"] == (piece if forward else piece.translate(complement)[::-1])
        assert tokenizer.decode(np.array(row["tokens"])) == row["bases"]
    tokens = np.array([row["tokens"] for row in traced])
    masked = mask_tokens(row_keys(0, 9, 8), jnp.asarray(tokens), tokenizer, MaskingConfig())
    assert [row["inputs"] for row in traced] == np.asarray(masked.inputs).tolist()
    for row, changed in zip(traced, np.asarray(masked.inputs) != tokens, strict=True):
        assert set(np.flatnonzero(changed)) <= set(row["selected"])
        assert len(row["selected"]) == round(0.15 * 32)
    command = ["data", "trace", f"{tmp_path}/run", "--step", "10", "--row", "3"]
    assert cli.main(command) == 0
    shown = capfd.readouterr().out
    assert shown.count("[") == len(traced[3]["selected"])


def test_debug_shows_the_traceback(capfd):
    assert cli.main(["report", "/nowhere", "--debug"]) == 2
    assert "Traceback" in capfd.readouterr().err


def test_help_names_units_defaults_and_overrides(capfd, monkeypatch):
    data = [["data", name] for name in ("build", "fetch", "manifest", "trace")]
    for command in (*data, ["evaluate"], ["probe"], ["report"]):
        with pytest.raises(SystemExit) as stopped:
            cli.main([*command, "--help"])
        assert stopped.value.code == 0
    monkeypatch.setattr("sys.argv", ["nt-jax", "pretrain", "nt_v2_nano", "--help"])
    with pytest.raises(SystemExit):
        cli.main(["pretrain", "nt_v2_nano", "--help"])
    assert "--optim.peak-lr" in capfd.readouterr().out
