"""A large file's content on its way to the disk, past the page cache.

What is written through the page cache costs a processor's time twice, for the copy and for writing it back, and pushes
out of memory what others use; large blocks written directly cost nearly none. They are on the disk at once, so that
the sync at the end has little left to do.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
from collections.abc import Iterable

LARGE = 1 << 17  # bytes; smaller files are written faster through the page cache
_BLOCK = 1 << 20
_ALIGNED = 1 << 12  # what O_DIRECT wants offsets, lengths and addresses to be multiples of, on any device


def new_block() -> memoryview:
    """What write_content gathers pieces in; from an anonymous mapping, for its alignment."""
    return memoryview(mmap.mmap(-1, _BLOCK))


def write_content(fd: int, pieces: Iterable[memoryview], block: memoryview) -> None:
    """Write all pieces to the new file `fd`. Raises OSError."""
    with contextlib.suppress(OSError):  # a file system that has no such thing
        fcntl.fcntl(fd, fcntl.F_SETFL, os.O_DIRECT)
    filled = 0
    for piece in pieces:
        at = 0
        while at < len(piece):
            count = min(len(piece) - at, len(block) - filled)
            block[filled : filled + count] = piece[at : at + count]
            filled += count
            at += count
            if filled == len(block):
                write_all(fd, block)
                filled = 0
    whole = filled - filled % _ALIGNED
    write_all(fd, block[:whole])
    if whole < filled:
        fcntl.fcntl(fd, fcntl.F_SETFL, 0)
        write_all(fd, block[whole:filled])


def write_all(fd: int, data: memoryview) -> None:
    """write(2) until all is written, buffered where it cannot be direct. Raises OSError."""
    while data:
        try:
            data = data[os.write(fd, data) :]
        except OSError as error:
            if error.errno != errno.EINVAL or not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT:
                raise
            fcntl.fcntl(fd, fcntl.F_SETFL, 0)  # wants a larger alignment, or has it for some files only
