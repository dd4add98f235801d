"""A Plan becomes files below one directory descriptor.

The order makes it safe: first directories and regular files, while the layers are read or later, then devices and
the like, then symbolic links, then further names of files. So while a file is written there is no symbolic link in
the tree that it could be written through; O_NOFOLLOW and O_EXCL say the same to the kernel. Directories get their
owner, mode and time last.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from threading import Lock

from converter.errors import ConversionError
from converter.progress import Progress
from converter.rootfs.content import LARGE, LargeFiles
from converter.rootfs.merge import Directory, Inode, Plan
from converter.rootfs.stream import LayerStream, open_layer
from converter.rootfs.tar import Entry

_OPEN_DIRECTORIES = 128
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_ASIDE = b"/"  # begins Inode.written of what lies aside; paths in the tree have no leading slash
_SPECIAL = {"fifo": stat.S_IFIFO, "char": stat.S_IFCHR, "block": stat.S_IFBLK}
_SYMLINK = {"symlink": stat.S_IFLNK}
_NAMED = 5  # how many of each loss are named in the report
_ATTRIBUTES = 20  # how many attributes have a loss of their own

# What a file system or kernel answers when it does not take an attribute, or not from us.
_REFUSED = frozenset({errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOSPC, errno.E2BIG})


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
    umask = os.umask(0)
    writer = TreeWriter(root_fd, ownership)
    try:
        yield writer
    finally:
        writer.close()
        os.umask(umask)


class TreeWriter:
    """Makes things below one directory, keeps some directories open, and remembers what could not be done."""

    def __init__(self, root_fd: int, ownership: bool) -> None:
        self._root = root_fd
        # For what has no place yet: in the tree, because it will be renamed, and by a name that no image knows.
        self._aside_name = f".docker2nspawn-{secrets.token_hex(16)}"
        self._aside_fd = -1
        self._ownership = ownership
        self._open: OrderedDict[bytes, int] = OrderedDict()
        self._made = {b""}
        self._kept: list[Inode] = []
        self._owner = (os.geteuid(), os.getegid())
        self._owners = 0
        self._devices: list[bytes] = []
        self._xattrs: dict[bytes, list[bytes]] = defaultdict(list)
        self._xattrs_lock = Lock()
        self._large = LargeFiles()

    def keep(self, inode: Inode, path: bytes, stream: LayerStream) -> None:
        """Write a regular file that may well survive, from its place in the stream.

        Raises OSError when the disk is full.
        """
        directory, _, name = path.rpartition(b"/")
        mode = _first_mode(inode.entry)
        try:
            if directory not in self._made:
                self._make_directories(directory)
            fd = os.open(name, _NEW_FILE, mode, dir_fd=self._directory(directory))
            inode.written = path
        except (FileExistsError, NotADirectoryError):  # its layer has something else there too
            inode.written = _ASIDE + b"%d" % len(self._kept)
            fd = os.open(inode.written[1:], _NEW_FILE, mode, dir_fd=self._aside())
        self._kept.append(inode)
        entry = inode.entry
        finish = partial(self._finish_file, path, entry, self._to_be_owned(entry))
        if entry.size >= LARGE and entry.sparse is None:
            self._large.write(fd, _pieces(stream, entry.size), finish)
            return
        try:
            if entry.sparse is None:
                _copy(stream, fd, entry.size)
            else:
                for offset, length in entry.sparse:
                    os.lseek(fd, offset, os.SEEK_SET)
                    _copy(stream, fd, length)
                os.ftruncate(fd, entry.size)
            finish(fd)
        finally:
            os.close(fd)

    def drop(self, inode: Inode) -> None:
        """Take out again what was kept."""
        if inode.written is None:
            return
        fd, path = self._place(inode.written)
        os.unlink(path, dir_fd=fd)
        inode.written = None
        if self._kept[-1] is inode:
            self._kept.pop()

    def finish(self, plan: Plan, progress: Progress) -> list[str]:
        """Make the tree what the plan says; the return value tells, in lines, what was lost.

        Raises ConversionError when a layer changed since it was scanned; OSError when the disk is full.
        """
        self._large.wait()
        for inode in self._kept:
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
        if right != len(self._kept):
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
            self._remove_aside()
            for path, directory in reversed(directories):
                self._finish_directory(path, directory.entry)
            step.advance(len(directories))
        return self._losses()

    def close(self) -> None:
        """Close what is open."""
        self._large.close()
        if self._aside_fd >= 0:
            os.close(self._aside_fd)
            self._aside_fd = -1
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()

    def _aside(self) -> int:
        if self._aside_fd < 0:
            os.mkdir(self._aside_name, 0o700, dir_fd=self._root)
            self._aside_fd = os.open(self._aside_name, _DIRECTORY, dir_fd=self._root)
        return self._aside_fd

    def _remove_aside(self) -> None:
        if self._aside_fd >= 0:
            os.close(self._aside_fd)
            self._aside_fd = -1
            os.rmdir(self._aside_name, dir_fd=self._root)

    def _put_aside(self, plan: Plan, names: dict[Inode, list[bytes]]) -> None:
        """Take out of the tree what did not survive, or not by that name."""
        right = {node for path, node in plan.walk() if isinstance(node, Inode) and node.written == path}
        for number, node in enumerate(self._kept):
            if node in right or node.written is None:
                continue
            aside = node.written.startswith(_ASIDE)
            if node not in names:
                fd, path = self._place(node.written)
                os.unlink(path, dir_fd=fd)
            elif not aside:
                os.rename(node.written, b"%d" % number, src_dir_fd=self._root, dst_dir_fd=self._aside())
                node.written = _ASIDE + b"%d" % number

    def _place(self, written: bytes) -> tuple[int, bytes]:
        """A descriptor and the path below it."""
        return (self._aside(), written[1:]) if written.startswith(_ASIDE) else (self._root, written)

    def _write_missing(self, plan: Plan, names: dict[Inode, list[bytes]]) -> None:
        """Read layers again for files that were not kept when they went by."""
        by_layer: dict[int, list[tuple[Inode, bytes]]] = defaultdict(list)
        for node, paths in names.items():
            if node.written is None and node.entry.kind == "file":
                by_layer[node.layer].append((node, paths[0]))
        for number, files in sorted(by_layer.items()):
            files.sort(key=lambda item: item[0].entry.offset)
            with open_layer(plan.layers[number]) as stream:
                for node, path in files:
                    stream.skip(node.entry.offset - stream.position)
                    self.keep(node, path, stream)
        self._large.wait()

    def _name(self, node: Inode, paths: list[bytes]) -> None:
        """Give what is written all its names."""
        if node.written is None:  # a device that could not be made
            self._devices += paths
            return
        if node.written.startswith(_ASIDE):
            os.rename(node.written[1:], paths[0], src_dir_fd=self._aside(), dst_dir_fd=self._root)
            node.written = paths[0]
        for path in paths:
            if path != node.written:
                directory, _, name = path.rpartition(b"/")
                os.link(
                    node.written,
                    name,
                    src_dir_fd=self._root,
                    dst_dir_fd=self._directory(directory),
                    follow_symlinks=False,
                )

    def _finish_file(self, path: bytes, entry: Entry, to_be_owned: bool, fd: int) -> None:
        """What a regular file gets after its content, which would change it."""
        if to_be_owned:
            os.fchown(fd, entry.uid, entry.gid)
        if entry.xattrs:
            self._set_xattrs(fd, path, entry)
        if entry.mode != _first_mode(entry):
            os.fchmod(fd, entry.mode)
        os.utime(fd, ns=(entry.mtime, entry.mtime))

    def _finish_again(self, inode: Inode, written: bytes) -> None:
        """A later link to it has told other metadata than it was written with."""
        fd, path = self._place(written)
        os.chmod(path, 0o600, dir_fd=fd)
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
        try:
            self._finish_file(path, inode.entry, self._ownership, file)
            os.fchmod(file, inode.entry.mode)
        finally:
            os.close(file)

    def _make(self, path: bytes, node: Inode) -> None:
        """A symbolic link, a fifo or a device; without root, devices are left out."""
        entry = node.entry
        directory, _, name = path.rpartition(b"/")
        parent = self._directory(directory)
        if entry.kind == "symlink":
            os.symlink(entry.link, name, dir_fd=parent)
        elif entry.kind != "fifo" and not self._ownership:
            return
        else:
            try:
                os.mknod(name, _SPECIAL[entry.kind] | 0o600, os.makedev(*entry.device), dir_fd=parent)
            except PermissionError:  # root in a user namespace
                return
        node.written = path
        if self._to_be_owned(entry):
            os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        if entry.kind != "symlink":
            os.chmod(name, entry.mode, dir_fd=parent)
        if entry.xattrs:
            # There is no setxattrat(2) before Linux 6.13, and no descriptor of such without side effects.
            self._set_xattrs(b"/proc/self/fd/%d/%s" % (parent, name), path, entry)
        os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)

    def _finish_directory(self, path: bytes, entry: Entry | None) -> None:
        """Owner, mode, attributes and time of a directory in which nothing will be made any more."""
        if not path:
            # Docker's root directory is root's, with mode 0755, whatever a layer says of it.
            entry = Entry(b"", "dir", mode=0o755, mtime=entry.mtime if entry else 0)
        elif entry is None:
            entry = Entry(b"", "dir", mode=0o755)
        self._forget(path)
        fd = os.open(path or b".", _DIRECTORY, dir_fd=self._root)
        try:
            if self._to_be_owned(entry):
                os.fchown(fd, entry.uid, entry.gid)
            if entry.xattrs:
                self._set_xattrs(fd, path, entry)
            # Without root the mode comes last of all: it may shut us out.
            os.utime(fd, ns=(entry.mtime, entry.mtime))
            os.fchmod(fd, entry.mode)
        finally:
            os.close(fd)

    def _losses(self) -> list[str]:
        lines = []
        if self._owners:
            lines.append(f"the owners of {self._owners} files and directories could not be set without root")
        if self._devices:
            lines.append(f"devices need root: {_some(self._devices)}")
        refused = sorted(self._xattrs.items())
        for name, paths in refused[:_ATTRIBUTES]:
            lines.append(f"the host refused the attribute {_text(name)} on {_some(paths)}")
        if len(refused) > _ATTRIBUTES:
            lines.append(f"the host refused {len(refused) - _ATTRIBUTES} more attributes")
        return lines

    def _to_be_owned(self, entry: Entry) -> bool:
        """Has the owner to be set? Without root it is counted instead. New things are ours already."""
        if (entry.uid, entry.gid) == self._owner:
            return False
        if not self._ownership:
            self._owners += 1
        return self._ownership

    def _set_xattrs(self, target: int | bytes, path: bytes, entry: Entry) -> None:
        for name, value in entry.xattrs:
            try:
                os.setxattr(target, name, value, follow_symlinks=isinstance(target, int))
            except OSError as error:
                if error.errno not in _REFUSED:
                    raise
                with self._xattrs_lock:  # large files are finished by threads
                    self._xattrs[name].append(path)

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
            self._forget(path)
            os.rmdir(path, dir_fd=self._root)
            self._made.remove(path)

    def _directory(self, path: bytes) -> int:
        """A descriptor of a directory that was made."""
        if not path:
            return self._root
        fd = self._open.get(path)
        if fd is None:
            if len(self._open) >= _OPEN_DIRECTORIES:
                os.close(self._open.popitem(last=False)[1])
            fd = self._open[path] = os.open(path, _DIRECTORY, dir_fd=self._root)
        return fd

    def _forget(self, path: bytes) -> None:
        fd = self._open.pop(path, None)
        if fd is not None:
            os.close(fd)


def _first_mode(entry: Entry) -> int:
    """The mode a file is made with; the rest comes when owner and attributes, which may change it, are set."""
    return 0o600 if entry.xattrs else entry.mode & 0o777


def _pieces(stream: LayerStream, length: int) -> Iterator[memoryview]:
    for piece in stream.pieces(length):
        length -= len(piece)
        yield piece
    if length:
        raise ConversionError("a file is cut short, or its layer changed while it was being converted")


def _copy(stream: LayerStream, fd: int, length: int) -> None:
    for piece in _pieces(stream, length):
        while piece:
            piece = piece[os.write(fd, piece) :]


def _some(paths: Iterable[bytes]) -> str:
    shown = [_text(path) for path in paths]
    more = f" and {len(shown) - _NAMED} more" if len(shown) > _NAMED else ""
    return ", ".join(f"/{path}" for path in shown[:_NAMED]) + more


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")
