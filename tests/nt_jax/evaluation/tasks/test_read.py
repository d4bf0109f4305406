import dataclasses
import gzip
import json
import pathlib
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nt_jax.errors import InputError
from nt_jax.evaluation.tasks import Audit, read_task, subsample
from nt_jax.evaluation.tasks.task import Within

Row = tuple[str, object]


def table(path: pathlib.Path, rows: Sequence[Row], delimiter: str = ",") -> pathlib.Path:
    lines = [delimiter.join(("sequence", "label"))]
    lines += [delimiter.join((sequence, str(label))) for sequence, label in rows]
    text = "\n".join(lines) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


ROWS = [("ACGT", 1), ("AACC", 0), ("GGGT", 1), ("TTGA", 2)]


@pytest.mark.parametrize(
    ("name", "delimiter"), [("a.csv", ","), ("a.tsv", "\t"), ("a.csv.gz", ","), ("a.tsv.gz", "\t")]
)
def test_a_table_is_all_training(tmp_path, name: str, delimiter: str):
    task = read_task(table(tmp_path / name, ROWS, delimiter))
    assert (task.name, task.classes, task.test) == ("a", ("0", "1", "2"), None)
    assert task.train.sequences == ("ACGT", "AACC", "GGGT", "TTGA")
    assert task.train.labels.tolist() == [1, 0, 1, 2]
    assert task.audit.rows == {name: 4}


def test_labels_may_be_names_and_columns_may_be_more_and_in_any_order(tmp_path):
    path = tmp_path / "sites.csv"
    path.write_text("\ufeffname,Label,SEQUENCE\na,donor,ACGT\nb,acceptor,TTTT\n")
    task = read_task(path)
    assert task.classes == ("acceptor", "donor")
    assert task.train.labels.tolist() == [1, 0]


def test_integer_labels_are_ordered_as_numbers_and_may_come_as_floats(tmp_path):
    rows = [("ACGT", "10.0"), ("AACC", "9.0"), ("GGGT", "-1"), ("GGGG", "9")]
    task = read_task(table(tmp_path / "a.csv", rows))
    assert task.classes == ("-1", "9", "10")
    assert task.train.labels.tolist() == [2, 1, 0, 1]


def test_nt_fasta(tmp_path):
    path = tmp_path / "H3_test.fna.gz"
    text = ">chr1|a:1-8|1\r\nACGT\r\nacgu\r\n>same|0\nTTTTAAAC\n>same|0\nCCCCAAAG\n"
    path.write_bytes(gzip.compress(text.encode()))
    task = read_task(path)
    assert task.name == "H3_test"
    assert task.train.sequences == ("ACGTACGT", "TTTTAAAC", "CCCCAAAG")
    assert task.train.labels.tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("files", "train", "test"),
    [
        ({"train": "AA", "dev": "CA", "test": "GA"}, ("AAAA", "CAAA"), ("GAAA",)),
        ({"train": "AA", "test": "GA"}, ("AAAA",), ("GAAA",)),
        ({"dev": "CA", "test": "GA"}, ("CAAA",), ("GAAA",)),
        ({"train": "AA", "dev": "CA"}, ("AAAA",), ("CAAA",)),
        ({"test": "GA"}, ("GAAA",), None),
    ],
)
def test_which_files_train_and_which_test(tmp_path, files: dict, train: tuple, test: tuple | None):
    for number, (split, start) in enumerate(files.items()):
        # The second row of each file is there for its class alone.
        rows = [(start + "AA", 1), ("GCTC" * (number + 1), 0)]
        table(tmp_path / "task" / f"{split}.csv", rows)
    task = read_task(tmp_path / "task")
    assert task.name == "task"
    assert task.train.sequences[::2] == train
    assert (task.test and task.test.sequences[::2]) == test


def test_a_numbered_folder_is_named_with_its_parent(tmp_path):
    table(tmp_path / "tf" / "0" / "train.csv", ROWS)
    assert read_task(tmp_path / "tf" / "0").name == "tf_0"


def test_simulated_data_are_known_as_simulated(tmp_path):
    table(tmp_path / "tasks" / "coding" / "train.csv", ROWS)
    assert not read_task(tmp_path / "tasks" / "coding").simulated
    (tmp_path / "simulation.json").write_text("{}")
    assert read_task(tmp_path / "tasks" / "coding").simulated
    assert read_task(tmp_path / "tasks" / "coding" / "train.csv").simulated


def test_leakage_is_taken_out_of_training_and_counted(tmp_path):
    train = [("AAAC", 0), ("CCCA", 1), ("GTTT", 0), ("AGGA", 0), ("AGGA", 1)]
    train += [("TATC", 1), ("TATC", 1), ("GATA", 1), ("GATA", 0), ("CACA", 0)]
    table(tmp_path / "t" / "train.csv", train)
    table(tmp_path / "t" / "dev.csv", [("CACA", 0), ("TGCC", 1)])
    table(tmp_path / "t" / "test.csv", [("AAAC", 0), ("AAAC", 1), ("TTTT", 1)])
    task = read_task(tmp_path / "t")
    audit = task.audit
    assert audit.rows == {"train.csv": 10, "dev.csv": 2, "test.csv": 3}
    assert audit.in_test == 1  # AAAC
    assert audit.in_test_reversed == 1  # GTTT
    assert audit.conflicting == 4  # AGGA and GATA with two labels each
    assert audit.repeated == 2  # TATC again; CACA of dev
    assert task.train.sequences == ("CCCA", "TATC", "CACA", "TGCC")
    assert task.test is not None
    assert task.test.sequences == ("AAAC", "AAAC", "TTTT")
    assert "1 also in test, 1 in test on the other strand, 4 with two labels" in audit.line()


def test_repeats_and_contradictions_within_test_are_counted_and_kept(tmp_path):
    train = [("CCCA", 1), ("TATC", 0)]
    test = [("AAAC", 0), ("AAAC", 0), ("GTTT", 0), ("AGGA", 0), ("AGGA", 1), ("AGGA", 1)]
    test += [("GACC", 0), ("GGTC", 1), ("ACGT", 1), ("TTGG", 1)]
    table(tmp_path / "t" / "train.csv", train)
    table(tmp_path / "t" / "test.csv", test)
    task = read_task(tmp_path / "t")
    assert task.test is not None
    assert list(zip(task.test.sequences, task.test.labels.tolist(), strict=True)) == test
    found = task.audit.test_within
    assert found is not None
    assert found.repeated == 3  # AAAC again, GTTT is its other strand, AGGA with 1 again
    assert found.conflicting == 3  # all rows of AGGA
    assert found.conflicting_reversed == 2  # GACC and GGTC; ACGT is its own other strand
    assert (
        "within test, all kept and scored: 3 repeats, 3 with two labels, 2 with another label on "
        "the other strand"
    ) in task.audit.line()
    assert "kept in training" not in task.audit.line()
    assert Audit.from_plain(json.loads(json.dumps(dataclasses.asdict(task.audit)))) == task.audit


def test_another_label_on_the_other_strand_is_counted_and_kept(tmp_path):
    """What a label says may be about the strand, so nothing is dropped."""
    rows = [("AAAC", 0), ("GTTT", 1), ("CCCA", 1), ("TATC", 0)]
    task = read_task(table(tmp_path / "a.csv", rows))
    assert task.train.sequences == ("AAAC", "GTTT", "CCCA", "TATC")
    assert task.audit.train_within == Within(0, 0, 2)
    assert task.audit.test_within is None
    assert "kept in training: 2 with another label on the other strand" in task.audit.line()
    assert "within test" not in task.audit.line()


def test_an_audit_written_before_these_counts_claims_none():
    plain = dataclasses.asdict(Audit({"a.csv": 3}, 0, 0, 0, 0, 0))
    for name in ("train_within", "test_within"):
        del plain[name]
    assert "within test" not in Audit.from_plain(plain).line()


def test_letters_are_cleaned_and_counted(tmp_path):
    task = read_task(table(tmp_path / "a.csv", [(" acgu ", 1), ("AARN", 0), ("NYyT", 0)]))
    assert task.train.sequences == ("ACGT", "AANN", "NNNT")
    assert task.audit.ambiguous_letters == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sequence\nACGT\n", r"line 1: 0 columns named 'label' \(found: sequence\)"),
        ("bases,label\nACGT,1\n", "line 1: 0 columns named 'sequence'"),
        ("sequence,label,label\nA,1,1\n", "line 1: 2 columns named 'label'"),
        ("", "line 1: 0 columns named 'sequence'"),
        ("sequence,label\n", "no sequences"),
        ("sequence,label\nACGT,1\nACGT\n", "line 3: 1 fields, the header has 2"),
        ("sequence,label\nACGT,1\nACGT,\n", "line 3: the label is empty"),
        ("sequence,label\nACGT,0.53\n", "only the value 0.53 in training"),
        ("sequence,label\nACGT,nan\n", "line 2: the label is 'nan', not a finite number"),
        ("sequence,label\nACGT,1\n ,0\n", "line 3: the sequence is empty"),
        ("sequence,label\nACGT,1\nAC-T,0\n", "line 3: '-' at base 3"),
        ("sequence,label\nACGT,1\nACßT,0\n", "line 3: 'ß' at base 3"),
        ('sequence,label\n"ACGT,1\n', "unexpected end of data"),
        ("sequence,label\nACGT,1\nAAAA,1\n", "only the label '1' in training"),
    ],
)
def test_a_bad_table_is_refused_with_its_line(tmp_path, text: str, message: str):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_task(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (">a|1\nACGT\n>b\nACGT\n", "line 3: no label behind '|' in the header >b"),
        (">a|1\nACGT\n\n>b|\nACGT\n", "line 4: the label is empty"),
        (">a|1\n>b|0\nACGT\n", "line 1: the sequence is empty"),
        (">a|1\nACGT\nAC*T\n", "line 1: '\\*' at base 7"),
        ("ACGT\n>a|1\nACGT\n", "line 1: text before"),
        ("", "no sequences"),
    ],
)
def test_a_bad_fna_is_refused_with_its_line(tmp_path, text: str, message: str):
    path = tmp_path / "bad.fna"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_task(path)


def test_damaged_and_missing_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such task"):
        read_task(tmp_path / "absent.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no labelled data; expected train, dev or test"):
        read_task(tmp_path / "empty")
    cut = tmp_path / "cut.csv.gz"
    cut.write_bytes(gzip.compress(b"sequence,label\nACGT,1\n" * 50)[:-12])
    with pytest.raises(InputError, match="is the file whole"):
        read_task(cut)
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"sequence,label\n\xff\xfe")
    with pytest.raises(InputError, match="not text"):
        read_task(binary)
    other = tmp_path / "task.parquet"
    other.write_text("x")
    with pytest.raises(InputError, match="not a whole Parquet file"):
        read_task(other)
    for name in ("train.csv", "train.tsv"):
        table(tmp_path / "two" / name, ROWS)
    with pytest.raises(InputError, match="which is the train split"):
        read_task(tmp_path / "two")


def test_a_label_of_test_that_training_lacks_is_refused(tmp_path):
    table(tmp_path / "t" / "train.csv", [("ACGT", 0), ("AACC", 1)])
    table(tmp_path / "t" / "test.csv", [("GGGG", 0), ("GATT", 7)])
    with pytest.raises(InputError, match=r"test.csv: line 3: label '7' does not occur"):
        read_task(tmp_path / "t")


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.text("ACGTN", min_size=1), st.integers(0, 2)), min_size=1, max_size=20)
)
def test_every_row_is_kept_or_counted(tmp_path_factory, rows: list):
    path = table(tmp_path_factory.mktemp("t") / "a.csv", [*rows, ("AAACC", 0), ("AAACG", 1)])
    task = read_task(path)
    audit = task.audit
    assert len(task.train) + audit.conflicting + audit.repeated == len(rows) + 2
    assert len(set(task.train.sequences)) == len(task.train)


def test_subsample_keeps_proportions_and_is_seeded(tmp_path):
    rng = np.random.default_rng(0)
    rows = [("".join(rng.choice(list("ACGT"), 20)), int(i % 4 == 0)) for i in range(200)]
    task = read_task(table(tmp_path / "a.csv", rows))
    first, again, other = (subsample(task, 40, seed) for seed in (0, 0, 1))
    assert np.bincount(first.train.labels).tolist() == [30, 10]
    assert first.fingerprint == again.fingerprint
    assert first.fingerprint != other.fingerprint
    assert subsample(task, 0, 0).fingerprint == subsample(task, 500, 0).fingerprint
    assert subsample(task, 0, 0).fingerprint == task.fingerprint


def test_real_gue_and_nt_tasks(real_data):
    labelled = real_data / "labelled"
    task = read_task(labelled / "GUE" / "EMP" / "H3")
    assert task.audit.rows == {"dev.csv.gz": 1497, "test.csv.gz": 1497}
    assert task.test is not None
    assert (len(task.train), len(task.test)) == (1497, 1497)
    splice = read_task(labelled / "GUE" / "splice" / "reconstructed")
    assert splice.classes == ("0", "1", "2")
    assert splice.audit.in_test > 0
    assert splice.audit.test_within == Within(19, 0, 0)
    histone = read_task(labelled / "NT_histone_test" / "H3_test.fna.gz")
    assert np.bincount(histone.train.labels).tolist() == [730, 767]
