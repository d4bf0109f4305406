r"""The paper's question in miniature, for a CPU: four sizes, three sources, two budgets of tokens.

    nt-jax data build fasta --fasta HUMAN.fa.gz --out human \
      --recipe window=1536,stride=1536,jitter=0
    nt-jax study plan miniature
    nt-jax study run miniature --out DIR --data human=human yeast=yeast multispecies=species
    nt-jax study report miniature --out DIR

The recipe is that of nt_v2_nano (docs/first_result.md) with the width, the depth and the rate of
each size. The largest size at the larger budget is held out: its loss is to be predicted from the
others before it is run. Sizes, rates and budgets are placeholders until they are tuned.
"""

import dataclasses

from nt_jax.config import CheckpointConfig, Experiment
from nt_jax.registry import find_experiment
from nt_jax.studies.grid import Grid, LossOn, Study, Tokens, expand

_SIZES = {
    # width: (layers, heads, peak learning rate)
    32: (2, 2, 1e-3),
    64: (4, 2, 7e-4),
    128: (4, 4, 3e-4),
    192: (8, 6, 2e-4),
}


def study() -> Study:
    """24 runs; 0.30M to 6.3M parameters, each at 1M and 2M tokens."""
    grid = Grid(
        sizes={f"w{width}": _experiment(width, *row) for width, row in _SIZES.items()},
        sources=("human", "yeast", "multispecies"),
        budgets=(Tokens(1_000_000), Tokens(2_000_000)),
        warmup_share=0.05,
        losses_on=(LossOn(source="human", windows=512),),
        held_out=({"size": "w192", "tokens": "2M"},),
    )
    return Study(
        name="miniature",
        question="Do more parameters, more tokens or other genomes lower the masked loss?",
        runs=expand(grid),
    )


def _experiment(width: int, layers: int, heads: int, peak_lr: float) -> Experiment:
    nano = find_experiment("nt_v2_nano")
    return dataclasses.replace(
        nano,
        model=dataclasses.replace(
            nano.model, embed_dim=width, num_layers=layers, num_heads=heads, ffn_dim=4 * width
        ),
        optim=dataclasses.replace(nano.optim, peak_lr=peak_lr),
        train=dataclasses.replace(nano.train, eval_windows=512),
        checkpoint=CheckpointConfig(every=200, keep=2),
    )
