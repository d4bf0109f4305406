"""What all contestants compute: a model, its weights, and batches of tokens that look like DNA."""

import dataclasses
import json
import math
import pathlib
import zlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nt_jax import config, registry
from nt_jax.config import DataConfig, Experiment, MeshConfig, OptimConfig, TrainConfig
from nt_jax.evaluation.embed import BATCH_TOKENS
from nt_jax.interchange.hf import write_hf
from nt_jax.interchange.hf_config import hf_from_config
from nt_jax.interchange.weights import Weights, expected_tensors
from nt_jax.masking import budget, mask_tokens, row_keys
from nt_jax.model.presets import parameter_count
from nt_jax.throughput import train_flops_per_sequence
from nt_jax.tokenizers import KmerTokenizer

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BATCHES = 4
"""Different batches, used again and again."""
IGNORED = -100
"""Label of a token that is not asked for."""
# Next base after A, C, G, T, about as in the human genome: few CG.
_NEXT = np.array(
    [[0.33, 0.17, 0.24, 0.26], [0.35, 0.26, 0.05, 0.34], [0.29, 0.21, 0.26, 0.24],
     [0.21, 0.20, 0.25, 0.34]]
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Problem:
    """A model and batches of a size."""

    name: str
    experiment: Experiment

    @property
    def tokenizer(self) -> KmerTokenizer:
        """Of the model."""
        return self.experiment.tokenizer.make()

    @property
    def batch(self) -> int:
        """Sequences of a step."""
        return self.experiment.train.global_batch

    @property
    def length(self) -> int:
        """Tokens of a sequence."""
        return self.experiment.data.sequence_length

    @property
    def parameters(self) -> int:
        """How many the model has."""
        return parameter_count(self.experiment.model, self.tokenizer.vocab_size)

    @property
    def step_flops(self) -> float:
        """Model FLOPs of a train step, by formula: the head on the masked positions alone."""
        return self.batch * train_flops_per_sequence(
            self.experiment.model, self.tokenizer.vocab_size, self.length,
            self.experiment.masking.ratio,
        )  # fmt: skip

    def forward_flops(self, length: int) -> float:
        """Model FLOPs of the encoder, forward, for a sequence of so many tokens."""
        model, width = self.experiment.model, self.experiment.model.embed_dim
        vocabulary, ratio = self.tokenizer.vocab_size, self.experiment.masking.ratio
        head = 6.0 * budget(length, ratio) * width * (width + vocabulary)
        return (train_flops_per_sequence(model, vocabulary, length, ratio) - head) / 3

    def sizes(self) -> dict[str, Any]:
        """What a peer that knows no configs of ours must be told."""
        ids = self.tokenizer
        return {
            **dataclasses.asdict(self.experiment.model),
            "head_size": self.experiment.model.head_size,
            "vocab_size": ids.vocab_size,
            "pad_id": ids.pad_id,
            "mask_id": ids.mask_id,
            "parameters": self.parameters,
            "learning_rate": self.experiment.optim.init_lr,
        }

    def write(self, folder: pathlib.Path, same_weights: bool) -> None:
        """All that contestants read; `weights/` only where all start from the same ones."""
        folder.mkdir(parents=True, exist_ok=True)
        model, tokenizer = self.experiment.model, self.experiment.tokenizer
        (folder / "experiment.json").write_text(config.to_json(self.experiment))
        (folder / "sizes.json").write_text(json.dumps(self.sizes()))
        values = hf_from_config(model, tokenizer, None, "float32", self.name)
        (folder / "hf.json").write_text(json.dumps(values))
        if same_weights:
            write_hf(random_weights(self), None, folder / "weights", shard_bytes=10**11)

    def write_batches(self, folder: pathlib.Path) -> None:
        """tokens.npy, and inputs.npy and labels.npy as our step masks them in its first steps."""
        rng = np.random.default_rng(0)
        tokens = np.stack(
            [random_tokens(rng, self.tokenizer, self.batch, self.length) for _ in range(BATCHES)]
        )
        jax.config.update("jax_threefry_partitionable", True)
        inputs, labels = np.empty_like(tokens), np.full_like(tokens, IGNORED)
        for step, batch in enumerate(tokens):
            keys = row_keys(self.experiment.train.seed, step, self.batch)
            masked = mask_tokens(keys, jnp.asarray(batch), self.tokenizer, self.experiment.masking)
            inputs[step] = masked.inputs
            chosen = np.where(masked.weights > 0, masked.targets, IGNORED)
            np.put_along_axis(labels[step], np.asarray(masked.positions), chosen, axis=1)
        for name, array in (("tokens", tokens), ("inputs", inputs), ("labels", labels)):
            np.save(folder / f"{name}.npy", array)

    def write_sequences(self, folder: pathlib.Path, lengths: Sequence[int]) -> None:
        """sequences.json for ours, and tokens for its peers, which are spared the tokenizing.

        batch_*.npy: by length, longest first, as many tokens as a batch of ours; order.npy puts
        the vectors in order. padded_*.npy: in order, all padded to the longest.
        """
        rng, ids = np.random.default_rng(0), self.tokenizer
        sequences = [random_dna(rng, 1, ids.k * (length - 1))[0] for length in lengths]
        (folder / "sequences.json").write_text(json.dumps(sequences))
        rows = [ids.encode(sequence).astype(np.int32) for sequence in sequences]
        assert [row.size for row in rows] == list(lengths)
        order = np.argsort([-length for length in lengths], kind="stable")
        np.save(folder / "order.npy", np.argsort(order, kind="stable"))
        sorted_rows, first = [rows[number] for number in order], 0
        while first < len(rows):
            stop = first + max(1, BATCH_TOKENS // sorted_rows[first].size)
            part = sorted_rows[first:stop]
            np.save(folder / f"batch_{first:06d}.npy", _padded(part, part[0].size, ids.pad_id))
            first = stop
        longest = max(lengths)
        count = max(1, BATCH_TOKENS // longest)
        for first in range(0, len(rows), count):
            # The last batch is filled, so that it has the shape of the others.
            part = [rows[min(n, len(rows) - 1)] for n in range(first, first + count)]
            np.save(folder / f"padded_{first:06d}.npy", _padded(part, longest, ids.pad_id))


def _padded(rows: Sequence[np.ndarray], length: int, pad_id: int) -> np.ndarray:
    found = np.full((len(rows), length), pad_id, np.int32)
    for number, row in enumerate(rows):
        found[number, : row.size] = row
    return found


def problem(name: str, batch: int, length: int, dtype: str, **model: Any) -> Problem:
    """One of experiments/ (its settings, so also its remat) on one device, with this batch.

    The learning rate is that of the published recipe: nearly constant in the first steps.
    """
    shipped = registry.find_experiment(str(ROOT / "experiments" / f"{name}.py"))
    return shaped(dataclasses.replace(shipped, optim=OptimConfig()), batch, length, dtype, **model)


def shaped(
    experiment: Experiment, batch: int, length: int, dtype: str, accumulate: int = 1, **model: Any
) -> Problem:
    """The experiment with other sizes."""
    experiment = dataclasses.replace(
        experiment,
        model=dataclasses.replace(experiment.model, compute_dtype=dtype, **model),
        data=DataConfig(sequence_length=length),
        train=TrainConfig(global_batch=batch, accumulate=accumulate),
        mesh=MeshConfig(data=-1, fsdp=1),
    )
    return Problem(experiment.name, experiment)


def random_dna(rng: np.random.Generator, rows: int, bases: int) -> list[str]:
    """Sequences of a Markov chain whose pairs of bases are as frequent as in the human genome."""
    steps = np.cumsum(_NEXT, axis=1)[:, :3]
    found = np.empty((bases, rows), np.uint8)
    found[0] = rng.integers(0, 4, rows)
    for place, draws in enumerate(rng.random((bases - 1, rows)), start=1):
        found[place] = (draws[:, None] > steps[found[place - 1]]).sum(axis=1)
    letters = np.frombuffer(b"ACGT", np.uint8)[found.T]
    return [row.tobytes().decode() for row in letters]


def random_tokens(
    rng: np.random.Generator, tokenizer: KmerTokenizer, rows: int, length: int
) -> np.ndarray:
    """Full windows [rows, length], int32."""
    sequences = random_dna(rng, rows, tokenizer.k * (length - 1))
    tokens = np.stack([tokenizer.encode(sequence) for sequence in sequences]).astype(np.int32)
    assert tokens.shape == (rows, length)
    return tokens


def random_weights(problem: Problem) -> Weights:
    """Weights about as large as trained ones; each tensor is made from its name when asked for."""
    model, tokenizer = problem.experiment.model, problem.experiment.tokenizer

    def read(tensor: str) -> np.ndarray:
        shape = shapes[tensor]
        rng = np.random.default_rng(zlib.crc32(tensor.encode()))
        array = rng.standard_normal(shape, np.float32)
        if tensor.endswith("/scale"):
            return 1 + np.float32(0.02) * array
        return array * np.float32(0.02 if len(shape) == 1 else shape[0] ** -0.5)

    shapes = expected_tensors(model, tokenizer)
    assert sum(map(math.prod, shapes.values())) == problem.parameters
    return Weights(model, tokenizer, shapes, read, problem.name)
