"""The definitions once more, as slowly and plainly as can be: text, one window at a time.

Shares no code with what it checks but the tokenizer and `LoadedModel.apply`.
"""

import math

import numpy as np

from nt_jax.evaluation.loading import LoadedModel

COMPLEMENT = str.maketrans("ACGTN", "TGCAN")


def other_strand(text: str) -> str:
    return text.translate(COMPLEMENT)[::-1]


def haplotypes(contig: str, start: int, ref: str, alt: str) -> tuple[str, str, int, int]:
    """Both haplotypes, the first base in which they differ, bases of the longer allele."""
    assert contig[start : start + len(ref)] == ref
    with_alt = contig[:start] + alt + contig[start + len(ref) :]
    at = next(
        (i for i, (a, b) in enumerate(zip(contig, with_alt, strict=False)) if a != b),
        min(len(contig), len(with_alt)),
    )
    while ref and alt and ref[0] == alt[0]:
        ref, alt = ref[1:], alt[1:]
    while ref and alt and ref[-1] == alt[-1]:
        ref, alt = ref[:-1], alt[:-1]
    return contig, with_alt, at, max(len(ref), len(alt))


def windows(both: tuple[str, str], at: int, longer: int, k: int, tokens: int):
    """(phase, start, stretch start, stretch end, end) of each phase that fits."""
    ends = []
    for bases in both:
        ahead = bases.find("N", at)
        ends.append(len(bases) if ahead < 0 else ahead)
    first, last = both[0].rfind("N", 0, at) + 1, min(ends)
    for phase in range(k):
        start, count = at - phase, math.ceil((phase + longer) / k)
        end = start + count * k
        choices = [
            (before + after, -abs(before - after), -before, before, after)
            for before in range(tokens)
            for after in range(tokens - 1 - count - before + 1)
            if start - before * k >= first and end + after * k <= last
        ]
        if start < first or end > last or not choices:
            continue
        *_, before, after = max(choices)
        yield phase, start - before * k, start, end, end + after * k


def padded(loaded: LoadedModel, bases: str) -> np.ndarray:
    """One length for all, so that one program is compiled."""
    return loaded.tokenizer.encode_batch([bases], loaded.context)[0]


def log_probability(loaded: LoadedModel, haplotype: str, window, bases: range | None) -> float:
    """log P of the haplotype's bases at the positions `bases` (None: all of the stretch)."""
    _, left, start, end, right = window
    k, tokenizer = loaded.tokenizer.k, loaded.tokenizer
    ids = padded(loaded, haplotype[left:right])
    first, count = 1 + (start - left) // k, (end - start) // k
    ids[first : first + count] = tokenizer.mask_id
    logits = np.asarray(loaded.apply(ids[None])["logits"][0], np.float64)
    low, high = tokenizer.kmer_ids
    total = 0.0
    for number in range(count):
        weights = np.exp(logits[first + number, low:high])
        place = start + number * k
        asked = [i for i in range(k) if bases is None or place + i in bases]
        agreeing = [
            weight
            for weight, kmer in zip(weights, tokenizer.tokens[low:high], strict=True)
            if all(kmer[i] == haplotype[place + i] for i in asked)
        ]
        total += math.log(sum(agreeing) / weights.sum())
    return total


def llrs(loaded: LoadedModel, contig: str, start: int, ref: str, alt: str, tokens: int):
    """(llr, llr_kmer), or None where no window fits."""
    k = loaded.tokenizer.k
    probabilities: list[list[float]] = [[], []]
    kmers = []
    for strand in (0, 1):
        problem = (contig, start, ref, alt)
        if strand:
            end = len(contig) - start - len(ref)
            problem = (other_strand(contig), end, other_strand(ref), other_strand(alt))
        one, two, at, longer = haplotypes(*problem)
        fitting = list(windows((one, two), at, longer, k, tokens))
        if not fitting:
            return None
        for window in fitting:
            _, _, begin, end, _ = window
            differ = [i for i in range(begin, end) if one[i] != two[i]]
            scored = range(differ[0], differ[-1] + 1)
            for mine, bases in zip(probabilities, (one, two), strict=True):
                mine.append(math.exp(log_probability(loaded, bases, window, scored)))
        central = central_window(fitting, longer, k)
        kmers.append(
            log_probability(loaded, two, central, None)
            - log_probability(loaded, one, central, None)
        )
    return (
        math.log(np.mean(probabilities[1])) - math.log(np.mean(probabilities[0])),
        float(np.mean(kmers)),
    )


def central_window(fitting, longer: int, k: int):
    """The phase with the longer allele nearest to the middle of its stretch."""
    middle = (math.ceil(longer / k) * k - longer) / 2
    return min(fitting, key=lambda window: (abs(window[0] - middle), window[0]))


def distances(
    loaded: LoadedModel, contig: str, start: int, ref: str, alt: str, tokens: int, layer: int
) -> dict[str, float]:
    """The eight distances of one layer, mean pooling."""
    k = loaded.tokenizer.k
    one, two, at, longer = haplotypes(contig, start, ref, alt)
    fitting = list(windows((one, two), at, longer, k, tokens))
    _, left, _, _, right = central_window(fitting, longer, k)
    while ref and alt and ref[0] == alt[0]:
        ref, alt = ref[1:], alt[1:]
    while ref and alt and ref[-1] == alt[-1]:
        ref, alt = ref[:-1], alt[:-1]
    pooled: dict[str, list[np.ndarray]] = {"window": [], "tokens": []}
    for bases, allele in ((one, ref), (two, alt)):
        ids = padded(loaded, bases[left:right])
        found = loaded.apply(ids[None], layers=(layer,))["embeddings"][layer]
        values = np.asarray(found, np.float64)[0, : 1 + (right - left) // k]
        pooled["window"].append(values[1:].mean(axis=0))
        held = {1 + (i - left) // k for i in range(at, at + max(1, len(allele)))}
        pooled["tokens"].append(values[sorted(held)].mean(axis=0))
    result = {}
    for place, (u, v) in pooled.items():
        name = f"l{layer}_{place}_"
        result[name + "cosine"] = 1 - u @ v / np.sqrt((u @ u) * (v @ v))
        result[name + "dot"] = u @ v
        result[name + "l1"] = np.abs(u - v).sum()
        result[name + "l2"] = np.sqrt(((u - v) ** 2).sum())
    return result
