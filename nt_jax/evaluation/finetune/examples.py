"""Sequences of a task as token batches: what is validation, what feeds which step."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jaxtyping import Float, Int

from nt_jax.errors import InputError
from nt_jax.evaluation.embed import Pooling, bucket, embed_batch
from nt_jax.evaluation.tasks import Task, make_folds
from nt_jax.model.factory import Model, Params
from nt_jax.order import TrainOrder, locate
from nt_jax.tokenizers import KmerTokenizer

VALIDATION_FOLDS = 7
"""One in so many training sequences is validation."""

Ids = list[Int[np.ndarray, " _"]]
"""Token ids of sequences of any length."""


def carve(
    task: Task, rows: Int[np.ndarray, " N"], seed: int
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " v"]]:
    """Splits training rows into (those that train, those that validate), whole groups together.

    Classes keep their proportions. Raises InputError when a class has fewer than two sequences.
    """
    part = task.train.take(rows)
    folds = VALIDATION_FOLDS
    if task.kind == "classes":
        folds = min(folds, int(np.bincount(part.labels, minlength=len(task.classes)).min()))
    if part.groups is not None:
        folds = min(folds, len(set(part.groups)))
    alone = dataclasses.replace(task, train=part, test=None)
    first = make_folds(alone, max(2, folds), seed)[0]
    return rows[first.train], rows[first.test]


def encode(
    tokenizer: KmerTokenizer, sequences: Sequence[str], context: int, what: str = "sequence"
) -> Ids:
    """Token ids of each sequence; InputError for one that is empty, bad or beyond the context."""
    encoded = []
    for row, sequence in enumerate(sequences):
        try:
            ids = tokenizer.encode(sequence)
        except InputError as error:
            raise InputError(f"{what} {row}: {error}") from None
        if ids.size < 2:
            raise InputError(f"{what} {row} is empty; leave it out")
        if ids.size > context:
            bases = (context - 1) * tokenizer.k
            raise InputError(
                f"{what} {row} has {ids.size} tokens ({len(sequence):,} bases), the checkpoint was "
                f"trained on {context}: crop the sequences to {bases:,} bases, or take a "
                "checkpoint with a longer context"
            )
        encoded.append(ids)
    return encoded


def padded(ids: Sequence[Int[np.ndarray, " _"]], length: int, pad_id: int) -> np.ndarray:
    """Rows of `length` tokens, pads at the end: int32 [B, T]."""
    tokens = np.full((len(ids), length), pad_id, np.int32)
    for row, own in enumerate(ids):
        tokens[row, : own.size] = own
    return tokens


def rows_of_step(count: int, batch: int, seed: int, step: int) -> Int[np.ndarray, " B"]:
    """Training rows of step `step` (from 0), a pure function: epochs are fresh permutations."""
    order = TrainOrder(count, batch, seed, offsets=1, reverse_complement=0.0)
    return np.array([locate(order, step, row).index for row in range(batch)])


def embed_ids(
    model: Model,
    params: Params,
    ids: Ids,
    layer: int,
    *,
    pooling: Pooling,
    context: int,
    batch: int,
    pad_id: int,
    place: Callable[[np.ndarray], jax.Array],
) -> Float[np.ndarray, "N D"]:
    """Pooled embeddings, `batch` sequences of similar length at a time, on the mesh of `place`."""
    order = sorted(range(len(ids)), key=lambda row: -ids[row].size)
    parts = []
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        # Rows that only fill the batch repeat its last one: a row of pads has no mean.
        filled = [ids[row] for row in rows] + [ids[rows[-1]]] * (batch - len(rows))
        length = bucket(filled[0].size, context)
        tokens = place(padded(filled, length, pad_id))
        found = embed_batch(model, params, tokens, (layer,), pooling, pad_id)[0]
        parts.append(np.asarray(found)[: len(rows)])
    return np.concatenate(parts)[np.argsort(order)]
