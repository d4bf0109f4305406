"""Sequences -> pooled embeddings, for any number of layers in one pass.

A sequence with more tokens than the context is cut into the fewest windows that fit, as equal in
length as possible, each with a `<cls>` of its own. Windows of similar length share a batch; the
number of compiled shapes stays small because lengths and rows are rounded up. The rows of a batch
are spread over all devices, each of which holds the parameters.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from nt_jax import sharding
from nt_jax.config import MeshConfig
from nt_jax.errors import InputError
from nt_jax.model.factory import Model, Params
from nt_jax.rows import ahead
from nt_jax.tokenizers import KmerTokenizer

Pooling = Literal["mean", "cls", "max"]
Bases = str | bytes | np.ndarray
BATCH_TOKENS = 16_384
"""Tokens of one batch, pads included: bounds the memory of a forward pass."""


class _Window(NamedTuple):
    sequence: int
    ids: Int[np.ndarray, " T"]
    share: float
    """Share of the sequence's tokens, `<cls>` not counted."""


def embed_layers(
    model: Model,
    params: Params,
    tokenizer: KmerTokenizer,
    sequences: Iterable[Bases],
    layers: Sequence[int],
    *,
    context: int,
    pooling: Pooling = "mean",
    batch_tokens: int = BATCH_TOKENS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[int, Float[np.ndarray, "N D"]]:
    """Pooled embeddings of every layer in `layers` (1-based): {layer: float32 [N, D]}.

    `context` is in tokens with `<cls>`. "mean" averages over all tokens but `<cls>` and pads (a
    token that is an `N` counts), "max" is the maximum over the same tokens, "cls" is the
    embedding of `<cls>`. Over the windows of one long sequence the means and the `<cls>`
    embeddings are averaged with the windows' tokens as weights; the maximum stays a maximum.
    `progress` hears (windows done, windows in all).

    Raises InputError for an empty sequence or a bad letter, naming the sequence (0-based).
    """
    if pooling not in get_args(Pooling):
        raise InputError(f"pooling {pooling!r}; known: {', '.join(get_args(Pooling))}")
    if isinstance(sequences, str | bytes):
        raise InputError("embed takes a list of sequences; put the one sequence into a list")
    windows, count = _windows(tokenizer, sequences, context)
    mesh = sharding.make_mesh(MeshConfig())
    params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
    spread = NamedSharding(mesh, sharding.BATCH)
    total = None
    done = 0

    def dispatched() -> Iterator[tuple[list[_Window], Float[Array, "S B D"]]]:
        for part, rows in _batches(windows, tokenizer.pad_id, context, batch_tokens, mesh.size):
            tokens = jax.device_put(rows, spread)
            yield (
                part,
                embed_batch(model, params, tokens, tuple(layers), pooling, tokenizer.pad_id),
            )

    # The device has the next batch before this one is fetched.
    for part, on_device in ahead(dispatched()):
        pooled = np.asarray(on_device)
        if total is None:
            start = -np.inf if pooling == "max" else 0.0
            total = np.full((len(layers), count, pooled.shape[-1]), start, np.float32)
        for row, window in enumerate(part):
            mine = total[:, window.sequence]
            if pooling == "max":
                np.maximum(mine, pooled[:, row], out=mine)
            else:
                mine += np.float32(window.share) * pooled[:, row]
        done += len(part)
        progress(done, len(windows))
    if total is None:
        raise InputError("no sequence to embed")
    return dict(zip(layers, total, strict=True))


def bucket(length: int, context: int) -> int:
    """Tokens that `length` tokens are padded to: at most a quarter more, four sizes an octave."""
    step = max(8, 1 << max(0, length.bit_length() - 3))
    return min(context, -(-length // step) * step)


def _windows(
    tokenizer: KmerTokenizer, sequences: Iterable[Bases], context: int
) -> tuple[list[_Window], int]:
    windows, count = [], 0
    for count, sequence in enumerate(sequences, 1):
        try:
            ids = tokenizer.encode(sequence)
        except InputError as error:
            raise type(error)(f"sequence {count - 1}: {error}") from None
        body = ids[1:]
        if not body.size:
            raise InputError(f"sequence {count - 1} is empty; leave it out")
        for part in np.array_split(body, -(-body.size // (context - 1))):
            window = np.concatenate([ids[:1], part])
            windows.append(_Window(count - 1, window, part.size / body.size))
    return windows, count


def _batches(
    windows: list[_Window], pad_id: int, context: int, batch_tokens: int, devices: int
) -> Iterable[tuple[list[_Window], Int[np.ndarray, "B T"]]]:
    """Batches of equal padded length, longest first so that lack of memory shows at once.

    The rows of a batch are a multiple of `devices`.
    """
    buckets: dict[int, list[_Window]] = {}
    for window in windows:
        buckets.setdefault(bucket(window.ids.size, context), []).append(window)
    for length in sorted(buckets, reverse=True):
        members = buckets[length]
        rows = devices * max(1, batch_tokens // (length * devices))
        for start in range(0, len(members), rows):
            part = members[start : start + rows]
            # Rows that only fill the batch hold a `<cls>`-led copy: a row of pads would make NaN.
            filled = min(rows, devices << (-(-len(part) // devices) - 1).bit_length())
            tokens = np.full((filled, length), pad_id, np.int32)
            for row in range(filled):
                ids = part[min(row, len(part) - 1)].ids
                tokens[row, : ids.size] = ids
            yield part, tokens


@functools.partial(jax.jit, static_argnames=("model", "layers", "pooling", "pad_id"))
def embed_batch(
    model: Model,
    params: Params,
    tokens: Int[Array | np.ndarray, "B T"],
    layers: tuple[int, ...],
    pooling: Pooling,
    pad_id: int,
) -> Float[Array, "S B D"]:
    """One batch, pooled on the device: only [layers, rows, D] travels to the host, in float32."""
    found = model.apply(params, tokens, layers)["embeddings"]
    values = jnp.stack([found[layer].astype(jnp.float32) for layer in layers])
    if pooling == "cls":
        return values[:, :, 0]
    real = (tokens != pad_id).at[:, 0].set(False)[None, :, :, None]
    if pooling == "max":
        return jnp.where(real, values, -jnp.inf).max(axis=2)
    return jnp.where(real, values, 0.0).sum(axis=2) / real.sum(axis=2)
