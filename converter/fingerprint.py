"""What stands for files whose content nobody has the time to read: change one, and it is another."""

from __future__ import annotations

import os
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path


def fingerprint(paths: Iterable[Path]) -> str:
    """A digest of the names, kinds, sizes and times of these files and all that lies below these directories.

    What cannot be read counts as not there.
    """
    digest = sha256()
    waiting = [path.absolute() for path in paths]
    while waiting:
        path = waiting.pop()
        try:
            status = path.lstat()
            names = sorted(os.listdir(path)) if path.is_dir() and not path.is_symlink() else []  # noqa: PTH208
        except OSError:
            continue
        facts = (os.fspath(path), status.st_mode, status.st_size, status.st_mtime_ns, status.st_ino)
        digest.update(repr(facts if not names else facts[:2]).encode("utf-8", "surrogateescape"))
        waiting += [path / name for name in names]
    return digest.hexdigest()
