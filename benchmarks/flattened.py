"""What layers come to, by the specification's rules and Python's tarfile alone: none of the program's code."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_OPAQUE = ".wh..wh..opq"
_WHITEOUT = ".wh."


@dataclass(frozen=True, eq=False)
class Entry:
    """What a path leads to. Hard links lead to the same Entry. `layer`: which one it comes from, from 0."""

    info: tarfile.TarInfo
    layer: int


Tree = dict[str, Entry]


def lay(tree: Tree, path: Path, number: int) -> None:
    """Put the layer in a tarball on top of a tree: first its whiteouts hide, then its entries come."""
    with tarfile.open(path) as archive:
        members = {name: info for info in archive if (name := info.name.removeprefix("./")) != "."}
    for name in members:
        where, slash, last = name.rpartition("/")
        if last == _OPAQUE:
            _hide(tree, where, itself=False)
        elif last.startswith(_WHITEOUT):
            _hide(tree, f"{where}{slash}{last.removeprefix(_WHITEOUT)}", itself=True)
    for name, info in members.items():
        if name.rpartition("/")[2].startswith(_WHITEOUT):
            continue
        linked = info.linkname.removeprefix("./") if info.islnk() else ""
        tree[name] = tree[linked] if linked else Entry(info, number)


def _hide(tree: Tree, gone: str, *, itself: bool) -> None:
    for path in [path for path in tree if (itself and path == gone) or path.startswith(f"{gone}/")]:
        del tree[path]


def content(tree: Tree, layers: Iterable[int]) -> int:
    """Bytes of the regular files that come from these layers; a file with several names counts once."""
    wanted = set(layers)
    return sum(
        entry.info.size for entry in set(tree.values()) if entry.layer in wanted and entry.info.isreg()
    )
