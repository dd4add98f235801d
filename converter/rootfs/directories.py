"""Directories below one root, kept open while they are used."""

from __future__ import annotations

import os
from collections import OrderedDict

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_OPEN = 128


class Directories:
    """Descriptors by path, the least recently opened ones closed again. For one thread."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._open: OrderedDict[bytes, int] = OrderedDict()

    def get(self, path: bytes) -> int:
        """A descriptor of the directory `path`, which stays open until some other is asked for. Raises OSError."""
        if not path:
            return self._root
        fd = self._open.get(path)
        if fd is None:
            if len(self._open) >= _MOST_OPEN:
                os.close(self._open.popitem(last=False)[1])
            fd = self._open[path] = os.open(path, DIRECTORY, dir_fd=self._root)
        return fd

    def forget(self, path: bytes) -> None:
        """Close it: something else may come to be at this path."""
        fd = self._open.pop(path, None)
        if fd is not None:
            os.close(fd)

    def close(self) -> None:
        """Close all."""
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()
