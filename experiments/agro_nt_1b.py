"""AgroNT 1B on 48 plant genomes.

    nt-jax pretrain agro_nt_1b --data DIR --workdir RUN

Published (V): 472.5B tokens = 315k steps x 1.5M tokens, on a TPU v4-1024 for about 4 days. 1,024
tokens a sequence (V: 1,026 rows); 1,464 sequences a step are inferred from it (I). Heads: U.

Optimisation: Adam 0.9/0.999/1e-8; learning rate 5e-5 -> 1e-4 over 16,000 steps, then
1e-4 * sqrt(16,000/step) (V, formula I). Weight decay, clipping and precision are unpublished (U):
none, none, bfloat16 compute with float32 parameters.

Tags: V verified in a public source, S from digests of the paper, I inferred, U unpublished.
"""

import dataclasses

from nt_jax.config import CheckpointConfig, DataConfig, Experiment, MeshConfig, TrainConfig
from nt_jax.model.presets import PRESETS


def config() -> Experiment:
    """472.5B tokens (V)."""
    model, tokenizer = PRESETS["agro_nt_1b"]
    return Experiment(
        name="agro_nt_1b",
        model=dataclasses.replace(model, compute_dtype="bfloat16", remat="dots"),
        tokenizer=tokenizer,
        data=DataConfig(recipe="hf6200", sequence_length=1024),
        train=TrainConfig(steps=315_000, global_batch=1464),
        mesh=MeshConfig(data=-1, fsdp=8),
        checkpoint=CheckpointConfig(every=2_000, keep_every=20_000),
    )
