"""Taking things out of a cache, so that what is half removed never counts, whenever who removes it is killed.

What is to go gets a name first that nobody looks for, layers/.#KEY.RANDOM.gone, and is removed then. Who does that
holds a shared lock on layers/; who can have that lock alone removes what dead ones have left.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from converter.linux import is_still, lock_file
from converter.rootfs.directories import DIRECTORY

PARTIAL = ".#"  # begins the name of what is being made, or removed
_ATTEMPTS, _PAUSE = 10, 0.01  # looks at a lock, and seconds between them
_GONE = ".gone"  # ends the name of what is being removed


@contextlib.contextmanager
def removing(layers: Path) -> Iterator[int]:
    """While this lasts what is put aside is ours to remove; how many bytes dead ones had left, which are gone."""
    fd = os.open(layers, DIRECTORY)
    try:
        freed = _remove_left(layers) if try_lock(fd) else 0
        fcntl.flock(fd, fcntl.LOCK_SH)
        yield freed
    finally:
        os.close(fd)


def put_aside(path: Path, layers: Path) -> Path:
    """Take what is at `path` out of the cache; where it is until it is removed. Raises OSError."""
    return path.rename(layers / f"{PARTIAL}{path.name}.{secrets.token_hex(8)}{_GONE}")


def remove_dead(directory: Path) -> int:
    """Remove what killed processes were making, or removing, and their locks; how many bytes. Raises OSError."""
    layers, locks = directory / "layers", directory / "locks"
    freed = 0
    fd = os.open(layers, DIRECTORY)
    try:
        if try_lock(fd):
            freed += _remove_left(layers)
    finally:
        os.close(fd)
    names = {path.name.removeprefix(PARTIAL) for path in layers.glob(f"{PARTIAL}*") if not _is_gone(path)}
    for name in {*names, *(path.name for path in locks.iterdir())}:
        lock = locks / name
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if try_lock(fd) and is_still(fd, lock):
                freed += _remove_measured(layers / f"{PARTIAL}{name}")
                lock.unlink()
        finally:
            os.close(fd)
    for link in (directory / "names").glob(f"{PARTIAL}*"):
        if not Path("/proc", link.name.split("-")[1]).exists():
            link.unlink(missing_ok=True)
    return freed


def remove(path: Path) -> None:
    """Remove whatever is at `path`, by rm(1), which takes any depth, and subvolumes of a btrfs.

    It gets another name first: should we be killed, rm goes on, and what others make in that place is not for it.
    """
    gone = path.with_name(f"{PARTIAL}{secrets.token_hex(16)}{_GONE}")
    try:
        path.rename(gone)
    except FileNotFoundError:
        return
    except OSError:
        gone = path
    # In a group of its own: what is typed at a terminal does not end it halfway.
    subprocess.run(["rm", "-rf", "--", gone], stderr=subprocess.DEVNULL, check=False, process_group=0)


def size_of(path: Path) -> int:
    """Bytes on the disk, hard links counted once; also those that other files share (FICLONE, snapshots)."""
    done = subprocess.run(
        ["du", "--summarize", "--block-size=1", "--", path], capture_output=True, text=True, check=False
    )
    return int(done.stdout.split()[0]) if done.stdout else 0


@contextlib.contextmanager
def kept_from_machinectl(directory: Path) -> Iterator[bool]:
    """Keep `machinectl clean` from removing a cache that lies among the machines; False when it is just doing that.

    For machinectl it is a hidden image. It takes a lock before it removes one (image_path_lock, an OFD lock).
    """
    path = directory.with_name(f"{PARTIAL}{directory.name}.lck")
    fd = -1
    attempts = _ATTEMPTS
    while fd < 0:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError:  # no room, or no directory to lie in
            yield False
            return
        if not lock_file(fd, fcntl.F_RDLCK):
            os.close(fd)
            fd = -1
            attempts -= 1
            if not attempts:
                yield False
                return
            time.sleep(_PAUSE)  # it may be one of ours, who is just about to take the file away
            continue
        if not is_still(fd, path):  # its last holder has taken it away
            os.close(fd)
            fd = -1
    try:
        yield True
    finally:
        if lock_file(fd, fcntl.F_WRLCK):  # nobody else has it
            path.unlink(missing_ok=True)
        os.close(fd)


def try_lock(fd: int) -> bool:
    """Have flock(2)'s exclusive lock; False when somebody else has one."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_gone(path: Path) -> bool:
    return path.name.endswith(_GONE)


def _remove_left(layers: Path) -> int:
    return sum(_remove_measured(path) for path in layers.glob(f"{PARTIAL}*{_GONE}"))


def _remove_measured(path: Path) -> int:
    if not os.path.lexists(path):
        return 0
    size = size_of(path)
    remove(path)
    return size
