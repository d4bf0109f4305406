r"""The paper's study in miniature, for a CPU: size against tokens, and three kinds of data.

    S=../shared/data/genomes/species
    nt-jax data build fasta --fasta $S/*.fa.gz --out species \
      --recipe window=1536,stride=1536,jitter=0
    nt-jax study plan miniature
    nt-jax study run miniature --out DIR --data species=species yeast=yeast human=human \
      --data-dir ../shared/data/labelled
    nt-jax study report miniature --out DIR

Sizes are rungs of one ladder (nt_jax/studies/ladder.py): four widths from 32 to 128, 0.04M to 0.83M
parameters, each at three budgets of tokens on the genomes of many species. A fifth, 192 wide with
3.0M, is held out: its loss is predicted from the others and written down before it is run. The
diversity axis: one size, equal tokens, trained on one yeast genome, on human windows with
haplotypes, or on many species, judged on the validation windows of all three. docs/scaling.md has
how the datasets are built and what came out.

Tokens are 3-mers: each of 4,096 6-mers is met about 240 times in a million tokens, and width 32
learns nothing of their context in that time.
"""

import dataclasses

from nt_jax.config import Experiment, TokenizerConfig
from nt_jax.studies.grid import Grid, LossOn, Probe, Study, StudyRun, Tokens, expand
from nt_jax.studies.ladder import Ladder, experiment

LADDER = Ladder(
    tokenizer=TokenizerConfig(k=3), length=512,
    base_width=128, base_tokens=1e6, base_batch=4, peak_lr=5e-4,
)  # fmt: skip
WIDTHS, LARGEST, MIDDLE = (32, 64, 96, 128), 192, 96
BUDGETS = (1_000_000, 2_000_000, 4_000_000)
SOURCES = ("species", "yeast", "human")
_WINDOWS = 1024
_PROBES = (Probe(task="gue/EMP/H3", max_sequences=1500),)


def study() -> Study:
    """18 runs: 12 of sizes and budgets, five more of the diversity axis, one held out.

    The second seed of the middle size on many species counts in the law as well.
    """
    laws = [run for tokens in BUDGETS for run in runs(WIDTHS, tokens, ("species",), probes=True)]
    others = runs((MIDDLE,), BUDGETS[-1], SOURCES[1:])
    again = runs((MIDDLE,), BUDGETS[-1], SOURCES, seeds=(1,))
    held_out = runs((LARGEST,), BUDGETS[-1], ("species",), probes=True, held_out=True)
    return Study(
        name="miniature",
        question="Do more parameters, more tokens or more diverse genomes lower the masked loss?",
        runs=(*laws, *others, *again, *held_out),
    )


def runs(
    widths: tuple[int, ...],
    tokens: int,
    sources: tuple[str, ...],
    *,
    seeds: tuple[int, ...] = (0,),
    probes: bool = False,
    held_out: bool = False,
) -> tuple[StudyRun, ...]:
    """Rungs of the ladder on so many tokens."""
    middle = MIDDLE in widths and tokens == BUDGETS[-1]
    grid = Grid(
        sizes={f"w{width}": rung(width, tokens) for width in widths},
        sources=sources,
        budgets=(Tokens(tokens),),
        seeds=seeds,
        losses_on=tuple(LossOn(source=one, windows=_WINDOWS) for one in SOURCES) if middle else (),
        probes=_PROBES if probes else (),
        held_out=({},) if held_out else (),
    )
    return expand(grid)


def rung(width: int, tokens: int, ladder: Ladder = LADDER) -> Experiment:
    """The ladder's experiment, validated at its end alone: validation costs more than it tells."""
    made = experiment(ladder, width, tokens)
    train = dataclasses.replace(made.train, eval_every=made.train.steps, eval_windows=_WINDOWS)
    return dataclasses.replace(made, train=train)
