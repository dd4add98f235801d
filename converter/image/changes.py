"""A container's own changes, from where overlay2 keeps them, as a layer with whiteouts.

Linux Documentation/filesystems/overlayfs.rst: a deleted file is a character device 0:0, a directory that hides what is
below it has the attribute trusted.overlay.opaque. The container may be running while it is read, and is not trusted:
no link is followed, and what vanishes meanwhile is not in the layer.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from converter.image.model import Layer
from converter.rootfs.directories import DIRECTORY

_OVERLAY = "trusted.overlay."
_ELSEWHERE = frozenset({"trusted.overlay.redirect", "trusted.overlay.metacopy"})
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class _ElsewhereError(Exception):
    """Parts of the content are not in the directory but in a layer below."""


def changes_layer(upper: Path, path: Path) -> Layer | None:
    """Write the layer of what is in the directory `upper` to the new file `path`.

    None when the kernel keeps parts of it elsewhere (redirect_dir, metacopy). Raises OSError.
    """
    links: dict[tuple[int, int], str] = {}
    root = os.open(upper, DIRECTORY)
    try:
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as layer:
            for name, parent, base in _walk(root):
                with contextlib.suppress(FileNotFoundError):
                    _add(layer, name, parent, base, links)
                layer.members = []  # type: ignore[attr-defined] # tarfile keeps them all
    except _ElsewhereError:
        return None
    finally:
        os.close(root)
    return Layer(path=path, offset=0, size=path.stat().st_size)


def _walk(root: int) -> Iterator[tuple[str, int, str]]:
    """Each path below, with a descriptor of the directory it is in and its name there; parents first."""
    waiting = [""]
    while waiting:
        path = waiting.pop()
        try:
            fd = _descend(root, path)
        except (FileNotFoundError, NotADirectoryError):  # gone, or something else by now
            continue
        try:
            for entry in sorted(os.scandir(fd), key=lambda entry: entry.name):
                name = f"{path}/{entry.name}" if path else entry.name
                yield name, fd, entry.name
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(name)
        finally:
            os.close(fd)


def _descend(root: int, path: str) -> int:
    """A descriptor of the directory, no part of whose path may be a link."""
    fd = os.dup(root)
    for part in filter(None, path.split("/")):
        try:
            below = os.open(part, DIRECTORY, dir_fd=fd)
        finally:
            os.close(fd)
        fd = below
    return fd


def _add(
    layer: tarfile.TarFile, name: str, parent: int, base: str, links: dict[tuple[int, int], str]
) -> None:
    status = os.stat(base, dir_fd=parent, follow_symlinks=False)
    if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
        directory, slash, _ = name.rpartition("/")
        layer.addfile(tarfile.TarInfo(f"{directory}{slash}.wh.{base}"))
        return
    info = tarfile.TarInfo(name)
    info.mode, info.uid, info.gid = stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid
    attributes = _attributes(f"/proc/self/fd/{parent}/{base}")
    opaque = attributes.pop(f"{_OVERLAY}opaque", b"") == b"y"
    info.pax_headers = {
        f"SCHILY.xattr.{key}": value.decode("utf-8", "surrogateescape")
        for key, value in attributes.items()
        if not key.startswith(_OVERLAY)
    }
    info.pax_headers["mtime"] = _time(status.st_mtime_ns)
    known = links.get((status.st_dev, status.st_ino))
    if known is not None and not stat.S_ISDIR(status.st_mode):
        info.type, info.linkname = tarfile.LNKTYPE, known
    elif stat.S_ISREG(status.st_mode):
        _add_file(layer, info, os.open(base, _FILE, dir_fd=parent))
    elif stat.S_ISDIR(status.st_mode):
        info.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(status.st_mode):
        info.type, info.linkname = tarfile.SYMTYPE, os.readlink(base, dir_fd=parent)
    elif stat.S_ISFIFO(status.st_mode):
        info.type = tarfile.FIFOTYPE
    elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        info.type = tarfile.CHRTYPE if stat.S_ISCHR(status.st_mode) else tarfile.BLKTYPE
        info.devmajor, info.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
    else:
        return  # a socket: its server makes it anew
    if info.type != tarfile.REGTYPE:
        layer.addfile(info)
    if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
        links.setdefault((status.st_dev, status.st_ino), name)
    if opaque:
        layer.addfile(tarfile.TarInfo(f"{name}/.wh..wh..opq"))


def _add_file(layer: tarfile.TarFile, info: tarfile.TarInfo, fd: int) -> None:
    with os.fdopen(fd, "rb", buffering=0) as file:
        info.size = os.fstat(fd).st_size
        layer.addfile(info, cast(BinaryIO, _Exactly(file, info.size)))


class _Exactly:
    """A file of a size that was promised, whatever its owner does to it meanwhile."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._left = size

    def read(self, size: int) -> bytes:
        wanted = min(size, self._left)
        data = self._file.read(wanted) if wanted else b""
        self._left -= wanted
        return data.ljust(wanted, b"\0")


def _attributes(path: str) -> dict[str, bytes]:
    found = {}
    for key in os.listxattr(path, follow_symlinks=False):
        if key in _ELSEWHERE:
            raise _ElsewhereError
        with contextlib.suppress(OSError):  # taken away meanwhile
            found[key] = os.getxattr(path, key, follow_symlinks=False)
    return found


def _time(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, 10**9)
    if seconds < 0 and rest:
        return f"-{-seconds - 1}.{10**9 - rest:09d}"
    return f"{seconds}.{rest:09d}"
