"""What is drawn: the values, the marks, the labels and one colour scale."""

import io

import matplotlib.image
import numpy as np
import pytest

from data_pipelines.elements import CLASSES
from nt_jax.evaluation.elements.figures import (
    attention_figure,
    colour_limit,
    log_ratio,
    shown_classes,
)
from nt_jax.evaluation.elements.tables import SOURCES, Cell, select
from nt_jax.pictures import png


def make_cells(layers: int, heads: int, tested=CLASSES) -> list[Cell]:
    rng = np.random.default_rng(0)
    cells = []
    for source in SOURCES:
        for element in CLASSES:
            for layer in range(1, layers + 1):
                for head in range(heads):
                    ratio = float(2 ** rng.normal(0, 0.3))
                    p = float(rng.random()) if element in tested else float("nan")
                    cells.append(
                        Cell(source, "attention", element, layer, head, 50, 3, 1, 50, 0.2, 0.2,
                             ratio, ratio * 0.9, ratio * 1.1, p, p)
                    )  # fmt: skip
    return cells


@pytest.mark.parametrize(("layers", "heads"), [(4, 4), (24, 20)])
def test_every_panel_shows_its_own_cells(layers, heads):
    cells = make_cells(layers, heads)
    figure = attention_figure(cells, "attention", "the title")
    panels = [axes for axes in figure.axes if axes.images]
    assert len(panels) == 3 * len(CLASSES)
    limit = colour_limit(cells, "attention")
    seen = set()
    for axes in panels:
        element, source = axes.get_title().split("\n")
        seen.add((element, source))
        own = select(cells, source, "attention", element)
        image = axes.images[0]
        np.testing.assert_allclose(image.get_array(), log_ratio(own))
        assert image.get_clim() == (-limit, limit)
        assert image.origin == "lower"
        for cell in own:
            # The cell's colour lies under the axis labels that name its layer and head.
            assert log_ratio(own)[cell.layer - 1, cell.head] == np.log2(cell.ratio)
        dots = np.asarray(axes.collections[0].get_offsets())
        marks = {(int(layer), int(head)) for head, layer in dots}
        assert len(marks) == len(dots)
        assert marks == {(c.layer, c.head) for c in own if c.q < 0.05}
        left, right, bottom, top = image.get_extent()
        assert (left, right, bottom, top) == (-0.5, heads - 0.5, 0.5, layers + 0.5)
    assert seen == {(element, source) for element in CLASSES for source in SOURCES}
    assert figure.get_suptitle() == "the title"
    bar = next(axes for axes in figure.axes if not axes.images and axes.get_xlabel() != "head")
    assert bar.get_xlabel() == "log2 (share of attention / share of sequence)"
    cells_wide = figure.get_size_inches()[0]
    assert cells_wide <= 13
    if layers > 4:
        return
    pixels = matplotlib.image.imread(io.BytesIO(png(figure, dpi=110)))
    assert pixels.shape[1] == pytest.approx(cells_wide * 110, abs=2)


def test_classes_without_a_test_are_left_out_of_figure_and_scale():
    cells = make_cells(2, 2, tested=("exon", "CDS"))
    assert shown_classes(cells, "attention") == ["exon", "CDS"]
    wild = [Cell(**{**c.__dict__, "ratio": 100.0}) if c.element == "intron" else c for c in cells]
    assert colour_limit(wild, "attention") == colour_limit(cells, "attention") < 2
    none = make_cells(2, 2, tested=())
    assert shown_classes(none, "attention") == list(CLASSES)


def test_ratios_of_zero_are_off_the_scale_and_unknown_ones_are_grey():
    cells = make_cells(1, 3, tested=("exon",))
    ratios = {0: 0.0, 1: float("nan"), 2: 1.0}
    cells = [Cell(**{**c.__dict__, "ratio": ratios[c.head]}) for c in cells]
    figure = attention_figure(cells, "attention", "t")
    image = figure.axes[0].images[0]
    colours = image.cmap(image.norm(image.get_array()))[0]
    np.testing.assert_allclose(colours[0], image.cmap(-1.0), atol=1e-6)
    np.testing.assert_allclose(colours[1][:3], [0xB8 / 255] * 3, atol=0.01)
    np.testing.assert_allclose(colours[2], image.cmap(0.5), atol=0.02)
