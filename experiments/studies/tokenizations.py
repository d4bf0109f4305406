"""6-mers, 3-mers or single letters: which makes the most of the same FLOPs, and of the same bases?

    nt-jax study run tokenizations --out DIR --data species=FOLDER
    nt-jax study report tokenizations --out DIR

One model (width 96, two blocks) and one window (1,530 bases) for all: 256, 511 or 1,531 tokens a
sequence, 4, 2 or 1 of them in a step: about 1,000 tokens, 1,531 for single letters. Budgets: the
bases that the 6-mers read in a million tokens, and the FLOPs that this takes. Each has its chance
at two learning rates, and the better one counts. Losses are compared in nats a base: a masked token
hides k bases at once, of which the model is given no part, so a shorter token is an easier
question; the loss of unigrams beside each says how much of it is that.
"""

import dataclasses
from collections.abc import Iterator

from experiments.studies.miniature import LADDER
from nt_jax.config import Experiment, TokenizerConfig
from nt_jax.studies.grid import Flops, Grid, Study, StudyRun, Tokens, expand
from nt_jax.studies.ladder import experiment
from nt_jax.throughput import train_flops_per_step

BASES = 1530
WIDTH, TOKENS = 96, 1_000_000
SEQUENCES = {6: 4, 3: 2, 1: 1}
"""Of a step, by k."""
RATES = (5e-4, 1e-3)


def study() -> Study:
    """Ten runs: 6-mers have the same budget either way."""
    return Study(
        name="tokenizations",
        question="Which length of a token makes the most of the same bases, or the same FLOPs?",
        runs=tuple(run for rate in RATES for run in _runs(rate)),
    )


def _runs(rate: float) -> Iterator[StudyRun]:
    six = _experiment(6, rate)
    flops = six.train.steps * train_flops_per_step(six)
    sequences = six.train.steps * six.train.global_batch
    for k in SEQUENCES:
        yield _run(k, rate, Tokens(sequences * _length(k)), "bases" if k < 6 else "")
    for k in (3, 1):
        yield _run(k, rate, Flops(flops), "FLOPs")


def _run(k: int, rate: float, budget: Tokens | Flops, equal: str) -> StudyRun:
    grid = Grid(
        sizes={f"k{k}": _experiment(k, rate)}, sources=("species",), budgets=(budget,),
        variants={f"rate{rate:g}": ()}, warmup_share=LADDER.warmup_share,
    )  # fmt: skip
    (run,) = expand(grid)
    return dataclasses.replace(run, tags={**run.tags, "equal": equal, "rate": f"{rate:g}"})


def _length(k: int) -> int:
    return BASES // k + 1


def _experiment(k: int, rate: float) -> Experiment:
    """Six-mers on TOKENS tokens; the others' budgets come from theirs."""
    ladder = dataclasses.replace(LADDER, tokenizer=TokenizerConfig(k=k), length=_length(k))
    made = experiment(ladder, WIDTH, TOKENS)
    steps = round(TOKENS / (SEQUENCES[k] * _length(k)))
    train = dataclasses.replace(
        made.train, global_batch=SEQUENCES[k], steps=steps, eval_every=steps, eval_windows=512,
    )  # fmt: skip
    optim = dataclasses.replace(made.optim, peak_lr=rate)
    return dataclasses.replace(made, train=train, optim=optim)
