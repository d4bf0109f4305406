"""NT v1 500M on the human reference genome (GRCh38).

    nt-jax data build human_reference --data-dir GENOMES --out DIR
    nt-jax pretrain nt_v1_500m_human_ref --data DIR --workdir RUN

Data: GRCh38.p14, train chr1-20, X, Y; validation chr21; test chr22 (V); windows of 6,200 bases
(V, `hf6200`) or 6,100 (S, `paper6100`). 1,000 tokens a sequence (V), about 1M tokens a step (V;
1,024 sequences are ours, so that the batch divides by meshes). 300B tokens on the model card (V);
the paper says 50B (S): `nt_v1_500m_human_ref_50b`.

Optimisation: Adam 0.9/0.999/1e-8; learning rate 5e-5 -> 1e-4 over 16,000 steps, then
1e-4 * sqrt(16,000/step) (V, formula I). Weight decay, clipping and precision are unpublished (U):
none, none, bfloat16 compute with float32 parameters.

To expect (S): median masked-token accuracy .202 on 6-kb human windows.

Tags: V verified in a public source, S from digests of the paper, I inferred, U unpublished.
"""

import dataclasses

from nt_jax.config import CheckpointConfig, DataConfig, Experiment, MeshConfig, TrainConfig
from nt_jax.model.presets import PRESETS


def config() -> Experiment:
    """Model card: 300B tokens (V)."""
    model, tokenizer = PRESETS["nt_v1_500m_human_ref"]
    return Experiment(
        name="nt_v1_500m_human_ref",
        model=dataclasses.replace(model, compute_dtype="bfloat16", remat="dots"),
        tokenizer=tokenizer,
        data=DataConfig(recipe="hf6200", sequence_length=1000),
        train=TrainConfig(steps=292_969, global_batch=1024),
        mesh=MeshConfig(data=-1, fsdp=1),
        checkpoint=CheckpointConfig(every=2_000, keep_every=20_000),
    )


def config_50b() -> Experiment:
    """The paper's budget for the 500M models: 50B tokens (S)."""
    long = config()
    return dataclasses.replace(
        long,
        name="nt_v1_500m_human_ref_50b",
        train=dataclasses.replace(long.train, steps=48_828),
    )
