"""The outer tar of an image archive: where each member's bytes lie, so that they can be used in place."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from converter.errors import ConversionError
from converter.rootfs.tar import Kind, Stream, read_entries

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Member:
    """One member: its name without `./`, and the range of the tar that holds its content, in bytes."""

    name: str
    kind: Kind
    target: str
    offset: int
    size: int


def is_tar(start: bytes) -> bool:
    """Whether a file that begins with `start` is a tar, of any format since 1988."""
    return start[257:262] == b"ustar"


def members(file: BinaryIO, label: str, *, seekable: bool) -> Iterator[Member]:
    """The members of the tar that `file`, at its start, holds, in their order; `label` names it in messages.

    Content is passed over: by seeking in a file on disk, by reading what cannot seek. Sparse files, which
    have no range of their own, are left out. Raises ConversionError when the tar is cut short or damaged.
    """
    stream: Stream = _OnDisk(file) if seekable else _Read(file)
    try:
        for entry in read_entries(stream):
            if entry.sparse is None:
                name, target = (text.decode("utf-8", "surrogateescape") for text in (entry.name, entry.link))
                yield Member(clean(name), entry.kind, target, entry.offset, entry.stored)
    except ConversionError as error:
        what = str(error).replace("the layer", "the archive", 1)  # the reader's word for what it reads
        raise ConversionError(f"{label}: {what}") from error


def clean(name: str) -> str:
    """A member's name in its shortest form, which never leads outside: `./a//b/../c` is `a/c`."""
    return posixpath.normpath("/" + name).lstrip("/")


class _Read:
    """A stream that can only be read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.position = 0

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self.position += len(data)
        return data

    def skip(self, size: int) -> None:
        while size > 0:
            data = self.read(min(size, _CHUNK))
            if not data:
                raise ConversionError(_CUT_SHORT)
            size -= len(data)


class _OnDisk(_Read):
    """A file, over whose content one can step."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self._length = os.fstat(file.fileno()).st_size

    def skip(self, size: int) -> None:
        if self.position + size > self._length:
            raise ConversionError(_CUT_SHORT)
        self._file.seek(size, os.SEEK_CUR)
        self.position += size


_CUT_SHORT = "the layer is cut short"
