"""FLOPs by formula, and the peak that model FLOPs utilisation is measured against."""

import jax

from nt_jax import hardware
from nt_jax.config import Experiment, ModelConfig
from nt_jax.masking import budget


def train_flops_per_sequence(
    model: ModelConfig, vocabulary: int, length: int, mask_ratio: float
) -> float:
    """Model FLOPs of forward and backward for one sequence of `length` tokens.

    Matrix products only, 2 FLOPs a multiply-add, backward counted as twice the forward,
    recomputation not counted. The head runs on the selected tokens alone.
    """
    width, heads = model.embed_dim, model.num_heads * model.head_size
    projections = 4 * width * heads
    feed_forward = (3 if model.ffn_gated else 2) * width * model.ffn_dim
    attention = 2 * length * heads
    encoder = model.num_layers * length * (projections + feed_forward + attention)
    head = budget(length, mask_ratio) * width * (width + vocabulary)
    return 3 * 2.0 * (encoder + head)


def train_flops_per_step(experiment: Experiment) -> float:
    """Model FLOPs of an optimizer step over all devices."""
    return experiment.train.global_batch * train_flops_per_sequence(
        experiment.model,
        experiment.tokenizer.make().vocab_size,
        experiment.data.sequence_length,
        experiment.masking.ratio,
    )


def peak_flops() -> float | None:
    """bf16 peak in FLOP/s over all devices of this run; None where it is not known (CPUs)."""
    peak = hardware.peak_flops(jax.devices()[0].device_kind)
    return peak * jax.device_count() if peak else None
