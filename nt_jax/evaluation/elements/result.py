"""What `nt-jax attention` is asked and what it finds."""

import dataclasses

import numpy as np
from jaxtyping import Float

from nt_jax.evaluation.elements.masked import Score
from nt_jax.evaluation.elements.pieces import Pieces
from nt_jax.evaluation.elements.probe import Family
from nt_jax.evaluation.elements.tables import Cell

ALL = "all tokens"
"""The class of all masked tokens, beside the element classes."""
FIGURES = {"attention": "attention.png", "pairs": "attention_pairs.png"}
"""{measure: file name}"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything besides checkpoint, genome and annotation that the numbers depend on."""

    contigs: tuple[str, ...] = ()
    """Contigs; none: all that both files have."""
    windows: int = 1000
    """Windows, evenly spread; 0 is all."""
    length: int = 0
    """Tokens of a window with `<cls>`; 0 is as trained."""
    threshold: float = 0.3
    """Attention above which a pair of tokens counts (Vig et al.)."""
    promoter: int = 250
    """Bases upstream of a transcript."""
    elements: int = 500
    """Pieces of each class for the element probe; 0 is all."""
    seed: int = 0
    """Of random initialisation, tests, intervals, drawn pieces, folds and turned annotation."""


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """Everything that was found; `report` makes text of it and `rows` the tidy table."""

    checkpoint: str
    step: int
    tokens: int
    """Tokens seen in training; -1 is unknown."""
    fasta: str
    annotation: str
    settings: Settings
    length: int
    """Tokens of a window."""
    windows: int
    dropped: int
    """Windows left out for their Ns."""
    notes: tuple[str, ...]
    """How the files were read and what was left out."""
    sizes: dict[str, tuple[int, float]]
    """{class: (bases, share)} over the contigs."""
    cells: tuple[Cell, ...]
    cls: dict[str, Float[np.ndarray, "L H"]]
    """Mean share of attention on `<cls>`, of the trained model and the random initialisation."""
    unigram: str
    """Where the baseline's counts come from."""
    masked: dict[str, dict[str, Score]]
    """{class: scores}, ALL among the classes."""
    masked_tokens: dict[str, float]
    """`<mask>` positions of each class, a token counting by its share."""
    pieces: Pieces
    families: tuple[Family, ...] | str
    """Of the element probe, or why there is none."""
