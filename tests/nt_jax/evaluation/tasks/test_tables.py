import gzip
import pathlib

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nt_jax.errors import InputError
from nt_jax.evaluation.tasks import Task, read_task

QUICK = settings(deadline=None, max_examples=25)
FORMS = ("csv", "tsv", "csv.gz", "parquet")
BASES = st.text("ACGTN", min_size=4, max_size=12)


def write(path: pathlib.Path, columns: dict[str, list]) -> pathlib.Path:
    """The same table in the form that the ending of `path` names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
        return path
    delimiter = "\t" if ".tsv" in path.suffixes else ","
    lines = [columns, *zip(*columns.values(), strict=True)]
    text = "".join(delimiter.join(map(str, line)) + "\n" for line in lines)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def refused(path: pathlib.Path) -> str:
    """The one line with which a task is refused; it begins with the path."""
    with pytest.raises(InputError) as caught:
        read_task(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_table_reads_the_same(tmp_path, form: str):
    columns = {
        "sequence": ["ACGT", "AACC", "GGGT", "TTGA"],
        "label": ["no", "yes", "no", "yes"],
        "group": ["chr1", "chr1", "chr2", "chr2"],
        "split": ["train", "train", "dev", "test"],
        "comment": ["x", "", "y", "z"],
    }
    task = read_task(write(tmp_path / f"a.{form}", columns))
    assert (task.name, task.kind, task.classes) == ("a", "classes", ("no", "yes"))
    assert task.train.sequences == ("ACGT", "AACC", "GGGT")
    assert task.train.labels.tolist() == [0, 1, 0]
    assert task.groups == ("chr1", "chr1", "chr2")
    assert task.test is not None
    assert task.test.sequences == ("TTGA",)
    assert task.audit.rows == {f"a.{form}": 4}
    assert task.audit.shared_groups == 1
    assert "warning: 1 groups stand in training and in test" in task.audit.line()


def test_types_of_parquet_columns(tmp_path):
    whole = {"seq": ["ACGT", "AACC", "GGGT"], "label": pyarrow.array([1.0, 0.0, 1.0])}
    assert read_task(write(tmp_path / "a.parquet", whole)).classes == ("0", "1")
    measured = {"seq": ["ACGT", "AACC", "GGGT"], "label": pyarrow.array([1.0, 0.5, -2e-3])}
    task = read_task(write(tmp_path / "b.parquet", measured))
    assert task.train.labels.tolist() == [1.0, 0.5, -0.002]
    lists = {"sequence": ["ACGT", "AACC"], "labels": [["b", "a"], []]}
    task = read_task(write(tmp_path / "c.parquet", lists))
    assert (task.kind, task.classes) == ("multilabel", ("a", "b"))
    assert task.train.labels.tolist() == [[True, True], [False, False]]
    missing = {"sequence": ["ACGT", "AACC"], "label": [0.5, None]}
    assert refused(write(tmp_path / "d.parquet", missing)).startswith("row 2: the label is empty")


def test_measurements(tmp_path):
    columns = {"sequence": ["ACGT", "AACC", "GGGT"], "label": ["1", "-0.25", "3e-2"]}
    task = read_task(write(tmp_path / "a.csv", columns))
    assert (task.kind, task.classes) == ("values", ())
    assert task.train.labels.dtype == np.float64
    assert task.train.labels.tolist() == [1.0, -0.25, 0.03]


def test_repeats_and_conflicts_of_measurements(tmp_path):
    sequences = ["AAAC", "AAAC", "GTTT", "CCCA", "CCCA", "GATA", "TTTC"]
    labels = ["1.50", "1.5", "1.5", "2.5", "0.5", "9.25", "7.5"]
    for name in ("train", "test"):
        part = slice(0, 6) if name == "train" else slice(6, 7)
        write(tmp_path / f"{name}.csv", {"sequence": sequences[part], "label": labels[part]})
    task = read_task(tmp_path)
    assert task.train.sequences == ("AAAC", "GATA")
    # 1.50 and 1.5 are one measurement, GTTT is AAAC on the other strand; CCCA has two.
    assert (task.audit.repeated, task.audit.conflicting) == (2, 2)


@pytest.mark.parametrize("form", FORMS)
def test_several_labels_in_both_forms(tmp_path, form: str):
    bases = ["ACGT", "AACC", "GGGT"]
    truth = [[True, False], [False, False], [True, True]]
    listed = {"sequence": bases, "labels": ["TSS", "", "TSS; CpG"]}
    task = read_task(write(tmp_path / f"a.{form}", listed))
    assert (task.kind, task.classes) == ("multilabel", ("CpG", "TSS"))
    assert task.train.labels.tolist() == [row[::-1] for row in truth]
    named = {"sequence": bases, "label:TSS": [1, 0, 1], "Label:CpG": [0, 0, 1]}
    task = read_task(write(tmp_path / f"b.{form}", named))
    assert (task.kind, task.classes) == ("multilabel", ("TSS", "CpG"))
    assert task.train.labels.dtype == bool
    assert task.train.labels.tolist() == truth


def test_labels_that_leave_nothing_to_learn_are_said(tmp_path):
    rows = {"sequence": ["ACGT", "AACC"], "label:a": [1, 0], "label:b": [0, 0], "label:c": [1, 1]}
    task = read_task(write(tmp_path / "a.csv", rows))
    assert task.audit.notes == ("the same for all training sequences: b, c",)


def test_leakage_is_taken_out_of_sets_of_labels_too(tmp_path):
    train = {
        "sequence": ["AAAC", "GTTT", "CCCA", "CCCA", "GATA"],
        "labels": ["a", "a", "a", "a;b", "b"],
    }
    write(tmp_path / "train.csv", train)
    write(tmp_path / "test.csv", {"sequence": ["TATC"], "labels": [""]})
    audit = read_task(tmp_path).audit
    assert (audit.repeated, audit.conflicting, audit.in_test_reversed) == (1, 2, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "sequence,label\nACGT,0.5\nAACC,donor\n",
            "line 3: the label 'donor' is a name, but line 2 of bad.csv has the measurement '0.5'; "
            "labels are all classes or all numbers",
        ),
        (
            "sequence,label\nACGT,0.5\nAACC,nan\n",
            "line 3: the label is 'nan', not a finite number; remove it",
        ),
        (
            "sequence,label\nACGT,-inf\n",
            "line 2: the label is '-inf', not a finite number; remove it",
        ),
        (
            "sequence,label\nACGT,1e999\n",
            "line 2: the label is '1e999', not a finite number; remove it",
        ),
        (
            "sequence,label\nACGT,0.5\nAACC,0.50\n",
            "only the value 0.5 in training; a task needs at least two values",
        ),
        (
            "sequence,label,labels\nACGT,1,a\n",
            "line 1: columns label and labels (found: sequence, label, labels); keep one kind of "
            "label",
        ),
        (
            "sequence,label:a,label:a\nACGT,1,0\n",
            "line 1: 2 columns named 'label:a' (found: sequence, label:a, label:a); a header needs "
            "sequence and label",
        ),
        ("sequence,label:a\nACGT,1\nAACC,2\n", "line 3: label:a is '2'; give 1 or 0"),
        ("sequence,labels\nACGT,\n", "no label in training; a task needs at least two classes"),
        (
            "sequence,label,split\nACGT,1,train\nAACC,0,other\n",
            "line 3: the split is 'other'; give train, dev or test",
        ),
        ("sequence,label,split\nACGT,1,\n", "line 2: the split is ''; give train, dev or test"),
        (
            "sequence,label,group\nACGT,1,\n",
            "line 2: the group is empty; name it or drop the column",
        ),
        (
            "chrom,start,end,label\nchr1,0,9,1\n",
            "line 2: an interval without bases; name file and reference in a JSON file: "
            '{"intervals": "bad.csv", "reference": "genome.fa"}',
        ),
    ],
)
def test_bad_labels_are_refused_with_their_line(tmp_path, text: str, message: str):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    assert refused(path) == message


def test_files_of_one_task_agree_on_the_form_of_labels(tmp_path):
    write(tmp_path / "train.csv", {"sequence": ["ACGT", "AACC"], "label": ["a", "b"]})
    write(tmp_path / "test.csv", {"sequence": ["GGGG"], "labels": ["a"]})
    with pytest.raises(InputError, match=r"test.csv: line 2: a column labels, but train.csv has a"):
        read_task(tmp_path)
    write(tmp_path / "test.csv", {"sequence": ["GGGG"], "label": ["0.5"]})
    with pytest.raises(InputError, match=r"train.csv: line 2: the label 'a' is a name, but line 2"):
        read_task(tmp_path)


def test_a_label_that_training_lacks_is_refused_in_sets_too(tmp_path):
    write(tmp_path / "train.csv", {"sequence": ["ACGT", "AACC"], "labels": ["a", "b"]})
    write(tmp_path / "test.csv", {"sequence": ["GGGG", "CCCT"], "labels": ["a", "a;c"]})
    with pytest.raises(InputError, match=r"test.csv: line 3: label 'c' does not occur in training"):
        read_task(tmp_path)


def test_a_group_column_is_in_all_training_files_or_in_none(tmp_path):
    write(
        tmp_path / "train.csv", {"sequence": ["ACGT", "AACC"], "label": [0, 1], "group": ["a", "b"]}
    )
    write(tmp_path / "dev.csv", {"sequence": ["GGGT", "ATAT"], "label": [0, 1]})
    write(tmp_path / "test.csv", {"sequence": ["GGGA"], "label": [0]})
    with pytest.raises(InputError, match=r"dev.csv: no column 'group', which other files"):
        read_task(tmp_path)
    write(
        tmp_path / "dev.csv", {"sequence": ["GGGT", "ATAT"], "label": [0, 1], "group": ["a", "c"]}
    )
    assert read_task(tmp_path).groups == ("a", "b", "a", "c")


def test_a_damaged_parquet_file_is_refused(tmp_path):
    path = write(tmp_path / "a.parquet", {"sequence": ["ACGT", "AACC"], "label": [0, 1]})
    path.write_bytes(path.read_bytes()[:-20])
    assert refused(path).startswith("not a whole Parquet file (")
    write(path, {"bases": ["ACGT"], "label": [0]})
    assert refused(path).startswith("columns: 0 columns named 'sequence' (found: bases, label)")


@QUICK
@given(
    rows=st.lists(
        st.tuples(BASES, st.floats(-1e9, 1e9).filter(lambda value: value != int(value))),
        min_size=2,
        max_size=12,
        unique_by=(lambda row: row[0], lambda row: row[1]),
    ),
    form=st.sampled_from(FORMS),
)
def test_measurements_written_are_measurements_read(tmp_path_factory, rows: list, form: str):
    columns = {"sequence": [row[0] for row in rows], "label": [row[1] for row in rows]}
    task = read_task(write(tmp_path_factory.mktemp("t") / f"a.{form}", columns))
    assert task.kind == "values"
    held = dict(rows)
    assert all(held[bases] == own for bases, own in pairs(task))
    assert len(task.train) + task.audit.repeated == len(rows)


@QUICK
@given(
    rows=st.lists(
        st.tuples(BASES, st.frozensets(st.sampled_from("abc"))),
        max_size=12,
        unique_by=lambda row: row[0],
    ),
    form=st.sampled_from(FORMS),
)
def test_sets_of_labels_written_are_those_read(tmp_path_factory, rows: list, form: str):
    rows = [*rows, ("AAAAACCCCCGGG", frozenset("abc"))]
    bases = [row[0] for row in rows]
    folder = tmp_path_factory.mktemp("t")
    listed = {"sequence": bases, "labels": [";".join(sorted(row[1])) for row in rows]}
    named = {f"label:{name}": [int(name in row[1]) for row in rows] for name in "abc"}
    first = read_task(write(folder / f"a.{form}", listed))
    second = read_task(write(folder / f"b.{form}", {"sequence": bases, **named}))
    assert first.fingerprint == second.fingerprint
    held = dict(rows)
    for bases, own in pairs(first):
        assert {name for name, true in zip("abc", own, strict=True) if true} == held[bases]


def pairs(task: Task) -> list:
    return list(zip(task.train.sequences, task.train.labels.tolist(), strict=True))
