"""One rule from a width, or a budget, to a whole experiment.

Sizes of a ladder differ in their width alone; everything else follows:

- depth is width / `aspect` (NT v2's published models have 32 to 43); heads keep their size and
  the feed-forward width is 4 D, so that the learning rate carries over by muP and CompleteP
  (nt_jax/transfer.py) from the rung it was found at;
- the batch grows with the square root of the tokens of a run and does not depend on the size, as
  the critical batch size does (Zhang et al. 2024, "How does critical batch size scale in
  pre-training?"), in powers of two; the learning rate grows with the square root of the batch
  (Malladi et al. 2022, for Adam);
- warm-up is a share of the steps, the schedule a cosine to 0.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable

from nt_jax.config import (
    CheckpointConfig,
    DataConfig,
    Experiment,
    ModelConfig,
    OptimConfig,
    TokenizerConfig,
    TrainConfig,
)  # fmt: skip
from nt_jax.errors import InputError
from nt_jax.model.presets import parameter_count
from nt_jax.throughput import train_flops_per_sequence


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ladder:
    """The rule, with what was found at its base rung."""

    tokenizer: TokenizerConfig = dataclasses.field(default_factory=TokenizerConfig)
    """The same for all sizes."""
    head_size: int = 32
    """Columns of a head; widths are multiples of it."""
    aspect: float = 40.0
    """Width over depth."""
    length: int = 256
    """Tokens of a training sequence, `<cls>` included."""
    recipe: str = "window=1536,stride=1536,jitter=0"
    """Windows that hold `length` tokens."""
    base_width: int = 128
    """Width of the rung that `peak_lr` was found at."""
    base_tokens: int | float = 4e6
    """Tokens of the run that `peak_lr` and `base_batch` were found at."""
    base_batch: int = 8
    """Sequences of a step there."""
    peak_lr: float = 1e-3
    """Highest learning rate there."""
    warmup_share: float = 0.05
    """Of the steps."""
    clip: float = 1.0
    """Largest norm of a gradient; small batches have outliers."""


def depth(ladder: Ladder, width: int) -> int:
    """Blocks of a model of this width, two at least."""
    return max(2, round(width / ladder.aspect))


def model(ladder: Ladder, width: int) -> ModelConfig:
    """NT v2's block at this width; InputError where heads do not fit in."""
    if width < ladder.head_size or width % ladder.head_size:
        raise InputError(f"width {width}: multiples of the head size, {ladder.head_size}")
    return ModelConfig(
        num_layers=depth(ladder, width),
        num_heads=width // ladder.head_size,
        embed_dim=width,
        ffn_dim=4 * width,
        max_positions=max(ladder.length, 2),
        embed_init_std=0.02,
    )


def parameters(ladder: Ladder, width: int) -> int:
    """Of a model of this width, embeddings and head included."""
    return parameter_count(model(ladder, width), ladder.tokenizer.make().vocab_size)


def flops_per_token(ladder: Ladder, width: int, mask_ratio: float = 0.15) -> float:
    """Model FLOPs of training, a token of the sequence (nt_jax/throughput.py)."""
    vocabulary = ladder.tokenizer.make().vocab_size
    whole = train_flops_per_sequence(model(ladder, width), vocabulary, ladder.length, mask_ratio)
    return whole / ladder.length


def width_for_parameters(ladder: Ladder, count: int | float) -> int:
    """The width whose model is nearest to `count` parameters, in ratio."""
    return _nearest(ladder, count, lambda width: parameters(ladder, width), "parameters")


def width_for_flops(ladder: Ladder, flops: int | float, tokens_per_parameter: int | float) -> int:
    """The width whose model, trained on so many tokens a parameter, comes nearest to `flops`."""

    def cost(width: int) -> float:
        tokens = tokens_per_parameter * parameters(ladder, width)
        return tokens * flops_per_token(ladder, width)

    return _nearest(ladder, flops, cost, "FLOPs")


def experiment(ladder: Ladder, width: int, tokens: int | float) -> Experiment:
    """The run of one rung on about `tokens` tokens; its name is `wWIDTH`."""
    batch = batch_for(ladder, tokens)
    steps = max(2, round(tokens / (batch * ladder.length)))
    return Experiment(
        name=f"w{width}",
        model=model(ladder, width),
        tokenizer=ladder.tokenizer,
        data=DataConfig(recipe=ladder.recipe, sequence_length=ladder.length),
        optim=OptimConfig(
            schedule="cosine",
            init_lr=0.0,
            peak_lr=ladder.peak_lr * math.sqrt(batch / ladder.base_batch),
            warmup_steps=min(steps - 1, max(1, round(ladder.warmup_share * steps))),
            clip=ladder.clip,
            base_width=ladder.base_width,
            base_depth=depth(ladder, ladder.base_width),
        ),
        train=TrainConfig(
            steps=steps,
            global_batch=batch,
            head_init="unigram",
            eval_every=max(1, steps // 4),
        ),
        checkpoint=CheckpointConfig(every=max(1, steps // 8), keep=2),
    )


def batch_for(ladder: Ladder, tokens: int | float) -> int:
    """Sequences of a step of a run on `tokens` tokens: a power of two."""
    if not tokens >= ladder.length:
        raise InputError(f"{tokens:g} tokens: less than one sequence of {ladder.length}")
    wished = ladder.base_batch * math.sqrt(tokens / ladder.base_tokens)
    return 2 ** max(0, round(math.log2(wished)))


def fixed_tokens(ladder: Ladder, widths: Iterable[int], tokens: int | float) -> list[Experiment]:
    """Every width on the same tokens."""
    return [experiment(ladder, width, tokens) for width in widths]


def iso_flop(ladder: Ladder, widths: Iterable[int], flops: int | float) -> list[Experiment]:
    """Every width for the same model FLOPs: what they leave in tokens."""
    return [experiment(ladder, width, flops / flops_per_token(ladder, width)) for width in widths]


def _nearest(ladder: Ladder, wanted: int | float, of: Callable[[int], float], unit: str) -> int:
    if not (math.isfinite(wanted) and wanted > 0):
        raise InputError(f"{wanted:g} {unit}: a positive number is needed")
    width = ladder.head_size
    if wanted < of(width) / 2:
        raise InputError(
            f"{wanted:g} {unit}: the smallest model, of width {width}, has {of(width):g}"
        )
    while of(width + ladder.head_size) <= wanted:
        width += ladder.head_size
    below, above = (abs(math.log(of(w) / wanted)) for w in (width, width + ladder.head_size))
    return width if below <= above else width + ladder.head_size
