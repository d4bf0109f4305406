"""Scores of many alleles at once; the definitions are in `nt_jax.evaluation.variants`."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import logsumexp

from nt_jax.evaluation.embed import BATCH_TOKENS, Pooling
from nt_jax.evaluation.loading import LoadedModel
from nt_jax.evaluation.variants import device, haplotypes
from nt_jax.evaluation.variants.batches import Batch, Questions, rounded
from nt_jax.evaluation.variants.haplotypes import Local, Reason, Stretch
from nt_jax.tokenizers import KmerTokenizer

LLR, LLR_KMER = "llr", "llr_kmer"
_REF, _ALT = 0, 1
_STRANDS = 2

Scores = dict[str, Float[np.ndarray, " N"]]


def distance_name(layer: int, place: str, distance: str) -> str:
    """Column of one distance."""
    return f"l{layer}_{place}_{distance}"


def names(layers: Iterable[int]) -> tuple[str, ...]:
    """Columns of all scores, in their order."""
    return (
        LLR,
        LLR_KMER,
        *(
            distance_name(layer, place, distance)
            for layer in layers
            for place in device.PLACES
            for distance in device.DISTANCES
        ),
    )


def longest_allele(window: int, k: int) -> int:
    """Bases of the longest allele that a window of so many tokens holds: half of it."""
    return (window - 1) * k // 2


def reach(window: int, k: int) -> int:
    """Bases beside an allele that a window can hold in any phase."""
    return window * k


class _Asked(NamedTuple):
    """Numbers of the questions of one allele."""

    llr: Int[np.ndarray, "2 P"]
    """REF and ALT in every phase and strand."""
    kmer: Int[np.ndarray, "2 2"]
    """REF and ALT on both strands, central phase."""


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """All that a model is asked about N alleles; windows of A alleles, those that have scores."""

    reasons: list[Reason | None]
    """Of each of the N alleles; None: it has scores."""
    questions: Questions
    asked: list[_Asked]
    windows: Int[np.ndarray, "2 A T"]
    spans: Int[np.ndarray, "2 A 2"]


def prepare(
    alleles: Sequence[tuple[Local, Local] | Reason], tokenizer: KmerTokenizer, window: int
) -> Prepared:
    """Windows and masked questions of alleles (both strands), `window` tokens at most."""
    questions = Questions(window, tokenizer.k, tokenizer.mask_id, tokenizer.pad_id)
    reasons: list[Reason | None] = []
    asked, windows, spans = [], [], []
    for allele in alleles:
        if isinstance(allele, Reason):
            reasons.append(allele)
            continue
        fitting = [haplotypes.stretches(local, tokenizer.k, window) for local in allele]
        if not all(fitting):
            beside_n = any(local.beside_n for local in allele)
            reasons.append(Reason.NEAR_N if beside_n else Reason.NEAR_END)
            continue
        reasons.append(None)
        asked.append(_ask(questions, tokenizer, allele, fitting))
        forward, central = allele[0], fitting[0][0]
        pair = np.full((2, window), tokenizer.pad_id, np.int32)
        for row, haplotype in zip(pair, forward.haplotypes(), strict=True):
            ids = haplotypes.window_tokens(tokenizer, haplotype, central)
            row[: len(ids)] = ids
        windows.append(pair)
        lengths = (len(forward.ref), len(forward.alt))
        spans.append([haplotypes.touched(central, length, tokenizer.k) for length in lengths])
    return Prepared(
        reasons,
        questions,
        asked,
        np.array(windows, np.int32).reshape(-1, 2, window).swapaxes(0, 1),
        np.array(spans, np.int32).reshape(-1, 2, 2).swapaxes(0, 1),
    )


def model_scores(
    loaded: LoadedModel,
    prepared: Prepared,
    layers: tuple[int, ...],
    pooling: Pooling,
    batch_tokens: int = BATCH_TOKENS,
) -> Scores:
    """All scores of a model, NaN where an allele has none."""
    tokenizer = loaded.tokenizer

    def ask(batch: Batch):  # type: ignore[no-untyped-def]
        return device.masked_scores(
            loaded.model,
            loaded.params,
            tokenizer.kmer_ids,
            batch.tokens,
            batch.positions,
            batch.rows,
            batch.targets,
        )

    answers = prepared.questions.answer(batch_tokens, ask)
    found = _ratios(prepared.asked, answers)
    apart = _distances(loaded, prepared, layers, pooling, batch_tokens)
    for s, layer in enumerate(layers):
        for p, place in enumerate(device.PLACES):
            for d, distance in enumerate(device.DISTANCES):
                found[distance_name(layer, place, distance)] = apart[:, s, p, d]
    return {name: _spread(prepared.reasons, found[name]) for name in names(layers)}


def unigram_llr(
    prepared: Prepared, log_counts: Float[np.ndarray, " kmers"], batch_tokens: int = BATCH_TOKENS
) -> Float[np.ndarray, " N"]:
    """`llr` of a model that knows the frequencies of k-mers and no context.

    Rounded to five decimals: many alleles have the same score, and stay ties in any batch.
    """
    answers = prepared.questions.answer(
        batch_tokens, lambda batch: device.unigram_scores(log_counts, batch.targets)
    )
    return _spread(prepared.reasons, _ratios(prepared.asked, answers)[LLR]).round(5)


def _ask(
    questions: Questions,
    tokenizer: KmerTokenizer,
    allele: tuple[Local, Local],
    fitting: list[list[Stretch]],
) -> _Asked:
    """Asks for an allele on both strands in all phases that fit."""
    llr: list[list[int]] = []
    kmer: list[list[int]] = []
    for local, phases in zip(allele, fitting, strict=True):
        both = local.haplotypes()
        for number, stretch in enumerate(phases):
            windows = [haplotypes.window_tokens(tokenizer, bases, stretch) for bases in both]
            whole = [haplotypes.target(bases, stretch, tokenizer.k) for bases in both]
            if number == 0:
                kmer.append(
                    [
                        questions.ask(ids, stretch.first, target)
                        for ids, target in zip(windows, whole, strict=True)
                    ]
                )
            changed = haplotypes.scored(*whole)
            llr.append(
                [
                    questions.ask(ids, stretch.first, target)
                    for ids, target in zip(windows, changed, strict=True)
                ]
            )
    return _Asked(np.array(llr).T, np.array(kmer).T)


def _ratios(asked: list[_Asked], answers: Float[np.ndarray, " questions"]) -> Scores:
    """Both log-likelihood ratios of the alleles that were asked about."""
    llr, kmer = np.empty(len(asked)), np.empty(len(asked))
    for number, of_allele in enumerate(asked):
        # The number of phases is the same for both and cancels.
        ref, alt = logsumexp(answers[of_allele.llr], axis=1)
        llr[number] = alt - ref
        kmer[number] = np.subtract(*answers[of_allele.kmer[::-1]]).mean()
    return {LLR: llr, LLR_KMER: kmer}


def _distances(
    loaded: LoadedModel,
    prepared: Prepared,
    layers: tuple[int, ...],
    pooling: Pooling,
    batch_tokens: int,
) -> Float[np.ndarray, "A S 2 4"]:
    _, count, length = prepared.windows.shape
    rows = max(1, batch_tokens // (2 * length))
    pending = []
    for start in range(0, count, rows):
        part = np.arange(start, min(start + rows, count))
        filled = rounded(len(part), rows)
        chosen = np.concatenate([part, np.repeat(part[-1:], filled - len(part))])
        found = device.distances(
            loaded.model,
            loaded.params,
            layers,
            pooling,
            loaded.tokenizer.pad_id,
            prepared.windows[:, chosen],
            prepared.spans[:, chosen],
        )
        pending.append((found, len(part)))
    shape = (0, len(layers), len(device.PLACES), len(device.DISTANCES))
    return np.concatenate([np.zeros(shape), *(np.asarray(found)[:n] for found, n in pending)])


def _spread(
    reasons: list[Reason | None], found: Float[np.ndarray, " A"]
) -> Float[np.ndarray, " N"]:
    """Values of the alleles that have some, NaN at the others."""
    values = np.full(len(reasons), np.nan)
    values[[reason is None for reason in reasons]] = found
    return values
