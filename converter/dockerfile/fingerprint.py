"""A digest of all that counts of a Selection: equal ones put the same files, whenever they were written."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

from converter.dockerfile.selection import Entry, Item
from converter.dockerfile.tree import Tree, joined
from converter.dockerfile.writing import SMALL, Attributes, attributes_of

_BLOCK = 1 << 20
_TOGETHER = 256  # files hashed at once, each with a descriptor


def fingerprint_items(items: Iterable[Item]) -> str:
    """The digest, in hex. Each file is read once; times do not count. Raises OSError."""
    digest = hashlib.sha256()

    def add(*fields: object) -> None:
        for field in fields:
            data = field if isinstance(field, bytes) else os.fsencode(str(field))
            digest.update(b"%d:" % len(data))
            digest.update(data)

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="fingerprint") as pool:
        for item in items:
            # Only for a file is its name used; that of an archive is not.
            add("item", item.name if not item.archive else "", item.spread, item.archive)
            if item.identity:
                add(item.identity)
                continue
            first: dict[tuple[int, int], int] = {}  # which names are of one file
            with Tree(item.root) as tree:
                entries = iter(enumerate(item.entries))
                while batch := list(islice(entries, _TOGETHER)):
                    for number, entry, content, attributes in _contents(item, tree, batch, pool.submit):
                        linked = first.setdefault(entry.inode, number) if entry.inode else number
                        add(entry.path, entry.kind, entry.mode, entry.uid, entry.gid, entry.device)
                        add(entry.link, number - linked, entry.implied, content)
                        for attribute in attributes:
                            add(*attribute)
    return digest.hexdigest()


def _contents(
    item: Item, tree: Tree, batch: list[tuple[int, Entry]], submit: Callable[..., Future[bytes]]
) -> Iterator[tuple[int, Entry, bytes, Attributes]]:
    """Each entry with the digest of its content and its attributes, large contents read by threads."""
    found: list[tuple[int, Entry, bytes | Future[bytes], Attributes]] = []
    for number, entry in batch:
        path = joined(item.top, entry.path)
        content: bytes | Future[bytes] = b""
        place: int | bytes = tree.open(path) if entry.kind == "file" else tree.place(path)
        attributes = attributes_of(place, privileged=item.privileged)
        if isinstance(place, int):
            content = _digest(place) if entry.size <= SMALL else submit(_digest, place)
        found.append((number, entry, content, attributes))
    for number, entry, content, attributes in found:
        yield number, entry, content if isinstance(content, bytes) else content.result(), attributes


def _digest(fd: int) -> bytes:
    """Of all of a file, which is then closed."""
    try:
        digest = hashlib.sha256()
        while block := os.read(fd, _BLOCK):
            digest.update(block)
        return digest.digest()
    finally:
        os.close(fd)
