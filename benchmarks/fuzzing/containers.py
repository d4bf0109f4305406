"""Plain, gzip and BGZF, written and read with zlib alone."""

import gzip
import struct
import zlib
from collections.abc import Sequence

EOF_BLOCK = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
"""The empty block at the end of a BGZF file."""
BLOCK = 2000
"""Bytes of text in a block: small, so that a small file has many."""


class Malformed(Exception):
    """The harness holds that this input has to be refused."""


def bgzf_blocks(text: bytes) -> list[bytes]:
    """The blocks of a BGZF file, the last one empty."""
    return [
        *(_block(text[at : at + BLOCK]) for at in range(0, len(text), BLOCK)),
        EOF_BLOCK,
    ]


def packed(text: bytes, container: str) -> bytes:
    """The text in a "plain", "gzip" or "bgzf" file."""
    if container == "plain":
        return text
    if container == "gzip":
        return gzip.compress(text, compresslevel=1, mtime=0)
    return b"".join(bgzf_blocks(text))


def joined(texts: Sequence[bytes], container: str) -> bytes:
    """Every text in a member of its own; BGZF with an end-of-file block behind each."""
    return b"".join(packed(text, container) for text in texts)


def inflated(data: bytes) -> bytes:
    """The text of a file. Raises Malformed for damaged gzip data."""
    if data[:2] != b"\x1f\x8b":
        return data
    texts = []
    while data:
        body = data[_header(data) :]
        member = zlib.decompressobj(-15)
        try:
            text = member.decompress(body)
        except zlib.error as error:
            raise Malformed(f"gzip: {error}") from None
        end, rest = member.unused_data[:8], member.unused_data[8:]
        if not member.eof or end != struct.pack("<II", zlib.crc32(text), len(text) & 0xFFFFFFFF):
            raise Malformed("gzip: ends too early, or another checksum")
        texts.append(text)
        data = rest.lstrip(b"\0")  # padding is allowed
    return b"".join(texts)


def _header(data: bytes) -> int:
    """Bytes of the header of a member; its own checksum and the reserved flags do not matter."""
    if data[:3] != b"\x1f\x8b\x08" or len(data) < 12:
        raise Malformed("gzip: no member")
    flags, at = data[3], 10
    if flags & 4:
        at += 2 + int.from_bytes(data[10:12], "little")
    for flag in (8, 16):  # a name, a comment
        if flags & flag:
            at = data.find(b"\0", at) + 1
            if not at:
                raise Malformed("gzip: no end of the name")
    return at + (flags & 2)


def _block(text: bytes) -> bytes:
    deflate = zlib.compressobj(1, zlib.DEFLATED, -15)
    body = deflate.compress(text) + deflate.flush()
    head = b"\x1f\x8b\x08\x04" + bytes(4) + b"\x00\xff" + struct.pack("<H", 6)
    extra = b"BC" + struct.pack("<HH", 2, len(body) + 25)
    return head + extra + body + struct.pack("<II", zlib.crc32(text), len(text))
