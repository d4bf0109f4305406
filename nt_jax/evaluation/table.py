"""Tables that line up in plain text and are Markdown too."""

from collections.abc import Sequence


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns line up in plain text, the first one to the left."""
    wide = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *rest = zip(cells, wide, strict=True)
        texts = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]
        return f"| {' | '.join(texts)} |"

    rule = [":" + "-" * (wide[0] - 1), *("-" * (width - 1) + ":" for width in wide[1:])]
    return "\n".join([line(header), f"| {' | '.join(rule)} |", *map(line, rows)])
