"""NT v2 micro: 10M parameters, for a small GPU or a patient CPU.

    nt-jax pretrain nt_v2_micro --data DATA --workdir RUN

The data and the recipe of nt_v2_nano, five times the parameters and a lower learning rate. No
result is recorded for it yet.
"""

from nt_jax.config import CheckpointConfig, DataConfig, Experiment, OptimConfig, TrainConfig
from nt_jax.model.presets import PRESETS


def config() -> Experiment:
    """Sizes and rates inferred from nt_v2_nano."""
    model, tokenizer = PRESETS["nt_v2_micro"]
    return Experiment(
        name="nt_v2_micro",
        model=model,
        tokenizer=tokenizer,
        data=DataConfig(recipe="window=1536,stride=1536,jitter=0", sequence_length=256),
        optim=OptimConfig(schedule="cosine", init_lr=0.0, peak_lr=2e-4, warmup_steps=500),
        train=TrainConfig(
            steps=40_000, global_batch=16, head_init="unigram", eval_every=2_000, eval_windows=0
        ),
        checkpoint=CheckpointConfig(every=1_000),
    )
