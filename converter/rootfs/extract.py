"""A Plan becomes files below one directory descriptor.

The order makes it safe: first all directories, then regular files and the like, then symbolic links, then further
names of files. So while a file is written there is no symbolic link in the tree that it could be written through;
O_NOFOLLOW and O_EXCL say the same to the kernel. Directories get their owner, mode and time last.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict, defaultdict
from collections.abc import Iterable

from converter.errors import ConversionError
from converter.progress import Progress, Step
from converter.rootfs.merge import Directory, Inode, Plan
from converter.rootfs.stream import LayerStream, open_layer
from converter.rootfs.tar import Entry

_CHUNK = 1 << 20
_OPEN_DIRECTORIES = 128
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NAMED = 5  # how many of each loss are named in the report

# What a file system or kernel answers when it does not take an attribute, or not from us.
_REFUSED = frozenset({errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOSPC, errno.E2BIG})


def write(plan: Plan, root_fd: int, *, progress: Progress, ownership: bool) -> list[str]:
    """Write the plan's tree into the empty directory `root_fd`; the return value tells, in lines, what was lost.

    Without `ownership` (not root) everything belongs to the caller and devices are left out.
    Raises ConversionError when a layer changed since it was scanned; OSError when the disk is full.
    """
    writer = _Writer(root_fd, ownership)
    directories: list[tuple[bytes, Directory]] = [(b"", plan.root)]
    names: dict[Inode, list[bytes]] = defaultdict(list)
    for path, node in plan.walk():
        if isinstance(node, Directory):
            os.mkdir(path, 0o700, dir_fd=root_fd)
            directories.append((path, node))
        else:
            names[node].append(path)
    try:
        with progress.step("writing files", len(names), "files") as step:
            _write_contents(plan, names, writer, step)
            for node, paths in names.items():
                if node.entry.kind == "symlink":
                    writer.symlink(paths[0], node.entry)
                    step.advance(1)
        for node, paths in names.items():
            for other in paths[1:]:
                writer.hard_link(paths[0], other, node)
        for path, directory in reversed(directories):
            writer.finish_directory(path, directory.entry)
    finally:
        writer.close()
    return writer.losses()


def _write_contents(plan: Plan, names: dict[Inode, list[bytes]], writer: _Writer, step: Step) -> None:
    """Everything that is no directory and no symbolic link, layer by layer, in the order of the content."""
    by_layer: dict[int, list[tuple[Entry, bytes]]] = defaultdict(list)
    for node, paths in names.items():
        if node.entry.kind == "file":
            by_layer[node.layer].append((node.entry, paths[0]))
        elif node.entry.kind != "symlink":
            writer.special(paths[0], node.entry)
            step.advance(1)
    for number, files in sorted(by_layer.items()):
        files.sort(key=lambda item: item[0].offset)
        with open_layer(plan.layers[number], verified=True) as stream:
            for entry, path in files:
                stream.skip(entry.offset - stream.position)
                writer.file(path, entry, stream)
                step.advance(1)


class _Writer:
    """Makes things below one directory, keeps some directories open, and remembers what could not be done."""

    def __init__(self, root_fd: int, ownership: bool) -> None:
        self._root = root_fd
        self._ownership = ownership
        self._open: OrderedDict[bytes, int] = OrderedDict()
        self._owners = 0
        self._devices: list[bytes] = []
        self._xattrs: dict[bytes, list[bytes]] = defaultdict(list)

    def file(self, path: bytes, entry: Entry, stream: LayerStream) -> None:
        parent, name = self._parent(path)
        fd = os.open(name, _NEW_FILE, 0o600, dir_fd=parent)
        try:
            for offset, length in entry.sparse if entry.sparse is not None else ((0, entry.size),):
                os.lseek(fd, offset, os.SEEK_SET)
                _copy(stream, fd, length)
            if entry.sparse is not None:
                os.ftruncate(fd, entry.size)
            if self._owned(entry):
                os.fchown(fd, entry.uid, entry.gid)
            os.fchmod(fd, entry.mode)
            self._set_xattrs(fd, path, entry)
            os.utime(fd, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(fd)

    def special(self, path: bytes, entry: Entry) -> None:
        """A fifo or a device; without root, devices are left out."""
        parent, name = self._parent(path)
        kinds = {"fifo": stat.S_IFIFO, "char": stat.S_IFCHR, "block": stat.S_IFBLK}
        if entry.kind != "fifo" and not self._ownership:
            self._devices.append(path)
            return
        try:
            os.mknod(name, kinds[entry.kind] | 0o600, os.makedev(*entry.device), dir_fd=parent)
        except PermissionError:  # root in a user namespace
            self._devices.append(path)
            return
        if self._owned(entry):
            os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        os.chmod(name, entry.mode, dir_fd=parent)
        if entry.xattrs:
            self._xattrs_by_path(path, entry)
        os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)

    def symlink(self, path: bytes, entry: Entry) -> None:
        parent, name = self._parent(path)
        os.symlink(entry.link, name, dir_fd=parent)
        if self._owned(entry):
            os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        if entry.xattrs:
            self._xattrs_by_path(path, entry)
        os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)

    def hard_link(self, first: bytes, other: bytes, node: Inode) -> None:
        if node.entry.kind in {"char", "block"} and first in self._devices:
            self._devices.append(other)
            return
        parent, name = self._parent(other)
        os.link(first, name, src_dir_fd=self._root, dst_dir_fd=parent, follow_symlinks=False)

    def finish_directory(self, path: bytes, entry: Entry | None) -> None:
        """Owner, mode, attributes and time of a directory in which nothing will be made any more."""
        if not path:
            # Docker's root directory is root's, with mode 0755, whatever a layer says of it.
            entry = Entry(b"", "dir", mode=0o755, mtime=entry.mtime if entry else 0)
        elif entry is None:
            entry = Entry(b"", "dir", mode=0o755)
        self._forget(path)
        fd = os.open(path or b".", _DIRECTORY, dir_fd=self._root)
        try:
            if self._owned(entry):
                os.fchown(fd, entry.uid, entry.gid)
            self._set_xattrs(fd, path, entry)
            # Without root the mode comes last of all: it may shut us out.
            os.utime(fd, ns=(entry.mtime, entry.mtime))
            os.fchmod(fd, entry.mode)
        finally:
            os.close(fd)

    def losses(self) -> list[str]:
        """What could not be done, a line each."""
        lines = []
        if self._owners:
            lines.append(f"the owners of {self._owners} files and directories could not be set without root")
        if self._devices:
            lines.append(f"devices need root: {_some(self._devices)}")
        for name, paths in sorted(self._xattrs.items()):
            lines.append(f"the host refused the attribute {_text(name)} on {_some(paths)}")
        return lines

    def close(self) -> None:
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()

    def _owned(self, entry: Entry) -> bool:
        """Should the owner be set? Without root it is remembered instead, unless it is right already."""
        if not self._ownership and (entry.uid, entry.gid) != (os.geteuid(), os.getegid()):
            self._owners += 1
        return self._ownership

    def _set_xattrs(self, target: int | bytes, path: bytes, entry: Entry) -> None:
        for name, value in entry.xattrs:
            try:
                os.setxattr(target, name, value, follow_symlinks=isinstance(target, int))
            except OSError as error:
                if error.errno not in _REFUSED:
                    raise
                self._xattrs[name].append(path)

    def _xattrs_by_path(self, path: bytes, entry: Entry) -> None:
        # There is no setxattrat(2) before Linux 6.13, and no descriptor of a link or device without side effects.
        parent, name = self._parent(path)
        self._set_xattrs(b"/proc/self/fd/%d/%s" % (parent, name), path, entry)

    def _parent(self, path: bytes) -> tuple[int, bytes]:
        """A descriptor of the directory that `path` lies in, and the last part."""
        directory, _, name = path.rpartition(b"/")
        if not directory:
            return self._root, name
        fd = self._open.get(directory)
        if fd is None:
            if len(self._open) >= _OPEN_DIRECTORIES:
                os.close(self._open.popitem(last=False)[1])
            fd = self._open[directory] = os.open(directory, _DIRECTORY, dir_fd=self._root)
        else:
            self._open.move_to_end(directory)
        return fd, name

    def _forget(self, path: bytes) -> None:
        fd = self._open.pop(path, None)
        if fd is not None:
            os.close(fd)


def _copy(stream: LayerStream, fd: int, length: int) -> None:
    while length > 0:
        data = stream.read(min(length, _CHUNK))
        if not data:
            raise ConversionError("a layer changed while it was being converted; run it again")
        length -= len(data)
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]


def _some(paths: Iterable[bytes]) -> str:
    shown = [_text(path) for path in paths]
    more = f" and {len(shown) - _NAMED} more" if len(shown) > _NAMED else ""
    return ", ".join(f"/{path}" for path in shown[:_NAMED]) + more


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")
