"""A layer's bytes as a stream: decompressed, counted and verified while they are read.

Compression is told by magic numbers, as Docker does (moby pkg/archive DetectCompression), never by a media type.
"""

from __future__ import annotations

import bz2
import hashlib
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, Protocol

import zstandard

from converter.errors import ConversionError
from converter.image.model import Layer

fast_zlib: Any
try:
    from isal import isal_zlib as fast_zlib
except ImportError:  # a processor without ISA-L
    fast_zlib = zlib

_CHUNK = 1 << 20  # of output, and of what is read at once
_ZSTD_FEED = 1 << 12  # zstd has no limit on output for an input; this keeps a bomb's chunk below 128 MiB


class _Unit(Protocol):
    """One gzip member, zstd frame, xz or bzip2 stream."""

    eof: bool
    unused_data: bytes

    def decompress(self, data: bytes, /, *limit: int) -> bytes: ...


def decompress(raw: BinaryIO) -> BinaryIO:
    """A buffered stream of what `raw`, from where it stands, holds when gzip, zstd, xz or bzip2 is undone.

    Uncompressed data comes as it is. Reading raises ConversionError when the data is corrupt or cut short.
    """
    start = raw.read(6)
    for magic, name, make, feed in _FORMATS:
        if start.startswith(magic):
            chunks = _decompressed(raw, start, magic, name, make, feed)
            return io.BufferedReader(_Chunks(chunks), _CHUNK)
    return io.BufferedReader(_Chunks(_plain(raw, start)), _CHUNK)


def is_compressed(start: bytes) -> bool:
    """Does a file that begins with these bytes (6 are enough) hold compressed data?"""
    return any(start.startswith(magic) for magic, *_ in _FORMATS)


class LayerStream:
    """A layer's uncompressed bytes. `position` counts them; `verify` reads the rest and checks the digests."""

    def __init__(self, layer: Layer, file: BinaryIO) -> None:
        self._layer = layer
        self._raw = _Range(file, layer)
        self._plain = decompress(io.BufferedReader(self._raw, _CHUNK))
        self._hash = _new_hash(layer.diff_id)
        self.position = 0

    @property
    def compressed_position(self) -> int:
        """How many of the layer's own bytes have been read, for progress."""
        return self._raw.position

    def read(self, size: int) -> bytes:
        """`size` bytes, or fewer at the end."""
        data = self._plain.read(size)
        if self._hash is not None:
            self._hash.update(data)
        self.position += len(data)
        return data

    def skip(self, size: int) -> None:
        """Pass over `size` bytes. Raises ConversionError when there are fewer."""
        while size > 0:
            data = self.read(min(size, _CHUNK))
            if not data:
                raise ConversionError(f"{describe(self._layer)} is cut short")
            size -= len(data)

    def verify(self) -> None:
        """Read to the end. Raises ConversionError when size, digest or diff id are not as promised."""
        while self.read(_CHUNK):
            pass
        self._raw.verify()
        if self._hash is not None and self._layer.diff_id is not None:
            _compare(self._layer.diff_id, self._hash, "its uncompressed content", self._layer)


@contextmanager
def open_layer(layer: Layer, *, verified: bool = False) -> Iterator[LayerStream]:
    """Open a layer. With `verified`, digests have been checked before and are not computed again."""
    if verified:
        layer = Layer(layer.path, layer.offset, layer.size)
    try:
        with layer.path.open("rb", buffering=0) as file:
            yield LayerStream(layer, file)
    except OSError as error:
        if error.filename != str(layer.path):
            raise
        raise ConversionError(f"cannot read {layer.path}: {error.strerror}") from None


def describe(layer: Layer) -> str:
    """How messages call a layer."""
    return f"layer {layer.digest or layer.diff_id or layer.path.name}"


class _Range(io.RawIOBase):
    """The layer's own bytes, hashed as they go by."""

    def __init__(self, file: BinaryIO, layer: Layer) -> None:
        self._file = file
        self._layer = layer
        # The digest of an uncompressed layer is its diff id: one hash is enough.
        self._hash = None if layer.digest == layer.diff_id else _new_hash(layer.digest)
        self.position = 0
        file.seek(layer.offset)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)[: self._layer.size - self.position]
        count = self._file.readinto(view) or 0  # type: ignore[attr-defined]
        if count == 0 and len(view):
            raise ConversionError(f"{describe(self._layer)} is cut short: {self._layer.path} ends in it")
        if self._hash is not None:
            self._hash.update(view[:count])
        self.position += count
        return int(count)

    def verify(self) -> None:
        if self.position != self._layer.size:
            raise ConversionError(f"{describe(self._layer)} has data after its end")
        if self._hash is not None and self._layer.digest is not None:
            _compare(self._layer.digest, self._hash, "its content", self._layer)


def _new_hash(digest: str | None) -> Any:
    return hashlib.new(digest.partition(":")[0]) if digest is not None else None


def _compare(expected: str, found: Any, what: str, layer: Layer) -> None:
    if expected.partition(":")[2] != found.hexdigest():
        raise ConversionError(
            f"{describe(layer)} is corrupt: {what} has the digest {found.name}:{found.hexdigest()}, not {expected}"
        )


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


def _plain(raw: BinaryIO, start: bytes) -> Iterator[bytes]:
    yield start
    while chunk := raw.read(_CHUNK):
        yield chunk


def _decompressed(
    raw: BinaryIO, data: bytes, magic: bytes, name: str, make: Callable[[], _Unit], feed: int
) -> Iterator[bytes]:
    """Undo the compression of all members; zeros may follow the last one, as tape and tar padding."""
    while True:
        while len(data) < len(magic) and (more := raw.read(feed)):
            data += more
        if not data.strip(b"\0"):
            if not (data := raw.read(feed)):
                return
            continue
        if not data.startswith(magic):
            raise ConversionError(f"the {name} data is corrupt: something else follows it")
        unit = make()
        while not unit.eof:
            try:
                chunk = unit.decompress(data, *((_CHUNK,) if feed != _ZSTD_FEED else ()))
            except _CORRUPT as error:
                raise ConversionError(f"the {name} data is corrupt: {error}") from None
            if chunk:
                yield chunk
            if unit.eof:
                break
            data = getattr(unit, "unconsumed_tail", b"")
            if not data and getattr(unit, "needs_input", True) and not (data := raw.read(feed)) and not chunk:
                raise ConversionError(f"the {name} data is cut short")
        data = unit.unused_data


_CORRUPT: tuple[type[Exception], ...] = (
    zlib.error,
    fast_zlib.error,
    lzma.LZMAError,
    zstandard.ZstdError,
    OSError,
    EOFError,
)


def _zstd() -> Any:
    return zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()


_FORMATS: tuple[tuple[bytes, str, Callable[[], Any], int], ...] = (
    (b"\x1f\x8b", "gzip", lambda: fast_zlib.decompressobj(31), _CHUNK >> 3),
    (b"\x28\xb5\x2f\xfd", "zstd", _zstd, _ZSTD_FEED),
    (b"\xfd7zXZ\0", "xz", lambda: lzma.LZMADecompressor(memlimit=1 << 30), _CHUNK >> 3),
    (b"BZh", "bzip2", bz2.BZ2Decompressor, _CHUNK >> 3),
)
