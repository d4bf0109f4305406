"""NT v2 micro."""

from nt_jax.config import CheckpointConfig, DataConfig, Experiment, OptimConfig, TrainConfig
from nt_jax.model.presets import PRESETS


def config() -> Experiment:
    """Nano."""
    model, tokenizer = PRESETS["nt_v2_micro"]
    return Experiment(
        name="nt_v2_micro",
        model=model,
        tokenizer=tokenizer,
        data=DataConfig(recipe="window=1536,stride=1536,jitter=0", sequence_length=256),
        optim=OptimConfig(schedule="cosine", init_lr=0.0, peak_lr=1e-3, warmup_steps=100),
        train=TrainConfig(steps=2000, global_batch=16, eval_every=200),
        checkpoint=CheckpointConfig(every=200),
    )
