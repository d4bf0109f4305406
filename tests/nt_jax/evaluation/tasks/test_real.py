"""Every labelled set of the real data against what its manifest says of it."""

import ast
import csv
import gzip
import io
import json
import pathlib
import re

import numpy as np
import pytest

from nt_jax.evaluation.tasks import make_folds, read_task
from nt_jax.evaluation.tasks.find import find_task, list_tasks
from nt_jax.evaluation.tasks.layouts import read_parts

SMALL = 4_000
"""Sequences of a task that is read by every run of the tests."""


def manifest(real_data: pathlib.Path) -> dict[str, tuple[int, dict[str, int]]]:
    """Sequences and their labels of every GUE and NT file."""
    found = {}
    for entry in json.loads((real_data / "MANIFEST.json").read_text()):
        said = re.match(r"([\d,]+) seqs, .*labels (\{.*\})", entry["content"])
        if said and re.match("labelled/(GUE|NT)", entry["file"]):
            found[entry["file"]] = int(said[1].replace(",", "")), ast.literal_eval(said[2])
    assert len(found) == 60
    return found


def check(real_data: pathlib.Path, wanted: list[pathlib.PurePosixPath]) -> None:
    said = manifest(real_data)
    for place in wanted:
        parts, _ = read_parts(real_data / place)
        for rows in parts.values():
            (name,) = {row.source for row in rows}
            file = str(place) if str(place) in said else f"{place}/{name}"
            count, labels = said[file]
            names, numbers = np.unique([str(row.label) for row in rows], return_counts=True)
            assert len(rows) == count
            assert dict(zip(names.tolist(), numbers.tolist(), strict=True)) == labels


def places(real_data: pathlib.Path) -> dict[pathlib.PurePosixPath, int]:
    """Folder of each GUE task and file of each NT task, and its number of sequences."""
    sizes: dict[pathlib.PurePosixPath, int] = {}
    for file, (count, _) in manifest(real_data).items():
        path = pathlib.PurePosixPath(file)
        place = path if file.endswith(".fna.gz") else path.parent
        sizes[place] = sizes.get(place, 0) + count
    return sizes


def test_small_sets_hold_what_the_manifest_says(real_data):
    small = [place for place, size in places(real_data).items() if size <= SMALL]
    assert len(small) > 10
    check(real_data, small)


@pytest.mark.slow
def test_large_sets_hold_what_the_manifest_says(real_data):
    large = [place for place, size in places(real_data).items() if size > SMALL]
    assert len(large) > 5
    check(real_data, large)


def test_registered_tasks_are_found_in_the_real_data(real_data):
    there = {item.entry.name for item in list_tasks([real_data]) if item.path}
    assert len([name for name in there if name.startswith("gue/")]) == 22
    assert len([name for name in there if name.startswith("nt2023/")]) == 8
    whole = find_task("gue/mouse/2", [real_data])
    assert whole.audit.notes == ()
    assert (len(whole.train) > 2_000, len(whole.test or ())) == (True, 328)
    partial = find_task("gue/EMP/H4", [real_data])
    assert partial.audit.notes == ("no train split (published: 11,679 sequences)",)
    single = find_task("nt2023/H4", [real_data])
    assert single.audit.notes == (
        "1,461 sequences without splits (published: train 13,140, test 1,461)",
    )


def test_one_fasta_per_class_of_bacterial_promoters(real_data, tmp_path):
    source = real_data / "labelled" / "CNNPromoter"
    for label, name in (("promoter", "Bacillus_prom"), ("other", "Bacillus_non_prom")):
        (tmp_path / f"{label}.fa.gz").symlink_to(source / f"{name}.fa.gz")
    task = read_task(tmp_path)
    assert task.classes == ("other", "promoter")
    assert task.audit.rows == {"other.fa.gz": 1000, "promoter.fa.gz": 373}
    assert {len(bases) for bases in task.train.sequences} == {81}


def test_measured_effects_of_substitutions_are_a_regression(real_data, tmp_path):
    """Saturation mutagenesis: each substitution put into its element, grouped by position."""
    folder = real_data / "labelled" / "mpra_satmut"
    text = (folder / "element_reference_GRCh38.tsv").read_text()
    elements = {row["element"]: row for row in csv.DictReader(io.StringIO(text), delimiter="\t")}
    measured = gzip.decompress((folder / "elements.tsv.gz").read_bytes()).decode()
    table = ["sequence,label,group"]
    for row in csv.DictReader(io.StringIO(measured), delimiter="\t"):
        if row["Element"] != "BCL11A" or row["Release"] != "GRCh38" or row["Alt"] == "-":
            continue
        element = elements["BCL11A"]
        place = int(row["Pos"]) - int(element["start"])
        bases = element["ref_sequence_plus_strand"]
        assert bases[place] == row["Ref"]
        changed = bases[:place] + row["Alt"] + bases[place + 1 :]
        table.append(f"{changed},{row['Coefficient']},{row['Pos']}")
    (tmp_path / "mpra.csv").write_text("\n".join(table))
    task = read_task(tmp_path / "mpra.csv")
    assert task.kind == "values"
    assert len(task.train) == len(table) - 1 > 1_000
    assert np.isfinite(task.train.labels).all()
    groups = np.array(task.groups)
    for fold in make_folds(task, 5, seed=0):
        assert not set(groups[fold.train]) & set(groups[fold.test])
