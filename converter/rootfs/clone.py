"""A copy of a whole tree, as cheap as the file system allows: a btrfs snapshot, shared contents, or a plain copy."""

from __future__ import annotations

import os
from pathlib import Path

from converter.linux import make_snapshot, make_subvolume
from converter.rootfs.directories import DIRECTORY
from converter.rootfs.layered import put_together


def clone_tree(source: Path, target: Path) -> None:
    """Make `target`, where nothing is or an empty directory, a copy of the tree `source` that was made here.

    Contents are shared until they are written to, where the file system can. Raises OSError; needs root.
    """
    if target.exists():
        target.rmdir()
    if make_snapshot(source, target):
        return
    if not make_subvolume(target):
        target.mkdir(mode=0o700)
    fd = os.open(target, DIRECTORY)
    try:
        put_together([source], fd)
    finally:
        os.close(fd)
