"""From a variant to the two haplotypes around it, and to the windows that a model is shown.

All of it is NumPy on one strand at a time; the other strand is the same problem after
`reverse`. Definitions: `nt_jax.evaluation.variants`.
"""

import dataclasses
import enum
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from data_pipelines.fasta import reverse_complement
from nt_jax.evaluation.variants.reference import Reference
from nt_jax.tokenizers import BASES, KmerTokenizer

Codes = UInt8[np.ndarray, "_"]
"""ASCII codes of bases, any number of them."""
_N = ord("N")
_BLOCK = 1 << 12
FREE = len(BASES)
"""In a target: any base is right here."""
_CODE = np.full(256, FREE, np.uint8)
_CODE[[ord(base) for base in BASES]] = range(len(BASES))


class Reason(enum.StrEnum):
    """Why an allele has no scores."""

    ABSENT = "contig_absent"
    OUTSIDE = "outside_of_contig"
    MISMATCH = "ref_mismatch"
    UNKNOWN_REF = "ref_unknown"
    """N or an IUPAC code in REF, or in the reference there."""
    UNKNOWN_ALT = "alt_unknown"
    """N or an IUPAC code in ALT."""
    SYMBOLIC = "symbolic"
    """`<DEL>` and the like."""
    BREAKEND = "breakend"
    STAR = "star"
    """`*`: the allele is missing due to a deletion upstream."""
    NO_ALT = "no_alt"
    SAME = "alt_is_ref"
    MALFORMED = "no_sequence"
    LONG = "too_long"
    """Longer than half of the window."""
    NEAR_N = "beside_n"
    """Too near to an N for a whole k-mer."""
    NEAR_END = "contig_end"
    """Too near to the end of the contig for a whole k-mer."""


@dataclasses.dataclass(frozen=True, eq=False)
class Local:
    """An allele and the sequence around it on one strand: all that its windows can reach."""

    bases: Codes
    """The reference, without N."""
    at: int
    """First base in which the haplotypes differ."""
    ref: Codes
    alt: Codes
    beside_n: bool
    """Whether an N, and not the end of the contig or of the reach, ended the sequence."""

    @property
    def longer(self) -> int:
        """Bases of the longer allele, at least 1."""
        return max(len(self.ref), len(self.alt))

    def haplotypes(self) -> tuple[Codes, Codes]:
        """The sequence with REF and with ALT."""
        end = self.at + len(self.ref)
        alternative = np.concatenate([self.bases[: self.at], self.alt, self.bases[end:]])
        return self.bases, alternative


class Stretch(NamedTuple):
    """The window of one phase: where it starts and which of its tokens hold the stretch."""

    phase: int
    """Bases between the start of the stretch and the allele."""
    start: int
    """First base of the window in `Local`."""
    kmers: int
    """K-mers of the window."""
    first: int
    """First token of the stretch, `<cls>` counted."""
    held: int
    """Tokens of the stretch."""


def letters(text: str) -> Codes:
    """ASCII codes of an allele in upper case."""
    return np.frombuffer(text.upper().encode("ascii", "replace"), np.uint8)


def locate(
    reference: Reference, name: str, position: int, ref: str, alt: str, reach: int, longest: int
) -> tuple[Local, Local] | Reason:
    """The allele on the forward and on the reverse strand, or why it cannot be scored.

    Args:
        reference: where `name` is looked up.
        name: contig.
        position: 1-based position of the first base of `ref`; where `ref` is empty, of the base
            in front of the insertion.
        ref: replaced bases; may be empty.
        alt: the bases in their place; may be empty.
        reach: bases kept on either side.
        longest: bases of the longest allele that is scored.
    """
    reason = _readable(ref, alt)
    if reason is not None:
        return reason
    if name not in reference.pieces:
        return Reason.ABSENT
    start = position - 1 if ref else position
    # The base in front of a pure insertion has to be there, a base behind it need not.
    piece = reference.piece(name, min(start, position - 1), start + len(ref))
    if piece is None or position < 1:
        return Reason.OUTSIDE
    start -= piece.start
    old, new = letters(ref), letters(alt)
    there = piece.bases[start : start + len(old)]
    if (_CODE[old] == FREE).any() or (there == _N).any():
        return Reason.UNKNOWN_REF
    if not np.array_equal(old, there):
        return Reason.MISMATCH
    if (_CODE[new] == FREE).any():
        return Reason.UNKNOWN_ALT
    start, old, new = _trimmed(start, old, new)
    if not len(old) and not len(new):
        return Reason.SAME
    if max(len(old), len(new)) > longest:
        return Reason.LONG
    right = _rolled(piece.bases, start, old, new)
    forward = _cut(piece.bases, *right, reach)
    size = len(piece.bases)
    # Leftmost here is rightmost on the other strand.
    mirror = _Mirror(piece.bases)
    left = _rolled(
        mirror, size - start - len(old), reverse_complement(old), reverse_complement(new)
    )
    return forward, _cut(mirror, *left, reach)


class _Mirror:
    """The reverse complement of a long sequence, made slice by slice."""

    def __init__(self, bases: Codes):
        self._bases = bases

    def __len__(self) -> int:
        return len(self._bases)

    def __getitem__(self, part: slice) -> Codes:
        start, stop, _ = part.indices(len(self))
        size = len(self)
        return reverse_complement(self._bases[size - max(stop, start) : size - start])


def _readable(ref: str, alt: str) -> Reason | None:
    if alt == ".":
        return Reason.NO_ALT
    if alt == "*":
        return Reason.STAR
    if alt.startswith("<"):
        return Reason.SYMBOLIC
    if "[" in alt or "]" in alt or alt.startswith(".") or alt.endswith("."):
        return Reason.BREAKEND
    if not (ref + alt).isascii() or not (ref + alt or "A").isalpha():
        return Reason.MALFORMED
    return None


def _trimmed(start: int, ref: Codes, alt: Codes) -> tuple[int, Codes, Codes]:
    """Without the bases that both begin and then end with."""
    shared = min(len(ref), len(alt))
    same = ref[:shared] == alt[:shared]
    front = shared if same.all() else int(same.argmin())
    ref, alt = ref[front:], alt[front:]
    shared = min(len(ref), len(alt))
    same = ref[::-1][:shared] == alt[::-1][:shared]
    back = shared if same.all() else int(same.argmin())
    return start + front, ref[: len(ref) - back], alt[: len(alt) - back]


def _rolled(bases: Codes | _Mirror, start: int, ref: Codes, alt: Codes) -> tuple[int, Codes, Codes]:
    """An allele of an indel moved to the first base in which the haplotypes differ."""
    if len(ref) and len(alt):
        return start, ref, alt
    moved = ref if len(ref) else alt
    # From here on the haplotypes agree as long as what follows repeats the moved bases.
    end, shift = start + len(ref), 0
    while end + shift < len(bases):
        following = np.asarray(bases[end + shift : end + shift + _BLOCK])
        expected = moved[(shift + np.arange(len(following))) % len(moved)]
        same = following == expected
        if same.all():
            shift += len(following)
            continue
        shift += int(same.argmin())
        break
    turned = np.roll(moved, -(shift % len(moved)))
    return start + shift, *((turned, alt) if len(ref) else (ref, turned))


def _cut(bases: Codes | _Mirror, at: int, ref: Codes, alt: Codes, reach: int) -> Local:
    """What lies within `reach`, up to the nearest N on either side."""
    left = max(0, at - reach)
    before = np.asarray(bases[left:at])
    behind = np.asarray(bases[at : at + len(ref) + reach])
    first, last = np.flatnonzero(before == _N), np.flatnonzero(behind == _N)
    if len(first):
        before = before[first[-1] + 1 :]
    if len(last):
        behind = behind[: last[0]]
    beside_n = bool(len(first) or len(last))
    return Local(np.concatenate([before, behind]), len(before), ref, alt, beside_n)


def stretches(local: Local, k: int, tokens: int) -> list[Stretch]:
    """The phases whose stretch fits, the central one first; windows of at most `tokens` tokens."""
    length = len(local.bases) + min(0, len(local.alt) - len(local.ref))
    longer = local.longer
    found = []
    for phase in range(min(k, local.at + 1)):
        count = -(-(phase + longer) // k)
        start = local.at - phase
        left, right = start // k, (length - start) // k - count
        room = tokens - 1 - count
        if right < 0 or room < 0:
            continue
        before = min(left, max(room // 2, room - right))
        kmers = before + count + min(right, room - before)
        found.append(Stretch(phase, start - before * k, kmers, 1 + before, count))
    middle = (-(-longer // k) * k - longer) / 2
    return sorted(found, key=lambda stretch: (abs(stretch.phase - middle), stretch.phase))


def window_tokens(
    tokenizer: KmerTokenizer, haplotype: Codes, stretch: Stretch
) -> Int[np.ndarray, " T"]:
    """Ids of the window, `<cls>` in front; every one behind it is a k-mer."""
    return tokenizer.encode(haplotype[stretch.start : stretch.start + stretch.kmers * tokenizer.k])


def target(haplotype: Codes, stretch: Stretch, k: int) -> UInt8[np.ndarray, "M k"]:
    """Base codes of the stretch."""
    start = stretch.start + (stretch.first - 1) * k
    return _CODE[haplotype[start : start + stretch.held * k]].reshape(stretch.held, k)


def scored(
    ref: UInt8[np.ndarray, "M k"], alt: UInt8[np.ndarray, "M k"]
) -> tuple[UInt8[np.ndarray, "M k"], UInt8[np.ndarray, "M k"]]:
    """Both stretches with `FREE` outside of the first to the last base in which they differ."""
    differ = np.flatnonzero((ref != alt).ravel())
    place = np.arange(ref.size).reshape(ref.shape)
    inside = (place >= differ[0]) & (place <= differ[-1])
    return np.where(inside, ref, np.uint8(FREE)), np.where(inside, alt, np.uint8(FREE))


def touched(stretch: Stretch, bases: int, k: int) -> tuple[int, int]:
    """First and last token + 1 that hold `bases` bases of the allele, at least the one there."""
    last = (stretch.phase + max(bases, 1) - 1) // k
    return stretch.first, stretch.first + last + 1
