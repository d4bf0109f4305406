"""What runs on the device. Only one number a target or eight a layer and allele travel back.

Sizes: B rows of T tokens, M masked tokens a row, Q targets, k bases a token, S layers.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from nt_jax.evaluation.embed import Pooling
from nt_jax.model.factory import Model, Params

DISTANCES = ("cosine", "dot", "l1", "l2")
PLACES = ("window", "tokens")
# Row b for the fixed base b; the last row lets every base agree.
_LOG_AGREES = np.concatenate([np.where(np.eye(4) > 0, 0.0, -np.inf), np.zeros((1, 4))])


@functools.partial(jax.jit, static_argnames=("model", "kmer_ids"))
def masked_scores(
    model: Model,
    params: Params,
    kmer_ids: tuple[int, int],
    tokens: Int[np.ndarray | Array, "B T"],
    positions: Int[np.ndarray | Array, "B M"],
    rows: Int[np.ndarray | Array, " Q"],
    targets: UInt8[np.ndarray | Array, "Q M k"],
) -> Float[Array, " Q"]:
    """log P(target), in nats: of the bases that it names at the masked tokens of its row.

    `tokens` are masked already; a slot of `positions` that only fills the row has a target in
    which every base is free, whose log P is 0. The k-mers are the ids in `kmer_ids`.
    """
    hidden = model.encode(params, jnp.asarray(tokens))
    hidden = jnp.take_along_axis(hidden, jnp.asarray(positions)[..., None], axis=1)
    logits = model.head(params, hidden)[..., slice(*kmer_ids)]
    known = jax.nn.log_softmax(logits.astype(jnp.float32))
    return _log_agreement(known[rows], jnp.asarray(targets))


@jax.jit
def unigram_scores(
    unigram: Float[np.ndarray | Array, " kmers"], targets: UInt8[np.ndarray | Array, "Q M k"]
) -> Float[Array, " Q"]:
    """`masked_scores` of a model that knows the frequencies of k-mers and no context."""
    known = jax.nn.log_softmax(unigram.astype(jnp.float32))
    shape = (*targets.shape[:2], known.shape[0])
    return _log_agreement(jnp.broadcast_to(known, shape), jnp.asarray(targets))


def _log_agreement(
    known: Float[Array, "Q M kmers"], targets: UInt8[Array, "Q M k"]
) -> Float[Array, " Q"]:
    """Base after base, the first is the leading digit of a k-mer's number."""
    agrees = jnp.asarray(_LOG_AGREES, jnp.float32)[targets.astype(jnp.int32)]
    for offset in range(targets.shape[-1]):
        known = known.reshape(*known.shape[:2], 4, -1) + agrees[:, :, offset, :, None]
        known = jax.nn.logsumexp(known, axis=2)
    return known.reshape(known.shape[:2]).sum(axis=1)


@functools.partial(jax.jit, static_argnames=("model", "layers", "pooling", "pad_id"))
def distances(
    model: Model,
    params: Params,
    layers: tuple[int, ...],
    pooling: Pooling,
    pad_id: int,
    windows: Int[np.ndarray | Array, "2 B T"],
    spans: Int[np.ndarray | Array, "2 B 2"],
) -> Float[Array, "B S 2 4"]:
    """Distances between the embeddings of REF and ALT: [allele, layer, `PLACES`, `DISTANCES`].

    `windows` holds the tokens of both haplotypes, `spans` the first and last + 1 of the tokens
    that the allele touches. Everything is float32 whatever the compute dtype.
    """
    _, rows, length = windows.shape
    tokens = windows.reshape(2 * rows, length)
    found = model.apply(params, tokens, layers)["embeddings"]
    values = jnp.stack([found[layer].astype(jnp.float32) for layer in layers])
    values = values.reshape(len(layers), 2, rows, length, -1)
    index = jnp.arange(length)
    inside = (index >= spans[..., :1]) & (index < spans[..., 1:])
    real = (windows != pad_id) & (index > 0)
    if pooling == "cls":
        window = values[..., 0, :]
    elif pooling == "max":
        window = jnp.where(real[..., None], values, -jnp.inf).max(axis=-2)
    else:
        window = _mean(values, real)
    pooled = jnp.stack([window, _mean(values, inside)], axis=2)
    return jnp.stack(_compare(pooled[:, 0], pooled[:, 1]), axis=-1).transpose(2, 0, 1, 3)


def _mean(values: Float[Array, "S 2 B T D"], where: Array) -> Float[Array, "S 2 B D"]:
    return jnp.where(where[..., None], values, 0.0).sum(-2) / where.sum(-1)[..., None]


def _compare(ref: Float[Array, "*n D"], alt: Float[Array, "*n D"]) -> list[Float[Array, "*n"]]:
    """The four of `DISTANCES`, over the last axis."""
    difference = ref - alt
    # 1 - cosine, without the cancellation that would leave nothing of nearly equal directions.
    directions = [x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (ref, alt)]
    cosine = 0.5 * jnp.square(directions[0] - directions[1]).sum(-1)
    dot = (ref * alt).sum(-1)
    return [cosine, dot, jnp.abs(difference).sum(-1), jnp.linalg.norm(difference, axis=-1)]
