"""A new, empty btrfs in a sparse file: mounted, and gone at the end."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import Failed

_SIZE = 64 << 30  # bytes, of which the disk gives only what is written


@contextlib.contextmanager
def btrfs(place: Path) -> Iterator[Path]:
    """Mount one below `place`, a directory of the cache; what a killed run has left there goes first."""
    image, mounted = place / "btrfs.img", place / "btrfs"
    _gone(image, mounted)
    mounted.mkdir()
    with image.open("wb") as file:
        file.truncate(_SIZE)
    try:
        _run("mkfs.btrfs", "--quiet", image)
        _run("mount", "-o", "loop,noatime", image, mounted)  # the kernel frees the loop device with the mount
        yield mounted
    finally:
        _gone(image, mounted)


def _gone(image: Path, mounted: Path) -> None:
    if mounted.is_mount():
        _run("umount", mounted)
    if mounted.exists():
        mounted.rmdir()
    image.unlink(missing_ok=True)


def used(mounted: Path) -> dict[str, int]:
    """Bytes that btrfs has in use, by kind ("Data", "Metadata", "System"), with everything written and freed.

    As on the disk: what is kept twice (DUP, the default for metadata) counts twice.
    """
    _run("btrfs", "filesystem", "sync", mounted)
    found: dict[str, int] = {}
    for line in _run("btrfs", "filesystem", "df", "--raw", mounted).splitlines():
        # Data, single: total=8388608, used=0
        kind, _, rest = line.partition(", ")
        profile, _, numbers = rest.partition(": ")
        copies = 2 if profile == "DUP" else 1
        if kind != "GlobalReserve":  # which is a part of the metadata
            found[kind] = int(numbers.rpartition("used=")[2]) * copies
    return found


def _run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"{command[0]}: {done.stderr.strip()}")
    return done.stdout
