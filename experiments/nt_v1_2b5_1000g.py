r"""NT v1 2.5B on 3,202 phased human genomes (1000 Genomes).

    nt-jax data build thousand_genomes --data-dir GENOMES --vcf chr*.vcf.gz --out DIR \
      --recipe paper6100
    nt-jax pretrain nt_v1_2b5_1000g --data DIR --workdir RUN

Data as nt_v1_500m_1000g: no random replacement (S), one haplotype per draw (U). 300B tokens, about
300k steps of 1M tokens (S, V). The authors used 128 A100 for 28 days (S).

Optimisation: Adam 0.9/0.999/1e-8; learning rate 5e-5 -> 1e-4 over 16,000 steps, then
1e-4 * sqrt(16,000/step) (V, formula I). Weight decay, clipping and precision are unpublished (U):
none, none, bfloat16 compute with float32 parameters.

To expect (S): median masked-token accuracy .216 on 6-kb human windows.

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
    """300B tokens (S)."""
    model, tokenizer = PRESETS["nt_v1_2b5_1000g"]
    return Experiment(
        name="nt_v1_2b5_1000g",
        model=dataclasses.replace(model, compute_dtype="bfloat16", remat="full"),
        tokenizer=tokenizer,
        data=DataConfig(recipe="paper6100", sequence_length=1000),
        masking=MaskingConfig(random=0.0),
        train=TrainConfig(steps=292_969, global_batch=1024),
        mesh=MeshConfig(data=-1, fsdp=8),
        checkpoint=CheckpointConfig(every=2_000, keep_every=20_000),
    )
