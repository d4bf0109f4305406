r"""NT v2 100M on 850 species.

    nt-jax data build multispecies --manifest multispecies.tsv --data-dir GENOMES --out DIR \
      --recipe paper12k
    nt-jax pretrain nt_v2_100m_multispecies --data DIR --workdir RUN

Data (V): 850 species of RefSeq, 174B bases; 12-kb windows. 512 sequences x 2,048 tokens a step (S);
300B tokens (S).

Optimisation: Adam 0.9/0.999/1e-8; learning rate 5e-5 -> 1e-4 over 16,000 steps, then
1e-4 * sqrt(16,000/step) (V, formula I). Weight decay, clipping and precision are unpublished (U):
none, none, bfloat16 compute with float32 parameters.

Tags: V verified in a public source, S from digests of the paper, I inferred, U unpublished.
"""

import dataclasses

from nt_jax.config import CheckpointConfig, DataConfig, Experiment, MeshConfig, TrainConfig
from nt_jax.model.presets import PRESETS


def config() -> Experiment:
    """300B tokens (S)."""
    model, tokenizer = PRESETS["nt_v2_100m_multispecies"]
    return Experiment(
        name="nt_v2_100m_multispecies",
        model=dataclasses.replace(model, compute_dtype="bfloat16", remat="dots"),
        tokenizer=tokenizer,
        data=DataConfig(recipe="paper12k", sequence_length=2048),
        train=TrainConfig(steps=286_102, global_batch=512),
        mesh=MeshConfig(data=-1, fsdp=1),
        checkpoint=CheckpointConfig(every=2_000, keep_every=20_000),
    )
