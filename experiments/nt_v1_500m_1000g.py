r"""NT v1 500M on 3,202 phased human genomes (1000 Genomes).

    nt-jax data build thousand_genomes --data-dir GENOMES --vcf chr*.vcf.gz --out DIR \
      --recipe paper6100
    nt-jax pretrain nt_v1_500m_1000g --data DIR --workdir RUN

Data (S): 3,202 genomes, 27 populations, 111M SNPs and 14M indels, 20.5T bases; one haplotype per
draw and indels applied are ours (U). These runs replaced no token by a random one (S). 1,000
tokens a sequence, about 1M tokens a step (V). 300B tokens on the model card (V); the paper says
50B (S): `nt_v1_500m_1000g_50b`.

Optimisation: Adam 0.9/0.999/1e-8; learning rate 5e-5 -> 1e-4 over 16,000 steps, then
1e-4 * sqrt(16,000/step) (V, formula I). Weight decay, clipping and precision are unpublished (U):
none, none, bfloat16 compute with float32 parameters.

To expect (S): median masked-token accuracy .198 on 6-kb human windows.

Tags: V verified in a public source, S from digests of the paper, I inferred, U unpublished.
"""

import dataclasses

from nt_jax.config import (
    CheckpointConfig,
    DataConfig,
    Experiment,
    MaskingConfig,
    MeshConfig,
    TrainConfig,
)
from nt_jax.model.presets import PRESETS


def config() -> Experiment:
    """Model card: 300B tokens (V)."""
    model, tokenizer = PRESETS["nt_v1_500m_1000g"]
    return Experiment(
        name="nt_v1_500m_1000g",
        model=dataclasses.replace(model, compute_dtype="bfloat16", remat="dots"),
        tokenizer=tokenizer,
        data=DataConfig(recipe="paper6100", sequence_length=1000),
        masking=MaskingConfig(random=0.0),
        train=TrainConfig(steps=292_969, global_batch=1024),
        mesh=MeshConfig(data=-1, fsdp=1),
        checkpoint=CheckpointConfig(every=2_000, keep_every=20_000),
    )


def config_50b() -> Experiment:
    """The paper's budget for the 500M models: 50B tokens (S)."""
    long = config()
    return dataclasses.replace(
        long,
        name="nt_v1_500m_1000g_50b",
        train=dataclasses.replace(long.train, steps=48_828),
    )
