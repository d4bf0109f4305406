"""The one exception that means "your input is at fault": the command line exits with 2 on it."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Bad input; the message is one line with the file, record, position and the way out."""


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean X?` where a known name is close, else the empty string."""
    names = list(known)
    longer = [other for other in names if name and other.startswith(name)]
    close = longer or difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
