"""FLOPs by formula, peak rates of known devices, model FLOPs utilisation."""

import jax

from nt_jax.config import ModelConfig
from nt_jax.masking import budget

# Dense bf16 peak in FLOP/s of one JAX device, from the vendors' data sheets.
PEAK_FLOPS = {
    "TPU v3": 61.5e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
}


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


def peak_flops() -> float | None:
    """bf16 peak in FLOP/s over all devices of this run; None where it is not known (CPUs)."""
    peak = PEAK_FLOPS.get(jax.devices()[0].device_kind)
    return peak * jax.device_count() if peak else None
