"""Contestant: this package, as `nt-jax pretrain` and `nt-jax embed` run it.

The environment is that of the command line: huge pages on a CPU, and the settings of
`nt_jax.runtime`; training on a CPU also keeps its memory (`nt_jax.memory`).
"""

import dataclasses
import json
import pathlib
import time
from typing import Any

from nt_jax import environment

if __name__ == "__main__":
    environment.huge_pages()
environment.quiet()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from nt_jax import config, memory, program, runtime  # noqa: E402
from nt_jax.evaluation import loading  # noqa: E402
from nt_jax.interchange.hf import read_hf  # noqa: E402
from nt_jax.interchange.weights import to_params  # noqa: E402
from nt_jax.rows import Rows  # noqa: E402
from peers import child  # noqa: E402


class _Contestant:
    """What training and embedding have in common."""

    def __init__(self, folder: str):
        runtime.configure()
        self.folder = pathlib.Path(folder)
        self.experiment = config.from_json(
            config.Experiment, (self.folder / "experiment.json").read_text()
        )
        jnp.zeros(()).block_until_ready()
        self.resident = child.Resident()

    def about(self) -> dict[str, Any]:
        """What computes, and the size of the model."""
        return {**device(), "parameters": self.parameters()}

    def parameters(self) -> int:
        """How many the model has."""
        raise NotImplementedError

    def peak(self) -> int:
        """Bytes of the device, or of this process on a CPU."""
        stats = jax.devices()[0].memory_stats() or {}
        return int(stats.get("peak_bytes_in_use") or self.resident.peak())


class Train(_Contestant):
    """`nt_jax.program.build(experiment)` and its train step, fed as in nt_jax/train.py."""

    def __init__(self, folder: str, parts: int = 1, unroll: int | None = None):
        memory.keep()
        super().__init__(folder)
        train = dataclasses.replace(self.experiment.train, accumulate=parts)
        self.experiment = dataclasses.replace(self.experiment, train=train)
        self.program = program.build(self.experiment, unroll=unroll)
        self.tokens = np.load(self.folder / "tokens.npy")
        self.place = Rows(self.program.batch_sharding, self.tokens.shape[1]).place
        self.steps = 0

    def parameters(self) -> int:
        """How many the model has."""
        return sum(x.size for x in jax.tree.leaves(self.program.abstract.params))

    def compile(self) -> float:
        """Seconds of tracing and compiling the step; nothing is allocated."""
        start = time.perf_counter()
        tokens = program.abstract_tokens(self.program, self.experiment)
        self.program.train_step.lower(self.program.abstract, tokens).compile()
        return time.perf_counter() - start

    def load(self, steps: int) -> list[float]:
        """Losses of the first steps."""
        state = self.program.init(jnp.uint32(self.experiment.train.seed))
        if (self.folder / "weights").is_dir():
            params = to_params(read_hf(self.folder / "weights"))
            state = state._replace(params=jax.device_put(params, self.program.placed.params))
            del params
        self.state = state
        del state
        losses = self._run(steps)
        self.resident.restart()
        return losses

    def turn(self, steps: int) -> float:
        """Seconds of a step, after one that wakes up what slept while the others worked."""
        self._run(1)
        start = time.perf_counter()
        self._run(steps)
        return (time.perf_counter() - start) / steps

    def _run(self, steps: int) -> list[float]:
        losses, pending = [], None
        for _ in range(steps):
            tokens = self.place(self.tokens[self.steps % len(self.tokens)])
            self.state, metrics = self.program.train_step(self.state, tokens)
            self.steps += 1
            if pending is not None:
                losses.append(jax.device_get(pending))
            pending = metrics
        losses.append(jax.device_get(pending))
        jax.block_until_ready(self.state)
        assert all(not found["skipped"] for found in losses), "a step was skipped"
        return [float(found["loss"]) for found in losses]


class Embed(_Contestant):
    """`LoadedModel.embed`, from sequences to vectors on the host."""

    def __init__(self, folder: str):
        super().__init__(folder)
        params = jax.device_put(to_params(read_hf(self.folder / "weights")))
        self.loaded = loading.from_params(params, 1, self.experiment)
        self.sequences = json.loads((self.folder / "sequences.json").read_text())

    def parameters(self) -> int:
        """How many the model has."""
        return sum(x.size for x in jax.tree.leaves(self.loaded.params))

    def load(self, out: str) -> float:
        """Seconds of the first time, compilation included; the vectors go to a file."""
        start = time.perf_counter()
        vectors = self.loaded.embed(self.sequences)
        seconds = time.perf_counter() - start
        np.save(out, vectors)
        self.resident.restart()
        return seconds

    def turn(self) -> float:
        """Seconds for all sequences."""
        start = time.perf_counter()
        self.loaded.embed(self.sequences)
        return time.perf_counter() - start


class Product:
    """Large matrix products of random numbers: the peak that utilisation is measured against."""

    def __init__(self, size: int, dtype: str):
        keys = jax.random.split(jax.random.key(0))
        self.left, self.right = (jax.random.normal(key, (size, size), dtype) for key in keys)
        self.flops = 2.0 * size**3
        self.multiply = jax.jit(jnp.matmul)
        self.turn(0.0)

    def about(self) -> dict[str, Any]:
        """What computes."""
        return device()

    def turn(self, seconds: float) -> float:
        """FLOP/s over so many seconds, four products at least."""
        count, start = 0, time.perf_counter()
        while count < 4 or time.perf_counter() - start < seconds:
            # Some are under way while the next are handed over.
            found = [self.multiply(self.left, self.right) for _ in range(4)]
            jax.block_until_ready(found)
            count += len(found)
        return count * self.flops / (time.perf_counter() - start)


def device() -> dict[str, Any]:
    """What computes."""
    one = jax.devices()[0]
    return {"platform": one.platform, "device": one.device_kind}


if __name__ == "__main__":
    child.serve({"train": Train, "embed": Embed, "product": Product})
