"""A directory tree that others have made: no link in it is ever followed by the kernel, and none leads out of it."""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from converter.rootfs.tar import PATH_MAX

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LINKS_MAX = 255  # as in github.com/containerd/continuity fs.RootPath, which BuildKit calls
_MOST_OPEN = 64
_LONG = 200  # characters from which on a path's length is looked at


class Tree:
    """Paths below `root`, without a leading slash; "" is the root itself. For one thread.

    Every step to a directory is taken from an open one, so a program that changes the tree meanwhile gains nothing.
    """

    def __init__(self, root: Path) -> None:
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._open: OrderedDict[str, int] = OrderedDict()

    def __enter__(self) -> Tree:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def directory(self, path: str) -> int:
        """A descriptor of a directory, which stays open until others are asked for. Raises OSError."""
        if not path:
            return self._root
        fd = self._open.get(path)
        if fd is None:
            above, _, name = path.rpartition("/")
            # Not recursive: a path may have two thousand steps.
            fd = self._step(above, name) if above in self._open or not above else self._walk(path)
        else:
            self._open.move_to_end(path)
        return fd

    def _walk(self, path: str) -> int:
        fd, done = self._root, ""
        for name in path.split("/"):
            known = self._open.get(below := joined(done, name))
            fd = known if known is not None else self._step(done, name)
            done = below
        return fd

    def _step(self, above: str, name: str) -> int:
        parent = self._open[above] if above else self._root
        fd = os.open(name, DIRECTORY, dir_fd=parent)
        if len(self._open) >= _MOST_OPEN:
            os.close(self._open.popitem(last=False)[1])
        self._open[joined(above, name)] = fd
        return fd

    def parent(self, path: str) -> tuple[int, str]:
        """The directory that `path`, which is not the root, is in, and its name there.

        Raises OSError, also for a path that is longer than Linux takes."""
        if len(path) > _LONG and len(os.fsencode(path)) >= PATH_MAX:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), f"{path[:_LONG]}…")
        above, _, name = path.rpartition("/")
        return self.directory(above), name

    def place(self, path: str) -> bytes:
        """A path by which system calls that take no descriptor find it, while its directory is open. Raises OSError."""
        fd, name = self.parent(path) if path else (self._root, ".")
        return b"/proc/self/fd/%d/%s" % (fd, os.fsencode(name))

    def status(self, path: str) -> os.stat_result:
        """lstat(2). Raises OSError."""
        if not path:
            return os.fstat(self._root)
        fd, name = self.parent(path)
        return os.stat(name, dir_fd=fd, follow_symlinks=False)

    def find(self, path: str) -> os.stat_result | None:
        """lstat(2); None where there is no such file. Raises OSError, also when a file is in the way."""
        try:
            return self.status(path)
        except FileNotFoundError:
            return None

    def names(self, path: str) -> list[str]:
        """What is in a directory, ordered as bytes are. Raises OSError."""
        return sorted(os.listdir(self.directory(path)), key=os.fsencode)  # noqa: PTH208 (a descriptor)

    def link(self, path: str) -> str:
        """What a symbolic link says. Raises OSError."""
        fd, name = self.parent(path)
        return os.readlink(name, dir_fd=fd)

    def open(self, path: str) -> int:
        """A descriptor of a regular file, for reading. Raises OSError."""
        parent, name = self.parent(path)
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(f"{path} has changed while it was read")
        return fd

    def resolve(self, path: str, exists: Callable[[str], bool] = lambda path: True) -> str:
        """Where `path` leads, links followed inside the tree; what is missing is taken as it is written.

        `exists` says whether a path is to be seen at all. `..` is what stands before it less one step, as in BuildKit.
        Raises OSError.
        """
        links = 0
        done = ""
        waiting = _parts(path)
        while waiting:
            here = joined(done, waiting.pop())
            found = self.find(here) if exists(here) else None
            if found is None or not stat.S_ISLNK(found.st_mode):
                done = here
                continue
            links += 1
            if links > _LINKS_MAX:
                raise OSError(f"too many links in {path}")
            waiting += _parts(posixpath.join("/", done, self.link(here)))
            done = ""
        return done

    def forget(self, path: str) -> None:
        """Close a directory, and those in it, that may be replaced by something else."""
        for known in [known for known in self._open if known == path or known.startswith(f"{path}/")]:
            os.close(self._open.pop(known))

    def close(self) -> None:
        """Close all descriptors."""
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()
        with suppress(OSError):
            os.close(self._root)
            self._root = -1


def clean(path: str) -> str:
    """A path as Tree has it: what stands before a `..` is gone, and the root is the highest one gets."""
    return "/".join(reversed(_parts(path)))


def _parts(path: str) -> list[str]:
    """The steps of a path, the last one first."""
    return [part for part in reversed(posixpath.normpath(f"/{path}").split("/")) if part]


def joined(above: str, name: str) -> str:
    """A path below another one; either may be the root, ""."""
    if not name:
        return above
    return f"{above}/{name}" if above else name
