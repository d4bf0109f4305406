r"""NT v2 500M on 850 species.

    nt-jax data build multispecies --manifest multispecies.tsv --data-dir GENOMES --out DIR \
      --recipe paper12k
    nt-jax pretrain nt_v2_500m_multispecies --data DIR --workdir RUN

Data (V): 850 species of RefSeq, 174B bases; 12-kb windows. 512 sequences x 2,048 tokens a step (S);
1T tokens; the best checkpoint is at 900B (S).

The paper says 2,048 tokens a sequence (S), the model card 1,000 (V):
`nt_v2_500m_multispecies_1000`.

Optimisation: Adam 0.9/0.999/1e-8; learning rate 5e-5 -> 1e-4 over 16,000 steps, then
1e-4 * sqrt(16,000/step) (V, formula I). Weight decay, clipping and precision are unpublished (U):
none, none, bfloat16 compute with float32 parameters.

Tags: V verified in a public source, S from digests of the paper, I inferred, U unpublished.
"""

import dataclasses

from nt_jax.config import CheckpointConfig, DataConfig, Experiment, MeshConfig, TrainConfig
from nt_jax.model.presets import PRESETS


def config() -> Experiment:
    """1T tokens; the best checkpoint is at 900B (S)."""
    model, tokenizer = PRESETS["nt_v2_500m_multispecies"]
    return Experiment(
        name="nt_v2_500m_multispecies",
        model=dataclasses.replace(model, compute_dtype="bfloat16", remat="dots"),
        tokenizer=tokenizer,
        data=DataConfig(recipe="paper12k", sequence_length=2048),
        train=TrainConfig(steps=953_674, global_batch=512),
        mesh=MeshConfig(data=-1, fsdp=1),
        checkpoint=CheckpointConfig(every=2_000, keep_every=20_000),
    )


def config_1000() -> Experiment:
    """The model card's 1,000 tokens a sequence (V), at the same tokens a step (I)."""
    long = config()
    return dataclasses.replace(
        long,
        name="nt_v2_500m_multispecies_1000",
        data=dataclasses.replace(long.data, recipe="hf6200", sequence_length=1000),
        train=dataclasses.replace(long.train, steps=976_562, global_batch=1024),
    )
