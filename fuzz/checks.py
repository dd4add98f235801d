"""What must hold for any bytes: what the fuzzers look for, and tests/test_fuzz_seeds.py in the kept seeds.

Allowed is a ConversionError, or entries and trees that those who use them can rely on.
"""

from __future__ import annotations

import os
from pathlib import Path

from converter.errors import ConversionError
from converter.image.model import Layer
from converter.progress import Silent
from converter.rootfs.merge import Directory, Inode, Limits, scan
from converter.rootfs.stream import LayerStream
from converter.rootfs.tar import BLOCK, NAME_MAX, PATH_MAX, Entry, read_entries

SEPARATOR = b"\xff=next layer=\xff\n"  # between the layers of one input of the merging's fuzzer
_LINKS = {"symlink", "hardlink"}
_DEVICES = {"char", "block"}
_KINDS = {"file", "dir", "fifo"} | _LINKS | _DEVICES
_ID_MAX = (1 << 32) - 2
_FILE_MAX = 1 << 62


class _Bytes:
    """The least stream that read_entries takes. It counts what it is asked for, against a hang."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0

    def read(self, size: int) -> bytes:
        assert size >= 0, size
        piece = self._data[self.position : self.position + size]
        self.position += len(piece)
        return piece

    def skip(self, size: int) -> None:
        assert size >= 0, size
        if size > len(self._data) - self.position:
            raise ConversionError("it is cut short")
        self.position += size


def check_tar(data: bytes) -> int:
    """Read a tar; the return value is how many entries it gave before its end or its refusal.

    Raises AssertionError for an entry that nobody could use safely, and whatever read_entries should not raise.
    """
    stream = _Bytes(data)
    count = 0
    before: Entry | None = None
    try:
        for entry in read_entries(stream):
            # Having come this far, the reader has passed over the content of the one before: all of it was there.
            if before is not None:
                assert before.offset + before.stored <= stream.position <= len(data), before
            _check_entry(entry, stream.position)
            if count % 2:  # the caller may have read none, some or all of the content
                stream.read(min(entry.stored, 7))
            before = entry
            count += 1
    except ConversionError as error:
        _check_error(error)
        return count
    assert before is None or before.offset + before.stored <= len(data), before
    return count


def _check_error(error: ConversionError) -> None:
    assert str(error) and str(error).isprintable(), repr(error)


def _check_entry(entry: Entry, position: int) -> None:
    assert entry.kind in _KINDS, entry
    for path in (entry.name, entry.link):
        assert b"\0" not in path, entry
        assert len(path) < PATH_MAX, entry
        if entry.kind != "symlink" or path is entry.name:  # what a symbolic link holds need not be a path
            assert all(len(part) <= NAME_MAX for part in path.split(b"/")), entry
    assert bool(entry.link) <= (entry.kind in _LINKS), entry
    assert 0 <= entry.mode <= 0o7777, entry
    assert 0 <= entry.uid <= _ID_MAX and 0 <= entry.gid <= _ID_MAX, entry
    os.makedev(*entry.device)
    assert entry.device == (0, 0) or entry.kind in _DEVICES, entry
    assert -(1 << 63) <= entry.mtime // 10**9 < 1 << 63, entry  # a time_t
    assert entry.offset == position and position % BLOCK == 0, entry
    assert 0 <= entry.size <= _FILE_MAX and 0 <= entry.stored <= _FILE_MAX, entry
    if entry.kind != "file":
        assert entry.stored == 0, entry
    if entry.sparse is None:
        assert entry.stored == entry.size, entry
    else:
        _check_sparse(entry)
    names = [name for name, _ in entry.xattrs]
    assert names == sorted(set(names)), entry
    for name, value in entry.xattrs:
        assert 0 < len(name) <= NAME_MAX and b"\0" not in name, entry
        assert len(value) <= 1 << 16, entry


def _check_sparse(entry: Entry) -> None:
    end = 0
    for offset, length in entry.sparse or ():
        assert offset >= end and length >= 0, entry
        end = offset + length
    assert end <= entry.size, entry
    assert sum(length for _, length in entry.sparse or ()) == entry.stored, entry


def check_layers(data: bytes) -> int:
    """Merge the layers that `data` holds one after the other; the return value is how many paths there are then.

    Raises AssertionError for a tree that cannot be written safely, and whatever scan should not raise.
    """
    # scan wants files: one in memory, whose pieces are the layers.
    fd = os.memfd_create("layers")
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(data)
        layers = []
        at = 0
        for piece in data.split(SEPARATOR)[:8]:
            layers.append(Layer(Path(f"/proc/self/fd/{fd}"), at, len(piece)))
            at += len(piece) + len(SEPARATOR)
        return _check_scan(layers)
    finally:
        os.close(fd)


def _check_scan(layers: list[Layer]) -> int:
    kept: dict[Inode, bytes] = {}
    dropped: set[Inode] = set()

    def keep(inode: Inode, path: bytes, stream: LayerStream) -> None:
        assert inode.entry.kind == "file", inode.entry
        assert inode not in kept, inode.entry
        assert inode.entry.offset == stream.position, inode.entry
        _check_path(path)
        assert not path.rpartition(b"/")[2].startswith(b".wh."), path
        inode.written = kept[inode] = path

    def drop(inode: Inode) -> None:
        assert kept[inode] is not None, inode.entry
        dropped.add(inode)

    limits = Limits(entries=1000, content=1 << 20)
    try:
        plan = scan(layers, progress=Silent(), limits=limits, keep=keep, drop=drop)
    except ConversionError as error:
        _check_error(error)
        return 0
    count = 0
    seen = set()
    for path, node in plan.walk():
        _check_path(path)
        assert path not in seen, path
        seen.add(path)
        count += 1
        # Each entry makes its parents at most: more than that is a tree that goes round in a circle.
        assert count <= 1000 * PATH_MAX
        if isinstance(node, Directory):
            assert node.entry is None or node.entry.kind == "dir", path
            continue
        assert isinstance(node, Inode) and node not in dropped, path
        # Directories may be called so, if nothing but what lies in them says they are there.
        assert not path.rpartition(b"/")[2].startswith(b".wh."), path
        assert node.entry.kind not in {"dir", "hardlink"}, path
        assert 0 <= node.layer < len(layers), path
    for path in (*sorted(seen)[:20], b"etc/passwd", b"", b"../.."):
        found = plan.lookup(path.decode("utf-8", "surrogateescape"))
        assert found is None or found.path == b"" or found.path in seen, path
    return count


def _check_path(path: bytes) -> None:
    assert len(path) < PATH_MAX, path
    for part in path.split(b"/"):
        assert part not in {b"", b".", b".."} and b"\0" not in part and len(part) <= NAME_MAX, path
