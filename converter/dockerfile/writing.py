"""New files in a Tree: made, filled and finished, one after the other, through descriptors of their directories."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import suppress

from converter.dockerfile.tree import DIRECTORY, Tree, joined
from converter.rootfs.attributes import set_attributes

_FICLONE = 0x40049409  # linux/fs.h
_COPY = 1 << 30  # bytes at once for copy_file_range(2)
SMALL = 1 << 16  # bytes; such a file is read at once
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# What says something about the host or its mounts, not about the file.
_HOSTS_OWN = ("trusted.overlay.", "user.overlay.", "security.selinux", "security.ima", "security.evm")
_CAPABILITY = "security.capability"

Attributes = list[tuple[bytes, bytes]]


class Writer:
    """Writes below the root of `tree`. Without root, everything belongs to the caller."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self._ownership = os.geteuid() == 0

    def make_directories(self, path: str, owner: tuple[int, int]) -> None:
        """A directory and those above it where they are missing, mode 0755. `path` is resolved.

        Raises NotADirectoryError when something else is there; OSError.
        """
        missing: list[str] = []
        while (found := self.tree.find(path)) is None:
            missing.append(path)
            path = path.rpartition("/")[0]
        if not stat.S_ISDIR(found.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        for directory in reversed(missing):
            self.make_directory(directory, 0o755)
            self.finish(directory, "dir", 0o755, owner, None)

    def make_directory(self, path: str, mode: int) -> None:
        """A new directory, for us alone until it is finished, unless we would be shut out. Raises OSError."""
        fd, name = self.tree.parent(path)
        os.mkdir(name, mode & 0o777 | 0o700, dir_fd=fd)

    def new_file(self, path: str) -> int:
        """A descriptor of a new regular file. Raises OSError."""
        fd, name = self.tree.parent(path)
        return os.open(name, _NEW, 0o600, dir_fd=fd)

    def make_link(self, path: str, target: str) -> None:
        """A new symbolic link. Raises OSError."""
        fd, name = self.tree.parent(path)
        os.symlink(target, name, dir_fd=fd)

    def make_name(self, path: str, of: str) -> None:
        """A further name of a file in the tree. Raises OSError."""
        fd, name = self.tree.parent(path)
        source = os.dup(fd)  # the cache of open directories may close it for the other one
        try:
            other, old = self.tree.parent(of)
            os.link(old, name, src_dir_fd=other, dst_dir_fd=source, follow_symlinks=False)
        finally:
            os.close(source)

    def make_special(self, path: str, kind: str, device: int) -> None:
        """A device or fifo. Raises OSError; PermissionError for devices without root."""
        fd, name = self.tree.parent(path)
        types = {"fifo": stat.S_IFIFO, "char": stat.S_IFCHR, "block": stat.S_IFBLK}
        os.mknod(name, types[kind] | 0o600, device, dir_fd=fd)

    def finish(
        self,
        path: str,
        kind: str,
        mode: int,
        owner: tuple[int, int],
        times: tuple[int, int] | None,
        attributes: Attributes | None = None,
    ) -> None:
        """Owner, mode, attributes and then times (atime, mtime in ns) of what has its content. Raises OSError."""
        fd, name = self.tree.parent(path) if path else (self.tree.directory(""), ".")
        if self._ownership:
            os.chown(name, *owner, dir_fd=fd, follow_symlinks=False)
        if kind != "symlink":
            _change_mode(fd, name, mode, kind)
        if attributes:
            set_attributes(b"/proc/self/fd/%d/%s" % (fd, os.fsencode(name)), attributes)
        if times is not None:
            os.utime(name, ns=times, dir_fd=fd, follow_symlinks=False)

    def finish_open(
        self, fd: int, mode: int, owner: tuple[int, int], times: tuple[int, int], attributes: Attributes
    ) -> None:
        """The same for an open regular file. Raises OSError."""
        if self._ownership:
            os.fchown(fd, *owner)
        os.fchmod(fd, mode)
        if attributes:
            set_attributes(fd, attributes)
        os.utime(fd, ns=times)

    def change_mode(self, path: str, mode: int) -> None:
        """Of a directory. Raises OSError."""
        os.fchmod(self.tree.directory(path), mode)

    def set_times(self, path: str, times: tuple[int, int]) -> None:
        """atime and mtime in ns. Raises OSError."""
        fd, name = self.tree.parent(path) if path else (self.tree.directory(""), ".")
        os.utime(name, ns=times, dir_fd=fd, follow_symlinks=False)

    def remove(self, path: str) -> None:
        """A file, or a directory with all that is in it. Raises OSError."""
        waiting = [path]
        while waiting:
            path = waiting[-1]
            fd, name = self.tree.parent(path)
            try:
                os.unlink(name, dir_fd=fd)
            except IsADirectoryError:
                if names := self.tree.names(path):
                    waiting += [joined(path, below) for below in names]
                    continue
                self.tree.forget(path)
                fd, name = self.tree.parent(path)
                os.rmdir(name, dir_fd=fd)
            waiting.pop()


def _change_mode(fd: int, name: str, mode: int, kind: str) -> None:
    """chmod(2) without following a link, which Linux has only since 6.6, for what is known to be none."""
    if kind == "dir":
        directory = os.open(name, DIRECTORY, dir_fd=fd)
        try:
            os.fchmod(directory, mode)
        finally:
            os.close(directory)
    else:
        os.chmod(name, mode, dir_fd=fd)


def attributes_of(place: int | bytes, *, privileged: bool) -> Attributes:
    """The extended attributes that belong to an open file, or to what is at a path, a last link not followed.

    Not `privileged`: without capabilities.
    """
    follow = isinstance(place, int)
    found = []
    with suppress(OSError):  # a file system without attributes
        for attribute in os.listxattr(place, follow_symlinks=follow):
            if not attribute.startswith(_HOSTS_OWN) and (privileged or attribute != _CAPABILITY):
                with suppress(OSError):
                    value = os.getxattr(place, attribute, follow_symlinks=follow)
                    found.append((os.fsencode(attribute), value))
    return sorted(found)


def copy_content(source: int, target: int) -> None:
    """All of a file into a new one: shared where the file system can, holes kept. Raises OSError."""
    status = os.fstat(source)
    if status.st_size <= SMALL:
        data = os.read(source, SMALL)
        if len(data) != status.st_size or os.write(target, data) != len(data):
            raise OSError("a file has changed while it was read")
        return
    with suppress(OSError):
        fcntl.ioctl(target, _FICLONE, source)
        return
    if status.st_blocks * 512 >= status.st_size:
        _copy_range(source, target, 0, status.st_size)
        return
    at = 0
    while at < status.st_size and (start := _next_data(source, at)) is not None:
        at = _copy_range(source, target, start, os.lseek(source, start, os.SEEK_HOLE))
    os.ftruncate(target, status.st_size)


def _next_data(fd: int, at: int) -> int | None:
    """Where the next bytes that are stored begin; None when nothing but a hole is left."""
    try:
        return os.lseek(fd, at, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return None


def _copy_range(source: int, target: int, at: int, end: int) -> int:
    while at < end:
        try:
            count = os.copy_file_range(source, target, min(_COPY, end - at), at, at)
        except OSError as error:
            if error.errno not in {
                errno.ENOSYS,
                errno.EXDEV,
                errno.EPERM,
                errno.EOPNOTSUPP,
                errno.EINVAL,
                errno.EIO,
            }:
                raise
            data = os.pread(source, 1 << 20 if end - at > 1 << 20 else end - at, at)
            count = os.pwrite(target, data, at) if data else 0
        if not count:
            raise OSError("a file became shorter while it was read")
        at += count
    return at
