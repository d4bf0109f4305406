"""What a variant is labelled with: measured effects or two classes, from `--label`."""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping

from nt_jax.errors import InputError

_FORM = re.compile(r"(?P<name>[^<>=]+)(?:(?P<test>[<>=])(?P<limit>.+))?")
_TESTS: Mapping[str, Callable[[float, float], bool]] = {
    "<": lambda value, limit: value < limit,
    ">": lambda value, limit: value > limit,
}


@dataclasses.dataclass(frozen=True)
class Label:
    """`NAME`, `NAME<X`, `NAME>X` or `NAME=TEXT`; with a test, positives are those that pass it."""

    name: str
    """INFO field or column."""
    test: str = ""
    limit: str = ""

    def __str__(self) -> str:
        return f"{self.name}{self.test}{self.limit}"

    def value(self, text: str | None, where: str) -> float | None:
        """1 or 0 with a test, else the number; None where there is no value.

        Raises InputError, beginning with `where`, for text where a number is needed.
        """
        if text is None:
            return None
        if self.test == "=":
            return float(text == self.limit)
        try:
            value = float(text)
        except ValueError:
            raise InputError(
                f"{where}: {self.name} is {text!r}, no number; name the text of the positives, "
                f"as in --label {self.name}={text}"
            ) from None
        if not math.isfinite(value):
            return None
        return float(_TESTS[self.test](value, float(self.limit))) if self.test else value


def parse_label(text: str) -> Label:
    """Reads `--label`; raises InputError."""
    found = _FORM.fullmatch(text.strip())
    if not found:
        raise InputError(f"--label {text!r}: NAME, NAME<X, NAME>X or NAME=TEXT")
    label = Label(found["name"].strip(), found["test"] or "", (found["limit"] or "").strip())
    if label.test in _TESTS:
        try:
            float(label.limit)
        except ValueError:
            raise InputError(f"--label {text!r}: {label.limit!r} is no number") from None
    return label
