"""Trees on disk: made from layers as the program makes them, and read back with all that a file system knows."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from converter.progress import Silent
from converter.rootfs.extract import writing
from converter.rootfs.merge import Limits, Plan, scan
from tests.layers import layer

ROOT = os.geteuid() == 0

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    stat.S_IFIFO: "fifo",
}


def plan_of(place: Path, *layers: bytes, limits: Limits | None = None) -> Plan:
    """The layers merged, nothing written."""
    return scan([layer(place, data) for data in layers], progress=Silent(), limits=limits)


@contextmanager
def _opened(*directories: Path) -> Iterator[list[int]]:
    fds = [os.open(directory, os.O_RDONLY | os.O_DIRECTORY) for directory in directories]
    try:
        yield fds
    finally:
        for fd in fds:
            os.close(fd)


def written(target: Path, *layers: bytes, keep: bool = True, ownership: bool | None = None) -> list[str]:
    """Write the tree of these layers as a conversion does; what was lost. Without `keep` they are read twice.

    Nothing may be left of what was put aside on the way. Unless `ownership` is given it is root's, and owners that
    others cannot set are no loss.
    """
    target.mkdir()
    with tempfile.TemporaryDirectory(dir=target.parent) as place:
        found = [layer(Path(place), data) for data in layers]
        with (
            _opened(target) as (root_fd,),
            writing(root_fd, ownership=ROOT if ownership is None else ownership) as writer,
        ):
            plan = scan(found, progress=Silent(), keep=writer.keep if keep else None, drop=writer.drop)
            losses = writer.finish(plan, Silent())
        assert not any(path.name.startswith(".docker2nspawn-") for path in target.iterdir())
    return [loss for loss in losses if ownership is not None or ROOT or not loss.startswith("the owners of ")]


def contents(root: Path) -> dict[str, str]:
    """Path -> content of a file, target of a link, or "dir"."""
    found = {}
    for path in root.rglob("*"):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_dir():
            found[name] = "dir"
        else:
            found[name] = path.read_bytes().decode()
    return found


class Facts(NamedTuple):
    """What a file system knows of one name. `content` is a file's own when it is short, a link's target, or a digest.

    `names` are all names of the same file, its own among them; a directory has none.
    """

    kind: str
    mode: int = 0
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    content: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[str, bytes], ...] = ()
    names: frozenset[bytes] = frozenset()


def shown(content: bytes) -> bytes:
    """Content as Facts have it."""
    return content if len(content) <= 64 else b"sha256 %b" % hashlib.sha256(content).hexdigest().encode()


def facts(root: Path, *, whole: bool = True) -> dict[bytes, Facts]:
    """Every name below `root` and, as b".", itself. Without root, what is closed is opened on the way.

    `whole`: no file has names elsewhere.
    """
    found: dict[bytes, tuple[Facts, os.stat_result]] = {}
    groups: dict[tuple[int, int], set[bytes]] = defaultdict(set)
    waiting = [b"."]
    while waiting:
        name = waiting.pop()
        path = os.path.join(os.fsencode(root), name)  # noqa: PTH118 - bytes
        status = os.lstat(path)
        if not stat.S_ISDIR(status.st_mode):
            groups[status.st_dev, status.st_ino].add(name)
        closed = not ROOT and not stat.S_ISLNK(status.st_mode)
        if closed:
            os.chmod(path, 0o700)  # noqa: PTH101 - bytes
        found[name] = _facts(path, status), status
        if closed and not stat.S_ISDIR(status.st_mode):  # it may have other names
            os.chmod(path, stat.S_IMODE(status.st_mode))  # noqa: PTH101 - bytes
        if stat.S_ISDIR(status.st_mode):
            waiting += [child if name == b"." else name + b"/" + child for child in os.listdir(path)]  # noqa: PTH208
    told = {}
    for name, (what, status) in found.items():
        names = frozenset(groups.get((status.st_dev, status.st_ino), set()))
        if names and whole:
            assert status.st_nlink == len(names), f"{name!r} has names elsewhere"
        told[name] = what._replace(names=names)
    return told


def _facts(path: bytes, status: os.stat_result) -> Facts:
    kind = _KINDS[stat.S_IFMT(status.st_mode)]
    content = b""
    if kind == "symlink":
        content = os.readlink(path)  # noqa: PTH115 - bytes
    elif kind == "file":
        content = shown(Path(os.fsdecode(path)).read_bytes())
    device = (0, 0)
    if kind in {"char", "block"}:
        device = (os.major(status.st_rdev), os.minor(status.st_rdev))
    return Facts(
        kind,
        0o777 if kind == "symlink" else stat.S_IMODE(status.st_mode),
        status.st_uid,
        status.st_gid,
        status.st_mtime_ns,
        content,
        device,
        tuple(
            sorted(
                (name, os.getxattr(path, name, follow_symlinks=False))
                for name in os.listxattr(path, follow_symlinks=False)
            )
        ),
    )
