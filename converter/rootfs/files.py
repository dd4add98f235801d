"""Regular files: made, filled and finished while others are read; large ones by threads, small ones by a process."""

from __future__ import annotations

import os
import queue
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from threading import Lock, Thread

from converter.errors import ConversionError
from converter.rootfs.content import LARGE, new_block, write_all, write_content
from converter.rootfs.directories import DIRECTORY, Directories
from converter.rootfs.maker import NEW_FILE, Maker, SmallFile
from converter.rootfs.merge import Inode
from converter.rootfs.metadata import Metadata
from converter.rootfs.stream import LayerStream
from converter.rootfs.tar import Entry

_THREADS = 2  # keep a disk busy while one of them copies
_PIECES = 16  # of a large file that may wait
_FEW = 200  # files that are made before there is a process for them
_BATCH_FILES, _BATCH_BYTES = 64, 1 << 18  # small files go to a process together
_ASIDE = b"/"  # begins Inode.written of what lies aside; paths in the tree have no leading slash

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
        self._directories = Directories(root)
        # For what has no place yet: in the tree, because it will be renamed, and by a name that no image knows.
        self._aside_name = f".docker2nspawn-{secrets.token_hex(16)}"
        self._aside_fd = -1
        self._lock = Lock()
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
            owner = (entry.uid, entry.gid) if self._metadata.to_be_owned(entry) else None
            self._batch.append(
                SmallFile(
                    path, number, data, _first_mode(entry), entry.mode, owner, entry.mtime, entry.xattrs
                )
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
            fd, path = self.place(inode.written)
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
                self.kept[number].written = self.aside(number)
            for name, path in made.refused:
                self._metadata.refused(name, path)
        self._jobs.join()
        self._raise()

    def close(self) -> None:
        """Close what is open; what still waits is not written."""
        self.end()
        if self._aside_fd >= 0:
            os.close(self._aside_fd)
            self._aside_fd = -1

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
        self._directories.close()

    def place(self, written: bytes) -> tuple[int, bytes]:
        """A descriptor, and the path below it, of an Inode's `written`."""
        return (self._aside(), written[1:]) if is_aside(written) else (self._root, written)

    def aside(self, number: int) -> bytes:
        """A value of `written` that is aside."""
        return _ASIDE + b"%d" % number

    def remove_aside(self) -> None:
        """Remove the directory for what has been put aside, when nothing is there any more."""
        if self._aside_fd >= 0:
            os.close(self._aside_fd)
            self._aside_fd = -1
            os.rmdir(self._aside_name, dir_fd=self._root)

    def finish_file(self, fd: int, path: bytes, entry: Entry, *, owned: bool) -> None:
        """What a regular file gets after its content, which would change it."""
        if owned:
            os.fchown(fd, entry.uid, entry.gid)
        if entry.xattrs:
            self._metadata.set_attributes(fd, path, entry)
        if entry.mode != _first_mode(entry):
            os.fchmod(fd, entry.mode)
        os.utime(fd, ns=(entry.mtime, entry.mtime))

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
        directory, _, name = path.rpartition(b"/")
        mode = _first_mode(entry)
        try:
            with self._lock:
                fd = os.open(name, NEW_FILE, mode, dir_fd=self._directories.get(directory))
        except (FileExistsError, FileNotFoundError, NotADirectoryError):  # its layer has something else there
            inode.written = self.aside(number)
            fd = os.open(b"%d" % number, NEW_FILE, mode, dir_fd=self._aside())
        try:
            write(fd)
            self.finish_file(fd, path, entry, owned=self._metadata.to_be_owned(entry))
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

    def _aside(self) -> int:
        with self._lock:
            if self._aside_fd < 0:
                with suppress(FileExistsError):  # made by a process
                    os.mkdir(self._aside_name, 0o700, dir_fd=self._root)
                self._aside_fd = os.open(self._aside_name, DIRECTORY, dir_fd=self._root)
            return self._aside_fd

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


def is_aside(written: bytes) -> bool:
    """Does the file lie aside, not at the path of one of its names?"""
    return written.startswith(_ASIDE)


def _first_mode(entry: Entry) -> int:
    """The mode a file is made with; the rest comes when owner and attributes, which may change it, are set."""
    return 0o600 if entry.xattrs else entry.mode & 0o777


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
