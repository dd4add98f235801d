"""What a COPY or ADD has selected, put into a tree, as github.com/tonistiigi/fsutil/copy does it for BuildKit."""

from __future__ import annotations

import os
import posixpath
import stat
from pathlib import Path

from converter.dockerfile.model import Copy
from converter.dockerfile.modes import change_mode
from converter.dockerfile.selection import Entry, Item
from converter.dockerfile.tree import Tree, clean, joined
from converter.dockerfile.unpacking import unpack
from converter.dockerfile.writing import Attributes, Writer, attributes_of, copy_content
from converter.errors import ConversionError

_ROOT = (0, 0)


class Placer:
    """Puts Items of one step into one tree. `owner` None: what the files have."""

    def __init__(self, step: Copy, tree: Tree, owner: tuple[int, int] | None) -> None:
        self._step = step
        self._tree = tree
        self._writer = Writer(tree)
        self._owner = owner

    def put(self, item: Item) -> None:
        """Raises DockerfileError when something is in the way; OSError."""
        with Tree(item.root) as source:
            if item.archive:
                self._unpack(item, source)
            else:
                Copying(self._step, source, item, self._writer, self._owner).put(self._target(item))

    def _unpack(self, item: Item, source: Tree) -> None:
        directory = self._tree.resolve(self._step.destination)
        self._make_directories(directory)
        file = source.open(item.top)
        try:
            # An archive's members belong to whom it says, whatever --chown says; --unpack came with the newer rule.
            owner = self._owner if self._step.unpack else None
            unpack(file, self._tree.directory(directory), owner)
        except ConversionError as error:
            raise self._step.instruction.error(f"cannot unpack {item.name!r}: {error}") from None
        finally:
            os.close(file)
            self._tree.forget(directory)

    def _target(self, item: Item) -> str:
        """Where the Item's top comes to lie; directories on the way there are made."""
        destination = self._step.destination
        is_directory = destination.endswith(("/", "/."))
        self._make_directories(
            self._tree.resolve(destination if is_directory else posixpath.dirname(destination))
        )
        target = self._tree.resolve(destination)
        found = self._tree.find(target)
        kind = item.entries[0].kind
        if found is not None and (not item.spread if kind == "dir" else stat.S_ISDIR(found.st_mode)):
            target = clean(posixpath.join(target, item.name))
        new = kind == "dir" and item.spread and found is None
        self._make_directories(target if new else posixpath.dirname(target))
        return target

    def _make_directories(self, path: str) -> None:
        try:
            self._writer.make_directories(path, self._owner or _ROOT)
        except NotADirectoryError as error:
            raise self._step.instruction.error(
                f"/{error.filename} is not a directory", f"so nothing can be put into /{path}"
            ) from None


class Copying:
    """One Item on its way from a tree to another."""

    def __init__(
        self, step: Copy, source: Tree, item: Item, writer: Writer, owner: tuple[int, int] | None
    ) -> None:
        self._step = step
        self._source = source
        self._item = item
        self._writer = writer
        self._tree = writer.tree
        self._owner = owner
        self._written: dict[tuple[int, int], str] = {}  # files with further names
        self._waiting: list[
            tuple[str, Entry, bool]
        ] = []  # directories to finish, and whether only their times

    def put(self, target: str) -> None:
        """Its top to the path `target`, the rest below. Raises DockerfileError when that is occupied; OSError."""
        for entry in self._item.entries:
            path = joined(target, entry.path)
            while self._waiting and not _is_below(path, self._waiting[-1][0]):
                self._finish_directory()
            if entry.kind == "dir":
                self._put_directory(path, entry)
            else:
                self._put_other(path, entry)
        while self._waiting:
            self._finish_directory()

    def _put_directory(self, path: str, entry: Entry) -> None:
        found = self._tree.find(path)
        if found is None:
            self._writer.make_directory(path, entry.mode)
        elif not stat.S_ISDIR(found.st_mode):
            raise self._step.instruction.error(
                f"cannot copy the directory {self._name(entry)} to /{path}, which is not a directory",
                "choose another destination",
            )
        if entry.implied and found is not None:
            self._writer.change_mode(path, entry.mode)
            return
        # A destination that was there already only gets the times.
        self._waiting.append((path, entry, found is not None and not entry.path))

    def _finish_directory(self) -> None:
        path, entry, times_only = self._waiting.pop()
        if times_only:
            self._writer.set_times(path, _times(entry))
        else:
            self._finish(path, entry)

    def _put_other(self, path: str, entry: Entry) -> None:
        found = self._tree.find(path)
        if found is not None:
            if stat.S_ISDIR(found.st_mode):
                raise self._step.instruction.error(
                    f"cannot replace the directory /{path} with the file {self._name(entry)}",
                    "choose another destination",
                )
            self._writer.remove(path)
        if entry.inode is not None and entry.kind == "file" and entry.inode in self._written:
            self._writer.make_name(path, self._written[entry.inode])
        elif entry.kind in {"file", "empty"}:
            self._write(path, entry)
            if entry.inode is not None:
                self._written[entry.inode] = path
        elif entry.kind == "symlink":
            self._writer.make_link(path, entry.link)
            self._finish(path, entry)
        else:
            self._writer.make_special(path, entry.kind, entry.device)
            self._finish(path, entry)

    def _write(self, path: str, entry: Entry) -> None:
        """A regular file, whole."""
        file = self._writer.new_file(path)
        try:
            attributes: Attributes = []
            if entry.kind == "file":
                source = self._source.open(joined(self._item.top, entry.path))
                try:
                    copy_content(source, file)
                    attributes = attributes_of(source, privileged=self._item.privileged)
                finally:
                    os.close(source)
            self._writer.finish_open(
                file, self._mode(entry), self._owner_of(entry), _times(entry), attributes
            )
        finally:
            os.close(file)

    def _finish(self, path: str, entry: Entry) -> None:
        """Give what is no regular file what it gets last."""
        place = self._source.place(joined(self._item.top, entry.path))
        attributes = attributes_of(place, privileged=self._item.privileged)
        self._writer.finish(
            path, entry.kind, self._mode(entry), self._owner_of(entry), _times(entry), attributes
        )

    def _mode(self, entry: Entry) -> int:
        if not self._step.chmod or entry.kind == "symlink":
            return entry.mode
        return change_mode(self._step.chmod, entry.mode, directory=entry.kind == "dir")

    def _owner_of(self, entry: Entry) -> tuple[int, int]:
        return self._owner or (entry.uid, entry.gid)

    def _name(self, entry: Entry) -> str:
        return repr(posixpath.join(self._item.name, entry.path).rstrip("/"))


def _times(entry: Entry) -> tuple[int, int]:
    return entry.atime, entry.mtime


def _is_below(path: str, directory: str) -> bool:
    return not directory or path.startswith(f"{directory}/")


def put_all(step: Copy, items: tuple[Item, ...], root: Path, owner: tuple[int, int] | None) -> None:
    """Put them into the tree at `root`. Raises DockerfileError, OSError."""
    with Tree(root) as tree:
        placer = Placer(step, tree, owner)
        for item in items:
            placer.put(item)
