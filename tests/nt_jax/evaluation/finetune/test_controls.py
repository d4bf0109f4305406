"""The controls of a fine-tuning: those of the probe, fitted once, in every file that it writes."""

import dataclasses
import json
import os
import pathlib
import signal

import jax
import numpy as np
import pytest

from nt_jax import workdir
from nt_jax.checkpoint import save_params
from nt_jax.data import open_dataset
from nt_jax.evaluation import metrics
from nt_jax.evaluation.finetune import finetune
from nt_jax.evaluation.finetune.report import draw, format_result
from nt_jax.evaluation.finetune.saved import read_arrays
from nt_jax.evaluation.probe import probe_model
from nt_jax.evaluation.results import ALL_FOLDS, read_rows
from nt_jax.evaluation.tasks import make_folds
from nt_jax.evaluation.tasks.find import find_task
from tests.nt_jax.evaluation.finetune.conftest import make_task, write_task
from tests.nt_jax.runs import make_dataset

NAMES = ["head", "frozen head", "probe", "k-mers", "CNN", "head, random init"]
FOLDS = 2


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> pathlib.Path:
    """A task without splits."""
    task = make_task("classes", train=80, test=0)
    return write_task(tmp_path_factory.mktemp("task") / "toy.csv", task)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """A task with a given split."""
    folder = tmp_path_factory.mktemp("given")
    for part in ("train", "test"):
        write_task(folder / f"{part}.csv", make_task("classes"), part)
    return folder


def tune(checkpoint, task, out, progress=lambda text: None, **more):
    """The head alone: all of a fine-tuning but the steps."""
    keywords = {"method": "head", "folds": FOLDS, "batch": 16, **more}
    return finetune(checkpoint, task, out, progress=progress, **keywords)


@pytest.fixture(scope="module")
def tuned(checkpoint, table, tmp_path_factory):
    """(folder, result) on two folds, with a random initialisation beside it."""
    out = tmp_path_factory.mktemp("tuned")
    return out, tune(checkpoint, table, out, random_init=True)


@pytest.fixture(scope="module")
def undisturbed(checkpoint, folder, tmp_path_factory):
    """The result on the given split, from one run."""
    return tune(checkpoint, folder, tmp_path_factory.mktemp("undisturbed"))


def by_name(result) -> dict[str, dict]:
    return {family["name"]: family for family in result["families"]}


@pytest.mark.parametrize("split", ["folds", "given"])
def test_controls_are_those_of_the_probe(
    loaded, table, folder, tuned, undisturbed, tmp_path, split: str
):
    """On the same training and scored sequences, to the last bit."""
    task, result = {"folds": (table, tuned[1]), "given": (folder, undisturbed)}[split]
    (probed,) = probe_model(
        loaded, [find_task(task, [])], tmp_path / "probe", checkpoint="tiny", folds=FOLDS,
        progress=lambda text: None,
    )  # fmt: skip
    assert (result["split"], result["scored"]) == (probed["split"], probed["scored"])
    ours = by_name(result)
    names = {"trained": "probe", "k-mers": "k-mers", "CNN": "CNN"}
    for family in probed["families"]:
        if family["name"] not in names:
            continue
        mine, unit = ours[names[family["name"]]], family["unit"]
        assert mine["control"]
        assert mine["scores"] == {name: family["chosen"][name] for name in mine["scores"]}
        assert mine["chosen"] == ([] if unit == "network" else family["chosen"][unit])


def test_every_control_has_a_paired_difference(tuned):
    result = tuned[1]
    assert [family["name"] for family in result["families"]] == NAMES
    assert [entry["against"] for entry in result["differences"]] == NAMES[1:]
    first, *rest = result["families"]
    for family, entry in zip(rest, result["differences"], strict=True):
        for metric, score in entry["scores"].items():
            gap = first["scores"][metric]["value"] - family["scores"][metric]["value"]
            assert score["value"] == pytest.approx(gap)
            assert score["low"] <= score["value"] <= score["high"]


def test_rows_hold_every_family_together_and_fold_by_fold(tuned, table):
    out, result = tuned
    rows = read_rows(out / "results.parquet")
    keys = [(row.method, row.fold, row.metric) for row in rows]
    scores = ("mcc", "f1", "accuracy", "auroc", "auprc")
    expected = [(n, fold, m) for n in NAMES for m in scores for fold in (ALL_FOLDS, 0, 1)]
    assert keys == expected
    # The head reads the last layer; a probe chooses one in every fold, k-mers have none.
    assert {row.method: row.layer for row in rows} == dict(
        zip(NAMES, (2, 2, 0, 0, 0, 2), strict=True)
    )
    assert {row.method for row in rows if not row.control} == {"head"}
    task = find_task(table, [])
    for number, fold in enumerate(make_folds(task, FOLDS, 0)):
        held_out = read_arrays(out / f"fold_{number}" / "held_out.npz")
        truth = task.train.labels[fold.test]
        for name, array in (("head", "predictions"), ("frozen head", "frozen")):
            found = metrics.class_scores(truth, held_out[array])
            for row in rows:
                if (row.method, row.fold) == (name, number):
                    assert (row.value, row.low, row.high) == (found[row.metric], None, None)
    for name, family in by_name(result).items():
        stored = {row.metric: row for row in rows if (row.method, row.fold) == (name, ALL_FOLDS)}
        for metric, score in family["scores"].items():
            row = stored[metric]
            assert {"value": row.value, "low": row.low, "high": row.high} == score


def test_table_and_figure_show_every_family(tuned):
    result = tuned[1]
    text = format_result(result)
    for name in NAMES:
        assert any(line.startswith(f"{name}  ") for line in text.splitlines())
    for name in NAMES[1:]:
        assert f"head minus {name}: mcc " in text
    bars = draw(result).axes[1]
    assert [label.get_text() for label in bars.get_yticklabels()] == NAMES
    assert len(bars.containers) == len(NAMES)
    colours = {container.lines[0].get_color() for container in bars.containers}
    assert len(colours) == len(NAMES)


def test_a_second_run_fits_nothing_and_gives_the_same(checkpoint, table, tuned):
    out, result = tuned
    (out / "result.json").unlink()
    lines: list[str] = []
    again = tune(checkpoint, table, out, lines.append, random_init=True)
    assert again == result
    assert json.loads((out / "result.json").read_text()) == result
    # The two lines of the audit.
    assert len(lines) == 2


class Killed(BaseException):
    pass


def test_killed_among_the_controls_it_goes_on_with_the_one_that_is_missing(
    checkpoint, folder, undisturbed, tmp_path
):
    lines: list[str] = []

    def killer(text: str) -> None:
        lines.append(text)
        if "CNN, fold 1" in text:
            raise Killed

    with pytest.raises(Killed):
        tune(checkpoint, folder, tmp_path, killer)
    assert [line for line in lines if "k-mers, k 6" in line]
    assert not (tmp_path / "result.json").exists()
    lines.clear()
    resumed = tune(checkpoint, folder, tmp_path, lines.append)
    assert [line.partition(": ")[2].partition(":")[0] for line in lines[2:]] == ["CNN, fold 1"]
    assert resumed == undisturbed


def test_a_signal_among_the_controls_keeps_what_is_fitted(
    checkpoint, folder, undisturbed, tmp_path
):
    lines: list[str] = []

    def preempted(text: str) -> None:
        lines.append(text)
        if "k-mers, k 3" in text:
            os.kill(os.getpid(), signal.SIGTERM)

    assert tune(checkpoint, folder, tmp_path, preempted) is None
    assert lines[-1] == "stopped by a signal; what is fitted is kept. The same command goes on"
    assert not any("CNN" in line for line in lines)
    lines.clear()
    assert tune(checkpoint, folder, tmp_path, lines.append) == undisturbed
    assert not any("k-mers" in line for line in lines)


def test_the_audit_tells_what_pretraining_has_seen(loaded, tmp_path):
    """Of 40 sequences half lie in the windows that the checkpoint was trained on."""
    config = dataclasses.replace(
        loaded.config,
        data=dataclasses.replace(loaded.config.data, path=str(make_dataset(tmp_path))),
    )
    run = tmp_path / "run"
    workdir.create(run, config, {"imported_from": "a test"})
    loaded.tokenizer.save(run / workdir.TOKENIZER)
    save_params(run, jax.tree.map(np.asarray, loaded.params), config, {"tokens": 0})
    dataset, rng = open_dataset(config.data.path), np.random.default_rng(0)
    seen = [dataset.window("train", index)["sequence"].decode()[:60] for index in range(0, 40, 2)]
    new = ["".join(rng.choice(list("ACGT"), size=60)) for _ in range(20)]
    path = tmp_path / "half.csv"
    rows = [f"{sequence},{row % 2}" for row, sequence in enumerate([*seen, *new])]
    path.write_text("\n".join(["sequence,label", *rows]) + "\n")
    lines: list[str] = []
    result = tune(run, path, tmp_path / "out", lines.append)
    expected = "20 of 40 scored sequences share at least half of their 24-mers"
    assert (result["overlap"]["seen"], result["overlap"]["sequences"]) == (20, 40)
    assert lines[1].startswith(f"half: {expected}")
    assert expected in format_result(result).splitlines()[-1]


def test_without_the_windows_the_audit_says_that_it_does_not_know(tuned):
    result = tuned[1]
    assert "data.path is empty" in result["overlap"]["problem"]
    last = format_result(result).splitlines()[-1]
    assert "0 repeats" in last
    assert "overlap with the pretraining windows unknown: " in last
