"""Files below a root directory, found as a process with that root would find them: no link leads out of it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

_LINKS_MAX = 40  # as in the kernel (path_resolution(7))
_PATH_ONLY = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def located(root: Path, path: str) -> Iterator[int]:
    """An O_PATH descriptor of `path` below `root`, every link followed inside it.

    Safe while a program below `root` changes it: each step is taken from an open directory. `root` itself may be a
    link. Raises OSError when there is no such file.
    """
    with ExitStack() as opened:

        def step(directory: int, part: str) -> int:
            fd = os.open(part, _PATH_ONLY, dir_fd=directory)
            opened.callback(os.close, fd)
            return fd

        top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        opened.callback(os.close, top)
        above = [top]
        parts = _reversed_parts(path)
        links = 0
        while parts:
            part = parts.pop()
            if part == "..":
                above = above[: max(1, len(above) - 1)]
                continue
            fd = step(above[-1], part)
            if not stat.S_ISLNK(os.fstat(fd).st_mode):
                above.append(fd)
                continue
            links += 1
            if links > _LINKS_MAX:
                raise OSError(f"too many links in {path}")
            target = os.readlink("", dir_fd=fd)
            if target.startswith("/"):
                above = [top]
            parts += _reversed_parts(target)
        yield above[-1]


def _reversed_parts(path: str) -> list[str]:
    return [part for part in reversed(path.split("/")) if part not in {"", "."}]


def status(root: Path, path: str) -> os.stat_result | None:
    """stat(2) of `path` below `root`; None when there is no such file, or it cannot be seen."""
    with suppress(OSError), located(root, path) as fd:
        return os.fstat(fd)
    return None


def read(root: Path, path: str, limit: int = 1 << 20) -> bytes | None:
    """The first `limit` bytes of a regular file below `root`; None when there is none that can be read."""
    with suppress(OSError), located(root, path) as fd:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            with Path(f"/proc/self/fd/{fd}").open("rb") as file:
                return file.read(limit)
    return None


def names(root: Path, path: str) -> tuple[str, ...]:
    """The names in a directory below `root`, sorted; none when there is no such directory."""
    with suppress(OSError), located(root, path) as fd:
        return tuple(sorted(os.listdir(f"/proc/self/fd/{fd}")))  # noqa: PTH208 (names alone are wanted)
    return ()


def link(root: Path, path: str) -> str | None:
    """What the link `path` below `root` says; None when it is none."""
    directory, _, name = path.rstrip("/").rpartition("/")
    with suppress(OSError), located(root, directory) as fd:
        return os.readlink(name, dir_fd=fd)
    return None
