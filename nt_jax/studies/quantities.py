"""What a run is in numbers, before it is run: by formula from its experiment."""

import dataclasses

from nt_jax import throughput
from nt_jax.config import Experiment
from nt_jax.model.presets import parameter_count
from nt_jax.studies.grid import tokens_per_step


@dataclasses.dataclass(frozen=True)
class Quantities:
    """Sizes and budgets of a run."""

    parameters: int
    """All of them."""
    parameters_in_blocks: int
    """Of the transformer blocks: without token and position embeddings and without the LM head."""
    bases_per_token: int
    """k."""
    sequence_length: int
    """Tokens of a sequence, `<cls>` included."""
    global_batch: int
    """Sequences of a step."""
    steps: int
    """Optimizer steps."""
    tokens: int
    """steps * global_batch * sequence_length: `<cls>` counts, repeated windows count again."""
    bases: int
    """steps * global_batch * (sequence_length - 1) * k: what the tokens stand for where every
    token but `<cls>` is a whole k-mer. Windows with N have fewer."""
    flops: float
    """Model FLOPs of training (nt_jax/throughput.py): forward and backward, no recomputation."""


def quantities(experiment: Experiment) -> Quantities:
    """The numbers of an experiment."""
    model, train, length = experiment.model, experiment.train, experiment.data.sequence_length
    vocabulary = experiment.tokenizer.make().vocab_size
    total = parameter_count(model, vocabulary)
    around = parameter_count(dataclasses.replace(model, num_layers=0), vocabulary)
    k = experiment.tokenizer.k
    return Quantities(
        parameters=total,
        parameters_in_blocks=total - around,
        bases_per_token=k,
        sequence_length=length,
        global_batch=train.global_batch,
        steps=train.steps,
        tokens=train.steps * tokens_per_step(experiment),
        bases=train.steps * train.global_batch * (length - 1) * k,
        flops=train.steps * throughput.train_flops_per_step(experiment),
    )
