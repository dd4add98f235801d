"""Directories as overlayfs makes them, upper upon lower, become one tree of their own.

Linux Documentation/filesystems/overlayfs.rst: a character device 0:0 hides what lower directories have of its name,
the attribute trusted.overlay.opaque all they have in a directory. What is in them is an image's and not trusted, but
nothing changes it meanwhile. No link is followed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from converter.rootfs.directories import DIRECTORY

_OVERLAY = "trusted.overlay."
_OPAQUE = "trusted.overlay.opaque"
_FICLONE = 0x40049409  # linux/fs.h
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LARGE = 1 << 20  # bytes; such files are copied by threads
_THREADS = 2
_WAITING = 64  # copies that threads may be behind; each has two files open
_CANNOT_SHARE = frozenset(
    {errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EPERM}
)
_CANNOT_COPY = _CANNOT_SHARE | {errno.EBADF, errno.ETXTBSY}


def put_together(layers: Sequence[Path], root_fd: int) -> None:
    """Copy what `layers`, the lowest first, come to into the empty directory `root_fd`.

    Contents are shared with the layers where the file system can (FICLONE). Owners, modes, times, attributes, holes,
    devices and hard links within a layer stay; sockets are left out, as in an image. The root directory itself
    is root's, with mode 0755. Raises OSError; needs root.
    """
    sources = [os.open(layer, DIRECTORY) for layer in reversed(layers)]
    try:
        with ThreadPoolExecutor(_THREADS) as pool:
            writer = _Writer(root_fd, sources, pool)
            try:
                writer.write()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        os.fchown(root_fd, 0, 0)
        os.fchmod(root_fd, 0o755)
        if sources:
            _copy_times(root_fd, os.fstat(sources[0]))
    finally:
        for fd in sources:
            os.close(fd)


@dataclass(frozen=True)
class _Winner:
    """What stands at one name: the number of its layer, counted from the uppermost, and the status."""

    layer: int
    status: os.stat_result


class _Writer:
    def __init__(self, root: int, sources: Sequence[int], pool: ThreadPoolExecutor) -> None:
        self._root = root
        self._sources = sources
        self._pool = pool
        self._shares = True  # until the file system says that it cannot
        self._links: dict[tuple[int, int], str] = {}
        self._copies: list[Future[None]] = []

    def write(self) -> None:
        """Directories from the root down; they get what is theirs from the leaves up, when nothing is made in them."""
        waiting = [("", list(range(len(self._sources))))]
        directories: list[tuple[str, _Winner]] = []
        while waiting:
            path, layers = waiting.pop()
            for name, found in self._fill(path, layers):
                below = f"{path}{name}"
                directories.append((below, found[0]))
                waiting.append((f"{below}/", [winner.layer for winner in found]))
        for copy in self._copies:
            copy.result()
        for path, winner in reversed(directories):
            made = os.open(path, DIRECTORY, dir_fd=self._root)
            source = os.open(path, DIRECTORY, dir_fd=self._sources[winner.layer])
            try:
                _copy_metadata(source, made, winner.status)
            finally:
                os.close(source)
                os.close(made)

    def _fill(self, path: str, layers: list[int]) -> list[tuple[str, list[_Winner]]]:
        """Make what is in the directory `path` (empty, or with a slash at its end); the directories in it."""
        parents: dict[int, int] = {}
        target = os.open(path or ".", DIRECTORY, dir_fd=self._root)
        try:
            for layer in layers:
                parents[layer] = os.open(path or ".", DIRECTORY, dir_fd=self._sources[layer])
                if _is_opaque(parents[layer]):
                    break
            directories = []
            for name, found in _winners(parents).items():
                if stat.S_ISDIR(found[0].status.st_mode):
                    os.mkdir(name, 0o700, dir_fd=target)
                    directories.append((name, found))
                else:
                    self._make(path, name, target, parents[found[0].layer], found[0])
            return directories
        finally:
            for fd in (target, *parents.values()):
                os.close(fd)

    def _make(self, path: str, name: str, target: int, parent: int, winner: _Winner) -> None:
        status = winner.status
        if status.st_nlink > 1:
            key = (winner.layer, status.st_ino)
            if (known := self._links.setdefault(key, f"{path}{name}")) != f"{path}{name}":
                os.link(known, name, src_dir_fd=self._root, dst_dir_fd=target, follow_symlinks=False)
                return
        if stat.S_ISREG(status.st_mode):
            self._make_file(name, target, parent, status)
        elif stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(name, dir_fd=parent), name, dir_fd=target)
            _finish_special(name, target, parent, status)
        elif not stat.S_ISSOCK(status.st_mode):
            os.mknod(name, stat.S_IFMT(status.st_mode) | 0o600, status.st_rdev, dir_fd=target)
            _finish_special(name, target, parent, status)

    def _make_file(self, name: str, target: int, parent: int, status: os.stat_result) -> None:
        source = os.open(name, _READ, dir_fd=parent)
        try:
            made = os.open(name, _NEW_FILE, 0o600, dir_fd=target)
        except BaseException:
            os.close(source)
            raise
        if status.st_size < _LARGE or self._shares:
            self._finish_file(source, made, status)
        else:
            copy = self._pool.submit(self._finish_file, source, made, status)
            copy.add_done_callback(lambda done: _close_both(source, made) if done.cancelled() else None)
            self._copies.append(copy)
            if len(self._copies) >= _WAITING:
                self._copies.pop(0).result()

    def _finish_file(self, source: int, made: int, status: os.stat_result) -> None:
        try:
            if status.st_size and not (self._shares and self._share(source, made)):
                _copy_content(source, made, status)
            _copy_metadata(source, made, status)
        finally:
            _close_both(source, made)

    def _share(self, source: int, made: int) -> bool:
        try:
            fcntl.ioctl(made, _FICLONE, source)
        except OSError as error:
            if error.errno not in _CANNOT_SHARE:
                raise
            self._shares = False
        return self._shares


def _close_both(source: int, made: int) -> None:
    os.close(source)
    os.close(made)


def _winners(parents: dict[int, int]) -> dict[str, list[_Winner]]:
    """What each name in one directory of several layers, the uppermost first, stands for: directories lie together."""
    winners: dict[str, list[_Winner]] = {}
    hidden: set[str] = set()  # by a whiteout, or by what is no directory
    for layer, parent in parents.items():
        here: set[str] = set()
        with os.scandir(parent) as entries:
            for entry in entries:
                if entry.name in hidden:
                    continue
                status = entry.stat(follow_symlinks=False)
                if not stat.S_ISDIR(status.st_mode):
                    here.add(entry.name)
                    if entry.name in winners or _is_whiteout(status):
                        continue
                winners.setdefault(entry.name, []).append(_Winner(layer, status))
        hidden |= here
    return winners


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _is_opaque(directory: int) -> bool:
    with suppress(OSError):
        return os.getxattr(directory, _OPAQUE) == b"y"
    return False


def _finish_special(name: str, target: int, parent: int, status: os.stat_result) -> None:
    """Of what must not be opened: a link, a device, a fifo."""
    os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
    # There are no such calls relative to a directory before Linux 6.13.
    source, made = (f"/proc/self/fd/{fd}/{name}" for fd in (parent, target))
    for attribute in os.listxattr(source, follow_symlinks=False):
        if not attribute.startswith(_OVERLAY):
            value = os.getxattr(source, attribute, follow_symlinks=False)
            os.setxattr(made, attribute, value, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=target)
    os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=target, follow_symlinks=False)


def _copy_metadata(source: int, made: int, status: os.stat_result) -> None:
    """Owner, attributes, mode and times, in the order in which none undoes another."""
    if status.st_uid or status.st_gid:
        os.fchown(made, status.st_uid, status.st_gid)
    for attribute in os.listxattr(source):
        if not attribute.startswith(_OVERLAY):
            os.setxattr(made, attribute, os.getxattr(source, attribute))
    os.fchmod(made, stat.S_IMODE(status.st_mode))
    _copy_times(made, status)


def _copy_times(made: int, status: os.stat_result) -> None:
    os.utime(made, ns=(status.st_atime_ns, status.st_mtime_ns))


def _copy_content(source: int, made: int, status: os.stat_result) -> None:
    """Data where the source has data, and holes where it has holes."""
    if status.st_blocks * 512 >= status.st_size:
        _copy_range(source, made, 0, status.st_size)
        return
    at = 0
    while at < status.st_size:
        try:
            start = os.lseek(source, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:  # no data any more
                raise
            break
        at = os.lseek(source, start, os.SEEK_HOLE)
        _copy_range(source, made, start, at)
    os.ftruncate(made, status.st_size)


def _copy_range(source: int, made: int, start: int, end: int) -> None:
    while start < end:
        try:
            count = os.copy_file_range(source, made, end - start, start, start)
        except OSError as error:
            if error.errno not in _CANNOT_COPY:
                raise
            count = os.pwrite(made, os.pread(source, min(end - start, 1 << 20), start), start)
        if count == 0:  # shorter than it was: nothing changes it, so the disk lies
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        start += count
