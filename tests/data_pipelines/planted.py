"""Sequences with known changes, for tests of leakage."""

import numpy as np

LETTERS = np.frombuffer(b"ACGT", np.uint8)


def simulated(length: int, seed: int = 0) -> bytes:
    """Uniform random bases: simulated, not a genome."""
    return np.random.default_rng(seed).choice(LETTERS, length).tobytes()


def mutated(bases: bytes, identity: float, seed: int = 0) -> bytes:
    """The same with exactly the given share of equal bases, the others substituted."""
    rng = np.random.default_rng(seed)
    codes = np.searchsorted(LETTERS, np.frombuffer(bases, np.uint8))
    changed = rng.choice(len(bases), round((1 - identity) * len(bases)), replace=False)
    codes[changed] = (codes[changed] + rng.integers(1, 4, len(changed))) % 4
    return LETTERS[codes].tobytes()
