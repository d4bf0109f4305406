"""Windows on disk -> batches of tokens, streamed by Grain.

What feeds a step is a pure function of its number and the seed (order.py), so the state of the
loader is the step: nothing is stored or replayed, and neither the number of hosts nor that of
loader workers changes a window.
"""

import dataclasses
import functools
import os
import pathlib
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import grain
import numpy as np
from absl import flags
from jaxtyping import Bool, Int

from data_pipelines.datacard import has_haplotypes, local_folder, read_datacard
from data_pipelines.fasta import reverse_complement
from data_pipelines.records import (
    Drawn,
    draw_haplotype,
    draw_reference,
    parse_record,
    parse_sequence,
)
from data_pipelines.windows import Recipe
from data_pipelines.workers import die_with_parent
from nt_jax import mixture
from nt_jax.config import DataConfig
from nt_jax.errors import InputError
from nt_jax.fasta_source import FASTA_SPLIT, FastaWindows, Windows, check_split, fasta_windows
from nt_jax.order import TrainOrder, WindowRef, count_offsets, locate
from nt_jax.tokenizers import KmerTokenizer

__all__ = [
    "FASTA_SPLIT", "EvalBatch", "FastaWindows", "TrainOrder", "WindowDataset", "WindowRef",
    "Windows", "count_offsets", "crop", "eval_batches", "fasta_windows", "locate", "open_dataset",
    "spread", "train_batches", "train_order", "unigram_counts",
]  # fmt: skip

_THREADS = 2
"""Batches prepared at once in one process; more threads only wait for one another."""


@dataclasses.dataclass(frozen=True)
class WindowDataset:
    """A folder that `nt-jax data build` wrote."""

    path: pathlib.Path
    """The folder."""
    recipe: Recipe
    """How the windows were cut."""
    splits: dict[str, int]
    """Windows of each split; a split without windows is absent."""
    datacard: dict[str, Any]
    """datacard.json."""
    fingerprint: str
    """SHA-256 over the input's checksums and the arguments of the build."""

    @functools.cached_property
    def _sources(self) -> dict[str, grain.sources.ArrayRecordDataSource]:
        # With the counts in the name, no shard is opened before it is read.
        return {
            split: grain.sources.ArrayRecordDataSource(
                [
                    f"{self.path / shard['file']}[0:{shard['records']}]"
                    for shard in self.datacard["shards"]
                    if shard["split"] == split
                ]
            )
            for split in self.splits
        }

    def records(self, split: str) -> grain.sources.ArrayRecordDataSource:
        """Serialized records by number; picklable. InputError for an unknown split."""
        check_split(self, split)
        return self._sources[split]

    def window(self, split: str, i: int) -> dict[str, Any]:
        """Record i: `sequence` (bytes), `source`, `contig`, `start` (0-based, in bases)."""
        return parse_record(self.records(split)[i])

    def sample(self, source: str, haplotype: int) -> tuple[str, int]:
        """Whose haplotype it is, and which of the two (1 or 2)."""
        (card,) = (own for own in self.datacard["sources"] if own["name"] == source)
        return card["haplotypes"]["samples"][haplotype // 2], haplotype % 2 + 1


def open_dataset(path: str | os.PathLike[str]) -> WindowDataset:
    """The dataset in a folder.

    Raises InputError when no folder is named, it is missing, holds no dataset or an unfinished
    one, or misses a shard.
    """
    if not os.fspath(path):
        raise InputError("data.path is empty; name the folder that `nt-jax data build` wrote")
    folder = local_folder(path)
    card = read_datacard(folder)
    for shard in card["shards"]:
        if not (folder / shard["file"]).is_file():
            raise InputError(
                f"{folder / shard['file']}: this shard is missing; build the dataset again"
            )
    return WindowDataset(
        folder, Recipe(**card["recipe"]), card["splits"], card, card["fingerprint"]
    )


# --- Batches for training -------------------------------------------------------------------------


def train_order(
    dataset: WindowDataset,
    tokenizer: KmerTokenizer,
    data_config: DataConfig,
    *,
    global_batch: int,
    seed: int,
    left_out: tuple[tuple[int, int], ...] = (),
) -> TrainOrder:
    """The order for a dataset and a config; `left_out` as in TrainOrder.

    Raises InputError when the windows are shorter than the context or a number makes no sense.
    """
    if global_batch < 1:
        raise InputError(f"train.global_batch={global_batch} is below 1")
    if not 0.0 <= data_config.reverse_complement <= 1.0:
        raise InputError(
            f"data.reverse_complement={data_config.reverse_complement} is no probability (0..1)"
        )
    offsets = count_offsets(dataset.recipe, tokenizer.k, data_config.sequence_length)
    check_split(dataset, "train")
    sources = mixture.components(dataset.datacard, "train")
    return TrainOrder(
        dataset.splits["train"],
        global_batch,
        seed,
        offsets,
        data_config.reverse_complement,
        mixture.phases(data_config.weights, sources, global_batch, seed),
        left_out,
    )


Read = Callable[[bytes, int], Drawn]
"""(stored record, draw) -> window."""


def window_reader(dataset: WindowDataset, data_config: DataConfig) -> Read:
    """How training reads a window: the reference, or a haplotype where the dataset has them."""
    varied = has_haplotypes(dataset.datacard) and data_config.haplotypes == "drawn"
    return draw_haplotype if varied else draw_reference


@dataclasses.dataclass(frozen=True)
class _StepReader:
    """Step number -> this host's rows of that step. Sent to the loader's workers."""

    records: Any
    read: Read
    order: TrainOrder
    tokenizer: KmerTokenizer
    sequence_length: int
    rows: Sequence[int]

    def __call__(self, step: int) -> Int[np.ndarray, "b T"]:
        batch = np.empty((len(self.rows), self.sequence_length), np.int32)
        for i, row in enumerate(self.rows):
            ref = locate(self.order, int(step), row)
            bases = self.read(self.records[ref.index], ref.draw).bases
            batch[i] = crop(bases, ref, self.tokenizer, self.sequence_length)
        return batch


def crop(
    bases: bytes, ref: WindowRef, tokenizer: KmerTokenizer, sequence_length: int
) -> Int[np.ndarray, " T"]:
    """The tokens that `ref` cuts from its window."""
    piece = bases[ref.offset : ref.offset + (sequence_length - 1) * tokenizer.k]
    if ref.reverse:
        piece = reverse_complement(np.frombuffer(piece, np.uint8)).tobytes()
    return tokenizer.encode_prefix(piece, sequence_length)


def train_batches(
    dataset: WindowDataset,
    tokenizer: KmerTokenizer,
    data_config: DataConfig,
    *,
    global_batch: int,
    seed: int,
    start_step: int,
    stop_step: int,
    left_out: tuple[tuple[int, int], ...] = (),
    rows: Sequence[int] | None = None,
) -> Iterator[Int[np.ndarray, "b T"]]:
    """The given rows (default: all) of the batches of steps start_step..stop_step-1, in order.

    What a row holds does not depend on which rows are asked for. With `data_config.workers` = 0
    threads of this process read, else as many processes. Raises InputError (at the call, not at
    the first batch) for windows shorter than the context.
    """
    order = train_order(
        dataset, tokenizer, data_config, global_batch=global_batch, seed=seed, left_out=left_out
    )
    if data_config.workers < 0:
        raise InputError(f"data.workers={data_config.workers} is below 0")
    reader = _StepReader(
        dataset.records("train"),
        window_reader(dataset, data_config),
        order,
        tokenizer,
        data_config.sequence_length,
        range(global_batch) if rows is None else [int(row) for row in rows],
    )
    steps = grain.MapDataset.range(start_step, max(start_step, stop_step)).map(reader)
    return _stream(steps, data_config.workers)


def _stream(
    batches: "grain.MapDataset[np.ndarray]", workers: int
) -> Iterator[Int[np.ndarray, "b T"]]:
    _mark_flags()
    options = grain.ReadOptions(num_threads=_THREADS, prefetch_buffer_size=2 * _THREADS)
    stream = batches.to_iter_dataset(options)
    if workers:
        # A stream that is closed early leaves batches in shared memory. Python's resource tracker,
        # a process that reads its warning filters here, frees them at exit and need not say so.
        os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")
        stream = stream.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2),
            worker_init_fn=_start_worker,
        )
    iterator = iter(stream)
    try:
        yield from iterator
    finally:
        iterator.close()


def _mark_flags() -> None:
    """Grain and ArrayRecord read absl flags, which only `absl.app.run` would have parsed."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


def _start_worker(index: int, count: int) -> None:
    """Runs first in each loader process."""
    _mark_flags()
    # A scheduler sends its notice to the whole process group. The trainer saves and stops, and
    # needs its loader until then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    die_with_parent()


# --- Batches for evaluation -----------------------------------------------------------------------


class EvalBatch(NamedTuple):
    """One batch for evaluation; unpacks to (tokens, valid, number)."""

    tokens: Int[np.ndarray, "b T"]
    """Token ids of the rows asked for; rows that are not valid repeat the last window."""
    valid: Bool[np.ndarray, " B"]
    """Rows of the whole batch that count."""
    number: Int[np.ndarray, " B"]
    """Window number in its split, of the whole batch: the key of a row's mask."""


def eval_batches(
    dataset: Windows,
    tokenizer: KmerTokenizer,
    split: str,
    batch: int,
    sequence_length: int,
    limit: int = 0,
    rows: Sequence[int] | None = None,
) -> Iterator[EvalBatch]:
    """Windows of a split in fixed order, from their first base on the forward strand.

    Args:
        dataset: an opened dataset or `fasta_windows`.
        tokenizer: of the model.
        split: one of `dataset.splits`.
        batch: rows of a batch over all hosts; the last batch is filled up.
        sequence_length: tokens with `<cls>`.
        limit: this many windows, spread evenly over the split; 0 is all of them.
        rows: the rows of each batch to read (default: all).

    Raises InputError (at the call) for an unknown split or windows shorter than the context.
    """
    if batch < 1:
        raise InputError(f"a batch of {batch} rows; at least 1")
    check_split(dataset, split)
    count_offsets(dataset.recipe, tokenizer.k, sequence_length)
    chosen = spread(dataset.splits[split], limit)
    own = slice(None) if rows is None else np.asarray(rows)

    def batches() -> Iterator[EvalBatch]:
        for first in range(0, len(chosen), batch):
            numbers = np.arange(first, first + batch)
            index = chosen[np.minimum(numbers, len(chosen) - 1)]
            tokens = np.stack(
                [
                    crop(
                        dataset.window(split, i)["sequence"],
                        WindowRef(i, 0, 0, False),
                        tokenizer,
                        sequence_length,
                    )
                    for i in index[own].tolist()
                ]
            )
            yield EvalBatch(tokens, numbers < len(chosen), index)

    return batches()


def unigram_counts(
    dataset: WindowDataset, tokenizer: KmerTokenizer, split: str = "train", limit: int = 1 << 16
) -> Int[np.ndarray, " V"]:
    """How often each token occurs in the windows of a split, read from their first base.

    At most `limit` windows, spread evenly (65,536 windows of 6 kb are 65M tokens); 0 is all.
    """
    records = dataset.records(split)
    tokens = 1 + dataset.recipe.length // tokenizer.k
    counts = np.zeros(tokenizer.vocab_size, np.int64)
    for chunk in np.array_split(spread(dataset.splits[split], limit), 1 + len(records) // 256):
        ids = [tokenizer.encode_prefix(parse_sequence(records[i]), tokens) for i in chunk.tolist()]
        if ids:
            counts += np.bincount(np.concatenate(ids), minlength=len(counts))
    counts[[tokenizer.cls_id, tokenizer.pad_id]] = 0
    return counts


def spread(total: int, limit: int) -> Int[np.ndarray, " n"]:
    """int64: `limit` of `total` window numbers, evenly spread, ascending; 0 is all of them."""
    wanted = total if limit <= 0 else min(limit, total)
    return np.arange(wanted, dtype=np.int64) * total // wanted
