"""Fine-tuning of a checkpoint on a task: IA3, LoRA, full, or the head alone."""

from nt_jax.evaluation.finetune.run import finetune
from nt_jax.evaluation.finetune.saved import FineTuned, load_adapter

__all__ = ["FineTuned", "finetune", "load_adapter"]
