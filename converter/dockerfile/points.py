"""Directories and mount points in a tree that is being built: made where a program in it would look for them.

Links of the tree are resolved inside it, here and not by the kernel. Nothing else changes the tree meanwhile.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress

from converter.errors import ConversionError

_MAX_LINKS = 40  # as the kernel's own limit, path_resolution(7)


def make_directories(root_fd: int, path: str, owner: tuple[int, int] = (0, 0), mode: int = 0o755) -> str:
    """The real path, without a leading slash, of the directory `path`; what is missing of it is made.

    Raises ConversionError when something else is in its place.
    """

    def make(missing: str) -> None:
        os.mkdir(missing, 0o700, dir_fd=root_fd)
        os.chown(missing, *owner, dir_fd=root_fd, follow_symlinks=False)
        os.chmod(missing, mode, dir_fd=root_fd)

    real = _resolve(root_fd, path, make)
    if not stat.S_ISDIR(os.stat(real or ".", dir_fd=root_fd, follow_symlinks=False).st_mode):
        raise ConversionError(f"/{real} is not a directory, so {path!r} cannot be made")
    return real


def make_mount_point(root_fd: int, path: str, *, directory: bool, made: list[str]) -> str:
    """The real path, without a leading slash, of what something can be mounted on; what is new of it is in `made` too.

    Raises ConversionError when that cannot be done.
    """
    missing: list[str] = []

    def make(part: str) -> None:
        missing.append(part)
        os.mkdir(part, 0o755, dir_fd=root_fd)
        os.chmod(part, 0o755, dir_fd=root_fd)

    real = _resolve(root_fd, path, make)
    made += missing
    if missing and not directory:
        os.rmdir(real, dir_fd=root_fd)
        os.close(os.open(real, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=root_fd))
    is_directory = stat.S_ISDIR(os.stat(real or ".", dir_fd=root_fd, follow_symlinks=False).st_mode)
    if is_directory != directory:
        kind = "a directory" if is_directory else "no directory"
        raise ConversionError(
            f"{path!r} is {kind} in the image, so what it is to show cannot be mounted on it"
        )
    return real


def remove_mount_points(root_fd: int, made: list[str]) -> None:
    """Take out again what was made for mounts and is empty; the directories that it was in keep their times.

    As BuildKit's MountStubsCleaner does: their times are those of when it was made.
    """
    for path in reversed(made):
        with suppress(OSError):  # gone, or in use by now
            directory = path.rpartition("/")[0] or "."
            above = os.stat(directory, dir_fd=root_fd, follow_symlinks=False)
            status = os.stat(path, dir_fd=root_fd, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                os.rmdir(path, dir_fd=root_fd)
            elif stat.S_ISREG(status.st_mode) and status.st_size == 0:
                os.unlink(path, dir_fd=root_fd)
            else:
                continue
            times = (above.st_atime_ns, above.st_mtime_ns)
            os.utime(directory, ns=times, dir_fd=root_fd, follow_symlinks=False)


def _resolve(root_fd: int, path: str, make: Callable[[str], None]) -> str:
    """The real path of `path`, links resolved inside the root; `make` makes each directory on the way that is not."""
    waiting = _reversed_parts(path)
    real: list[str] = []
    links = 0
    while waiting:
        part = waiting.pop()
        if part == "..":
            del real[-1:]
            continue
        here = "/".join([*real, part])
        try:
            mode = os.stat(here, dir_fd=root_fd, follow_symlinks=False).st_mode
        except FileNotFoundError:
            make(here)
        except OSError as error:
            raise ConversionError(f"cannot make {path!r} in the image: {error.strerror}") from None
        else:
            if stat.S_ISLNK(mode):
                links += 1
                if links > _MAX_LINKS:
                    raise ConversionError(f"too many symbolic links on the way to {path!r} in the image")
                target = os.readlink(here, dir_fd=root_fd)
                if target.startswith("/"):
                    real.clear()
                waiting += _reversed_parts(target)
                continue
        real.append(part)
    return "/".join(real)


def _reversed_parts(path: str) -> list[str]:
    return [part for part in reversed(path.split("/")) if part not in {"", "."}]
