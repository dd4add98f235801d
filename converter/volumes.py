"""The data of volumes: filled from the machine's tree or from Docker's directories, and compared afterwards."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from converter.errors import ConversionError
from converter.install import Staging
from converter.machine.model import Volume
from converter.note import Note
from converter.places import Places
from converter.progress import Progress
from converter.rootfs.fixup import copy_tree, open_directory

_BLOCK = 1 << 20  # bytes compared at once


def fill_volumes(
    volumes: Iterable[Volume],
    places: Places,
    stage: Staging,
    *,
    root_fd: int,
    docker_root: Path | None,
    progress: Progress,
) -> tuple[tuple[str, ...], list[Note]]:
    """Fill those that are not there yet, in the staging directory; their names, and a note for each.

    `root_fd` is the machine's tree. `docker_root` is where the root directory of the daemon's host is found here; None
    when that is another host. Raises ConversionError when the data cannot be read, written or is not the same
    afterwards.
    """
    new: list[str] = []
    notes = []
    for volume in volumes:
        if volume.name in new:
            continue
        subject = f"volume {volume.name}"
        if (places.volumes / volume.name).is_dir():
            notes.append(
                Note("adapted", subject, f"{places.volumes / volume.name} is there and was left as it is")
            )
            continue
        # Whoever gets in could run what a machine has made setuid, as in /var/lib/machines.
        while not stage.volumes.is_dir():
            places.volumes.mkdir(mode=0o700, parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # another run has removed the empty directory
                stage.volumes.mkdir(mode=0o700)
        target = stage.volumes / volume.name
        if volume.source is None:
            source = open_directory(root_fd, volume.destination)
        else:
            source = _open_source(volume, docker_root)
        try:
            with progress.step(f"copying {subject}", None):
                _copy(source, target, subject)
                if volume.source is not None:
                    _verify(source, target, subject)
        finally:
            os.close(source)
        new.append(volume.name)
        if volume.source is not None:
            notes.append(
                Note(
                    "exact",
                    subject,
                    f"copied from {volume.source} to {places.volumes / volume.name}, and compared",
                )
            )
    return tuple(new), notes


def _open_source(volume: Volume, docker_root: Path | None) -> int:
    advice = "run this on Docker's host as root, or use --volumes bind or --volumes none"
    if docker_root is None:
        raise ConversionError(f"the data of volume {volume.name} is on another host; {advice}")
    path = f"{docker_root}{volume.source}"
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise ConversionError(
            f"cannot read the data of volume {volume.name} in {volume.source}: {error.strerror}; {advice}"
        ) from None


def _copy(source: int, target: Path, what: str) -> None:
    complaint = copy_tree(f"/proc/self/fd/{source}/.", str(target), descriptors=(source,))
    if complaint is not None:
        raise ConversionError(f"cannot copy {what}: {complaint.splitlines()[-1]}")


def _verify(source: int, target: Path, what: str) -> None:
    copy = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for path in _differences(source, copy):
            raise ConversionError(
                f"{what} changed while it was copied, at {path!r}; stop what uses it and run this again"
            )
    except OSError as error:
        raise ConversionError(f"cannot compare {what} with its copy: {error.strerror}") from None
    finally:
        os.close(copy)


def _differences(a: int, b: int) -> Iterator[str]:
    """Paths below two directories at which type, owner, mode, size, time, attributes or content are not the same."""
    waiting = ["."]
    while waiting:
        path = waiting.pop()
        status = os.stat(path, dir_fd=a, follow_symlinks=False)
        same = _facts(a, path, status) == _facts(b, path, os.stat(path, dir_fd=b, follow_symlinks=False))
        if not same or (stat.S_ISREG(status.st_mode) and not _same_content(a, b, path)):
            yield path
        elif stat.S_ISDIR(status.st_mode):
            names = _names(a, path)
            if names != _names(b, path):
                yield path
            waiting += [f"{path}/{name}" for name in names]


def _names(root: int, path: str) -> list[str]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=root)
    try:
        with os.scandir(fd) as entries:
            return sorted(entry.name for entry in entries)
    finally:
        os.close(fd)


def _facts(root: int, path: str, status: os.stat_result) -> tuple[object, ...]:
    kind = stat.S_IFMT(status.st_mode)
    size = status.st_size if kind == stat.S_IFREG else 0
    link = os.readlink(path, dir_fd=root) if kind == stat.S_IFLNK else ""
    place = f"/proc/self/fd/{root}/{path}"
    attributes = {
        name: os.getxattr(place, name, follow_symlinks=False)
        for name in os.listxattr(place, follow_symlinks=False)
    }
    owner = (status.st_uid, status.st_gid) if os.geteuid() == 0 else ()
    return kind, status.st_mode, owner, size, status.st_mtime_ns, status.st_rdev, link, attributes


def _same_content(a: int, b: int, path: str) -> bool:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    with (
        os.fdopen(os.open(path, flags, dir_fd=a), "rb") as one,
        os.fdopen(os.open(path, flags, dir_fd=b), "rb") as other,
    ):
        while True:
            block = one.read(_BLOCK)
            if block != other.read(_BLOCK):
                return False
            if not block:
                return True
