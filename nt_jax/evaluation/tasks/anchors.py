"""Published scores of other people's runs, for bars beside ours.

Each one was read in a digest of the paper that is named, not recomputed; where two digests differ
in the last digit, it is rounded. All are fine-tuned models: a frozen probe is not the same race.
Only what could be read is here. GUE's means hold the F1 of virus/covid among 27 MCCs.
"""

import dataclasses

from nt_jax.evaluation.tasks.registry import SUITES


@dataclasses.dataclass(frozen=True)
class Anchor:
    """One published score."""

    task: str
    """A registered name; or a suite's name for the mean over its tasks."""
    model: str
    metric: str
    value: float
    source: str


_SPACE = "Yang et al., ICML 2025, arXiv:2506.01833 (NT and DNABERT-2 columns after the NT paper)"
_GUE = "Zhou et al., ICLR 2024, arXiv:2306.15006"
_GUE_MEAN = "MCC, of virus/covid F1"
_NT = SUITES["nt"].paper

_NT_TASKS = (
    "H3K4me3",
    "H3K9ac",
    "enhancers",
    "enhancers_types",
    "splice_sites_donors",
    "splice_sites_acceptors",
)
_NT_MCC = {
    "NT-2.5B-multi": (0.618, 0.527, 0.527, 0.484, 0.958, 0.964),
    "DNABERT-2": (0.646, 0.564, 0.517, 0.476, 0.837, 0.855),
    "Enformer": (0.635, 0.593, 0.614, 0.573, 0.749, 0.739),
}
_GUE_SCORES = (
    ("prom/prom_300_all", "NT-2.5B-multi", "MCC", 0.9101),
    ("prom/prom_300_notata", "NT-2.5B-multi", "MCC", 0.9400),
    ("prom/prom_300_tata", "NT-2.5B-multi", "MCC", 0.7943),
    ("splice/reconstructed", "NT-2.5B-multi", "MCC", 0.894),
    ("virus/covid", "NT-2.5B-multi", "F1", 0.7304),
    ("splice/reconstructed", "DNABERT-2", "MCC", 0.850),
    ("EMP/H3K4me2", "DNABERT-2", "MCC", 0.3113),
    ("EMP/H3K4me3", "DNABERT-2", "MCC", 0.3627),
    ("virus/covid", "DNABERT-2", "F1", 0.7102),
)

ANCHORS: tuple[Anchor, ...] = (
    Anchor("nt", "NT-v2-250M-multi", "MCC", 0.769, _NT),
    Anchor("gue", "NT-2.5B-multi", _GUE_MEAN, 0.6693, _GUE),
    Anchor("gue", "DNABERT-2", _GUE_MEAN, 0.6680, _GUE),
    *(
        Anchor(f"nt/{task}", model, "MCC", value, _SPACE)
        for model, values in _NT_MCC.items()
        for task, value in zip(_NT_TASKS, values, strict=True)
    ),
    *(
        Anchor(f"gue/{task}", model, metric, value, _GUE)
        for task, model, metric, value in _GUE_SCORES
    ),
)


def anchors(task: str) -> list[Anchor]:
    """The published scores of a registered task, or of a suite; none where none could be read."""
    return [anchor for anchor in ANCHORS if anchor.task == task]
