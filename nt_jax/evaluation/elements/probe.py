"""The element probe: which of five kinds of element is it? Embeddings of a frozen model by layer.

Features of a piece are the mean embedding of the tokens that lie wholly inside it, read in a window
that is centred on it: its flanks are seen by the model but not averaged. Controls: the same with a
random initialisation, k-mer frequencies of the piece alone, and the length of the element.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from nt_jax.evaluation import metrics, search
from nt_jax.evaluation.baselines import kmer_frequencies
from nt_jax.evaluation.elements.masked import Score
from nt_jax.evaluation.elements.pieces import CLASSES, Pieces
from nt_jax.evaluation.elements.statistics import resampled_weights
from nt_jax.evaluation.elements.windows import Genome
from nt_jax.evaluation.embed import BATCH_TOKENS
from nt_jax.evaluation.loading import LoadedModel, random_like
from nt_jax.evaluation.search import Fits, Problem
from nt_jax.evaluation.tasks import Fold
from nt_jax.model.factory import Model, Params
from nt_jax.progress import Progress, silent

FOLDS = 5
KMERS = (3, 4)
"""k of the k-mer frequencies: 300 bases hold too few 6-mers for their 4,096 frequencies."""
METRICS = ("mcc", "f1", "accuracy")
Features = dict[int, Float[np.ndarray, "N X"]]


@dataclasses.dataclass(frozen=True, eq=False)
class Family:
    """One kind of features and its scores; F1 is the mean over the classes (macro)."""

    name: str
    unit: str
    """What a variant is: `layer`, `k`, or nothing."""
    variants: dict[int, dict[str, Score]]
    """Scores of each variant over all held-out pieces."""
    chosen: dict[str, Score]
    """Scores when each fold takes the variant that its inner cross-validation prefers."""
    picks: tuple[int, ...]
    """That variant, for each fold."""
    confusion: Int[np.ndarray, "C C"]
    """Of the chosen: true class by predicted class, in pieces."""


def embed_pieces(
    loaded: LoadedModel,
    genome: Genome,
    pieces: Pieces,
    progress: Progress = silent,
    batch_tokens: int = BATCH_TOKENS,
) -> Features:
    """{layer: float32 [N, D]} for every layer. `progress` hears (pieces done, pieces in all)."""
    tokenizer, length = loaded.tokenizer, loaded.context
    layers = tuple(range(1, loaded.num_layers + 1))
    rows = max(1, min(batch_tokens // length, len(pieces.pieces)))
    found = []
    for first in range(0, len(pieces.pieces), rows):
        part = pieces.pieces[first : first + rows]
        tokens = np.full((rows, length), tokenizer.pad_id, np.int32)
        weights = np.zeros((rows, length), np.float32)
        tokens[:, 0] = tokenizer.cls_id
        for row, piece in enumerate(part):
            left, right = piece.window
            ids = tokenizer.encode_prefix(genome.contigs[piece.contig].bases[left:right], length)
            ends = left + np.cumsum(tokenizer.bases(ids))
            starts = ends - tokenizer.bases(ids)
            inside = (starts >= piece.start) & (ends <= piece.end) & (ends > starts)
            tokens[row], weights[row] = ids, inside / max(inside.sum(), 1)
        pooled = _pooled(loaded.model, loaded.params, tokens, weights, layers)
        found.append(np.asarray(pooled)[:, : len(part)])
        progress(first + len(part), len(pieces.pieces))
    return dict(zip(layers, np.concatenate(found, axis=1), strict=True))


@functools.partial(jax.jit, static_argnames=("model", "layers"))
def _pooled(
    model: Model,
    params: Params,
    tokens: Int[Array | np.ndarray, "B T"],
    weights: Float[Array | np.ndarray, "B T"],
    layers: tuple[int, ...],
) -> Float[Array, "S B D"]:
    found = model.apply(params, tokens, layers)["embeddings"]
    values = jnp.stack([found[layer].astype(jnp.float32) for layer in layers])
    return jnp.sum(values * weights[None, :, :, None], axis=2)


def probe_elements(
    loaded: LoadedModel,
    genome: Genome,
    pieces: Pieces,
    folds: Sequence[Fold],
    seed: int,
    kmers: Sequence[int] = KMERS,
    progress: Callable[[str], Progress] = lambda text: silent,
) -> list[Family]:
    """All families, the trained model first. `progress(text)` gives the bar of a phase."""
    texts = [
        genome.contigs[piece.contig].bases[piece.start : piece.end].tobytes().decode()
        for piece in pieces.pieces
    ]
    lengths = np.log([[piece.run] for piece in pieces.pieces]).astype(np.float32)
    untrained = random_like(loaded, seed)

    def embedded(model: LoadedModel, name: str) -> Features:
        return embed_pieces(model, genome, pieces, progress(f"element probe: embedding, {name}"))

    sources: list[tuple[str, str, Callable[[], Features]]] = [
        ("trained", "layer", lambda: embedded(loaded, "trained")),
        ("random init", "layer", lambda: embedded(untrained, "random init")),
        ("k-mers", "k", lambda: {k: kmer_frequencies(texts, k) for k in kmers}),
        ("element length", "", lambda: {0: lengths}),
    ]
    problem = Problem("classes", pieces.labels, len(CLASSES), pieces.blocks, folds, seed)
    families = []
    for name, unit, features in sources:
        made = features()
        bar = progress(f"element probe: fitting, {name}")
        fits: Fits = {}
        for number, variant in enumerate(made, 1):
            fits |= search.fit_all({variant: made[variant]}, problem, search.logistic())
            bar(number, len(made))
        families.append(_family(name, unit, fits, folds, pieces, seed))
    return families


def _family(
    name: str,
    unit: str,
    fits: Fits,
    folds: Sequence[Fold],
    pieces: Pieces,
    seed: int,
) -> Family:
    best = tuple(
        max(fits, key=lambda variant: fits[variant][fold].inner) for fold in range(len(folds))
    )
    chosen = search.join(folds, [fits[variant][fold] for fold, variant in enumerate(best)])
    cells = pieces.labels * len(CLASSES) + chosen.argmax(axis=1)
    return Family(
        name,
        unit,
        {v: block_scores(pieces, search.join(folds, row), seed) for v, row in fits.items()},
        block_scores(pieces, chosen, seed),
        best,
        np.bincount(cells, minlength=len(CLASSES) ** 2).reshape(len(CLASSES), -1),
    )


def block_scores(
    pieces: Pieces, probabilities: Float[np.ndarray, "N C"], seed: int
) -> dict[str, Score]:
    """Scores over all pieces, with bootstrap intervals over blocks of the genome, not pieces."""
    scorer = metrics.SCORERS["classes"]
    groups = pieces.groups
    weights = resampled_weights(int(groups.max()) + 1, seed)[:, groups]
    values = scorer.scores(pieces.labels, probabilities)
    replicates = scorer.weighted(pieces.labels, probabilities, weights)
    return {name: Score(values[name], *metrics.interval(replicates[name])) for name in METRICS}
