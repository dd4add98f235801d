"""Owners and extended attributes as an entry has them, and what the host would not take of them."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from threading import Lock

from converter.rootfs.attributes import set_attributes
from converter.rootfs.tar import Entry

_NAMED = 5  # how many of each loss are named in the report
_ATTRIBUTES = 20  # how many attributes have a loss of their own


class Metadata:
    """Sets them, and remembers what could not be set. Files are finished by threads, all others by one."""

    def __init__(self, *, ownership: bool) -> None:
        self.ownership = ownership
        self.devices: list[bytes] = []  # which could not be made
        self._owner = (os.geteuid(), os.getegid())
        self._owners = 0
        self._refused: dict[bytes, list[bytes]] = defaultdict(list)
        self._lock = Lock()

    def to_be_owned(self, entry: Entry) -> bool:
        """Has the owner to be set? Without root it is counted instead. New things are ours already."""
        if (entry.uid, entry.gid) == self._owner:
            return False
        if not self.ownership:
            with self._lock:
                self._owners += 1
        return self.ownership

    def set_attributes(self, target: int | bytes, path: bytes, entry: Entry) -> None:
        """On an open file, or on what is at a path without following a last link; `path` is its name in the report."""
        for name in set_attributes(target, entry.xattrs):
            self.refused(name, path)

    def refused(self, name: bytes, path: bytes) -> None:
        """Remember that the host did not take an attribute."""
        with self._lock:
            self._refused[name].append(path)

    def losses(self) -> list[str]:
        """In lines."""
        lines = []
        if self._owners:
            lines.append(f"the owners of {self._owners} files and directories could not be set without root")
        if self.devices:
            lines.append(f"devices need root: {_some(self.devices)}")
        refused = sorted((name, sorted(paths)) for name, paths in self._refused.items())
        for name, paths in refused[:_ATTRIBUTES]:
            lines.append(f"the host refused the attribute {_text(name)} on {_some(paths)}")
        if len(refused) > _ATTRIBUTES:
            lines.append(f"the host refused {len(refused) - _ATTRIBUTES} more attributes")
        return lines


def _some(paths: Iterable[bytes]) -> str:
    shown = [_text(path) for path in paths]
    more = f" and {len(shown) - _NAMED} more" if len(shown) > _NAMED else ""
    return ", ".join(f"/{path}" for path in shown[:_NAMED]) + more


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")
