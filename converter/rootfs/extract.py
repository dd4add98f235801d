"""A Plan becomes files below one directory descriptor.

The order makes it safe: first directories and regular files, while the layers are read or later, then devices and
the like, then symbolic links, then further names of files. Directories get their owner, mode and time last.
"""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from converter.progress import Progress
from converter.rootfs.create import PRIVATE, aside, is_aside
from converter.rootfs.directories import DIRECTORY, Directories
from converter.rootfs.files import FileWriter
from converter.rootfs.merge import Directory, Inode, Plan
from converter.rootfs.metadata import Metadata
from converter.rootfs.stream import LayerStream, open_layer
from converter.rootfs.tar import Entry

_SPECIAL = {"fifo": stat.S_IFIFO, "char": stat.S_IFCHR, "block": stat.S_IFBLK}
_SYMLINK = {"symlink": stat.S_IFLNK}


@contextmanager
def writing(root_fd: int, *, ownership: bool) -> Iterator[TreeWriter]:
    """Write a tree into the empty directory `root_fd`.

    Without `ownership` (not root) everything belongs to the caller and devices are left out.
    """
    # What is made below must get the image's owners and modes, not inherited ones.
    for attribute in ("system.posix_acl_default", "system.posix_acl_access"):
        with suppress(OSError):
            os.removexattr(root_fd, attribute)
    os.fchown(root_fd, -1, os.getegid())
    os.fchmod(root_fd, 0o700)
    writer = TreeWriter(root_fd, Metadata(ownership=ownership))
    try:
        yield writer
    finally:
        writer.close()


class TreeWriter:
    """Makes a tree below one directory: `keep` and `drop` while its layers are read, `finish` when it is known."""

    def __init__(self, root_fd: int, metadata: Metadata) -> None:
        self._root = root_fd
        self._metadata = metadata
        self._directories = Directories(root_fd)
        self._files = FileWriter(root_fd, metadata)
        self._made = {b""}

    def keep(self, inode: Inode, path: bytes, stream: LayerStream) -> None:
        """Write a regular file that may well survive, from its place in the stream.

        Raises OSError when the disk is full.
        """
        directory = path.rpartition(b"/")[0]
        if directory not in self._made:
            with suppress(FileExistsError, NotADirectoryError):  # then the file is put aside
                self._make_directories(directory)
        self._files.add(inode, path, stream)

    def drop(self, inode: Inode) -> None:
        """Take out again what was kept."""
        self._files.drop(inode)

    def finish(self, plan: Plan, progress: Progress) -> list[str]:
        """Make the tree what the plan says; the return value tells, in lines, what was lost.

        Raises ConversionError when a layer changed since it was scanned; OSError when the disk is full.
        """
        self._files.wait()
        for inode in self._files.kept:
            if inode.restated and inode.written is not None:
                self._finish_again(inode, inode.written)
        directories: list[tuple[bytes, Directory]] = [(b"", plan.root)]
        names: dict[Inode, list[bytes]] = defaultdict(list)  # those that are not there yet
        right = 0
        for path, node in plan.walk():
            if isinstance(node, Directory):
                directories.append((path, node))
            elif node.written == path:
                right += 1
            else:
                names[node].append(path)
        if right != len(self._files.kept):
            self._put_aside(plan, names)
        self._remove_directories(self._made.difference(path for path, _ in directories))
        for path, _ in directories:
            self._make_directories(path)
        with progress.step("writing what is left", len(names) + len(directories), "files") as step:
            self._write_missing(plan, names)
            for kinds in (_SPECIAL, _SYMLINK):
                for node, paths in names.items():
                    if node.written is None and node.entry.kind in kinds:
                        self._make(paths[0], node)
            for node, paths in names.items():
                self._name(node, paths)
            step.advance(len(names))
            self._files.new.remove_aside()
            for path, directory in reversed(directories):
                self._finish_directory(path, directory.entry)
            step.advance(len(directories))
        return self._metadata.losses()

    def close(self) -> None:
        """Close what is open."""
        self._files.close()
        self._directories.close()

    def _put_aside(self, plan: Plan, names: dict[Inode, list[bytes]]) -> None:
        """Take out of the tree what did not survive, or not by that name."""
        right = {node for path, node in plan.walk() if isinstance(node, Inode) and node.written == path}
        for number, node in enumerate(self._files.kept):
            if node in right or node.written is None:
                continue
            fd, path = self._files.new.place(node.written)
            if node not in names:
                os.unlink(path, dir_fd=fd)
            elif not is_aside(node.written):
                node.written = aside(number)
                aside_fd, name = self._files.new.place(node.written)
                os.rename(path, name, src_dir_fd=fd, dst_dir_fd=aside_fd)

    def _write_missing(self, plan: Plan, names: dict[Inode, list[bytes]]) -> None:
        """Read layers again for files that were not kept when they went by."""
        by_layer: dict[int, list[tuple[Inode, bytes]]] = defaultdict(list)
        for node, paths in names.items():
            if node.written is None and node.entry.kind == "file":
                by_layer[node.layer].append((node, paths[0]))
        if by_layer:
            self._files.end()  # they know directories that are no more
        for number, files in sorted(by_layer.items()):
            files.sort(key=lambda item: item[0].entry.offset)
            with open_layer(plan.layers[number]) as stream:
                for node, path in files:
                    stream.skip(node.entry.offset - stream.position)
                    self.keep(node, path, stream)
                self._files.wait()

    def _name(self, node: Inode, paths: list[bytes]) -> None:
        """Give what is written all its names."""
        if node.written is None:  # a device that could not be made
            self._metadata.devices += paths
            return
        if is_aside(node.written):
            fd, path = self._files.new.place(node.written)
            os.rename(path, paths[0], src_dir_fd=fd, dst_dir_fd=self._root)
            node.written = paths[0]
        for path in paths:
            if path != node.written:
                directory, _, name = path.rpartition(b"/")
                parent = self._directories.get(directory)
                os.link(node.written, name, src_dir_fd=self._root, dst_dir_fd=parent, follow_symlinks=False)

    def _finish_again(self, inode: Inode, written: bytes) -> None:
        """A later link to it has told other metadata than it was written with."""
        fd, path = self._files.new.place(written)
        os.chmod(path, PRIVATE, dir_fd=fd)
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
        try:
            owner = (inode.entry.uid, inode.entry.gid) if self._metadata.ownership else None
            self._files.finish_file(file, path, inode.entry, owner)
        finally:
            os.close(file)

    def _make(self, path: bytes, node: Inode) -> None:
        """A symbolic link, a fifo or a device; without root, devices are left out."""
        entry = node.entry
        directory, _, name = path.rpartition(b"/")
        parent = self._directories.get(directory)
        if entry.kind == "symlink":
            os.symlink(entry.link, name, dir_fd=parent)
        elif entry.kind != "fifo" and not self._metadata.ownership:
            return
        else:
            try:
                os.mknod(name, _SPECIAL[entry.kind] | 0o600, os.makedev(*entry.device), dir_fd=parent)
            except PermissionError:  # root in a user namespace
                return
        node.written = path
        if self._metadata.to_be_owned(entry):
            os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        if entry.kind != "symlink":
            os.chmod(name, entry.mode, dir_fd=parent)
        if entry.xattrs:
            # There is no setxattrat(2) before Linux 6.13, and no descriptor of such without side effects.
            self._metadata.set_attributes(b"/proc/self/fd/%d/%s" % (parent, name), path, entry)
        os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)

    def _finish_directory(self, path: bytes, entry: Entry | None) -> None:
        """Owner, mode, attributes and time of a directory in which nothing will be made any more."""
        if not path:
            # Docker's root directory is root's, with mode 0755, whatever a layer says of it.
            entry = Entry(b"", "dir", mode=0o755, mtime=entry.mtime if entry else 0)
        elif entry is None:
            entry = Entry(b"", "dir", mode=0o755)
        self._directories.forget(path)
        fd = os.open(path or b".", DIRECTORY, dir_fd=self._root)
        try:
            if self._metadata.to_be_owned(entry):
                os.fchown(fd, entry.uid, entry.gid)
            if entry.xattrs:
                self._metadata.set_attributes(fd, path, entry)
            # Without root the mode comes last of all: it may shut us out.
            os.utime(fd, ns=(entry.mtime, entry.mtime))
            os.fchmod(fd, entry.mode)
        finally:
            os.close(fd)

    def _make_directories(self, path: bytes) -> None:
        """A directory and those above it, where they are missing. It gets its mode at the end."""
        missing = []
        while path not in self._made:
            missing.append(path)
            path = path.rpartition(b"/")[0]
        for directory in reversed(missing):
            os.mkdir(directory, 0o700, dir_fd=self._root)
            self._made.add(directory)

    def _remove_directories(self, paths: Iterable[bytes]) -> None:
        for path in sorted(paths, key=len, reverse=True):
            self._directories.forget(path)
            os.rmdir(path, dir_fd=self._root)
            self._made.remove(path)
