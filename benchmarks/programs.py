"""What benchmarks read in a compiled train step: kernels, score matrices, logits."""

import math
from collections.abc import Callable
from typing import Any

from nt_jax.config import Experiment
from nt_jax.plan import hlo
from nt_jax.plan.hlo import Instruction, Module


def arrays(
    module: Module, experiment: Experiment, kernel: Callable[[Instruction], str]
) -> dict[str, Any]:
    """Kernels a step by the name that `kernel` gives ("" for none), matrices of tokens x tokens,
    and the most rows that logits have."""
    length, width = experiment.data.sequence_length, experiment.model.embed_dim
    vocabulary = experiment.tokenizer.make().vocab_size
    kernels: dict[str, int] = {}
    scores: set[tuple[int, ...]] = set()
    rows = 0
    for item in hlo.executed(module):
        if name := kernel(item.instruction):
            kernels[name] = kernels.get(name, 0) + item.times
        for buffer in item.instruction.buffers:
            if buffer.dims[-2:] == (length, length):
                scores.add(buffer.dims)
            *leading, last = buffer.dims or (0,)
            if vocabulary <= last < vocabulary + 128 and leading[-1:] != [width]:
                rows = max(rows, math.prod(leading))
    return {"kernels": kernels, "score_arrays": sorted(map(list, scores)), "logit_rows": rows}
