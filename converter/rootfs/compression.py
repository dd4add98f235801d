"""Compressed data as a stream of chunks.

Compression is told by magic numbers, as Docker does (moby pkg/archive DetectCompression), never by a media type.
"""

from __future__ import annotations

import bz2
import io
import itertools
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Protocol

from converter.errors import ConversionError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

igzip: Any
try:
    from isal import igzip_lib as igzip
except ImportError:  # a processor without ISA-L
    igzip = None

CHUNK = 1 << 18  # bytes of output at most, also of input at once: what fits into a processor's cache

Block = bytes | memoryview


class _Unit(Protocol):
    """One gzip member, zstd frame, xz or bzip2 stream."""

    eof: bool
    unused_data: bytes

    def decompress(self, data: Block, limit: int, /) -> bytes: ...


def decompress(raw: BinaryIO) -> BinaryIO:
    """A buffered stream of what `raw`, from where it stands, holds when gzip, zstd, xz or bzip2 is undone.

    Uncompressed data comes as it is. Reading raises ConversionError when the data is corrupt or cut short.
    """
    return io.BufferedReader(_Chunks(decompressed(iter(lambda: raw.read(CHUNK), b""))), CHUNK)


def decompressed(blocks: Iterator[Block]) -> Iterator[bytes]:
    """The same from blocks to chunks, none of them empty. A block is not looked at any more when the next is asked for.

    The first block has at least 6 bytes, unless it is the only one.
    """
    first = next(blocks, b"")
    for magic, name, make in _FORMATS:
        if bytes(first[:6]).startswith(magic):
            yield from _units(_fed(first, blocks), magic, name, make)
            return
    for block in _fed(first, blocks):
        yield bytes(block)


def is_compressed(start: bytes) -> bool:
    """Does a file that begins with these bytes (6 are enough) hold compressed data?"""
    return any(start.startswith(magic) for magic, *_ in _FORMATS)


class _Chunks(io.RawIOBase):
    """A raw stream over an iterator of chunks."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def _fed(first: Block, blocks: Iterator[Block]) -> Iterator[Block]:
    for block in itertools.chain([first], blocks):
        for at in range(0, len(block), CHUNK):
            yield block[at : at + CHUNK]


def _units(blocks: Iterator[Block], magic: bytes, name: str, make: Callable[[], _Unit]) -> Iterator[bytes]:
    """Undo the compression of all members; zeros may follow the last one, as tape and tar padding."""
    data: Block = b""
    while True:
        while len(data) < len(magic) and (more := next(blocks, b"")):
            data = bytes(data) + more
        if not bytes(data).strip(b"\0"):
            if not (data := next(blocks, b"")):
                return
            continue
        if bytes(data[: len(magic)]) != magic:
            raise ConversionError(f"the {name} data is corrupt: something else follows it")
        unit = make()
        while not unit.eof:
            try:
                chunk = unit.decompress(data, CHUNK)
            except _CORRUPT as error:
                raise ConversionError(f"the {name} data is corrupt: {error}") from None
            if chunk:
                yield chunk
            if unit.eof:
                break
            data = getattr(unit, "unconsumed_tail", b"")
            if (
                not data
                and getattr(unit, "needs_input", True)
                and not (data := next(blocks, b""))
                and not chunk
            ):
                raise ConversionError(f"the {name} data is cut short")
        data = unit.unused_data


_CORRUPT: tuple[type[Exception], ...] = (
    zlib.error,
    *((igzip.error,) if igzip is not None else ()),
    lzma.LZMAError,
    zstd.ZstdError,
    OSError,
    EOFError,
)


def _gzip() -> Any:
    return igzip.IgzipDecompressor(flag=igzip.DECOMP_GZIP) if igzip is not None else zlib.decompressobj(31)


def _zstd() -> Any:
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: 27})


_FORMATS: tuple[tuple[bytes, str, Callable[[], Any]], ...] = (
    (b"\x1f\x8b", "gzip", _gzip),
    (b"\x28\xb5\x2f\xfd", "zstd", _zstd),
    (b"\xfd7zXZ\0", "xz", lambda: lzma.LZMADecompressor(memlimit=1 << 30)),
    (b"BZh", "bzip2", bz2.BZ2Decompressor),
)
