import pathlib

import pytest

from nt_jax.errors import InputError
from nt_jax.evaluation.tasks import Task, read_task
from tests.nt_jax.evaluation.tasks.test_tables import write


def put(path: pathlib.Path, text: str) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def held(task: Task) -> dict[str, str]:
    """The class of each training sequence."""
    return {
        bases: task.classes[label]
        for bases, label in zip(task.train.sequences, task.train.labels, strict=True)
    }


def test_a_folder_of_one_fasta_per_class(tmp_path):
    put(tmp_path / "promoter.fa", ">same\nACGT\nAC\n>same\nGGGT\n")
    put(tmp_path / "other.fasta", ">x|1\nTTTA\n")
    put(tmp_path / "README.md", "text")
    task = read_task(tmp_path)
    assert held(task) == {"ACGTAC": "promoter", "GGGT": "promoter", "TTTA": "other"}
    assert task.test is None
    assert task.audit.rows == {"other.fasta": 1, "promoter.fa": 2}


def test_genomic_benchmarks_as_downloaded(tmp_path):
    """train/CLASS/NUMBER.txt, a text file of bases for each example."""
    for split, bases in (("train", "ACGT"), ("test", "GGGC")):
        for label in ("positive", "negative"):
            for number in range(2):
                text = bases + label[0].translate(str.maketrans("pn", "AC")) + "A" * number
                put(tmp_path / split / label / f"{number}.txt", text)
    task = read_task(tmp_path)
    assert task.classes == ("negative", "positive")
    assert held(task)["ACGTA"] == "positive"
    assert task.test is not None
    assert len(task.test) == 4
    assert task.audit.rows["train/positive"] == 2


def test_split_folders_with_a_file_for_each_class(tmp_path):
    put(tmp_path / "train" / "a.fa", ">1\nACGT\n")
    write(tmp_path / "train" / "b.csv.gz", {"sequence": ["GGGT", "TTAA"]})
    write(tmp_path / "valid" / "a.tsv", {"sequence": ["CCCA"], "id": [7]})
    put(tmp_path / "test" / "b.fna", ">1\nAAAA\n")
    task = read_task(tmp_path)
    assert held(task) == {"ACGT": "a", "GGGT": "b", "TTAA": "b", "CCCA": "a"}
    assert task.test is not None
    assert task.test.labels.tolist() == [1]


def test_parquet_shards_of_the_hub(tmp_path):
    for number in range(2):
        rows = {"seq": [f"ACGT{'A' * number}", f"GGGC{'A' * number}"], "label": [0, 1]}
        write(tmp_path / "data" / f"train-0000{number}-of-00002-5ad1.parquet", rows)
    write(tmp_path / "data" / "test-00000-of-00001.parquet", {"seq": ["CACA"], "label": [1]})
    task = read_task(tmp_path)
    assert task.name == tmp_path.name
    assert task.train.sequences == ("ACGT", "GGGC", "ACGTA", "GGGCA")
    assert task.test is not None
    assert len(task.test) == 1


def test_the_hubs_two_forms_of_an_nt_task_are_one(tmp_path):
    for split, bases in (("train", "ACGT"), ("test", "GGGC")):
        put(tmp_path / f"{split}.fna", f">a|1\n{bases}\n>b|0\n{bases}AA\n")
        rows = {"sequence": [bases, bases + "AA"], "name": ["a", "b"], "label": [1, 0]}
        write(tmp_path / f"{split}.parquet", rows)
    task = read_task(tmp_path)
    assert task.audit.rows == {"train.parquet": 2, "test.parquet": 2}
    assert task.audit.notes == (
        "test.parquet read, not test.fna beside it",
        "train.parquet read, not train.fna beside it",
    )


def test_tables_that_are_not_read_are_named(tmp_path):
    for name in ("train", "test", "extra"):
        bases = "AC" + name.upper().translate(str.maketrans("RINESX", "ACGTAC"))
        write(tmp_path / f"{name}.csv", {"sequence": [bases, "GGC" + bases], "label": [0, 1]})
    assert read_task(tmp_path).audit.notes == ("not read: extra.csv",)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("train.csv", "train/a.fa"), "both train.csv and train; which is the train split"),
        (("val.csv", "dev.csv"), "both dev.csv and val.csv; which is the dev split"),
        (("val/a.fa", "dev/a.fa"), "both dev and val; which is the dev split"),
        (("notes.txt",), "no labelled data; expected train, dev or test"),
        (("train/notes.md",), "train: no labelled data"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(tmp_path, files: tuple[str, ...], message: str):
    for name in files:
        put(tmp_path / name, "sequence,label\nACGT,1\n")
    with pytest.raises(InputError, match=message) as caught:
        read_task(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_class_file_with_labels_of_its_own_is_refused(tmp_path):
    write(tmp_path / "train" / "a.csv", {"sequence": ["ACGT"], "label": [1]})
    with pytest.raises(InputError, match=r"a.csv: line 1: a column label .* makes 'a' of all"):
        read_task(tmp_path)


def test_a_row_of_another_split_is_refused(tmp_path):
    write(
        tmp_path / "train.csv",
        {"sequence": ["ACGT", "A"], "label": [1, 0], "split": ["train", "test"]},
    )
    with pytest.raises(InputError, match=r"train.csv: line 3: split 'test' in a file of the train"):
        read_task(tmp_path)
