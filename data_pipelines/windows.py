"""The window plan: where windows start, which split each belongs to. Pure functions of lengths.

All lengths, strides and offsets are in bases; coordinates are 0-based, half-open and relative to
the contig as it stands in the file. A recipe is named, or written as text:
`window=1536,stride=1536,jitter=0[,tokens=257]`.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from nt_jax.errors import InputError, nearest

SPLITS = ("train", "validation", "test")
"""Names of the splits; a split code is an index into them."""
BOUNDARY = -1
"""Split code of a window that overlaps two splits and is dropped."""
VALIDATION_SHARE = 0.05
"""Share of the bases that is held out when no contigs are named."""
MAX_N_SHARE = 0.5
"""Windows with a larger share of N are dropped."""
BLOCK_WINDOWS = 50
"""Windows of a block of the block-wise split, where the genome is large enough for 20 blocks."""
_MIN_BLOCKS = 20
_NT_K = 6


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How contigs are cut. Raises InputError when the numbers contradict each other."""

    name: str
    """Name of a published recipe, or the canonical text of a general one."""
    length: int
    """Bases of one window."""
    stride: int
    """Bases from the start of one window to the start of the next."""
    jitter: int
    """Training starts at an offset in 0..jitter-1 bases into the window; 0 is always the first."""
    tokens: int
    """Nominal context of a sequence cut from a window, in tokens with `<cls>`."""

    def __post_init__(self) -> None:
        for field, least in (("length", 1), ("stride", 1), ("jitter", 0), ("tokens", 2)):
            if getattr(self, field) < least:
                raise InputError(
                    f"recipe {self.name}: {field}={getattr(self, field)} is below {least}"
                )
        if self.jitter > self.length:
            raise InputError(
                f"recipe {self.name}: jitter={self.jitter} exceeds the window of "
                f"{self.length} bases"
            )
        if self.tokens - 1 > self.length:
            raise InputError(
                f"recipe {self.name}: {self.tokens} tokens with <cls> need at least "
                f"{self.tokens - 1} bases, the window has {self.length}"
            )


_NAMED = {
    r.name: r
    for r in (
        # Paper (S): 6,100 bases, the first and last 50 shared with the neighbours, an offset of
        # 0..99 each epoch, 1000 tokens = 5,994 bases. A stride of 6,050 is inferred from it (I).
        Recipe("paper6100", length=6_100, stride=6_050, jitter=100, tokens=1_000),
        # Released dataset (V): 6,200 = 6,000 + 2*100, stride 6,000, remainder dropped. Its text
        # gives no offsets; those of the paper are taken (I).
        Recipe("hf6200", length=6_200, stride=6_000, jitter=100, tokens=1_000),
        # 12-kb window of the paper for v2 (U). Inferred (I) as paper6100 is built: 2048 tokens =
        # 12,282 bases, room for offsets 0..99, 50 bases shared with each neighbour.
        Recipe("paper12k", length=12_400, stride=12_350, jitter=100, tokens=2_048),
        # Released dataset (V): 12,200 = 12,000 + 2*100, stride 12,000. That is less than the
        # 12,282 bases of 2048 tokens, so the context is the longest that offsets 0..99 leave (I).
        Recipe("hf12k", length=12_200, stride=12_000, jitter=100, tokens=2_017),
    )
}
RECIPES = tuple(_NAMED)
"""Names of the published recipes."""
_KEYS = {"window": "length", "stride": "stride", "jitter": "jitter", "tokens": "tokens"}


def recipe(name: str) -> Recipe:
    """A recipe by its name or by the text `window=W,stride=S,jitter=J[,tokens=N]`.

    Without `tokens` the context is 1 + W // 6 tokens. Raises InputError for an unknown name or
    key (with the nearest known one), a missing key, and numbers that are none.
    """
    if name in _NAMED:
        return _NAMED[name]
    if "=" not in name:
        general = "or window=W,stride=S,jitter=J[,tokens=N]"
        raise InputError(
            f"recipe {name!r} is unknown{nearest(name, RECIPES)}; known: "
            f"{', '.join(RECIPES)}, {general}"
        )
    values: dict[str, int] = {}
    for part in name.split(","):
        key, _, number = (text.strip() for text in part.partition("="))
        if key not in _KEYS:
            raise InputError(
                f"recipe {name!r}: unknown key {key!r}{nearest(key, _KEYS)}; keys: "
                f"{', '.join(_KEYS)}"
            )
        if key in values:
            raise InputError(f"recipe {name!r}: {key} is given twice")
        if not (number.isascii() and number.isdigit()):
            raise InputError(f"recipe {name!r}: {key}={number} is no whole number")
        values[key] = int(number)
    missing = [key for key in ("window", "stride", "jitter") if key not in values]
    if missing:
        raise InputError(f"recipe {name!r}: {missing[0]} is missing; write {missing[0]}=BASES")
    values.setdefault("tokens", 1 + values["window"] // _NT_K)
    text = ",".join(f"{key}={values[key]}" for key in _KEYS)
    return Recipe(text, **{field: values[key] for key, field in _KEYS.items()})


def plan_windows(contig_length: int, recipe: Recipe) -> np.ndarray:
    """int64[windows]: 0-based starts of all whole windows; a remainder at the end is dropped."""
    return np.arange(0, contig_length - recipe.length + 1, recipe.stride, dtype=np.int64)


def count_n(bases: np.ndarray, starts: np.ndarray, length: int) -> np.ndarray:
    """int64[windows]: Ns in each window of `length` bases of uint8[n] that starts at `starts`."""
    positions = np.flatnonzero(bases == ord("N"))
    return np.searchsorted(positions, starts + length) - np.searchsorted(positions, starts)


def full_windows(bases: np.ndarray, recipe: Recipe) -> tuple[np.ndarray, int]:
    """(int64[windows] starts of the windows with enough bases, windows dropped for their Ns)."""
    starts = plan_windows(len(bases), recipe)
    few = count_n(bases, starts, recipe.length) <= MAX_N_SHARE * recipe.length
    return starts[few], int(np.count_nonzero(~few))


@dataclasses.dataclass(frozen=True)
class ContigSize:
    """What the split assignment has to know of a contig."""

    source: str
    """Name of the file or assembly."""
    name: str
    """Contig name."""
    start: int
    """True 0-based coordinate of its first base."""
    length: int
    """Bases."""


@dataclasses.dataclass(frozen=True, eq=False)
class ContigSplits:
    """Splits of one contig: block i is bases i*block to (i+1)*block, the last one is longer."""

    block: int
    """Bases of a block."""
    codes: np.ndarray
    """int8[blocks] split codes."""

    def of(self, starts: np.ndarray, length: int) -> np.ndarray:
        """int8[windows] split codes; BOUNDARY where blocks of two splits are overlapped."""
        last = len(self.codes) - 1
        first_block = np.minimum(starts // self.block, last)
        last_block = np.minimum((starts + length - 1) // self.block, last)
        # Windows may span many blocks: all are of one split when none changes in between.
        changes = np.concatenate(([0], np.cumsum(self.codes[1:] != self.codes[:-1])))
        same = changes[first_block] == changes[last_block]
        return np.where(same, self.codes[first_block], BOUNDARY).astype(np.int8)


def split_by_name(
    contigs: Sequence[ContigSize], validation: Iterable[str], test: Iterable[str]
) -> list[ContigSplits]:
    """Whole contigs to splits: those named are held out, all others are trained on.

    `NAME` means this contig in every source, `SOURCE:NAME` the one of that source. Raises
    InputError for a name that no contig has (with the nearest) or that is in both splits.
    """
    codes = [0] * len(contigs)
    known = [contig.name for contig in contigs]
    known += [f"{contig.source}:{contig.name}" for contig in contigs]
    for code, names in ((1, validation), (2, test)):
        for name in names:
            chosen = [i for i, c in enumerate(contigs) if name in (c.name, f"{c.source}:{c.name}")]
            if not chosen:
                raise InputError(
                    f"--{SPLITS[code]} {name}: no contig has this name{nearest(name, known)}; "
                    f"there are {', '.join(known[: min(5, len(contigs))])}"
                    f"{', ...' if len(contigs) > 5 else ''}"
                )
            for i in chosen:
                if codes[i] not in (0, code):
                    raise InputError(
                        f"--{SPLITS[code]} {name}: this contig is in --{SPLITS[codes[i]]} too; "
                        "name it once"
                    )
                codes[i] = code
    return [
        ContigSplits(max(1, contig.length), np.array([code], np.int8))
        for contig, code in zip(contigs, codes, strict=True)
    ]


def split_by_source(contigs: Sequence[ContigSize], splits: Mapping[str, str]) -> list[ContigSplits]:
    """Whole sources to splits: all contigs of a source go to `splits[source]`."""
    return [
        ContigSplits(
            max(1, contig.length), np.array([SPLITS.index(splits[contig.source])], np.int8)
        )
        for contig in contigs
    ]


def split_by_blocks(
    contigs: Sequence[ContigSize],
    starts: Sequence[np.ndarray],
    recipe: Recipe,
    seed: int,
    share: float = VALIDATION_SHARE,
) -> list[ContigSplits]:
    """A seeded share of the windows to validation, block by block; at least one block of two.

    A block is 50 windows long, or a twentieth of a genome that has fewer than 1000 windows, but
    never shorter than two windows. The order in which blocks are taken depends on seed, source,
    contig and position alone, not on the order of the files. With a single block nothing is held
    out.

    Args:
        contigs: the contigs of all sources.
        starts: int64[windows] of each contig, without the windows dropped for their Ns.
        recipe: length and stride of the windows.
        seed: any integer.
        share: wanted share of the windows in validation; the last block taken may exceed it.
    """
    total = sum(map(len, starts))
    windows = min(BLOCK_WINDOWS, total // _MIN_BLOCKS)
    block = recipe.stride * max(windows, -(-2 * recipe.length // recipe.stride))
    splits, ranked = [], []
    for contig, own in zip(contigs, starts, strict=True):
        blocks = max(1, contig.length // block)
        codes = np.zeros(blocks, np.int8)
        splits.append(ContigSplits(block, codes))
        inside = np.bincount(np.minimum(own // block, blocks - 1), minlength=blocks)
        for j in np.flatnonzero(inside).tolist():
            key = f"{seed}\t{contig.source}\t{contig.name}\t{contig.start + j * block}"
            rank = hashlib.blake2b(key.encode(), digest_size=16).digest()
            ranked.append((rank, len(splits) - 1, j, int(inside[j])))
    ranked.sort()
    held_out = 0
    for _, contig_number, j, size in ranked[:-1]:
        if held_out >= share * total:
            break
        splits[contig_number].codes[j] = 1
        held_out += size
    return splits
