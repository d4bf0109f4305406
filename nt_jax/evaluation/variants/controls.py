"""What needs no model: numbers that a variant score should be held against.

| column | value |
|---|---|
| `control_transition` | 1 for A<->G and C<->T, else 0 |
| `control_cpg` | 1 where an SNV changes the C or the G of a CG of the reference, else 0 |
| `control_length` | bases that ALT is longer than REF, without sign |
| `control_gc` | G and C of ALT minus those of REF, shared ends left out |
| `control_unigram_llr` | `llr` by the k-mer frequencies of the training data, without context |
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from nt_jax.evaluation.variants.haplotypes import Local

PREFIX = "control_"
UNIGRAM = PREFIX + "unigram_llr"
RANDOM = PREFIX + "random_"
"""In front of the name of a score: that of the same architecture, freshly initialised."""
CHEAP = tuple(PREFIX + name for name in ("transition", "cpg", "length", "gc"))
_TRANSITIONS = (b"AG", b"GA", b"CT", b"TC")


def cheap_controls(alleles: Sequence[Local | None]) -> dict[str, Float[np.ndarray, " N"]]:
    """The controls that are in the alleles themselves; NaN for those without scores."""
    rows = [[np.nan] * len(CHEAP) if local is None else _row(local) for local in alleles]
    return dict(zip(CHEAP, np.array(rows, float).reshape(-1, len(CHEAP)).T, strict=True))


def _row(local: Local) -> list[float]:
    ref, alt = local.ref.tobytes(), local.alt.tobytes()
    single = len(ref) == len(alt) == 1
    around = local.bases[max(0, local.at - 1) : local.at + 2].tobytes()
    gc = [sum(map(allele.count, (b"G", b"C"))) for allele in (ref, alt)]
    return [
        float(single and ref + alt in _TRANSITIONS),
        float(single and b"CG" in around),
        float(abs(len(alt) - len(ref))),
        float(gc[1] - gc[0]),
    ]
