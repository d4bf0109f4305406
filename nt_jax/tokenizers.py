"""k-mer tokenizers of the Nucleotide Transformer: bases in, token ids out. NumPy only.

The rule (published tokenizer): a sequence is split at every `N`; inside a run of A, C, G, T the
k-mers are taken from left to right, what is left over becomes single letters, each `N` is a token
of its own, and `<cls>` stands in front with nothing behind. Token ids: special tokens, then all
k-mers in the product order of A, T, C, G, then A, T, C, G and N. With k = 1 the k-mers are the
single letters, which are not listed twice.

Lower case is read as upper case and U as T; the other IUPAC letters become N. Anything else is
refused with its position. With `letters="upper_acgtn"` so is everything but upper-case A, C, G, T
and N, as by the published tokenizer.
"""

import dataclasses
import functools
import itertools
import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from nt_jax.errors import InputError

BASES = "ATCG"
"""Base order of the published vocabularies; the index of a base is its 2-bit code."""
SPECIAL_TOKENS = {
    "v1": ("<unk>", "<pad>", "<mask>", "<cls>"),
    "v2": ("<unk>", "<pad>", "<mask>", "<cls>", "<eos>", "<bos>"),
}
"""Special tokens in the order of their ids (FACTS: published vocabularies)."""
MAX_K = 12
"""4^12 = 16.8M k-mers: larger than any embedding table one would train."""

_IUPAC = "NRYSWKMBDHV"
_N, _BAD = 4, 255


def _code_table(letters: Iterable[tuple[str, int]]) -> bytes:
    """256 entries for `bytes.translate`: code of each letter, 255 for other characters."""
    table = bytearray([_BAD]) * 256
    for letter, code in letters:
        table[ord(letter)] = code
    return bytes(table)


_PUBLISHED = tuple((letter, code) for code, letter in enumerate(BASES + "N"))
_ANY = (*_PUBLISHED, ("U", BASES.index("T")), *((letter, _N) for letter in _IUPAC))
_CODES = {
    "any": _code_table((way(letter), code) for letter, code in _ANY for way in (str, str.lower)),
    "upper_acgtn": _code_table(_PUBLISHED),
}
"""Code tables by the letters that a tokenizer takes: 0-3 for A, T, C, G and 4 for N."""


class UnknownLetterError(InputError, KeyError):
    """A letter that `letters="upper_acgtn"` refuses.

    The published tokenizer raises KeyError there, so what catches that catches this too.
    """

    # KeyError would show the message as a quoted key.
    __str__ = Exception.__str__


@dataclasses.dataclass(frozen=True)
class KmerTokenizer:
    """Non-overlapping k-mers; immutable, hashable, equal when all three fields are equal.

    Raises InputError for a k outside 1..12, an unknown vocabulary or unknown letters.
    """

    k: int = 6
    """Bases in one full token; 6 is the Nucleotide Transformer, 3 codons, 1 single nucleotide."""
    vocabulary: str = "v2"
    """`v1` or `v2`: which special tokens stand in front of the k-mers."""
    letters: str = "any"
    """`any`: either case, U and the IUPAC codes; `upper_acgtn`: what the published code takes."""

    def __post_init__(self) -> None:
        if isinstance(self.k, bool) or not isinstance(self.k, int) or not 1 <= self.k <= MAX_K:
            raise InputError(f"tokenizer: k must be an integer in 1..{MAX_K}, not {self.k!r}")
        if self.vocabulary not in SPECIAL_TOKENS:
            raise InputError(f"tokenizer: unknown vocabulary {self.vocabulary!r}; known: v1, v2")
        if self.letters not in _CODES:
            known = ", ".join(_CODES)
            raise InputError(f"tokenizer: unknown letters {self.letters!r}; known: {known}")

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """Texts of the ids 0, 1, ... that stand for no bases."""
        return SPECIAL_TOKENS[self.vocabulary]

    @functools.cached_property
    def kmer_ids(self) -> tuple[int, int]:
        """Id range (first, last exclusive) of the full k-mers."""
        first = len(self.special_tokens)
        return first, first + 4**self.k

    @property
    def vocab_size(self) -> int:
        """Number of ids; rows of the embedding table."""
        return self.kmer_ids[1] + (1 if self.k == 1 else 5)

    @property
    def unk_id(self) -> int:
        """Id of `<unk>`; never produced by `encode`."""
        return self.special_tokens.index("<unk>")

    @functools.cached_property
    def pad_id(self) -> int:
        """Id of `<pad>`."""
        return self.special_tokens.index("<pad>")

    @functools.cached_property
    def mask_id(self) -> int:
        """Id of `<mask>`."""
        return self.special_tokens.index("<mask>")

    @functools.cached_property
    def cls_id(self) -> int:
        """Id of `<cls>`, the first token of every sequence."""
        return self.special_tokens.index("<cls>")

    @functools.cached_property
    def tokens(self) -> tuple[str, ...]:
        """Text of each id, in the order of the ids."""
        kmers = map("".join, itertools.product(BASES, repeat=self.k))
        letters = "N" if self.k == 1 else BASES + "N"
        return (*self.special_tokens, *kmers, *letters)

    @functools.cached_property
    def _first_kmer(self) -> np.ndarray:
        """int32 without axes: id of the k-mer AAA...; its number is 0."""
        return np.array(self.kmer_ids[0], np.int32)

    @functools.cached_property
    def _first_letter(self) -> np.ndarray:
        """int32 without axes: id of the single letter A; T, C, G and N follow."""
        return np.array(self.kmer_ids[0 if self.k == 1 else 1], np.int32)

    def encode(self, sequence: str | bytes | np.ndarray) -> np.ndarray:
        """Token ids of one sequence: int32[T] with `<cls>` in front and no padding.

        Args:
            sequence: text, ASCII bytes or a one-dimensional uint8 array of ASCII codes.

        Raises:
            InputError: a character is no IUPAC nucleotide letter (named with its 0-based position).
            UnknownLetterError: an InputError and KeyError, for any other letter than upper-case A,
                C, G, T and N where `letters` is "upper_acgtn".
            TypeError: an array that is not one-dimensional uint8.
        """
        codes = _base_codes(sequence, self.letters)
        # The ids of the single letters are consecutive, as their codes are; with k = 1 they are
        # all there is, and N needs no care.
        if self.k > 1 and _N in codes:
            return self._encode_runs(np.frombuffer(codes, np.uint8))
        count, left = (0, len(codes)) if self.k == 1 else divmod(len(codes), self.k)
        ids = np.empty(1 + count + left, np.int32)
        ids[0] = self.cls_id
        if count:
            kmers = ids[1 : 1 + count]
            kmers[:] = _kmer_numbers(codes, count, self.k)
            kmers += self._first_kmer
        if left:
            letters = ids[1 + count :]
            letters[:] = np.frombuffer(codes, np.uint8, offset=count * self.k)
            letters += self._first_letter
        return ids

    def _encode_runs(self, codes: np.ndarray) -> np.ndarray:
        """Ids of uint8[n] base codes with Ns: the rule of `encode` on all runs at once, k > 1."""
        # A run ends at an N; an N put behind the last run, and cut off again, closes that one.
        ends = np.append(np.flatnonzero(codes == _N), codes.size)
        starts = np.concatenate(([0], ends[:-1] + 1))
        kmers, left = np.divmod(ends - starts, self.k)
        counts = kmers + left + 1
        firsts = np.cumsum(counts) - counts
        # Token t of a run with m k-mers starts at its base t*k while t < m; then every base is one.
        rank = np.arange(firsts[-1] + counts[-1] - 1)
        counts[-1] -= 1
        rank -= np.repeat(firsts, counts)
        run_kmers = np.repeat(kmers, counts)
        position = np.minimum(rank, run_kmers) * (self.k - 1) + rank + np.repeat(starts, counts)
        ids = np.empty(1 + rank.size, np.int32)
        ids[0] = self.cls_id
        letters = ids[1:]
        letters[:] = codes[position]
        letters += self._first_letter
        # The numbers of the k-mers at every base, used or not, are cheaper than picking the bases.
        windows = max(codes.size - self.k + 1, 0)
        numbers: np.ndarray = np.zeros(windows, _number_type(self.k))
        for offset in range(self.k):
            numbers *= 4
            numbers += codes[offset : offset + windows]
        is_kmer = rank < run_kmers
        letters[is_kmer] = numbers[position[is_kmer]].astype(np.int32) + self.kmer_ids[0]
        return ids

    def encode_batch(
        self, sequences: Sequence[str | bytes | np.ndarray], length: int
    ) -> np.ndarray:
        """int32[B, length]: `encode` of each sequence, padded with `<pad>` at the end.

        Raises InputError when a sequence has more than `length` tokens (`<cls>` included) or an
        invalid character; the message names the sequence by its 0-based number.
        """
        batch = np.full((len(sequences), length), self.pad_id, np.int32)
        for row, sequence in enumerate(sequences):
            try:
                ids = self.encode(sequence)
            except InputError as error:
                raise type(error)(f"sequence {row}: {error}") from None
            if ids.size > length:
                raise InputError(
                    f"sequence {row}: {ids.size} tokens with <cls> are more than the length "
                    f"{length}; shorten it to {length - 1} tokens or allow more"
                )
            batch[row, : ids.size] = ids
        return batch

    def encode_prefix(self, sequence: str | bytes | np.ndarray, length: int) -> np.ndarray:
        """int32[length]: exactly `length` tokens, `<cls>` included; the bases behind are ignored.

        Equal to `encode(sequence)[:length]`, padded with `<pad>` when the bases run out. Raises
        InputError for an invalid character among the bases read or a length below 1.
        """
        if length < 1:
            raise InputError(f"tokenizer: a length of {length} tokens has no room for <cls>")
        # No token covers more than k bases. Where Ns lie in front, the cut may leave a shortened
        # run at the end, but its left-over letters then come after token `length`.
        ids = self.encode(sequence[: (length - 1) * self.k])
        if ids.size >= length:
            return ids[:length]
        return np.concatenate([ids, np.full(length - ids.size, self.pad_id, np.int32)])

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Bases of one sequence of ids.

        `<cls>`, `<pad>`, `<bos>` and `<eos>` stand for no bases and are left out; `<mask>` and
        `<unk>` stay as text, for the bases on their two sides are no neighbours. Raises InputError
        for an id outside the vocabulary.
        """
        silent = {"<cls>", "<pad>", "<bos>", "<eos>"}
        texts = [self.tokens[i] for i in self._checked(ids).ravel().tolist()]
        return "".join(text for text in texts if text not in silent)

    def bases(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """int32 array of the shape of `ids`: how many bases each token covers (special tokens: 0).

        Raises InputError for an id outside the vocabulary.
        """
        ids = self._checked(ids)
        first, end = self.kmer_ids
        return np.where(ids < first, 0, np.where(ids < end, self.k, 1)).astype(np.int32)

    def _checked(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        array = np.asarray(ids)
        if array.size == 0:
            return array.astype(np.int32)
        if array.dtype.kind not in "iu":
            raise TypeError(f"token ids must be integers, not {array.dtype}")
        wrong = (array < 0) | (array >= self.vocab_size)
        if wrong.any():
            raise InputError(
                f"tokenizer: id {array[wrong][0]} is outside the vocabulary of {self.vocab_size}"
            )
        return array

    def save(self, path: str | pathlib.PurePath) -> None:
        """Writes a small JSON file that `load_tokenizer` reads."""
        _file(path).write_text(json.dumps(self._description(), indent=2) + "\n")

    def _description(self) -> dict[str, object]:
        return {
            "type": "kmer",
            "k": self.k,
            "vocabulary": self.vocabulary,
            "letters": self.letters,
            "vocab_size": self.vocab_size,
            "special_tokens": list(self.special_tokens),
        }


def load_tokenizer(path: str | pathlib.PurePath) -> KmerTokenizer:
    """Tokenizer that `KmerTokenizer.save` wrote.

    Raises InputError when the file is missing, is no such JSON, or describes other ids than the
    tokenizer of this k and vocabulary has.
    """
    try:
        # Files written before there was a choice of letters do not name them.
        values = {"letters": "any"} | json.loads(_file(path).read_text())
        tokenizer = KmerTokenizer(values["k"], values["vocabulary"], values["letters"])
    except OSError as error:
        raise InputError(f"{path}: cannot read the tokenizer: {error.strerror}") from None
    except KeyError as error:
        raise InputError(f"{path}: no tokenizer file: {error} is missing") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (ValueError, TypeError):
        raise InputError(
            f"{path}: no tokenizer file: not a JSON object with k and vocabulary"
        ) from None
    for name, expected in tokenizer._description().items():
        if values.get(name) != expected:
            raise InputError(
                f"{path}: {name} is {values.get(name)!r} where this tokenizer has {expected!r}; "
                "it was written by another version or edited"
            )
    return tokenizer


def _file(path: str | pathlib.PurePath) -> Any:
    """Strings become local paths; path objects stay, for etils.epath has remote ones."""
    return pathlib.Path(path) if isinstance(path, str) else path


def _base_codes(sequence: str | bytes | np.ndarray, letters: str) -> bytes:
    """One code a base: 0-3 for A, T, C, G and 4 for N; InputError names a bad character."""
    if isinstance(sequence, str):
        # A non-ASCII character becomes one "?", so positions stay those of the text.
        raw = sequence.encode("ascii", "replace")
    elif isinstance(sequence, np.ndarray):
        if sequence.dtype != np.uint8 or sequence.ndim != 1:
            raise TypeError(f"bases must be uint8[n], not {sequence.dtype}{list(sequence.shape)}")
        raw = sequence.tobytes()
    else:
        raw = sequence
    codes = raw.translate(_CODES[letters])
    position = codes.find(_BAD)
    if position >= 0:
        character = sequence[position] if isinstance(sequence, str) else chr(raw[position])
        where = f"character {character!r} at position {position} (0-based)"
        if letters == "upper_acgtn":
            raise UnknownLetterError(
                f"{where} is refused by letters='upper_acgtn'; allowed are upper-case A, C, G, T "
                "and N; letters='any' takes either case, U and the IUPAC codes"
            )
        raise InputError(
            f"{where} is no nucleotide letter; allowed are A, C, G, T, U, N and the IUPAC codes"
        )
    return codes


def _number_type(k: int) -> np.dtype:
    """Smallest integer type for every k-mer id of 4^k plus the special tokens."""
    return np.dtype(np.uint16 if k < 8 else np.int32)


def _kmer_numbers(codes: bytes, count: int, k: int) -> np.ndarray:
    """Integers[count]: base-4 numbers of the first `count` k-mers of codes without N."""
    if k == 6:
        return _sixmer_numbers(codes, count)
    kind, four = _number_type(k), np.array(4, _number_type(k))
    digits = np.frombuffer(codes, np.uint8, count * k)
    numbers: np.ndarray = digits[::k].astype(kind)
    for offset in range(1, k):
        numbers *= four
        numbers += digits[offset::k]
    return numbers


# One 64-bit load holds the six codes c0..c5 of a 6-mer in its bytes 0..5. Times 1 + 2^10, byte j
# holds 4*c(j-1) + c(j), so that the bytes 1, 3 and 5 are the pairs p0, p1, p2. Times 2^52 + 2^32 +
# 2^12, the pairs meet in the top 12 bits as 256*p0 + 16*p1 + p2: nothing else reaches these bits.
# A window has about 1000 tokens, so a NumPy call costs more than its arithmetic: this is four
# calls, and arrays without axes are cheaper operands than scalars.
_PAIRS = np.array(1 + 2**10, np.uint64)
_PAIR_BYTES = np.array(0x0F_00_0F_00_0F_00, np.uint64)
_JOIN = np.array(2**52 + 2**32 + 2**12, np.uint64)
_TOP = np.array(52, np.uint64)
_LOAD = np.dtype("<u8")


def _sixmer_numbers(codes: bytes, count: int) -> np.ndarray:
    """uint64[count]: `_kmer_numbers` for k = 6 (published models), the hot loop of the data."""
    # The last load reaches two bytes beyond its 6-mer.
    words: np.ndarray = np.ndarray((count,), _LOAD, codes + b"\0\0", strides=(6,)) * _PAIRS
    words &= _PAIR_BYTES
    words *= _JOIN
    words >>= _TOP
    return words
