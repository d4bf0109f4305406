"""The model of `make demo`: NT v2 nano with short sequences, on a simulated genome.

    nt-jax pretrain experiments/demo.py --data demo/dataset --workdir demo/run

A few minutes on two CPU cores. What it learns first are the repeat families of the simulated
genome. They sit in few windows, so the mean falls below the unigram line while the interval over
windows stays wide. It says nothing about real genomes.
"""

from nt_jax.config import CheckpointConfig, DataConfig, Experiment, OptimConfig, TrainConfig
from nt_jax.model.presets import PRESETS


def config() -> Experiment:
    """Short run; sizes and rates as in nt_v2_nano."""
    model, tokenizer = PRESETS["nt_v2_nano"]
    return Experiment(
        name="demo (simulated data)",
        model=model,
        tokenizer=tokenizer,
        data=DataConfig(recipe="window=1536,stride=768,jitter=0", sequence_length=128),
        optim=OptimConfig(schedule="cosine", init_lr=0.0, peak_lr=1e-3, warmup_steps=50),
        train=TrainConfig(
            steps=600, global_batch=8, head_init="unigram", eval_every=100, eval_windows=128
        ),
        checkpoint=CheckpointConfig(every=200),
    )
