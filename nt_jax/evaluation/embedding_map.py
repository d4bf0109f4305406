"""Embeddings of any set of sequences as a file, and as a picture in two dimensions."""

import collections
import io
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from data_pipelines.fasta import read_fasta
from nt_jax.errors import InputError
from nt_jax.evaluation.embeddings import COLUMN, parquet_bytes
from nt_jax.evaluation.tasks import Task
from nt_jax.evaluation.tasks.intervals import Description, read_intervals
from nt_jax.files import write_atomically
from nt_jax.pictures import png

ENDINGS = (".parquet", ".npz")
MOST_COLOURS = 10
"""Labels with a colour of their own, the most frequent ones."""
OTHERS = "others"


class Items(NamedTuple):
    """Sequences and what is known of them: columns of equal length, `label` among them."""

    sequences: list[str]
    columns: dict[str, list[object]]
    passed: list[str]
    """What was left out, in words."""


def from_fasta(path: pathlib.Path) -> Items:
    """Every record of a FASTA with its name and start; no record has a label.

    Raises InputError as the reader does.
    """
    items = Items([], {"name": [], "start": [], "label": []}, [])
    for contig in read_fasta(path):
        items.sequences.append(contig.bases.tobytes().decode())
        for column, value in (("name", contig.name), ("start", contig.start), ("label", "")):
            items.columns[column].append(value)
    return items


def from_bed(bed: pathlib.Path, fasta: pathlib.Path) -> Items:
    """Intervals of a genome; the fourth column of the BED, if there is one, is the label."""
    parts, passed = read_intervals(Description(bed, bed, fasta, None, {}))
    rows = [row for part in parts.values() for row in part if row.interval]
    intervals = [row.interval for row in rows if row.interval]
    columns: dict[str, list[object]] = {
        "chrom": [interval.chrom for interval in intervals],
        "start": [interval.start for interval in intervals],
        "end": [interval.end for interval in intervals],
        "strand": ["-" if interval.reverse else "+" for interval in intervals],
        "label": [row.label for row in rows],
    }
    return Items([row.sequence for row in rows], columns, passed)


def from_task(task: Task) -> Items:
    """All sequences of a labelled set."""
    items = Items([], {"split": [], "label": []}, [])
    for name, split in (("train", task.train), ("test", task.test)):
        if split is None:
            continue
        items.sequences.extend(split.sequences)
        items.columns["split"] += [name] * len(split)
        for label in split.labels:
            if task.kind == "classes":
                text: object = task.classes[label]
            elif task.kind == "values":
                text = float(label)
            else:
                text = ";".join(c for c, own in zip(task.classes, label, strict=True) if own)
            items.columns["label"].append(text)
    return items


def check_ending(out: pathlib.Path) -> None:
    """InputError for a file that is neither Parquet nor npz."""
    if out.suffix not in ENDINGS:
        raise InputError(f"--out {out}: embeddings are written as {' or '.join(ENDINGS)}")


def write(
    out: pathlib.Path,
    items: Items,
    vectors: Float[np.ndarray, "N D"],
    about: Mapping[str, object],
) -> None:
    """Parquet with a list column `embedding`, or npz with the array `embedding`."""
    check_ending(out)
    if out.suffix == ".parquet":
        write_atomically(out, parquet_bytes(vectors, items.columns, about))
        return
    content = io.BytesIO()
    columns = {name: np.array(values) for name, values in items.columns.items()}
    np.savez(content, allow_pickle=False, **{**columns, COLUMN: vectors})
    write_atomically(out, content.getvalue())


Projection = Callable[[Float[np.ndarray, "N D"], int], tuple[np.ndarray, tuple[str, str]]]
"""(standardised vectors, seed) -> ([N, 2], names of the axes)."""


def pca(vectors: Float[np.ndarray, "N D"], seed: int) -> tuple[np.ndarray, tuple[str, str]]:
    """The two directions of largest variance."""
    fitted = PCA(2, random_state=seed)
    places = fitted.fit_transform(vectors)
    first, second = (f"{100 * share:.0f} %" for share in fitted.explained_variance_ratio_)
    return places, (f"component 1 ({first} of the variance)", f"component 2 ({second})")


def umap(vectors: Float[np.ndarray, "N D"], seed: int) -> tuple[np.ndarray, tuple[str, str]]:
    """UMAP with its defaults; needs the extra `umap`."""
    try:
        from umap import UMAP
    except ImportError:
        raise InputError(
            'a UMAP needs umap-learn: pip install "nt-jax[umap]", or choose pca'
        ) from None
    return UMAP(random_state=seed, n_jobs=1).fit_transform(vectors), ("UMAP 1", "UMAP 2")


PROJECTIONS: Mapping[str, Projection] = {"pca": pca, "umap": umap}


def picture(
    vectors: Float[np.ndarray, "N D"],
    labels: Sequence[object],
    title: str,
    projection: Projection = pca,
    seed: int = 0,
) -> bytes:
    """PNG of all sequences, coloured by label: by value where labels are numbers.

    Raises InputError for fewer than three sequences.
    """
    if len(vectors) < 3:
        raise InputError(f"{len(vectors)} sequences: a picture needs at least 3")
    places, names = projection(StandardScaler().fit_transform(vectors), seed)
    x, y = places.T
    figure = Figure(figsize=(7, 5.2), layout="constrained")
    axes = figure.subplots()
    size = float(np.clip(4000 / len(places), 2, 25))
    values = [label for label in labels if isinstance(label, float)]
    if len(values) == len(labels):
        points = axes.scatter(x, y, c=values, s=size, cmap="cividis", linewidths=0)
        figure.colorbar(points, ax=axes, label="label")
    else:
        shown = _frequent([str(label) for label in labels])
        colours = matplotlib.colormaps["tab10"].colors  # type: ignore[attr-defined]
        for name, rows in shown.items():
            colour = "0.7" if name == OTHERS else colours[list(shown).index(name) % len(colours)]
            axes.scatter(
                x[rows], y[rows], s=size, color=colour, linewidths=0, alpha=0.7,
                label=f"{name or 'no label'} ({len(rows):,})",
            )  # fmt: skip
        if set(shown) != {""}:
            figure.legend(loc="outside right upper", frameon=False, markerscale=15 / size**0.9)
    axes.set(xlabel=names[0], ylabel=names[1], title=title)
    axes.spines[["top", "right"]].set_visible(False)
    return png(figure)


def _frequent(labels: Sequence[str]) -> dict[str, list[int]]:
    """Rows of each of the most frequent labels, by name; the rest is one, drawn first."""
    counts = collections.Counter(labels).most_common()
    kept = {name for name, _ in counts[: MOST_COLOURS if len(counts) > MOST_COLOURS else None]}
    rows: dict[str, list[int]] = {name: [] for name in [OTHERS, *sorted(kept)]}
    for row, label in enumerate(labels):
        rows[label if label in kept else OTHERS].append(row)
    return {name: own for name, own in rows.items() if own}
