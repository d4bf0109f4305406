"""Tasks known by name: NT's revised and first sets, GUE and Genomic Benchmarks.

Their sequences are not ours to hand out: an entry says how large a task is, how it is scored, where
it comes from and under which folder names people have it.
"""

import dataclasses
from collections.abc import Mapping

from nt_jax.evaluation.tasks import suites
from nt_jax.evaluation.tasks.task import Kind


@dataclasses.dataclass(frozen=True, kw_only=True)
class Suite:
    """What the tasks of one benchmark have in common."""

    title: str
    source: str
    """Where to fetch the files."""
    paper: str
    licence: str
    folders: tuple[str, ...]
    """Names its folder goes by; the first is the one to make."""
    alone: bool
    """Whether a task's own folder name is enough to know it, without the suite's above it."""
    files: str
    """Files of a task, for people."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """One registered task."""

    name: str
    """`SUITE/TASK`."""
    suite: str
    classes: int
    train: int | None
    """Sequences as published; None where the suite has no such split."""
    dev: int | None
    test: int | None
    length: int
    """Bases; of most sequences, or their median where lengths differ (Genomic Benchmarks)."""
    metric: str
    places: tuple[str, ...]
    """Paths of its folder (or file) below the suite's."""
    certainty: str
    """Of the sizes; V, S or I, as explained in `suites`."""
    kind: Kind = "classes"

    def sizes(self) -> dict[str, int]:
        """The published sequences of each split there is."""
        sizes = {"train": self.train, "dev": self.dev, "test": self.test}
        return {split: size for split, size in sizes.items() if size is not None}


_HUB = "https://huggingface.co/datasets/"
_NT_PAPER = "Dalla-Torre et al., Nature Methods 2025, doi:10.1038/s41592-024-02523-z"
_FNA = "train.fna and test.fna, or train.parquet and test.parquet"

SUITES: Mapping[str, Suite] = {
    "nt": Suite(
        title="Nucleotide Transformer, revised set",
        source=_HUB + "InstaDeepAI/nucleotide_transformer_downstream_tasks_revised",
        paper=_NT_PAPER,
        licence="CC BY-NC-SA 4.0",
        folders=("nucleotide_transformer_downstream_tasks_revised", "nt"),
        alone=False,
        files=_FNA,
    ),
    "nt2023": Suite(
        title="Nucleotide Transformer, first set",
        source=_HUB + "InstaDeepAI/nucleotide_transformer_downstream_tasks",
        paper=_NT_PAPER + " (first version: bioRxiv 2023.01.11.523679)",
        licence="CC BY-NC-SA 4.0",
        folders=("nucleotide_transformer_downstream_tasks", "nt2023", "NT_histone_test"),
        alone=False,
        files=_FNA,
    ),
    "gue": Suite(
        title="Genome Understanding Evaluation",
        source="https://github.com/MAGICS-LAB/DNABERT_2 (GUE.zip)",
        paper="Zhou et al., ICLR 2024, arXiv:2306.15006",
        licence="Apache-2.0",
        folders=("GUE",),
        alone=True,
        files="train.csv, dev.csv and test.csv",
    ),
    "gb": Suite(
        title="Genomic Benchmarks",
        source="https://github.com/ML-Bioinfo-CEITEC/genomic_benchmarks (its download_dataset)",
        paper="Gresova et al., BMC Genomic Data 2023, doi:10.1186/s12863-023-01123-8",
        licence="Apache-2.0",
        folders=("genomic_benchmarks", ".genomic_benchmarks"),
        alone=True,
        files="train/CLASS/*.txt and test/CLASS/*.txt, or data/train-*.parquet and data/test-*",
    ),
}

_GUE_HUB = {"EMP": "emp_", "tf": "human_tf_", "mouse": "mouse_", "prom": ""}
"""What GUE's copies on the hub put in place of its folders."""


def _metric(suite: str, task: str) -> str:
    if suite == "gb":
        return "accuracy"
    if task == "virus/covid":
        return "F1"
    if suite == "nt2023" and task == "splice_sites_all":
        return "accuracy"
    return "F1" if suite == "nt2023" and task.startswith(("promoter", "splice")) else "MCC"


def _places(suite: str, task: str) -> tuple[str, ...]:
    if suite == "gue":
        folder, name = task.split("/")
        return task, _GUE_HUB.get(folder, f"{folder}_") + name
    if suite == "gb":
        return task, f"Genomic_Benchmarks_{task}"
    singular = (task.removesuffix("s"),) if task.endswith(("donors", "acceptors")) else ()
    files = (f"{task}_test.fna.gz", f"{task}_test.fna") if suite == "nt2023" else ()
    return task, *singular, *files


def _entries() -> dict[str, Entry]:
    tables = {
        "nt": suites.NT,
        "nt2023": suites.NT_FIRST,
        "gue": suites.GUE,
        "gb": suites.GENOMIC_BENCHMARKS,
    }
    entries = [
        Entry(
            name=f"{suite}/{task}",
            suite=suite,
            classes=classes,
            train=train,
            dev=dev,
            test=test,
            length=length,
            metric=_metric(suite, task),
            places=_places(suite, task),
            certainty=certainty,
        )
        for suite, rows in tables.items()
        for task, classes, train, dev, test, length, certainty in rows
    ]
    return {entry.name: entry for entry in entries}


REGISTRY: Mapping[str, Entry] = _entries()
"""All registered tasks by name."""
