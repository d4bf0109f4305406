"""codonNT 50M: codons (3-mers) instead of 6-mers.

    nt-jax pretrain codon_nt_50m --data DIR --workdir RUN

Architecture and vocabulary (V); data, batch and budget are unpublished (U): those of NT v2 50M, so
that the two compare at equal tokens.

Optimisation: Adam 0.9/0.999/1e-8; learning rate 5e-5 -> 1e-4 over 16,000 steps, then
1e-4 * sqrt(16,000/step) (V, formula I). Weight decay, clipping and precision are unpublished (U):
none, none, bfloat16 compute with float32 parameters.

Tags: V verified in a public source, S from digests of the paper, I inferred, U unpublished.
"""

import dataclasses

from nt_jax.config import CheckpointConfig, DataConfig, Experiment, MeshConfig, TrainConfig
from nt_jax.model.presets import PRESETS


def config() -> Experiment:
    """Budget of NT v2 50M (U)."""
    model, tokenizer = PRESETS["codon_nt_50m"]
    return Experiment(
        name="codon_nt_50m",
        model=dataclasses.replace(model, compute_dtype="bfloat16", remat="dots"),
        tokenizer=tokenizer,
        data=DataConfig(recipe="hf6200", sequence_length=2048),
        train=TrainConfig(steps=286_102, global_batch=512),
        mesh=MeshConfig(data=-1, fsdp=1),
        checkpoint=CheckpointConfig(every=2_000, keep_every=20_000),
    )
