"""How much attention goes to each element class, by layer and head, for each window.

Queries are all real tokens but `<cls>`. What goes to `<cls>` as a key is reported on its own; the
share of a class is taken of what goes to the other keys, summed over the queries of a window, with
each key counting by the share of its bases that is in the class. With uniform attention it is the
class's share of the window's tokens. The thresholded form counts (query, key) pairs whose attention
is above a threshold instead (Vig et al. 2021, "BERTology meets biology"; they take 0.3).

Maps never leave the device and are never all there: only sums over queries and classes do.
W windows, B batch, S layers of one pass, L layers, H heads, T tokens, C classes.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from nt_jax.evaluation.elements.windows import ElementWindows
from nt_jax.evaluation.loading import LoadedModel
from nt_jax.model.factory import Model, Params
from nt_jax.progress import Progress, silent

MAP_BYTES = 1 << 30
"""Attention maps that may be on the device at a time."""
MOST_ROWS = 16
"""Windows of a batch, at most."""


@dataclasses.dataclass(frozen=True, eq=False)
class Sums:
    """What was summed over the queries of each window: of attention, or of pairs of tokens."""

    inside: Float[np.ndarray, "W L H C"]
    """On keys of the class, each counted by its share in the class."""
    total: Float[np.ndarray, "W L H"]
    """On all keys but `<cls>`."""


@dataclasses.dataclass(frozen=True, eq=False)
class AttentionSums:
    """All sums of one model over all windows."""

    attention: Sums
    pairs: Sums
    """Pairs above the threshold."""
    turned_attention: Sums
    """As `attention`, with the annotation of each window turned round."""
    turned_pairs: Sums
    cls: Float[np.ndarray, "W L H"]
    """Share of all attention that goes to `<cls>`."""
    expected: Float[np.ndarray, "W C"]
    """Share of the window's tokens that is in the class."""


def sum_attention(
    loaded: LoadedModel,
    windows: ElementWindows,
    threshold: float,
    seed: int,
    progress: Progress = silent,
    rows: int | None = None,
) -> AttentionSums:
    """Runs the model over all windows. `rows` windows at a time, by default what memory allows.

    `progress` hears (windows done, windows in all).
    """
    layers, heads = loaded.num_layers, loaded.config.model.num_heads
    one_map = heads * windows.length**2 * 4
    together = max(1, min(layers, MAP_BYTES // one_map))
    rows = rows or max(1, min(MOST_ROWS, MAP_BYTES // (one_map * together), len(windows.chosen)))
    parts = [
        tuple(range(first, min(first + together, layers + 1)))
        for first in range(1, layers + 1, together)
    ]
    kept: list[dict[str, np.ndarray]] = []
    done = 0
    for batch in windows.batches(rows, seed):
        labels = np.concatenate([batch.fractions, batch.turned], axis=1)
        found = [
            _sums(
                loaded.model, loaded.params, batch.tokens, labels, threshold, part,
                loaded.tokenizer.pad_id,
            )
            for part in parts
        ]  # fmt: skip
        joined = jax.tree.map(lambda *pieces: np.concatenate(pieces, axis=1), *found)
        covered = windows.tokenizer.bases(batch.tokens) > 0
        joined["expected"] = batch.fractions.sum(axis=2) / covered.sum(axis=1, keepdims=True)
        kept.append({name: values[batch.valid] for name, values in joined.items()})
        done += int(batch.valid.sum())
        progress(done, len(windows.chosen))
    every = {name: np.concatenate([part[name] for part in kept]) for name in kept[0]}
    return _sorted_out(every)


def _sorted_out(every: dict[str, np.ndarray]) -> AttentionSums:
    classes = every["expected"].shape[1]

    def sums(kind: str, pick: Callable[[Any], Any]) -> Sums:
        return Sums(pick(every[f"{kind}_inside"]), every[f"{kind}_total"])

    return AttentionSums(
        attention=sums("attention", lambda x: x[..., :classes]),
        pairs=sums("pairs", lambda x: x[..., :classes]),
        turned_attention=sums("attention", lambda x: x[..., classes:]),
        turned_pairs=sums("pairs", lambda x: x[..., classes:]),
        cls=every["cls"],
        expected=every["expected"].astype(np.float32),
    )


@functools.partial(jax.jit, static_argnames=("model", "layers", "pad_id"))
def _sums(
    model: Model,
    params: Params,
    tokens: Int[Array | np.ndarray, "B T"],
    labels: Float[Array | np.ndarray, "B C T"],
    threshold: float | Float[Array, ""],
    layers: tuple[int, ...],
    pad_id: int,
) -> dict[str, Float[Array, "B S H ..."]]:
    found = model.apply(params, tokens, layers, True)["attention"]
    maps = jnp.stack([found[layer] for layer in layers], axis=1)
    real = (jnp.asarray(tokens) != pad_id).at[:, 0].set(False).astype(jnp.float32)
    # Full float32 on every device: a TPU's and a GPU's default would round to fewer bits.
    einsum = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
    result = {}
    for name, weights in (
        ("attention", maps),
        ("pairs", (maps > threshold).astype(jnp.float32)),
    ):
        received = einsum("bshij,bi->bshj", weights, real)
        result[f"{name}_inside"] = einsum("bshj,bcj->bshc", received, labels)
        result[f"{name}_total"] = einsum("bshj,bj->bsh", received, real)
        if name == "attention":
            result["cls"] = received[..., 0] / real.sum(axis=1)[:, None, None]
    return result
