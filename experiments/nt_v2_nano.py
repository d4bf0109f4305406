"""NT v2 nano: 2.1M parameters, for a laptop.

    nt-jax data build fasta --fasta GENOME.fa.gz ... --out DATA \\
        --recipe window=1536,stride=1536,jitter=0 --validation CONTIG
    nt-jax pretrain nt_v2_nano --data DATA --workdir RUN

About 40 minutes on two CPU cores for 17M tokens. The first result (docs/first_result.md) and the
reasons for its settings are told there. Two of them matter most: embeddings start small, so that a
masked position is made of its context from the first steps on, and the last projection starts at
the unigram distribution, so that no steps are spent on learning it.
"""

from nt_jax.config import CheckpointConfig, DataConfig, Experiment, OptimConfig, TrainConfig
from nt_jax.model.presets import PRESETS


def config() -> Experiment:
    """Sizes and rates chosen by short runs on yeast (docs/first_result.md)."""
    model, tokenizer = PRESETS["nt_v2_nano"]
    return Experiment(
        name="nt_v2_nano",
        model=model,
        tokenizer=tokenizer,
        data=DataConfig(recipe="window=1536,stride=1536,jitter=0", sequence_length=256),
        optim=OptimConfig(schedule="cosine", init_lr=0.0, peak_lr=3e-4, warmup_steps=200),
        train=TrainConfig(
            steps=8_500, global_batch=8, head_init="unigram", eval_every=1_000, eval_windows=0
        ),
        checkpoint=CheckpointConfig(every=500),
    )
