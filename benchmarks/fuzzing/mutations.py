"""Damage to bytes, to the text of FASTA and VCF files, and to compressed files.

A mutation takes the seeded generator and bytes and gives other bytes; it may leave them as they
are where it finds nothing to damage.
"""

import random
import re
from collections.abc import Callable

from fuzzing.containers import BLOCK, EOF_BLOCK, bgzf_blocks

Mutation = Callable[[random.Random, bytes], bytes]
_GIANT = (b"9" * 5000, b"9" * 19, b"4294967296", b"2147483648", b"-1", b"0", b"1e9", b"0x10")


def span(rng: random.Random, data: bytes, longest: int = 200) -> tuple[int, int]:
    """A stretch, mostly short."""
    low = rng.randrange(len(data) + 1)
    return low, min(len(data), low + 1 + int(longest ** rng.random()))


def _flip(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(1 if rng.random() < 0.7 else rng.randrange(2, 9)):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _set(rng: random.Random, data: bytes) -> bytes:
    low = rng.randrange(len(data) + 1)
    letters = b"\0\t\n\r >#@;:|/,.<*-\xff\xa0" + bytes([rng.randrange(256)])
    return data[:low] + bytes([rng.choice(letters)]) + data[low + 1 :]


def _insert(rng: random.Random, data: bytes) -> bytes:
    low = rng.randrange(len(data) + 1)
    odd = (b"\0", b"\xef\xbb\xbf", b"\xff\xfe", b"\n\n", b"\t", b"\r", b">", "é\u2028".encode())
    return data[:low] + rng.choice([*odd, rng.randbytes(rng.randrange(1, 20))]) + data[low:]


def _delete(rng: random.Random, data: bytes) -> bytes:
    low, high = span(rng, data)
    return data[:low] + data[high:]


def _duplicate(rng: random.Random, data: bytes) -> bytes:
    low, high = span(rng, data)
    return data[:high] + data[low:high] + data[high:]


def _swap(rng: random.Random, data: bytes) -> bytes:
    (a, b), (c, d) = sorted((span(rng, data), span(rng, data)))
    return data if b > c else data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def _cut(rng: random.Random, data: bytes) -> bytes:
    near = rng.random() < 0.3
    return data[: rng.randrange(max(0, len(data) - 60) if near else 0, len(data) + 1)]


def _empty(rng: random.Random, data: bytes) -> bytes:
    return rng.choice([b"", b"\n", b" \n\r\n", b"\0" * 10, b">", b"#", b"BCF\2\2", b"\x1f\x8b"])


def _by_line(change: Callable[[random.Random, list[bytes]], None]) -> Mutation:
    def mutation(rng: random.Random, data: bytes) -> bytes:
        lines = data.splitlines(keepends=True)
        if lines:
            change(rng, lines)
        return b"".join(lines)

    return mutation


def _delete_line(rng: random.Random, lines: list[bytes]) -> None:
    low = rng.randrange(len(lines))
    del lines[low : low + rng.choice([1, 1, 1, 5])]


def _duplicate_line(rng: random.Random, lines: list[bytes]) -> None:
    low = rng.randrange(len(lines))
    lines.insert(rng.choice([low, rng.randrange(len(lines))]), lines[low])


def _swap_lines(rng: random.Random, lines: list[bytes]) -> None:
    low, high = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[low], lines[high] = lines[high], lines[low]


def _blank_line(rng: random.Random, lines: list[bytes]) -> None:
    lines.insert(rng.randrange(len(lines) + 1), rng.choice([b"\n", b"\r\n", b" \n", b"\t\n"]))


def _line_ends(rng: random.Random, data: bytes) -> bytes:
    kind = rng.randrange(5)
    if kind == 0:
        return data.replace(b"\n", b"\r\n")
    if kind == 1:
        return data.replace(b"\n", b"\r")
    if kind == 2:
        return data.rstrip(b"\n")
    if kind == 3:
        return data.replace(b"\n", b"")
    return re.sub(b"\n", lambda _: rng.choice([b"\n", b"\r\n", b"\n\n"]), data)


def _case(rng: random.Random, data: bytes) -> bytes:
    low, high = span(rng, data, 2_000)
    part = data[low:high]
    return data[:low] + rng.choice([part.upper, part.lower, part.swapcase])() + data[high:]


def _giant(rng: random.Random, data: bytes) -> bytes:
    numbers = list(re.finditer(rb"\d+", data))
    if not numbers:
        return data
    found = rng.choice(numbers)
    return data[: found.start()] + rng.choice(_GIANT) + data[found.end() :]


def _letters(rng: random.Random, data: bytes) -> bytes:
    """Other letters in the sequence: accepted and counted, or refused."""
    low, high = span(rng, data, 500)
    kind = rng.choice([b"N", b"n", b"U", b"u", b"RYSWKMBDHV", b"ryn", b"-", b"*", b"EFILPQ", b"X"])
    part = bytes(c if c in b"\n>" else rng.choice(kind) for c in data[low:high])
    return data[:low] + part + data[high:]


def _fasta_header(rng: random.Random, data: bytes) -> bytes:
    headers = list(re.finditer(rb">[^\n]*", data))
    if not headers:
        return data
    found = rng.choice(headers)
    words = found[0][1:].split() or [b""]
    low = rng.randrange(1, 10**6)
    changed = rng.choice(
        [
            found[0][1:],
            b">",
            b"> " + found[0][1:],
            b">\xff\xfe" + words[0],
            b">" + rng.choice(headers)[0][1:],
            b">%b:%d-%d" % (words[0], low, low + rng.randrange(-5, 6000)),
            b">%b:%b-%b" % (words[0], rng.choice(_GIANT), rng.choice(_GIANT)),
            b">" + words[0] * 500,
            b">\xd9\xa3:\xd9\xa1-\xd9\xa3",
            b";" + found[0],
            found[0] + b"\r" + found[0],
            b"@" + found[0][1:],
        ]
    )
    return data[: found.start()] + changed + data[found.end() :]


def _region(rng: random.Random, data: bytes) -> bytes:
    """Coordinates that fit the length, but may overlap, be huge, or be off by one."""
    parts = data.split(b">")
    number = rng.randrange(len(parts))
    header, _, body = parts[number].partition(b"\n")
    if not header:
        return data
    length = len(b"".join(body.split()))
    first = rng.choice([1, 1, rng.randrange(1, 10**9), 2**31, 2**63 - length, 2**64, 10**4400])
    name = rng.choice([b"c", header.split(b" ")[0].split(b":")[0]])
    first, last = str_of(first), str_of(first + length - rng.choice([1, 1, 1, 0, 2]))
    parts[number] = name + b":" + first + b"-" + last + b"\n" + body
    return b">".join(parts)


def str_of(number: int) -> bytes:
    """Decimal digits; int has a limit of its own for them."""
    return str(number).encode() if number < 10**4000 else b"1" + b"0" * 4400


def _columns(change: Callable[[random.Random, list[bytes]], None]) -> Mutation:
    """A change of the columns of one record of a VCF, sometimes of several."""

    def mutation(rng: random.Random, data: bytes) -> bytes:
        lines = data.split(b"\n")
        records = [i for i, line in enumerate(lines) if line and not line.startswith(b"#")]
        for number in rng.sample(records, min(len(records), rng.choice([1, 1, 1, 4]))):
            columns = lines[number].split(b"\t")
            if len(columns) > 9:
                change(rng, columns)
            lines[number] = b"\t".join(columns)
        return b"\n".join(lines)

    return mutation


def _call(*values: bytes) -> Mutation:
    def change(rng: random.Random, columns: list[bytes]) -> None:
        for _ in range(rng.choice([1, 1, 5])):
            columns[rng.randrange(9, len(columns))] = rng.choice(values)

    return _columns(change)


def _field(rng: random.Random, columns: list[bytes]) -> None:
    number = rng.randrange(len(columns))
    kind = rng.randrange(4)
    if kind == 0:
        del columns[number]
    elif kind == 1:
        columns.insert(number, columns[number])
    elif kind == 2:
        columns[number] = rng.choice([b"", b".", b" ", b"x", b"\0", b"0|0"])
    else:
        columns.append(b"1|1")


def _position(rng: random.Random, columns: list[bytes]) -> None:
    at = int(columns[1]) if columns[1].isdigit() and len(columns[1]) < 20 else 1
    shifted = b"%d" % max(0, at + rng.randrange(-300, 300))
    columns[1] = rng.choice([shifted, shifted, b"0", b"", b"1.5", b" 7", b"+9", *_GIANT])


def _ref(rng: random.Random, columns: list[bytes]) -> None:
    letters = bytes(rng.choice(b"ACGT") for _ in range(rng.randrange(1, 5)))
    columns[3] = rng.choice([letters, columns[3] + letters, columns[3].lower(), b"N", b"", b"A,C"])


def _alt(rng: random.Random, columns: list[bytes]) -> None:
    letters = bytes(rng.choice(b"ACGT") for _ in range(rng.choice([1, 2, 9, 1200])))
    odd = [b"<DEL>", b"<INS:ME:ALU>", b"*", b"A]20:9]", b".", b"", b"N", b"R", columns[3], b"\xff"]
    new = rng.choice([letters, letters, columns[3] + letters, *odd])
    columns[4] = rng.choice([new, columns[4] + b"," + new, new + b"," + columns[4], new + b","])


def _format(rng: random.Random, columns: list[bytes]) -> None:
    kind = rng.randrange(4)
    if kind == 0:
        columns[8] = rng.choice([b"DP", b".", b"", b"GT:GT", b"gt", b"DP:GT"])
    elif kind == 1:
        columns[8:] = [columns[8] + b":DP", *(call + b":7" for call in columns[9:])]
    elif kind == 2:
        columns[8:] = [b"DP:" + columns[8], *(b"7:" + call for call in columns[9:])]
    else:
        columns[rng.randrange(9, len(columns))] += b":1,2"


def _contig(rng: random.Random, data: bytes) -> bytes:
    """Some or all records on another contig."""
    name = rng.choice([b"chr20", b"20", b"22", b"chr22", b"CHR22", b"other", b"", b"\xff"])
    start = rng.randrange(1, 40) if rng.random() < 0.7 else 0
    lines = data.split(b"\n")
    for number, line in enumerate(lines):
        if line and not line.startswith(b"#"):
            start -= 1
            if start < 0:
                lines[number] = name + line[line.find(b"\t") :]
    return b"\n".join(lines)


def _vcf_header(rng: random.Random, data: bytes) -> bytes:
    lines = data.split(b"\n")
    header = [i for i, line in enumerate(lines) if line.startswith(b"#")] or [0]
    number = rng.choice([header[-1], rng.choice(header)])
    names = lines[number].split(b"\t")
    kind = rng.randrange(7)
    if kind == 0:
        del lines[number]
    elif kind == 1:
        lines[number] = lines[number][: rng.randrange(len(lines[number]) + 1)]
    elif kind == 2:
        lines[number] = b"\t".join(names[: rng.randrange(len(names) + 1)])
    elif kind == 3:
        names.append(rng.choice([b"more", names[-1], b"", b"\xff"]))
        lines[number] = b"\t".join(names)
    elif kind == 4:
        lines[number] = lines[number].replace(b"String", rng.choice([b"Integer", b"x", b"Float"]))
    elif kind == 5:
        lines[number] = lines[number].replace(b"ID=", rng.choice([b"ID=9", b"", b"ID=,"]))
    else:
        lines.insert(rng.randrange(len(lines)), lines[number])
    return b"\n".join(lines)


ANY: dict[str, Mutation] = {
    "bits flipped": _flip,
    "byte replaced": _set,
    "bytes inserted": _insert,
    "span deleted": _delete,
    "span repeated": _duplicate,
    "spans swapped": _swap,
    "cut off": _cut,
}
"""Of any bytes."""
TEXT: dict[str, Mutation] = {
    **ANY,
    "empty": _empty,
    "line deleted": _by_line(_delete_line),
    "line repeated": _by_line(_duplicate_line),
    "lines swapped": _by_line(_swap_lines),
    "blank line": _by_line(_blank_line),
    "line ends": _line_ends,
    "case": _case,
    "giant number": _giant,
}
"""Of any text."""
FASTA: dict[str, Mutation] = {
    **TEXT,
    "letters": _letters,
    "header": _fasta_header,
    "region": _region,
}
VCF: dict[str, Mutation] = {
    **TEXT,
    "header": _vcf_header,
    "field": _columns(_field),
    "position": _columns(_position),
    "REF": _columns(_ref),
    "ALT": _columns(_alt),
    "FORMAT": _columns(_format),
    "contig renamed": _contig,
    "GT missing": _call(b".|.", b"./.", b".", b".|1", b"0|."),
    "GT unphased": _call(b"0/1", b"1/0", b"1/1", b"/0/1", b"|0|1"),
    "GT ploidy": _call(b"0", b"1", b"0|1|1", b"1|1|0|0", b"2"),
    "GT out of range": _call(b"0|9", b"2|0", b"0|-1", b"9", b"0|2147483648", b"127|0", b"65537|0"),
    "GT damaged": _call(b"", b"x", b"0|", b"|1", b"0|x", b"0||1", b"01", b"0,1", b"0|1\0", b" 0|1"),
}
COMPRESSED: dict[str, Mutation] = {
    **{f"compressed: {name}": mutation for name, mutation in ANY.items()},
    "compressed: bytes behind": lambda rng, data: (
        data + rng.choice([b"\0", bytes(30), b"x", b"\n", EOF_BLOCK, rng.randbytes(40), data[:50]])
    ),
}
"""Of a compressed file."""


def shuffled_blocks(rng: random.Random, text: bytes) -> bytes:
    """A BGZF file with a block lost, repeated, moved, emptied in the middle, or cut behind one."""
    blocks = bgzf_blocks(text)
    low, high = rng.randrange(len(blocks)), rng.randrange(len(blocks))
    kind = rng.randrange(5)
    if kind == 0:
        del blocks[low]
    elif kind == 1:
        blocks.insert(high, blocks[low])
    elif kind == 2:
        blocks[low], blocks[high] = blocks[high], blocks[low]
    elif kind == 3:
        blocks.insert(low, EOF_BLOCK)
    else:
        del blocks[low:]
    return b"".join(blocks)


def halves(rng: random.Random, text: bytes) -> list[bytes]:
    """The text in two or more parts, for members of their own."""
    cuts = sorted(rng.randrange(len(text) + 1) for _ in range(1 + rng.randrange(3)))
    cuts += [min(len(text), BLOCK)]
    parts, at = [], 0
    for cut in sorted(cuts):
        parts.append(text[at:cut])
        at = cut
    return [*parts, text[at:]]
