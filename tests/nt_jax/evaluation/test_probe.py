import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nt_jax.errors import InputError
from nt_jax.evaluation import families
from nt_jax.evaluation import probe as room
from nt_jax.evaluation.loading import LoadedModel, random_like
from nt_jax.evaluation.probe import default_layers, probe_model
from nt_jax.evaluation.results import read_rows
from nt_jax.evaluation.search import Fit
from nt_jax.evaluation.stored import read_results
from nt_jax.evaluation.tasks import Audit, Split, Task
from nt_jax.evaluation.tasks.task import Within

TRAIN = 90


def task(name: str = "toy", *, test: int = 50, shuffled: bool = False, classes: int = 2) -> Task:
    """Classes that differ in their base composition, so any features can tell them apart."""
    rng = np.random.default_rng(len(name))
    count = TRAIN + test
    labels = np.arange(count) % classes
    weights = np.array([[9, 1, 1, 9], [1, 9, 9, 1], [9, 9, 1, 1]]) / 20
    # 64 to 66 bases: one compiled shape.
    sequences = tuple(
        "".join(rng.choice(list("ACGT"), size=rng.integers(64, 67), p=weights[label]))
        for label in labels
    )
    if shuffled:
        labels = rng.permutation(labels)
    audit = Audit({"toy.csv": count}, 0, 0, 0, 0, 0)
    parts = Split(sequences[:TRAIN], labels[:TRAIN]), Split(sequences[TRAIN:], labels[TRAIN:])
    names = tuple(str(label) for label in range(classes))
    return Task(name, names, parts[0], parts[1] if test else None, audit)


def run(loaded: LoadedModel, tasks: list[Task], out: pathlib.Path, **keywords: Any) -> list[dict]:
    keywords = {"folds": 3, "progress": lambda text: None, **keywords}
    return probe_model(loaded, tasks, out, checkpoint="runs/toy", **keywords)


@pytest.fixture(scope="module")
def results(loaded: LoadedModel, tmp_path_factory) -> tuple[pathlib.Path, list[dict[str, Any]]]:
    out = tmp_path_factory.mktemp("probe")
    tasks = [task(), task("shuffled", shuffled=True), task("folds3", test=0, classes=3)]
    return out, run(loaded, tasks, out)


def chosen(result: dict[str, Any], family: int) -> dict[str, Any]:
    return result["families"][family]["chosen"]["mcc"]


def test_a_separable_task_is_solved_and_shuffled_labels_are_not(results):
    separable, shuffled, folds = results[1]
    for family in range(4):
        assert chosen(separable, family)["low"] > 0.6
        assert chosen(folds, family)["value"] > 0.6
        assert chosen(shuffled, family)["low"] < 0.2
        assert chosen(separable, family)["low"] > chosen(shuffled, family)["high"]


def test_a_result_holds_all_layers_and_all_controls(results):
    for result in results[1]:
        names = [family["name"] for family in result["families"]]
        assert names == ["trained", "random init", "k-mers", "CNN"]
        units = [
            [variant[family["unit"]] for variant in family["variants"]]
            for family in result["families"]
        ]
        assert units == [[1, 2], [1, 2], [3, 6], [0]]
        assert [entry["against"] for entry in result["differences"]] == names[1:]
        for entry in result["differences"]:
            assert entry["mcc"]["low"] <= entry["mcc"]["value"] <= entry["mcc"]["high"]
    assert [result["split"] for result in results[1]] == ["given", "given", "3-fold"]
    assert [result["scored"] for result in results[1]] == [50, 50, 90]


def test_the_layer_is_chosen_by_inner_cross_validation(results):
    for result in results[1][:2]:
        for family in result["families"]:
            best = max(family["variants"], key=lambda variant: variant["inner"])
            assert family["chosen"][family["unit"]] == [best[family["unit"]]]
            assert family["chosen"]["mcc"] == best["mcc"]
    for family in results[1][2]["families"]:
        assert len(family["chosen"][family["unit"]]) == 3


def test_files_are_written_and_tables_line_up(results):
    out, found = results
    assert read_results(out / "probe.json") == json.loads(json.dumps(found))
    rows = read_rows(out / "results.parquet")
    names = ("mcc", "f1", "accuracy", "auroc", "auprc")
    controls = ("random_init", "k-mers", "CNN")
    differences = {f"{name}_minus_{control}" for name in names for control in controls}
    assert {row.metric for row in rows} == {*names, *differences}
    assert {row.method for row in rows if not row.control} == {
        "trained, logistic", "trained, logistic, chosen",
    }  # fmt: skip
    (chosen_row,) = [
        row
        for row in rows
        if (row.task, row.metric, row.method) == ("toy", "mcc", "trained, logistic, chosen")
    ]
    assert chosen_row.value == chosen(found[0], 0)["value"]
    for entry, control in zip(found[0]["differences"], controls, strict=True):
        (row,) = [row for row in rows if (row.task, row.metric) == ("toy", f"mcc_minus_{control}")]
        assert {"value": row.value, "low": row.low, "high": row.high} == entry["mcc"]
        assert (row.method, row.layer, row.fold) == ("trained, logistic, chosen", 0, -1)
        assert not row.control
    assert {row.fold for row in rows if row.task == "folds3"} == {-1, 0, 1, 2}
    assert (out / "probe.png").read_bytes().startswith(b"\x89PNG")
    text = (out / "probe.md").read_text()
    assert "not by the scores shown" in text
    assert not list(out.glob("*.tmp"))
    for block in text.split("\n\n"):
        if block.startswith("|"):
            assert len({len(line) for line in block.split("\n")}) == 1
            columns = {
                tuple(i for i, c in enumerate(line) if c == "|") for line in block.split("\n")
            }
            assert len(columns) == 1


class Killed(BaseException):
    pass


def test_a_killed_probe_goes_on_where_it_was(loaded, tmp_path, monkeypatch):
    tasks = [task("first"), task("second")]

    def killer(text: str) -> None:
        if text.startswith("second: random init, layer 1"):
            raise Killed

    with pytest.raises(Killed):
        run(loaded, tasks, tmp_path, layers=[1], progress=killer)
    assert [entry["task"] for entry in read_results(tmp_path / "probe.json")] == ["first"]
    # A write that was cut off leaves a file of another name.
    (tmp_path / "probe.json.tmp").write_text('[{"task": "sec')

    computed = spy(monkeypatch, room._probe_task)
    resumed = run(loaded, tasks, tmp_path, layers=[1])
    assert computed == ["second"]
    assert (tmp_path / "probe.md").exists()
    never_killed = run(loaded, tasks[1:], tmp_path / "other", layers=[1])
    assert {**resumed[1], "seconds": 0} == {**never_killed[0], "seconds": 0}


def spy(monkeypatch, answer: Callable[..., dict[str, Any]]) -> list[str]:
    """Names of the tasks that are computed from now on, with `answer` doing it."""
    computed: list[str] = []

    def compute(loaded: LoadedModel, task: Task, *rest: Any) -> dict[str, Any]:
        computed.append(task.name)
        return answer(loaded, task, *rest)

    monkeypatch.setattr(room, "_probe_task", compute)
    return computed


def test_only_what_has_changed_is_computed_again(loaded, results, tmp_path, monkeypatch):
    key = {"task", "step", "parameters", "fingerprint", "settings", "checkpoint", "seconds"}
    answer = {name: value for name, value in results[1][0].items() if name not in key}
    computed = spy(monkeypatch, lambda *rest: dict(answer))
    run(loaded, [task("a"), task("bb")], tmp_path, layers=[1])
    run(loaded, [task("a"), task("bb")], tmp_path, layers=[1])
    assert computed == ["a", "bb"]
    run(loaded, [task("a")], tmp_path, layers=[2])
    assert computed[2:] == ["a"]
    # Other sequences under the same name.
    changed = dataclasses.replace(task("bb"), train=task("bb").train.take(range(80)))
    run(loaded, [changed], tmp_path, layers=[1])
    assert computed[3:] == ["bb"]
    # Other parameters at the same step: a run that was started anew.
    run(random_like(loaded, 1), [task("a")], tmp_path, layers=[2])
    run(dataclasses.replace(random_like(loaded, 1), step=5), [task("a")], tmp_path, layers=[2])
    assert computed[4:] == ["a", "a"]
    # Another step stands beside the others.
    run(dataclasses.replace(loaded, step=9), [task("a")], tmp_path, layers=[2])
    stored = read_results(tmp_path / "probe.json")
    steps = [("bb", 5), ("a", 0), ("a", 5), ("a", 9)]
    assert [(entry["task"], entry["step"]) for entry in stored] == steps


@pytest.mark.parametrize(
    ("tasks", "keywords", "message"),
    [
        ([], {}, "no task"),
        ([task("a"), task("a")], {}, "two tasks are named 'a'"),
        ([task()], {"layers": [3]}, "layer 3"),
        ([task()], {"max_sequences": -1}, "max_sequences=-1"),
        ([task()], {"head": "logistik"}, "did you mean 'logistic'"),
        ([task(test=0)], {"folds": 1}, "at least 2"),
        ([task(test=0)], {"folds": 46}, "ask for fewer folds"),
    ],
)
def test_bad_input_is_refused_before_any_work(loaded, tmp_path, tasks, keywords, message):
    with pytest.raises(InputError, match=message):
        run(loaded, tasks, tmp_path, **keywords)


@pytest.mark.parametrize("text", ["[{", '{"a": 1}', '[{"task": "toy"}]'])
def test_a_damaged_result_file_is_refused(loaded, tmp_path, text: str):
    (tmp_path / "probe.json").write_text(text)
    with pytest.raises(InputError, match="delete it to probe again"):
        run(loaded, [task()], tmp_path)


@pytest.mark.parametrize(
    ("depth", "expected"),
    [
        (2, (1, 2)),
        (12, tuple(range(1, 13))),
        (22, (1, 3, 6, 8, 10, 13, 15, 17, 20, 22)),
        (32, (1, 4, 8, 11, 15, 18, 22, 25, 29, 32)),
    ],
)
def test_default_layers(depth: int, expected: tuple[int, ...]):
    assert default_layers(depth) == expected


def test_measurements_and_several_labels_are_probed_like_classes(loaded, tmp_path):
    """A GC share to regress on, and two labels that a sequence may both carry."""
    base = task(test=40)
    share = [(s.count("G") + s.count("C")) / len(s) for s in base.train.sequences]
    values = dataclasses.replace(
        base,
        name="gc",
        kind="values",
        classes=(),
        train=dataclasses.replace(base.train, labels=np.array(share)),
        test=None,
    )
    both = np.stack([base.train.labels == 1, np.array(share) > 0.6], axis=1)
    several = dataclasses.replace(
        base,
        name="two",
        kind="multilabel",
        train=dataclasses.replace(base.train, labels=both),
        test=None,
    )
    results = run(loaded, [values, several], tmp_path, layers=[2])
    assert [result["kind"] for result in results] == ["values", "multilabel"]
    for family in results[0]["families"]:
        assert family["chosen"]["spearman"]["low"] > 0.5, family["name"]
        assert set(family["chosen"]) == {family["unit"], "spearman", "pearson", "r2"}
    for family in results[1]["families"]:
        assert family["chosen"]["mcc"]["value"] > 0.5, family["name"]
    text = (tmp_path / "probe.md").read_text()
    assert "spearman" in text


def test_the_audit_tells_what_pretraining_has_seen(loaded, tmp_path):
    """Without the windows it says that it does not know: in the tables, and under the last one."""
    said: list[str] = []
    audited = dataclasses.replace(
        task(), audit=dataclasses.replace(task().audit, test_within=Within(4, 3, 2))
    )
    (result,) = run(loaded, [audited], tmp_path, layers=[1], progress=said.append)
    assert "data.path is empty" in result["overlap"]["problem"]
    final = said[-1]
    for text in (final, (tmp_path / "probe.md").read_text()):
        assert "Overlap with the pretraining windows unknown" in text
        assert "read toy.csv 140; dropped from training: 0 also in test" in text
        assert "within test, all kept and scored: 4 repeats, 3 with two labels, 2 with" in text
    lines = final.splitlines()
    assert [line[:6] for line in lines] == ["| task", "| :---", "| toy ", "toy: r", "writte"]


def test_embeddings_are_kept_and_used_again(loaded, tmp_path, monkeypatch):
    cache = tmp_path / "embeddings"
    run(loaded, [task()], tmp_path / "first", layers=[1], cache=cache)
    assert len(list(cache.glob("*.parquet"))) == 1
    monkeypatch.setattr(type(loaded), "embed_layers", lambda *a, **k: pytest.fail("embedded again"))
    monkeypatch.setattr(families, "kept_fits", lambda out, key, compute: answers[key["family"]])
    answers = {
        name: {1: [Fit(np.full((50, 2), 0.5), 0.0, "", True)]}
        for name in ("random init", "k-mers", "CNN")
    }
    again = run(loaded, [task()], tmp_path / "second", layers=[1], cache=cache)
    first = read_results(tmp_path / "first" / "probe.json")
    assert again[0]["families"][0] == first[0]["families"][0]
