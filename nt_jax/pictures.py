"""Figures of matplotlib as the bytes of a file, without a display."""

import io

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure


def png(figure: Figure, dpi: int = 150) -> bytes:
    """The figure as PNG, with so many dots an inch."""
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def whole_svg(figure: Figure, name: str) -> bytes:
    """The figure as an SVG file of its own; the same figure and name give the same bytes."""
    FigureCanvasSVG(figure)
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
