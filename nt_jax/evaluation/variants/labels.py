"""What a variant is labelled with: measured effects or two classes, from `--label`.

| form | positive (1) | negative (0) | no label |
|---|---|---|---|
| `NAME` | | | no value, nor a finite one; else the number itself is the label |
| `NAME<X`, `NAME>X` | passes the test | does not | no value, nor a finite one |
| `NAME=A,B:C,D` | the text is A or B | the text is C or D | any other text, no value |
| `NAME=TEXT` | the text is TEXT | **any other text** | no value |

The last form suits a field of two texts only. With `CLNSIG=Pathogenic` the uncertain, the
conflicting and even the likely pathogenic variants of ClinVar are all negatives; the third form
says who is. A text is compared as a whole: of `Pathogenic/Likely_pathogenic` no part is looked at.
In texts `\\:` and `\\,` stand for a colon and a comma.
"""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping

from nt_jax.errors import InputError

FORMS = "NAME, NAME<X, NAME>X, NAME=POSITIVE,...:NEGATIVE,... or NAME=TEXT"
MOST_TEXTS = 1000
"""Different texts counted by name; what a field of free text has besides is counted together."""
_FORM = re.compile(r"(?P<name>[^<>=]+)(?:(?P<test>[<>=])(?P<limit>.+))?")
_TESTS: Mapping[str, Callable[[float, float], bool]] = {
    "<": lambda value, limit: value < limit,
    ">": lambda value, limit: value > limit,
}


@dataclasses.dataclass(frozen=True)
class Label:
    """One of the forms at the top of this file."""

    name: str
    """INFO field or column."""
    test: str = ""
    limit: str = ""
    """Behind the test, as it was given."""
    positives: tuple[str, ...] = ()
    """With `=`: texts of the positives."""
    negatives: tuple[str, ...] = ()
    """With `=`: texts of the negatives; empty: all that are not positive."""

    def __str__(self) -> str:
        return f"{self.name}{self.test}{self.limit}"

    def value(self, text: str | None, where: str) -> float | None:
        """1 or 0 with a test, else the number; None where there is no label.

        Raises InputError, beginning with `where`, for text where a number is needed.
        """
        if text is None:
            return None
        if self.test == "=":
            if text in self.positives:
                return 1.0
            return None if self.negatives and text not in self.negatives else 0.0
        try:
            value = float(text)
        except ValueError:
            raise InputError(
                f"{where}: {self.name} is {text!r}, no number; name the texts of positives and "
                f"negatives, as in --label {self.name}={text}:OTHER"
            ) from None
        if not math.isfinite(value):
            return None
        return float(_TESTS[self.test](value, float(self.limit))) if self.test else value


class Tally:
    """Alleles by their text, on the side that a `NAME=...` label puts it; in bounded memory."""

    def __init__(self, label: Label) -> None:
        self._counts: dict[float | None, Counter[str]] = {
            1.0: Counter(dict.fromkeys(label.positives, 0)),
            0.0: Counter(dict.fromkeys(label.negatives, 0)),
            None: Counter(),
        }
        self._beyond: Counter[float | None] = Counter()
        self._missing = 0

    def add(self, text: str | None, value: float | None) -> None:
        """Counts one allele; `value` is what the label makes of `text`."""
        if text is None:
            self._missing += 1
        elif text in self._counts[value] or len(self._counts[value]) < MOST_TEXTS:
            self._counts[value][text] += 1
        else:
            self._beyond[value] += 1

    def plain(self) -> dict[str, dict[str, int]]:
        """{side: {text: alleles}}, the most frequent first; a text that never occurs has 0."""
        found = {}
        for side, value in (("positive", 1.0), ("negative", 0.0), ("unlabelled", None)):
            found[side] = dict(self._counts[value].most_common())
            if self._beyond[value]:
                found[side]["other texts"] = self._beyond[value]
        if self._missing:
            found["unlabelled"]["no value"] = self._missing
        return found


def parse_label(text: str) -> Label:
    """Reads `--label`; raises InputError."""
    found = _FORM.fullmatch(text.strip())
    if not found:
        raise InputError(f"--label {text!r}: {FORMS}")
    name, test, limit = found["name"].strip(), found["test"] or "", (found["limit"] or "").strip()
    if test in _TESTS:
        try:
            float(limit)
        except ValueError:
            raise InputError(f"--label {text!r}: {limit!r} is no number") from None
    if test != "=":
        return Label(name, test, limit)
    sides = _divided(limit, ":")
    if len(sides) == 1:
        return Label(name, test, limit, (_plain(limit),))
    if len(sides) > 2:
        raise InputError(
            f"--label {text!r}: {len(sides) - 1} colons, one divides positives from negatives; "
            "write \\: for a colon in a text"
        )
    positives, negatives = (
        tuple(_plain(one).strip() for one in _divided(side, ",")) for side in sides
    )
    if not all(positives + negatives):
        raise InputError(f"--label {text!r}: an empty text; {FORMS}")
    if both := sorted(set(positives) & set(negatives)):
        raise InputError(f"--label {text!r}: {both[0]!r} is positive and negative")
    return Label(name, test, limit, positives, negatives)


def _divided(text: str, mark: str) -> list[str]:
    """At every `mark` that has no backslash in front."""
    return re.split(rf"(?<!\\){mark}", text)


def _plain(text: str) -> str:
    return re.sub(r"\\([:,])", r"\1", text)
