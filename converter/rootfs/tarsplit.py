"""The tar of a layer that Docker has unpacked, made again from its files and tar-split's recipe.

github.com/vbatts/tar-split, tar/storage: gzipped lines of JSON, each a segment of the tar as it was (headers, padding;
in base64), or the name and size of a file whose content stands there. Docker's overlay2 keeps one for each layer, since
only so can it give a layer out with the digest that it came in with.
"""

from __future__ import annotations

import binascii
import json
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, BinaryIO, NamedTuple

from converter.errors import ConversionError
from converter.image.model import UnpackedLayer
from converter.linux import open_in_root
from converter.rootfs.blocks import read_blocks
from converter.rootfs.compression import CHUNK, decompress

_LARGE = 1 << 17  # bytes; smaller files are read whole, and ahead
_READERS = 4  # a disk answers several questions at once
_MOST_FILES = 64  # in a batch
_LONGEST_LINE = 1 << 25
_FILE, _SEGMENT = 1, 2  # Entry.Type
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK


class _File(NamedTuple):
    name: bytes
    size: int


_Batch = list[bytes | _File]


def assembled(layer: UnpackedLayer, seen: Callable[[int], None]) -> Generator[bytes]:
    """The tar in chunks of about 1 MiB; `seen` is told how many bytes of files' content there were.

    Raises ConversionError when recipe and files do not fit together, OSError when they cannot be read.
    """
    root = os.open(layer.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    readers = ThreadPoolExecutor(_READERS, thread_name_prefix="read")
    try:
        with layer.recipe.open("rb") as recipe:
            waiting: deque[Future[bytes] | _File] = deque()
            for batch in _batches(_items(decompress(recipe))):
                first = batch[0]
                if isinstance(first, _File) and first.size >= _LARGE:
                    waiting.append(first)
                else:
                    waiting.append(readers.submit(_content, root, batch, seen))
                if len(waiting) > 2 * _READERS:
                    yield from _chunks(root, waiting.popleft(), seen)
            while waiting:
                yield from _chunks(root, waiting.popleft(), seen)
    finally:
        readers.shutdown(cancel_futures=True)
        os.close(root)


def _items(lines: BinaryIO) -> Iterator[bytes | _File]:
    while line := lines.readline(_LONGEST_LINE):
        try:
            entry = json.loads(line)
            if entry["type"] == _SEGMENT:
                yield binascii.a2b_base64(entry.get("payload") or "")
            elif entry["type"] == _FILE and entry.get("size"):
                yield _File(_name(entry), int(entry["size"]))
        except (ValueError, LookupError, TypeError, AttributeError):
            raise ConversionError("its tar-split recipe is damaged") from None


def _name(entry: dict[str, Any]) -> bytes:
    if entry.get("name_raw"):  # a name that is not UTF-8
        return binascii.a2b_base64(entry["name_raw"])
    return str(entry["name"]).encode("utf-8", "surrogateescape")


def _batches(items: Iterator[bytes | _File]) -> Iterator[_Batch]:
    """Small files and what is between them together, a large one for itself. None is empty."""
    batch: _Batch = []
    size = files = 0
    for item in items:
        length = item.size if isinstance(item, _File) else len(item)
        large = isinstance(item, _File) and length >= _LARGE
        if batch and (large or size + length > CHUNK or files >= _MOST_FILES):
            yield batch
            batch, size, files = [], 0, 0
        if large:
            yield [item]
            continue
        batch.append(item)
        size += length
        files += isinstance(item, _File)
    if batch:
        yield batch


def _content(root: int, batch: _Batch, seen: Callable[[int], None]) -> bytes:
    parts: list[bytes] = []
    for item in batch:
        if isinstance(item, bytes):
            parts.append(item)
            continue
        fd = open_in_root(root, item.name, _READ)
        try:
            data = os.read(fd, item.size + 1)
            if len(data) != item.size:
                raise _changed(item)
        finally:
            os.close(fd)
        parts.append(data)
        seen(len(data))
    return b"".join(parts)


def _chunks(root: int, item: Future[bytes] | _File, seen: Callable[[int], None]) -> Iterator[bytes]:
    if isinstance(item, Future):
        if chunk := item.result():
            yield chunk
        return
    fd = open_in_root(root, item.name, _READ)
    try:
        if os.fstat(fd).st_size != item.size:
            raise _changed(item)
        for block in read_blocks(f"/proc/self/fd/{fd}", 0, item.size):
            seen(len(block))
            yield bytes(block)
    finally:
        os.close(fd)


def _changed(file: _File) -> ConversionError:
    return ConversionError(
        f"the daemon's own file /{file.name.decode(errors='backslashreplace')} has changed"
    )
