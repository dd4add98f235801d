"""Large files' content on its way to the disk: by threads, past the page cache.

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
import queue
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

LARGE = 1 << 17  # bytes; smaller files are written faster through the page cache
_BLOCK = 1 << 20
_ALIGNED = 1 << 12  # what O_DIRECT wants offsets, lengths and addresses to be multiples of, on any device
_THREADS = 2  # keep a disk busy while one of them copies
_WAITING = 4  # pieces, of at most 1 MiB, that may wait for a thread


@dataclass(frozen=True)
class _File:
    """Begins a file in a thread's queue: its pieces follow, then None."""

    fd: int
    finish: Callable[[int], None]


class _Stop:
    """Ends a thread, also in the middle of a file."""


_Item = _File | memoryview | _Stop | None


class LargeFiles:
    """Writes several files side by side. The first error is kept, and raised when there is somebody to raise it to."""

    def __init__(self) -> None:
        self._queues: list[queue.Queue[_Item]] = []
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []

    def write(self, fd: int, pieces: Iterable[memoryview], finish: Callable[[int], None]) -> None:
        """Write all `pieces` to the new file `fd`, then call `finish` with it, then close it; all of it later.

        Raises what went wrong with an earlier file.
        """
        try:
            self._raise()
            if not self._threads:
                self._start()
            chosen = min(self._queues, key=queue.Queue.qsize)
        except BaseException:
            os.close(fd)
            raise
        try:
            chosen.put(_File(fd, finish))
            for piece in pieces:
                chosen.put(piece)
        finally:
            chosen.put(None)

    def wait(self) -> None:
        """Return when everything is written. Raises what went wrong."""
        for waiting in self._queues:
            waiting.join()
        self._raise()

    def close(self) -> None:
        """End the threads; what still waits is not written."""
        self._errors.append(InterruptedError())
        for waiting in self._queues:
            waiting.put(_Stop())
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _start(self) -> None:
        for _ in range(_THREADS):
            waiting: queue.Queue[_Item] = queue.Queue(_WAITING)
            thread = threading.Thread(target=self._work, args=(waiting,), name="write", daemon=True)
            thread.start()
            self._queues.append(waiting)
            self._threads.append(thread)

    def _raise(self) -> None:
        if self._errors:
            raise self._errors[0]

    def _work(self, waiting: queue.Queue[_Item]) -> None:
        # From an anonymous mapping, for its alignment.
        block = memoryview(mmap.mmap(-1, _BLOCK))
        pieces = _Pieces(waiting)
        while not pieces.stopped:
            item = waiting.get()
            if isinstance(item, _Stop):
                break
            if not isinstance(item, _File):  # of one that was never begun, because of an interrupt
                waiting.task_done()
                continue
            pieces = _Pieces(waiting)
            try:
                if not self._errors:
                    _write(item.fd, pieces, block)
                    item.finish(item.fd)
            except BaseException as error:  # it is the other thread's to raise
                self._errors.append(error)
            finally:
                os.close(item.fd)
                for _ in pieces:
                    pass
                waiting.task_done()


class _Pieces:
    """The pieces of one file, from a thread's queue."""

    def __init__(self, waiting: queue.Queue[_Item]) -> None:
        self._waiting = waiting
        self._ended = False
        self.stopped = False

    def __iter__(self) -> _Pieces:
        return self

    def __next__(self) -> memoryview:
        if self._ended:
            raise StopIteration
        piece = self._waiting.get()
        self._waiting.task_done()
        if not isinstance(piece, memoryview):
            self._ended = True
            self.stopped = isinstance(piece, _Stop)
            raise StopIteration
        return piece


def _write(fd: int, pieces: Iterable[memoryview], block: memoryview) -> None:
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
                _write_all(fd, block)
                filled = 0
    whole = filled - filled % _ALIGNED
    _write_all(fd, block[:whole])
    if whole < filled:
        fcntl.fcntl(fd, fcntl.F_SETFL, 0)
        _write_all(fd, block[whole:filled])


def _write_all(fd: int, data: memoryview) -> None:
    while data:
        try:
            data = data[os.write(fd, data) :]
        except OSError as error:
            if error.errno != errno.EINVAL or not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT:
                raise
            fcntl.fcntl(fd, fcntl.F_SETFL, 0)  # wants a larger alignment, or has it for some files only
