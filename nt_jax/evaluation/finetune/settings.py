"""What a fine-tuning depends on besides checkpoint and task."""

import dataclasses

from nt_jax.errors import InputError
from nt_jax.evaluation.embed import Pooling
from nt_jax.evaluation.finetune.methods import RANK


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that moves a bit of the result."""

    method: str
    """ia3, lora, full or head."""
    layer: int
    """Layer whose embedding the head reads, 1-based."""
    learning_rate: float
    """Peak rate of Adam: linear rise over 5 % of the steps, then cosine decay to 0."""
    rank: int = RANK
    """Rank of LoRA; the other methods have none."""
    epochs: int = 20
    """Most passes over the training sequences."""
    batch: int = 32
    """Sequences of a step."""
    patience: int = 5
    """Evaluations without a lower validation loss after which training ends."""
    folds: int = 10
    """Folds where the task has no test split."""
    seed: int = 0
    """Seed of folds, validation split, order, adapters, bootstrap and random initialisation."""
    max_sequences: int = 0
    """Most sequences of each split; 0 is all."""
    pooling: Pooling = "mean"
    """Pooling of token embeddings, without `<cls>` and pads."""

    def __post_init__(self) -> None:
        for name in ("rank", "epochs", "batch", "patience"):
            if getattr(self, name) < 1:
                option = name.replace("_", "-")
                raise InputError(f"--{option} {getattr(self, name)}: 1 or more")
        if self.learning_rate < 0:
            raise InputError(f"--learning-rate {self.learning_rate}: 0 or more")
        if self.max_sequences < 0:
            raise InputError(f"--max-sequences {self.max_sequences}: 0 (all) or more")
