"""6-mers, 3-mers or single letters: which makes the most of the same FLOPs, and of the same bases?

    nt-jax study run tokenizations --out DIR --data species=FOLDER
    nt-jax study report tokenizations --out DIR

One block (width 128) and one window (1,530 bases) for all: 256, 511 or 1,531 tokens a sequence.
Budgets: the bases that the 6-mers read in 2M tokens, and the FLOPs that this takes. Losses are
compared in nats a base: a masked token hides k bases at once, of which the model is given no part,
so a shorter token is an easier question; the loss of unigrams beside each says how much of it is
that.
"""

import dataclasses

from experiments.studies.miniature import LADDER
from nt_jax.config import Experiment, TokenizerConfig
from nt_jax.studies.grid import Flops, Grid, Study, StudyRun, Tokens, expand
from nt_jax.studies.ladder import experiment
from nt_jax.throughput import train_flops_per_step

BASES = 1530
WIDTH, BUDGET = 128, 2_000_000
KS = (6, 3, 1)


def study() -> Study:
    """Five runs: 6-mers have the same budget either way."""
    six = _experiment(6)
    flops = six.train.steps * train_flops_per_step(six)
    sequences = six.train.steps * six.train.global_batch
    return Study(
        name="tokenizations",
        question="Which length of a token makes the most of the same bases, or the same FLOPs?",
        runs=(
            *(run for k in KS for run in _runs(k, Tokens(sequences * _length(k)), "bases")),
            *(run for k in KS[1:] for run in _runs(k, Flops(flops), "flops")),
        ),
    )


def _runs(k: int, budget: Tokens | Flops, equal: str) -> tuple[StudyRun, ...]:
    grid = Grid(
        sizes={f"k{k}": _experiment(k)}, sources=("species",), budgets=(budget,),
        variants={f"equal-{equal}": ()}, warmup_share=LADDER.warmup_share,
    )  # fmt: skip
    return expand(grid)


def _length(k: int) -> int:
    return BASES // k + 1


def _experiment(k: int) -> Experiment:
    """The same bases in every sequence, the same sequences in every step."""
    ladder = dataclasses.replace(LADDER, tokenizer=TokenizerConfig(k=k), length=_length(k))
    made = experiment(ladder, WIDTH, BUDGET * _length(k) / _length(6))
    train = dataclasses.replace(
        made.train, global_batch=experiment(LADDER, WIDTH, BUDGET).train.global_batch,
        eval_every=made.train.steps, eval_windows=512,
    )  # fmt: skip
    return dataclasses.replace(made, train=train)
