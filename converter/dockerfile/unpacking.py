"""ADD's archives, unpacked as Docker unpacks them: pkg/archive Unpack, its root the directory unpacked into."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from converter.dockerfile.tree import Tree, clean, joined
from converter.dockerfile.writing import Writer
from converter.errors import ConversionError
from converter.rootfs.compression import CHUNK, decompressed
from converter.rootfs.stream import LayerStream
from converter.rootfs.tar import Entry, read_entries


def is_archive(fd: int) -> bool:
    """Is the file a tar, compressed or not, with at least one member? As BuildKit, by content alone."""
    with suppress(ConversionError):
        return next(read_entries(LayerStream(decompressed(_blocks(fd)))), None) is not None
    return False


def unpack(fd: int, directory: int, owner: tuple[int, int] | None) -> None:
    """All members of the archive `fd` into an open directory; links in it lead no further than to it.

    `owner` None: the members' own. Raises ConversionError when the archive is damaged; OSError.
    """
    with Tree(Path(f"/proc/self/fd/{directory}")) as tree:
        stream = LayerStream(decompressed(_blocks(fd)))
        unpacking = _Unpacking(Writer(tree), stream, owner)
        try:
            for entry in read_entries(stream):
                unpacking.put(entry)
            stream.finish()
        except ConversionError as error:
            text = str(error).replace("the layer", "the archive", 1)
            raise ConversionError(f"{text}; make it anew") from None
        unpacking.finish()


def plain_chunks(fd: int) -> Iterator[bytes]:
    """The archive uncompressed. Raises ConversionError when it is damaged."""
    return decompressed(_blocks(fd))


def _blocks(fd: int) -> Iterator[bytes]:
    at = 0
    while block := os.pread(fd, CHUNK, at):
        at += len(block)
        yield block


class _Unpacking:
    """Members in their order: a later one replaces an earlier one, and what was there before."""

    def __init__(self, writer: Writer, stream: LayerStream, owner: tuple[int, int] | None) -> None:
        self._writer = writer
        self._tree = writer.tree
        self._stream = stream
        self._owner = owner
        self._directories: dict[str, Entry] = {}  # are finished last: a mode may shut us out
        self._known: dict[str, str] = {}  # where directories' names lead

    def put(self, entry: Entry) -> None:
        """One member, all but what directories get last."""
        name = os.fsdecode(entry.name)
        path = clean(name)
        if not path:
            # The directory itself keeps what it has when it is called ".", as it mostly is.
            if entry.kind == "dir" and posixpath.normpath(name or ".") != ".":
                self._directories[path] = entry
            return
        path = self._place(path, make=True)
        found = self._tree.find(path)
        merged = found is not None and stat.S_ISDIR(found.st_mode) and entry.kind == "dir"
        if found is not None and not merged:
            self._writer.remove(path)
            if stat.S_ISDIR(found.st_mode) or stat.S_ISLNK(found.st_mode):
                self._known.clear()
        if not self._make(path, entry, merged=merged):
            return
        if entry.kind == "dir":
            self._directories[path] = entry
            return
        kind = entry.kind
        if kind == "hardlink":
            kind = "symlink" if stat.S_ISLNK(self._tree.status(path).st_mode) else "file"
        self._finish(path, kind, entry)

    def finish(self) -> None:
        """Finish the directories, the innermost first."""
        for path, entry in sorted(self._directories.items(), key=lambda item: -item[0].count("/")):
            found = self._tree.find(path)
            if found is not None and stat.S_ISDIR(found.st_mode):  # a later member may have replaced it
                self._finish(path, "dir", entry)

    def _finish(self, path: str, kind: str, entry: Entry) -> None:
        owner = self._owner or (entry.uid, entry.gid)
        times = (entry.mtime, entry.mtime)
        self._writer.finish(path, kind, entry.mode, owner, times, list(entry.xattrs))

    def _place(self, path: str, *, make: bool) -> str:
        """A path with the links above its last step followed; the directories are made where they are missing."""
        above, _, name = path.rpartition("/")
        known = self._known.get(above)
        if known is None:
            known = self._tree.resolve(above)
            self._check_links(above)
            if make:
                self._writer.make_directories(known, (0, 0))
                self._known[above] = known
        return f"{known}/{name}" if known else name

    def _check_links(self, path: str) -> None:
        """A link that leads to nothing is no directory; Docker does not make one there either."""
        done = ""
        for name in path.split("/") if path else ():
            here = joined(done, name)
            found = self._tree.find(here)
            if found is None:
                return
            done = here
            if stat.S_ISLNK(found.st_mode):
                done = self._tree.resolve(here)
                if self._tree.find(done) is None:
                    raise ConversionError(f"the layer goes through the link {here!r}, which leads nowhere")

    def _make(self, path: str, entry: Entry, *, merged: bool) -> bool:
        """False: it is a device, and we may make none: as Docker, go on without it."""
        match entry.kind:
            case "dir":
                if not merged:
                    self._writer.make_directory(path, entry.mode)
            case "file":
                file = self._writer.new_file(path)
                try:
                    self._fill(file, entry)
                finally:
                    os.close(file)
            case "symlink":
                self._writer.make_link(path, os.fsdecode(entry.link))
            case "hardlink":
                self._writer.make_name(path, self._place(clean(os.fsdecode(entry.link)), make=False))
            case _:
                try:
                    self._writer.make_special(path, entry.kind, os.makedev(*entry.device))
                except PermissionError:
                    return False
        return True

    def _fill(self, file: int, entry: Entry) -> None:
        for at, size in entry.sparse if entry.sparse is not None else [(0, entry.size)]:
            left = size
            for piece in self._stream.pieces(size):
                left -= len(piece)
                while piece:
                    count = os.pwrite(file, piece, at)
                    piece = piece[count:]
                    at += count
            if left:
                raise ConversionError(f"the layer is cut short (at byte {self._stream.position} of its tar)")
        if entry.sparse is not None:
            os.ftruncate(file, entry.size)
