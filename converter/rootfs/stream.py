"""A layer's bytes as a stream: decompressed and verified while they are read, ahead of whoever reads them."""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any, TypeVar

from converter.errors import ConversionError
from converter.image.model import Layer, UnpackedLayer
from converter.progress import Step
from converter.rootfs.blocks import read_blocks
from converter.rootfs.compression import decompressed
from converter.rootfs.tarsplit import assembled

_AHEAD = 64  # chunks, of 256 KiB, that may wait between two threads: levels out large and small files

T = TypeVar("T")
AnyLayer = Layer | UnpackedLayer


class LayerStream:
    """The uncompressed bytes of one layer, from an iterator of chunks that are not empty."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._chunk = b""
        self._at = 0  # in the chunk
        self._before = 0  # bytes of earlier chunks

    @property
    def position(self) -> int:
        """How many bytes have been read."""
        return self._before + self._at

    def read(self, size: int) -> bytes:
        """`size` bytes, or fewer at the end."""
        end = self._at + size
        if end <= len(self._chunk):
            data = self._chunk[self._at : end]
            self._at = end
            return data
        return b"".join(self.pieces(size))

    def pieces(self, size: int) -> Iterator[memoryview]:
        """`size` bytes, or fewer at the end, as they lie in memory."""
        while size > 0 and (self._at < len(self._chunk) or self._next()):
            piece = memoryview(self._chunk)[self._at : self._at + size]
            self._at += len(piece)
            size -= len(piece)
            yield piece

    def skip(self, size: int) -> None:
        """Pass over `size` bytes. Raises ConversionError when there are fewer."""
        while size > len(self._chunk) - self._at:
            size -= len(self._chunk) - self._at
            if not self._next():
                raise ConversionError("it is cut short")
        self._at += size

    def finish(self) -> None:
        """Read to the end. Raises ConversionError when size, digest or diff id are not as promised."""
        while self._next():
            pass

    def _next(self) -> bool:
        self._before += len(self._chunk)
        self._at = 0
        self._chunk = next(self._chunks, b"")
        return bool(self._chunk)


@contextmanager
def open_layer(layer: AnyLayer) -> Iterator[LayerStream]:
    """A layer that has been verified before: nothing is computed again."""
    if isinstance(layer, Layer):
        layer = Layer(layer.path, layer.offset, layer.size)
    with closing(_unpacked(layer, None)) as chunks:
        yield LayerStream(chunks)


def unpacked(layer: AnyLayer) -> Iterator[bytes]:
    """A layer's uncompressed bytes in chunks. Raises ConversionError, perhaps at their end, when it does not verify."""
    for _, chunk in _each_verified(_each([layer], lambda layer: _unpacked(layer, None))):
        if chunk:
            yield chunk


def open_layers(layers: Iterable[AnyLayer], step: Step) -> Generator[LayerStream]:
    """One layer after the other: reading, decompressing and hashing go on in threads, also for those that follow.

    Each has to be read to its `finish` before the next is asked for. Close the generator to end the threads.
    """
    # Two threads: decompressing takes about as long as hashing what comes of it.
    unpacked = _ahead(_each(layers, lambda layer: _unpacked(layer, step)))
    verified = _ahead(_each_verified(unpacked))
    with closing(verified):
        for _ in verified:
            yield LayerStream(_until_end(verified))


def describe(layer: AnyLayer) -> str:
    """How messages call a layer."""
    if isinstance(layer, UnpackedLayer):
        return f"layer {layer.diff_id}"
    return f"layer {layer.digest or layer.diff_id or layer.path.name}"


# What goes from thread to thread: a layer and None where it begins, then its chunks, then an empty one.
_Item = tuple[AnyLayer, bytes | None]


def _each(layers: Iterable[AnyLayer], unpack: Callable[[AnyLayer], Iterator[bytes]]) -> Generator[_Item]:
    for layer in layers:
        yield layer, None
        for chunk in unpack(layer):
            yield layer, chunk
        yield layer, b""


def _each_verified(items: Generator[_Item]) -> Generator[_Item]:
    computed: Any = None
    with closing(items):
        for layer, chunk in items:
            if chunk is None:
                computed = new_hash(layer.diff_id)
            elif chunk and computed is not None:
                computed.update(chunk)
            elif computed is not None and layer.diff_id is not None:
                compare(layer.diff_id, computed, "its uncompressed content")
            yield layer, chunk


def _until_end(items: Iterator[_Item]) -> Iterator[bytes]:
    for _, chunk in items:
        if not chunk:
            return
        yield chunk


def _unpacked(layer: AnyLayer, step: Step | None) -> Generator[bytes]:
    """The uncompressed chunks of a layer; at their end its own size and digest have been verified."""
    if isinstance(layer, UnpackedLayer):
        try:
            yield from assembled(layer, step.advance if step is not None else lambda _: None)
        except OSError as error:
            raise ConversionError(
                f"cannot read the daemon's own file {error.filename!r}: {error.strerror}"
            ) from None
        return
    # The digest of an uncompressed layer is its diff id: one hash is enough.
    computed = None if layer.digest == layer.diff_id else new_hash(layer.digest)
    size = 0

    def blocks() -> Iterator[memoryview]:
        nonlocal size
        with ThreadPoolExecutor(1, thread_name_prefix="hash") as hasher:
            for block in read_blocks(layer.path, layer.offset, layer.size):
                hashed = hasher.submit(computed.update, block) if computed is not None else None
                size += len(block)
                if step is not None:
                    step.advance(len(block))
                yield block
                if hashed is not None:
                    hashed.result()
        if size < layer.size:
            raise ConversionError(f"it is cut short: {layer.path} ends in it")

    try:
        yield from decompressed(blocks())
    except OSError as error:
        raise ConversionError(f"cannot read {layer.path}: {error.strerror}") from None
    if computed is not None and layer.digest is not None:
        compare(layer.digest, computed, "its content")


def new_hash(digest: str | None) -> Any:
    """What computes a digest of this one's algorithm."""
    return hashlib.new(digest.partition(":")[0]) if digest is not None else None


def compare(expected: str, found: Any, what: str) -> None:
    """Raise ConversionError when the computed hash is not the expected digest."""
    if expected.partition(":")[2] != found.hexdigest():
        raise ConversionError(
            f"it is corrupt: {what} has the digest {found.name}:{found.hexdigest()}, not {expected}"
        )


def _ahead(source: Generator[T]) -> Generator[T]:
    """The same items, made in a thread of their own; an error comes after the items before it."""
    items: queue.Queue[tuple[T] | BaseException | None] = queue.Queue(_AHEAD)
    stop = threading.Event()

    def work() -> None:
        end: BaseException | None = None
        try:
            with closing(source):
                for item in source:
                    items.put((item,))
                    if stop.is_set():
                        return
        except BaseException as error:  # it is the reader's to handle
            end = error
        items.put(end)

    thread = threading.Thread(target=work, name="ahead", daemon=True)
    thread.start()
    try:
        while isinstance(item := items.get(), tuple):
            yield item[0]
        if item is not None:
            raise item
    finally:
        stop.set()
        while thread.is_alive():
            try:
                items.get(timeout=0.01)
            except queue.Empty:
                continue
        thread.join()
