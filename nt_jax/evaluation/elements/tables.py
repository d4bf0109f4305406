"""Attention sums as a table: a row a (source, measure, class, layer, head), tested and adjusted."""

import dataclasses
import io
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_pipelines.elements import CLASSES
from nt_jax.evaluation.elements.attention import AttentionSums, Sums
from nt_jax.evaluation.elements.statistics import LEAST_WINDOWS, adjusted, enrichment, usable

SOURCES = ("trained", "random init", "turned annotation")
"""The model itself and its two controls."""
MEASURES = ("attention", "pairs")
"""Sums of attention, and pairs above the threshold."""
LEVEL = 0.05
"""False discovery rate that counts as significant."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One head on one class. Numbers that are not defined are NaN."""

    source: str
    measure: str
    element: str
    layer: int
    """1-based."""
    head: int
    """0-based."""
    windows: int
    """Windows that hold the class and something else."""
    without: int
    """Windows without the class, left out."""
    wholly: int
    """Windows that are nothing else, left out."""
    informative: int
    """Of `windows` those in which anything was observed (pairs above the threshold)."""
    share: float
    expected: float
    ratio: float
    low: float
    high: float
    p: float
    q: float
    """Benjamini-Hochberg over all classes, layers and heads of this source and measure."""

    @property
    def significant(self) -> bool:
        """Whether q is below LEVEL."""
        return self.q < LEVEL


def attention_cells(trained: AttentionSums, untrained: AttentionSums, seed: int) -> list[Cell]:
    """All cells of both models and both controls."""
    cells: list[Cell] = []
    for source, sums in (
        ("trained", {"attention": trained.attention, "pairs": trained.pairs}),
        ("random init", {"attention": untrained.attention, "pairs": untrained.pairs}),
        (
            "turned annotation",
            {"attention": trained.turned_attention, "pairs": trained.turned_pairs},
        ),
    ):
        for measure, own in sums.items():
            cells += _cells(source, measure, own, trained.expected, seed)
    return cells


def _cells(source: str, measure: str, sums: Sums, expected: np.ndarray, seed: int) -> list[Cell]:
    _, layers, heads = sums.total.shape
    rows: list[dict] = []
    for number, element in enumerate(CLASSES):
        used, without, wholly = usable(expected[:, number])
        flat = (int(used.sum()), layers * heads)
        found = enrichment(
            sums.inside[used][..., number].reshape(flat),
            sums.total[used].reshape(flat),
            expected[used, number],
            seed,
        )
        for k in range(layers * heads):
            rows.append(
                {
                    "source": source,
                    "measure": measure,
                    "element": element,
                    "layer": k // heads + 1,
                    "head": k % heads,
                    "windows": flat[0],
                    "without": without,
                    "wholly": wholly,
                    "informative": int(found.informative[k]),
                    "share": float(found.share[k]),
                    "expected": float(found.expected[k]),
                    "ratio": float(found.ratio[k]),
                    "low": float(found.low[k]),
                    "high": float(found.high[k]),
                    "p": float(found.p[k]),
                }
            )
    q = adjusted(np.array([row["p"] for row in rows]))
    return [Cell(**row, q=float(value)) for row, value in zip(rows, q, strict=True)]


def select(cells: Iterable[Cell], source: str, measure: str, element: str) -> list[Cell]:
    """The cells of one heat map, layer by layer."""
    wanted = (source, measure, element)
    return [cell for cell in cells if (cell.source, cell.measure, cell.element) == wanted]


def grid(cells: Sequence[Cell], field: str) -> np.ndarray:
    """float64[L, H] of one field of the cells of one heat map."""
    layers, heads = max(c.layer for c in cells), 1 + max(c.head for c in cells)
    values = np.full((layers, heads), np.nan)
    for cell in cells:
        values[cell.layer - 1, cell.head] = getattr(cell, field)
    return values


def too_few(cells: Iterable[Cell]) -> list[str]:
    """Classes that were not tested for want of windows."""
    return [
        element
        for element in CLASSES
        if all(c.windows < LEAST_WINDOWS for c in cells if c.element == element)
    ]


def cells_parquet(cells: Sequence[Cell]) -> bytes:
    """The table as the content of a Parquet file; NaN becomes null."""
    names = [field.name for field in dataclasses.fields(Cell)]
    columns = {}
    for name in names:
        values = [getattr(cell, name) for cell in cells]
        columns[name] = pa.array(
            [None if isinstance(v, float) and not np.isfinite(v) else v for v in values]
        )
    content = io.BytesIO()
    pq.write_table(pa.table(columns), content)
    return content.getvalue()
