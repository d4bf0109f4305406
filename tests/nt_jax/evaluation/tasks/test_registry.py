import collections
import json
import re

import pytest

from nt_jax.cli import main
from nt_jax.errors import InputError
from nt_jax.evaluation.tasks.anchors import ANCHORS, anchors
from nt_jax.evaluation.tasks.find import MIRROR, find_task, locate, task_table
from nt_jax.evaluation.tasks.registry import REGISTRY, SUITES
from tests.nt_jax.evaluation.tasks.test_tables import write

BASES = ["ACGT", "AACC", "GGGT", "TTAG"]


@pytest.fixture(autouse=True)
def nothing_is_here(monkeypatch):
    monkeypatch.delenv(MIRROR, raising=False)


def test_all_published_tasks_are_registered():
    counts = collections.Counter(entry.suite for entry in REGISTRY.values())
    assert counts == {"nt": 18, "nt2023": 18, "gue": 28, "gb": 9}
    assert set(counts) == set(SUITES)


def test_every_entry_is_complete_and_consistent():
    for name, entry in REGISTRY.items():
        assert name == entry.name == f"{entry.suite}/{name.partition('/')[2]}"
        assert entry.classes >= 2
        assert {"train", "test"} <= set(entry.sizes())
        assert ("dev" in entry.sizes()) == (entry.suite == "gue")
        assert all(size > 0 for size in entry.sizes().values())
        assert entry.metric in ("MCC", "F1", "accuracy")
        assert entry.certainty in "VSI"
        assert SUITES[entry.suite].source.startswith("https://")


def test_sizes_add_up_across_suites():
    """GUE's histone sets are NT's first split anew; promoters have a TATA box or none."""
    total = {name: sum(entry.sizes().values()) for name, entry in REGISTRY.items()}
    marks = [name.rpartition("/")[2] for name in REGISTRY if name.startswith("gue/EMP/")]
    assert len(marks) == 10
    for mark in marks:
        assert total[f"gue/EMP/{mark}"] == total[f"nt2023/{mark}"]
    for form in ("gue/prom/prom_300", "gue/prom/prom_core"):
        assert total[f"{form}_all"] == total[f"{form}_tata"] + total[f"{form}_notata"]
    for split in ("train", "test"):
        parts = [REGISTRY[f"nt2023/promoter_{kind}"].sizes()[split] for kind in ("tata", "no_tata")]
        assert sum(parts) == REGISTRY["nt2023/promoter_all"].sizes()[split]
    for name in ("gb/demo_human_or_worm", "gb/demo_coding_vs_intergenomic_seqs"):
        assert total[name] == 100_000


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("gue/EMP/H3", "labelled/GUE/EMP/H3"),
        ("gue/EMP/H3", "GUE/EMP/H3"),
        ("gue/EMP/H3", "EMP/H3"),
        ("gue/EMP/H3", "GUE/emp_H3"),
        ("gue/tf/0", "human_tf_0"),
        ("gue/splice/reconstructed", "GUE/splice_reconstructed"),
        ("nt/H3K4me1", "nucleotide_transformer_downstream_tasks_revised/H3K4me1"),
        ("nt2023/H3K4me1", "nucleotide_transformer_downstream_tasks/H3K4me1"),
        ("nt2023/splice_sites_donors", "nt2023/splice_sites_donor"),
        ("gb/human_enhancers_cohn", ".genomic_benchmarks/human_enhancers_cohn"),
        ("gb/human_enhancers_cohn", "Genomic_Benchmarks_human_enhancers_cohn"),
    ],
)
def test_tasks_are_found_where_people_have_them(tmp_path, monkeypatch, name: str, place: str):
    splits = REGISTRY[name].sizes()
    for number, split in enumerate(splits):
        bases = [own + "ACG"[number] for own in BASES]
        write(tmp_path / place / f"{split}.csv", {"sequence": bases, "label": [0, 1, 0, 1]})
    task = find_task(name, [tmp_path])
    assert task.name == name
    assert task.test is not None
    assert len(task.test) == 4
    size = splits["test"]
    assert f"test has 4 sequences (published: {size:,})" in task.audit.line()
    monkeypatch.setenv(MIRROR, str(tmp_path))
    assert find_task(name).fingerprint == task.fingerprint
    assert locate(REGISTRY[name]) == tmp_path / place


def test_sets_of_the_same_name_are_not_mixed_up(tmp_path):
    """H3K4me1 is human in the revised set and yeast in the first: its folder alone says nothing."""
    folder = tmp_path / "downloads"
    write(folder / "H3K4me1" / "train.csv", {"sequence": BASES, "label": [0, 1, 0, 1]})
    for name in ("nt/H3K4me1", "nt2023/H3K4me1"):
        assert locate(REGISTRY[name], [folder]) is None
    renamed = folder.rename(tmp_path / "nt2023")
    assert locate(REGISTRY["nt/H3K4me1"], [renamed]) is None
    assert locate(REGISTRY["nt2023/H3K4me1"], [renamed]) == renamed / "H3K4me1"


def test_splits_that_are_not_there_are_said(tmp_path):
    columns = {"sequence": BASES, "label": [0, 1, 0, 1]}
    write(tmp_path / "GUE" / "EMP" / "H3" / "dev.csv", columns)
    columns = columns | {"sequence": [own + "AA" for own in BASES]}
    write(tmp_path / "GUE" / "EMP" / "H3" / "test.csv", columns)
    line = find_task("gue/EMP/H3", [tmp_path]).audit.line()
    assert "no train split (published: 11,971 sequences)" in line
    assert "dev has 4 sequences (published: 1,497)" in line
    (tmp_path / "GUE" / "EMP" / "H3" / "dev.csv").unlink()
    line = find_task("gue/EMP/H3", [tmp_path]).audit.line()
    assert "no train split (published: 11,971 sequences); no dev split" in line


def test_a_path_wins_over_a_name(tmp_path, monkeypatch):
    write(tmp_path / "gue" / "EMP" / "H3" / "train.csv", {"sequence": BASES, "label": [0, 1, 2, 3]})
    monkeypatch.chdir(tmp_path)
    assert find_task("gue/EMP/H3").classes == ("0", "1", "2", "3")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("promoter_all", "; did you mean 'nt/promoter_all' or 'nt2023/promoter_all'?"),
        ("gue/EMP/H3k4me1", "; did you mean 'gue/EMP/H3K4me1'?"),
        ("gb/human_nontata_promoter", "; did you mean 'gb/human_nontata_promoters'?"),
        (
            "absent.csv",
            "absent.csv: no such task; neither a path nor a registered name; `nt-jax tasks` lists "
            "the names",
        ),
        (
            "gue/virus/covid",
            "gue/virus/covid: not found in any data folder (NT_JAX_DATA_MIRROR is not set); fetch "
            "it from https://github.com/MAGICS-LAB/DNABERT_2 (GUE.zip), put train.csv, dev.csv and "
            "test.csv into DIR/GUE/virus/covid and set NT_JAX_DATA_MIRROR=DIR",
        ),
    ],
)
def test_what_is_not_there_is_refused_with_the_way_out(name: str, message: str):
    with pytest.raises(InputError) as caught:
        find_task(name)
    assert str(caught.value).endswith(message)
    assert "\n" not in str(caught.value)


def test_the_table_lists_all_and_the_command_prints_it(tmp_path, capsys):
    write(tmp_path / "GUE" / "tf" / "0" / "train.csv", {"sequence": BASES, "label": [0, 1, 0, 1]})
    table = task_table([tmp_path])
    rows = [line for line in table.splitlines() if line.startswith("| ")][2:]
    assert len(rows) == len(REGISTRY)
    assert len({len(row) for row in rows}) == 1
    (found,) = [row for row in rows if row.endswith("yes |")]
    assert re.match(r"\| gue/tf/0 +\| classes \| +2 \| +32,378 \| 1,000 \| +1,000 \|", found)
    assert "gue: Genome Understanding Evaluation; 1 of 28 found" in table

    assert main(["tasks", "--data-dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out.rstrip("\n") == table
    assert main(["tasks", "--json", "--data-dir", str(tmp_path)]) == 0
    listed = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert listed["gue/tf/0"]["path"] == str(tmp_path / "GUE" / "tf" / "0")
    assert listed["nt/promoter_all"]["path"] is None
    assert listed["nt/promoter_all"]["train"] == 30_000


def test_anchors_are_scores_of_registered_tasks():
    for anchor in ANCHORS:
        assert anchor.task in REGISTRY or anchor.task in SUITES
        assert 0 < anchor.value < 1
        entry = REGISTRY.get(anchor.task)
        assert entry is None or anchor.metric == entry.metric
    assert len({(anchor.task, anchor.model) for anchor in ANCHORS}) == len(ANCHORS)
    assert [anchor.value for anchor in anchors("nt")] == [0.769]
    assert anchors("nt/H2AFZ") == []
