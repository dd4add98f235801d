"""Mounts in a namespace of one thread's own: with the last process in it they are gone, whatever ends it."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CLONE_NEWNS = 0x00020000  # linux/sched.h
_READ_ONLY, _REMOUNT, _BIND, _RECURSIVE, _PRIVATE = 1, 1 << 5, 1 << 12, 1 << 14, 1 << 18  # linux/mount.h
NOSUID, NODEV, NOEXEC = 2, 4, 8
_DETACH, _NOFOLLOW = 2, 8  # umount2(2)
_libc = ctypes.CDLL(None, use_errno=True)


def own_namespace() -> None:
    """Give the calling thread, and whatever it starts, a mount namespace, working directory and umask of its own.

    Raises OSError without root.
    """
    if _libc.unshare(_CLONE_NEWNS) != 0:
        _raise("unshare")
    _mount(None, b"/", None, _RECURSIVE | _PRIVATE)


def mount(kind: str, target: Path | str, options: str, flags: int = 0) -> None:
    """mount(2) of a file system without a device ("overlay", "tmpfs"). Raises OSError."""
    _mount(kind.encode(), os.fsencode(target), kind.encode(), flags, os.fsencode(options))


def bind(source: Path | str, target: Path | str, *, read_only: bool = False, flags: int = 0) -> None:
    """Show `source`, with what is mounted below it, at `target` too, a last link followed in both. Raises OSError."""
    _mount(os.fsencode(source), os.fsencode(target), None, _BIND | _RECURSIVE)
    if read_only or flags:
        wanted = flags | (_READ_ONLY if read_only else 0)
        _mount(None, os.fsencode(target), None, _BIND | _REMOUNT | wanted)


def unmount(target: Path | str) -> None:
    """Take away what is mounted at `target`, and what is mounted below it, now or when it is no longer in use."""
    if _libc.umount2(os.fsencode(target), _DETACH | _NOFOLLOW) != 0:
        _raise(target)


@contextmanager
def working_directory(path: Path) -> Iterator[None]:
    """Be in `path` meanwhile, in this thread; it needs own_namespace."""
    before = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.chdir(path)
        yield
    finally:
        os.fchdir(before)
        os.close(before)


def _mount(
    source: bytes | None, target: bytes, kind: bytes | None, flags: int, data: bytes | None = None
) -> None:
    if _libc.mount(source, target, kind, ctypes.c_ulong(flags), data) != 0:
        _raise(os.fsdecode(target))


def _raise(path: object) -> None:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), str(path))
