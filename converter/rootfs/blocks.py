"""A range of a file in large blocks, read past the page cache where it is not in it.

What is read only once need not push out of memory what others use, and reading it so takes a tenth of the
processor's time. What is in memory already comes from there.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

BLOCK = 1 << 20
_AHEAD = 2  # blocks on their way from the disk
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_MAP_FAILED = ctypes.c_void_p(-1).value
_ALIGNED = 1 << 12  # what O_DIRECT wants offsets, lengths and addresses to be multiples of, on any device


def read_blocks(path: Path | str, offset: int, size: int) -> Generator[memoryview]:
    """The `size` bytes at `offset`; each block holds until the next one is asked for.

    There are fewer when the file ends before. Raises OSError.
    """
    end = offset + size
    with contextlib.ExitStack() as stack:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, fd)
        direct = _open_direct(path)
        if direct >= 0:
            stack.callback(os.close, direct)
            in_memory = stack.enter_context(_page_cache(fd, end))

        def read(start: int, buffer: memoryview) -> int:
            if direct < 0 or in_memory(start):
                return os.preadv(fd, [buffer], start)
            return _read_direct(direct, fd, buffer, start)

        # From anonymous mappings, for their alignment. While one is used, the others are filled.
        starts = range(offset - offset % _ALIGNED, end, BLOCK)
        buffers = [memoryview(mmap.mmap(-1, BLOCK)) for _ in starts[: _AHEAD + 1]]
        readers = stack.enter_context(ThreadPoolExecutor(_AHEAD, thread_name_prefix="read"))
        coming: deque[Future[int]] = deque()
        for number, start in enumerate(starts):
            count = coming.popleft().result() if coming else read(start, buffers[number % len(buffers)])
            block = buffers[number % len(buffers)][max(offset - start, 0) : min(count, end - start)]
            while len(coming) < _AHEAD and number + len(coming) + 1 < len(starts):
                following = number + len(coming) + 1
                coming.append(readers.submit(read, starts[following], buffers[following % len(buffers)]))
            if block:
                yield block
            if count < min(BLOCK, end - start):
                return


def _open_direct(path: Path | str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
    except OSError:  # a file system that has no such thing
        return -1


def _read_direct(direct: int, fd: int, buffer: memoryview, offset: int) -> int:
    try:
        return os.preadv(direct, [buffer], offset)
    except OSError as error:
        if error.errno != errno.EINVAL:  # wants a larger alignment, or has it for some files only
            raise
    return os.preadv(fd, [buffer], offset)


@contextlib.contextmanager
def _page_cache(fd: int, size: int) -> Iterator[Callable[[int], bool]]:
    """Yields what tells whether the block of a file at some offset is in memory: mincore(2)."""
    address = _libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
    if address == _MAP_FAILED:
        yield lambda offset: True  # so it is read the usual way
        return
    pages = (ctypes.c_ubyte * (BLOCK // mmap.PAGESIZE))()

    def in_memory(offset: int) -> bool:
        length = min(BLOCK, size - offset)
        if _libc.mincore(ctypes.c_void_p(address + offset), ctypes.c_size_t(length), pages) != 0:
            return True
        count = -(-length // mmap.PAGESIZE)
        return sum(page & 1 for page in pages[:count]) * 2 > count

    try:
        yield in_memory
    finally:
        _libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(size))
