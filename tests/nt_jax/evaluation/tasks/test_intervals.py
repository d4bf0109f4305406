import gzip
import json
import pathlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nt_jax.errors import InputError
from nt_jax.evaluation.tasks import read_task
from nt_jax.evaluation.tasks.examples import reverse_complement
from tests.nt_jax.evaluation.tasks.test_tables import write

CHR1 = "ACGTTGCAACGGTTTACCGATTACAGGGATCC"
CHR2 = "TTTTTCCCCCAAAAAGGGGGTTTTTTTTTTTT"


def describe(folder: pathlib.Path, intervals: str, **more: Any) -> pathlib.Path:
    """A JSON task on a reference of two contigs of 32 bases."""
    fasta = f">chr1 text\n{CHR1[:20]}\n{CHR1[20:].lower()}\n>chr2\n{CHR2}\n"
    (folder / "ref.fa.gz").write_bytes(gzip.compress(fasta.encode()))
    path = folder / "task.json"
    path.write_text(json.dumps({"intervals": intervals, "reference": "ref.fa.gz", **more}))
    return path


def test_bed_with_a_reference(tmp_path):
    (tmp_path / "peaks.bed").write_text(
        "track name=x\n#comment\nchr1\t0\t6\tpeak\t0\t+\nchr2\t5\t10\tpeak\n\n"
        "chr1\t2\t8\tother\t0\t-\textra\n"
    )
    task = read_task(describe(tmp_path, "peaks.bed"))
    assert (task.name, task.classes) == ("task", ("other", "peak"))
    assert task.train.sequences == (CHR1[:6], CHR2[5:10], reverse_complement(CHR1[2:8]))
    assert task.train.labels.tolist() == [1, 1, 0]
    assert task.groups == ("chr1", "chr2", "chr1")
    assert task.audit.rows == {"peaks.bed": 3}


@pytest.mark.parametrize("form", ["csv", "tsv.gz", "parquet"])
def test_tables_of_intervals_with_a_group_and_a_split(tmp_path, form: str):
    columns = {
        "region": ["chr1", "chr2", "chr2"],
        "start": [0, 5, 16],
        "end": [6, 10, 20],
        "label": [0.5, 1.5, 2.5],
        "group": ["a", "b", "a"],
        "split": ["train", "train", "test"],
    }
    write(tmp_path / f"x.{form}", columns)
    task = read_task(describe(tmp_path, f"x.{form}"))
    assert task.kind == "values"
    assert task.train.sequences == (CHR1[:6], CHR2[5:10])
    assert task.groups == ("a", "b")
    assert task.test is not None
    assert task.test.sequences == (CHR2[16:20],)
    assert task.audit.shared_groups == 1


def test_windows_around_the_middle_and_what_is_passed_over(tmp_path):
    rows = ["chr1\t8\t10\ta", "chr1\t9\t11\tb", "chr1\t0\t2\ta", "chr2\t12\t13\tb"]
    (tmp_path / "x.bed").write_text("\n".join(rows))
    path = describe(tmp_path, "x.bed", length=8)
    task = read_task(path)
    assert task.train.sequences == (CHR1[5:13], CHR1[6:14], CHR2[8:16])
    assert task.audit.notes == ("passed over 1 windows that reach over the end of a contig",)
    assert task.audit.line().endswith("; passed over 1 windows that reach over the end of a contig")
    assert all(
        len(bases) == 7
        for bases in read_task(describe(tmp_path, "x.bed", length=7)).train.sequences
    )


def test_windows_of_mostly_n_are_passed_over_and_counted(tmp_path):
    (tmp_path / "n.fa").write_text(">c\nACGTNNNNNNACRTTTGCA\n")
    rows = ["c\t0\t8\ta", "c\t1\t10\tb", "c\t9\t14\tb"]
    (tmp_path / "x.bed").write_text("\n".join(rows))
    (tmp_path / "t.json").write_text('{"intervals": "x.bed", "reference": "n.fa"}')
    task = read_task(tmp_path / "t.json")
    assert task.train.sequences == ("ACGTNNNN", "NACNT")
    assert task.audit.notes == ("passed over 1 windows of mostly N",)


def test_splits_by_chromosome(tmp_path):
    rows = ["chr1\t0\t6\ta", "chr1\t8\t14\tb", "chr2\t5\t10\ta", "chr2\t13\t18\tb"]
    (tmp_path / "x.bed").write_text("\n".join(rows))
    task = read_task(describe(tmp_path, "x.bed", split={"test": ["chr2"]}))
    assert task.train.sequences == (CHR1[:6], CHR1[8:14])
    assert task.test is not None
    assert task.test.sequences == (CHR2[5:10], CHR2[13:18])
    assert task.audit.shared_groups == 0
    only = read_task(describe(tmp_path, "x.bed", split={"train": ["chr1"]}))
    assert (len(only.train), only.test) == (2, None)
    assert only.audit.notes == ("passed over 2 intervals on chromosomes of no split",)


def test_genomic_benchmarks_as_published(tmp_path):
    """train/CLASS.csv.gz with id, region, start, end, strand."""
    for split, start in (("train", 0), ("test", 12)):
        for name, strand in (("positive", "+"), ("negative", "-")):
            columns = {"id": [1], "region": ["chr1"], "start": [start], "end": [start + 7]}
            write(tmp_path / "set" / split / f"{name}.csv.gz", columns | {"strand": [strand]})
    (tmp_path / "set" / "metadata.yaml").write_text("version: 0")
    task = read_task(describe(tmp_path, "set"))
    # The two classes are the two strands of one interval: equal but for the strand.
    assert task.train.sequences == (reverse_complement(CHR1[:7]), CHR1[:7])
    assert task.classes == ("negative", "positive")
    assert task.test is not None
    assert task.test.labels.tolist() == [0, 1]


def test_bed_files_of_one_class_each(tmp_path):
    for split, start in (("train", 0), ("test", 12)):
        for name, shift in (("open", 0), ("closed", 9)):
            place = tmp_path / "set" / split / f"{name}.bed"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(f"chr1\t{start + shift}\t{start + shift + 7}\tpeak_1\t5\t+\n")
    task = read_task(describe(tmp_path, "set"))
    assert task.classes == ("closed", "open")
    assert task.train.sequences == (CHR1[9:16], CHR1[:7])


def test_pieces_of_contigs_keep_their_true_coordinates(tmp_path):
    (tmp_path / "x.bed").write_text("7\t1000\t1006\ta\n7\t2002\t2008\tb\n")
    (tmp_path / "p.fa").write_text(f">7:1001-1032\n{CHR1}\n>7:2001-2032\n{CHR2}\n")
    (tmp_path / "t.json").write_text('{"intervals": "x.bed", "reference": "p.fa"}')
    assert read_task(tmp_path / "t.json").train.sequences == (CHR1[:6], CHR2[2:8])


@settings(deadline=None, max_examples=25)
@given(
    spans=st.lists(
        st.tuples(st.sampled_from(["chr1", "chr2"]), st.integers(0, 26), st.booleans()),
        min_size=2,
        max_size=10,
        unique=True,
    ),
    length=st.integers(1, 6),
)
def test_windows_equal_slices(tmp_path_factory, spans: list, length: int):
    folder = tmp_path_factory.mktemp("t")
    lines = [
        f"{chrom}\t{start}\t{start + length}\tc{index}\t.\t{'-' if minus else '+'}"
        for index, (chrom, start, minus) in enumerate(spans)
    ]
    lines += ["chr1\t0\t32\tfirst", "chr2\t0\t32\tsecond"]
    (folder / "x.bed").write_text("\n".join(lines))
    task = read_task(describe(folder, "x.bed"))
    held = {
        task.classes[label]: bases
        for bases, label in zip(task.train.sequences, task.train.labels, strict=True)
    }
    for index, (chrom, start, minus) in enumerate(spans):
        bases = (CHR1 if chrom == "chr1" else CHR2)[start : start + length]
        if f"c{index}" in held:
            assert held[f"c{index}"] == (reverse_complement(bases) if minus else bases)
    assert len(task.train) + task.audit.conflicting == len(lines)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("chr1\t30\t40\ta", "x.bed: line 1: chr1:30-40 lies beyond ref.fa.gz, which has 0-32 (0-"),
        ("2\t0\t4\ta", "x.bed: line 1: no contig '2' in ref.fa.gz; it has 'chr2': use the same"),
        ("chr11\t0\t4\ta", "no contig 'chr11' in ref.fa.gz; did you mean 'chr1'?"),
        ("chr1\t9\t4\ta", "x.bed: line 1: no interval from '9' to '4'; start and end are 0-based"),
        ("chr1\t-1\t4\ta", "x.bed: line 1: no interval from '-1' to '4'"),
        ("chr1\t0\t4\ta\t0\t*", "x.bed: line 1: the strand is '*'; give +, - or ."),
        ("chr1\t0\t4", "x.bed: line 1: the label is empty"),
        ("chr1 0 4 a", "x.bed: line 1: 1 columns between tabs; a BED line has"),
    ],
)
def test_bad_intervals_are_refused_with_their_line(tmp_path, line: str, message: str):
    (tmp_path / "x.bed").write_text(line + "\nchr2\t0\t9\tb\n")
    with pytest.raises(InputError) as caught:
        read_task(describe(tmp_path, "x.bed"))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "task.json: no JSON"),
        ("[]", "task.json: not an object"),
        ('{"intervals": "x.bed"}', "task.json: 'reference' is missing"),
        ('{"interval": "x.bed"}', "unknown key 'interval'; did you mean 'intervals'?"),
        ('{"intervals": "x.bed", "reference": "r", "length": 0}', "length 0; give a number"),
        ('{"intervals": "x.bed", "reference": "r", "length": true}', "length True; give"),
        (
            '{"intervals": "x.bed", "reference": "r", "split": ["c"]}',
            'split is {"test": ["chr20", ...]}: lists of',
        ),
        (
            '{"intervals": "x.bed", "reference": "r", "split": {"tset": ["c"]}}',
            "unknown split 'tset'; did you mean 'test'?",
        ),
        (
            '{"intervals": "x.bed", "reference": "r", "split": {"test": ["c"], "dev": ["c"]}}',
            "split names 'c' twice",
        ),
        (
            '{"intervals": "x.bed", "reference": "r", "split": {"test": ["chr3"]}}',
            "split names 'chr3', but x.bed has no interval there; did you mean 'chr1'?",
        ),
        ('{"intervals": "y.bed", "reference": "r"}', "y.bed: no such task"),
        ('{"intervals": "x.bed", "reference": "r"}', "r: cannot be read"),
    ],
)
def test_bad_descriptions_are_refused(tmp_path, content: str, message: str):
    (tmp_path / "x.bed").write_text("chr1\t0\t4\ta\n")
    (tmp_path / "task.json").write_text(content)
    with pytest.raises(InputError) as caught:
        read_task(tmp_path / "task.json")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_split_twice_and_sequences_for_intervals_are_refused(tmp_path):
    columns = {"chrom": ["chr1"], "start": [0], "end": [4], "label": ["a"], "split": ["test"]}
    write(tmp_path / "x.csv", columns)
    with pytest.raises(InputError, match=r"split, but x.csv is split into test already"):
        read_task(describe(tmp_path, "x.csv", split={"test": ["chr1"]}))
    write(tmp_path / "y.csv", {"sequence": ["ACGT"], "label": ["a"]})
    with pytest.raises(InputError, match=r"y.csv: line 2: a sequence, not an interval"):
        read_task(describe(tmp_path, "y.csv"))


def test_windows_of_a_real_genome_are_its_own(real_data, tmp_path):
    reference = real_data / "genomes" / "species" / "saccharomyces_cerevisiae_R64-1-1.fa.gz"
    rng = np.random.default_rng(0)
    starts = np.sort(rng.integers(0, 200_000, 40))
    lines = [f"{'I' if i % 2 else 'II'}\t{s}\t{s + 90}\t{i % 2}" for i, s in enumerate(starts)]
    (tmp_path / "x.bed").write_text("\n".join(lines))
    (tmp_path / "t.json").write_text(
        json.dumps({"intervals": "x.bed", "reference": str(reference), "length": 120})
    )
    task = read_task(tmp_path / "t.json")
    text = gzip.decompress(reference.read_bytes()).decode()
    records = {part.split()[0]: "".join(part.splitlines()[1:]) for part in text.split(">")[1:]}
    for bases, group, start in zip(task.train.sequences, task.groups or (), starts, strict=True):
        assert bases == records[group][start - 15 : start + 105].upper()
