"""Regular files: made, filled and finished while others are read; large ones by threads, small ones by a process."""

from __future__ import annotations

import os
import queue
import secrets
from collections.abc import Callable, Iterator
from threading import Thread

from converter.errors import ConversionError
from converter.rootfs.content import LARGE, new_block, write_all, write_content
from converter.rootfs.create import PRIVATE, NewFiles, aside, finish
from converter.rootfs.maker import Maker, SmallFile
from converter.rootfs.merge import Inode
from converter.rootfs.metadata import Metadata
from converter.rootfs.stream import LayerStream
from converter.rootfs.tar import Entry

_THREADS = 2  # keep a disk busy while one of them copies
_PIECES = 16  # of a large file that may wait
_FEW = 200  # files that are made before there is a process for them
_BATCH_FILES, _BATCH_BYTES = 64, 1 << 18  # small files go to a process together

_Job = Callable[[memoryview], None]


class FileWriter:
    """Writes regular files below the directory `root`; `kept` are those that were added, in their order.

    A file that something else is in the way of is put aside: `Inode.written` tells, when `wait` has returned. Errors
    are kept, and raised when there is somebody to raise them to. While files are written there is no symbolic link in
    the tree that one could be written through; O_NOFOLLOW and O_EXCL say the same to the kernel.
    """

    def __init__(self, root: int, metadata: Metadata) -> None:
        self.kept: list[Inode] = []
        self._root = root
        self._metadata = metadata
        self._aside_name = f".docker2nspawn-{secrets.token_hex(16)}"  # a name that no image knows
        self.new = NewFiles(root, self._aside_name)
        self._batch: list[SmallFile] = []
        self._batch_bytes = 0
        self._maker: Maker | None = None  # with two there is nothing left of two processors for the rest
        self._jobs: queue.Queue[_Job | None] = queue.Queue(_THREADS)
        self._threads: list[Thread] = []
        self._errors: list[BaseException] = []

    def add(self, inode: Inode, path: bytes, stream: LayerStream) -> None:
        """Write a file from its content's place in the stream, some time before `wait` returns.

        Raises OSError, also of earlier files, and ConversionError when the content is cut short.
        """
        self._raise()
        entry = inode.entry
        number = len(self.kept)
        inode.written = path
        self.kept.append(inode)
        if entry.sparse is not None:
            self._write(inode, path, number, lambda fd: _write_sparse(fd, entry, stream))
        elif entry.size >= LARGE:
            self._add_large(inode, path, number, stream)
        else:
            data = stream.read(entry.size)
            if len(data) < entry.size:
                raise _cut_short()
            if number < _FEW:
                self._write(inode, path, number, lambda fd: write_all(fd, memoryview(data)))
                return
            self._batch.append(
                SmallFile(path, number, data, entry.mode, self._owner(entry), entry.mtime, entry.xattrs)
            )
            self._batch_bytes += len(data)
            if len(self._batch) >= _BATCH_FILES or self._batch_bytes >= _BATCH_BYTES:
                self._flush()

    def drop(self, inode: Inode) -> None:
        """Take out again what was added."""
        if self._batch and self.kept[self._batch[-1].number] is inode:
            self._batch.pop()
        else:
            self.wait()
            if inode.written is None:
                return
            fd, path = self.new.place(inode.written)
            os.unlink(path, dir_fd=fd)
        inode.written = None
        if self.kept[-1] is inode:
            self.kept.pop()

    def wait(self) -> None:
        """Return when everything is written. Raises what went wrong."""
        self._flush()
        if self._maker is not None:
            made = self._maker.wait()
            for number in made.aside:
                self.kept[number].written = aside(number)
            for name, path in made.refused:
                self._metadata.refused(name, path)
        self._jobs.join()
        self._raise()

    def close(self) -> None:
        """Close what is open; what still waits is not written."""
        self.end()
        self.new.close()

    def end(self) -> None:
        """End threads and process, and forget the directories that they know; `add` begins anew."""
        if self._maker is not None:
            self._maker.kill()
            self._maker = None
        abandoned = InterruptedError("abandoned")
        self._errors.append(abandoned)
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        self._errors.remove(abandoned)
        self.new.forget()

    def finish_file(self, fd: int, path: bytes, entry: Entry, owner: tuple[int, int] | None) -> None:
        """What a regular file, of mode PRIVATE until now, gets after its content."""
        for name in finish(fd, PRIVATE, entry.mode, owner, entry.mtime, entry.xattrs):
            self._metadata.refused(name, path)

    def _owner(self, entry: Entry) -> tuple[int, int] | None:
        return (entry.uid, entry.gid) if self._metadata.to_be_owned(entry) else None

    def _flush(self) -> None:
        if not self._batch:
            return
        batch, self._batch, self._batch_bytes = self._batch, [], 0
        if self._maker is None:
            self._maker = Maker(self._root, self._aside_name)
        self._maker.make(batch)

    def _write(self, inode: Inode, path: bytes, number: int, write: Callable[[int], None]) -> None:
        """Make, fill and finish a file."""
        entry = inode.entry
        fd, inode.written = self.new.create(path, number, PRIVATE)
        try:
            write(fd)
            self.finish_file(fd, path, entry, self._owner(entry))
        finally:
            os.close(fd)

    def _add_large(self, inode: Inode, path: bytes, number: int, stream: LayerStream) -> None:
        pieces: queue.Queue[memoryview | None] = queue.Queue(_PIECES)

        def job(block: memoryview) -> None:
            coming = iter(pieces.get, None)
            try:
                if not self._errors:
                    self._write(inode, path, number, lambda fd: write_content(fd, coming, block))
            finally:
                for _ in coming:
                    pass

        try:
            self._submit(job)
            for piece in _pieces(stream, inode.entry.size):
                pieces.put(piece)
        finally:
            pieces.put(None)

    def _submit(self, job: _Job) -> None:
        while len(self._threads) < _THREADS:
            thread = Thread(target=self._work, name="write", daemon=True)
            thread.start()
            self._threads.append(thread)
        self._jobs.put(job)

    def _work(self) -> None:
        block = new_block()
        while (job := self._jobs.get()) is not None:
            try:
                job(block)
            except BaseException as error:  # it is the other thread's to raise
                self._errors.append(error)
            finally:
                self._jobs.task_done()
        self._jobs.task_done()

    def _raise(self) -> None:
        if self._errors:
            raise self._errors[0]


def _write_sparse(fd: int, entry: Entry, stream: LayerStream) -> None:
    for offset, length in entry.sparse or ():
        os.lseek(fd, offset, os.SEEK_SET)
        for piece in _pieces(stream, length):
            write_all(fd, piece)
    os.ftruncate(fd, entry.size)


def _pieces(stream: LayerStream, length: int) -> Iterator[memoryview]:
    for piece in stream.pieces(length):
        length -= len(piece)
        yield piece
    if length:
        raise _cut_short()


def _cut_short() -> ConversionError:
    return ConversionError("a file is cut short, or its layer changed while it was being converted")
