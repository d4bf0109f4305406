"""Controls that know nothing of pretraining: k-mer frequencies.

The random initialisation is the other control of a probe; see `loading.random_like`.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

KMERS = (3, 6)
LONGEST = 6


def kmer_frequencies(sequences: Sequence[str], k: int) -> Float[np.ndarray, "N {4**k}"]:
    """Share of each k-mer among the k-mers (all offsets, given strand) of each sequence.

    k is 1 to 6 bases. k-mers that touch an `N` are not counted; a sequence without any k-mer
    gives zeros. Frequencies, not counts, so that sequences of unequal length compare.
    """
    if not 1 <= k <= LONGEST:
        raise ValueError(f"k={k}: k-mer frequencies are defined for k = 1..{LONGEST}")
    code = np.full(256, -1, np.int64)
    code[np.frombuffer(b"ACGT", np.uint8)] = np.arange(4)
    powers = 4 ** np.arange(k)
    counts = np.zeros((len(sequences), 4**k), np.float32)
    for row, sequence in enumerate(sequences):
        bases = code[np.frombuffer(sequence.encode(), np.uint8)]
        if len(bases) < k:
            continue
        kmers = np.lib.stride_tricks.sliding_window_view(bases, k)
        whole = kmers[(kmers >= 0).all(axis=1)] @ powers
        counts[row] = np.bincount(whole, minlength=4**k)
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
