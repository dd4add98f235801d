"""Layers become one Plan: for every path the entry that survives, as Docker's overlay2 would show it.

OCI image-spec layer.md ("Applying Changesets", "Whiteouts"); moby pkg/archive Unpack and the overlay2 driver. Each
layer is first made a tree of its own, as overlay2 unpacks it, and the trees are then laid over one another. Nothing
touches the disk here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from converter.errors import ConversionError
from converter.image.model import Layer
from converter.progress import Progress, Step
from converter.rootfs.stream import LayerStream, describe, open_layer
from converter.rootfs.tar import PATH_MAX, Entry, read_entries

MAX_ENTRIES = 10_000_000
_MAX_LINKS = 40  # as the kernel's own limit, path_resolution(7)
_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_AUFS = b".wh..wh."  # aufs' own bookkeeping, which Docker ignores


class Inode:
    """What is not a directory, of layer number `layer`; hard links are several names with one Inode."""

    __slots__ = ("entry", "layer")

    def __init__(self, entry: Entry, layer: int) -> None:
        self.entry = entry
        self.layer = layer


class Directory:
    """A directory; `entry` is None while no layer has described it. Whiteouts concern older layers only."""

    __slots__ = ("children", "entry", "opaque", "whiteouts")

    def __init__(self, entry: Entry | None = None) -> None:
        self.entry = entry
        self.children: dict[bytes, _Unmerged] = {}
        self.whiteouts: set[bytes] = set()
        self.opaque = False


class _LinkBelow:
    """A hard link to a file of an older layer: resolved when the layers are laid over one another."""

    __slots__ = ("target",)

    def __init__(self, target: bytes) -> None:
        self.target = target


Node = Directory | Inode
_Unmerged = Directory | Inode | _LinkBelow


@dataclass(frozen=True)
class Found:
    """Where a path leads, links followed: the real path without a leading slash, and what is there."""

    path: bytes
    node: Node

    @property
    def kind(self) -> str:
        """The kind as in Entry: "dir", "file", …"""
        return "dir" if isinstance(self.node, Directory) else self.node.entry.kind


@dataclass(frozen=True)
class Plan:
    """The merged tree of `layers`. `total_bytes` is the size of all its files' stored content."""

    layers: tuple[Layer, ...]
    root: Directory
    entry_count: int
    total_bytes: int

    def walk(self) -> Iterator[tuple[bytes, Node]]:
        """Every path below the root with its node, parents before their children, by name."""
        waiting: list[tuple[bytes, Directory]] = [(b"", self.root)]
        while waiting:
            prefix, directory = waiting.pop()
            for name, node in sorted(directory.children.items()):
                assert not isinstance(node, _LinkBelow)
                path = prefix + name
                yield path, node
                if isinstance(node, Directory):
                    waiting.append((path + b"/", node))

    def lookup(self, path: str) -> Found | None:
        """What a program in the machine would find at `path`; links are followed inside the root."""
        found = _resolve(self.root, _encode(path))
        if found is None or isinstance(found[1], _LinkBelow):  # the latter not in a merged tree
            return None
        return Found(found[0], found[1])

    def children(self, path: str) -> list[bytes]:
        """The names in the directory `path`; empty when it is none."""
        found = self.lookup(path)
        return sorted(found.node.children) if found and isinstance(found.node, Directory) else []

    def read(self, path: str, limit: int) -> bytes | None:
        """The content of the regular file `path`, None when there is none such.

        Raises ConversionError when it has more than `limit` bytes.
        """
        found = self.lookup(path)
        if found is None or not isinstance(found.node, Inode) or found.kind != "file":
            return None
        entry = found.node.entry
        if entry.size > limit:
            raise ConversionError(f"the image's /{path} has {entry.size} bytes, which is not sensible")
        with open_layer(self.layers[found.node.layer], verified=True) as stream:
            stream.skip(entry.offset)
            data = stream.read(entry.stored)
        if entry.sparse is None:
            return data
        content = bytearray(entry.size)
        at = 0
        for offset, length in entry.sparse:
            content[offset : offset + length] = data[at : at + length]
            at += length
        return bytes(content)


def scan(layers: Sequence[Layer], *, progress: Progress, max_entries: int = MAX_ENTRIES) -> Plan:
    """Read every layer once to its end, verifying its digests, and merge them.

    Raises ConversionError when a layer is damaged, does not verify, reaches outside its root, or all layers
    together have more than `max_entries` entries.
    """
    trees: list[Directory] = []
    count = 0
    with (
        progress.step("reading layers", sum(layer.size for layer in layers)) as step,
        ThreadPoolExecutor(2, "scan") as pool,
    ):
        scans = [pool.submit(_scan_layer, n, layer, step, max_entries) for n, layer in enumerate(layers)]
        try:
            for scanned in scans:
                tree, entries = scanned.result()
                trees.append(tree)
                count += entries
                if count > max_entries:
                    raise ConversionError(f"the image has more than {max_entries} entries")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    root = Directory()
    for number, tree in enumerate(trees):
        _lay_over(root, tree, layers[number])
    files = {id(node): node.entry.stored for _, node in _walk(root) if isinstance(node, Inode)}
    return Plan(tuple(layers), root, len(files), sum(files.values()))


def _walk(root: Directory) -> Iterator[tuple[bytes, _Unmerged]]:
    waiting = [root]
    while waiting:
        for name, node in waiting.pop().children.items():
            yield name, node
            if isinstance(node, Directory):
                waiting.append(node)


def _scan_layer(number: int, layer: Layer, step: Step, max_entries: int) -> tuple[Directory, int]:
    root = Directory()
    count = 0
    seen = 0
    with open_layer(layer) as stream:
        try:
            for entry in read_entries(stream):
                _add(root, entry, number)
                count += 1
                if count > max_entries:
                    raise ConversionError(f"it has more than {max_entries} entries")
                if count % 256 == 0:
                    seen = _advance(step, stream, seen)
        except ConversionError as error:
            raise ConversionError(f"{describe(layer)}: {error}") from None
        stream.verify()
        _advance(step, stream, seen)
    return root, count


def _advance(step: Step, stream: LayerStream, seen: int) -> int:
    step.advance(stream.compressed_position - seen)
    return stream.compressed_position


def _encode(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def _clean(name: bytes) -> list[bytes]:
    """The parts of an entry's name as Go's filepath.Clean leaves them, without a leading slash.

    Raises ConversionError when it leads out of the root: Docker's "breakout".
    """
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if not parts:
                if name.startswith(b"/"):
                    continue
                raise ConversionError(f"the entry {_shown(name)} leads out of the image")
            parts.pop()
        elif part not in {b"", b"."}:
            parts.append(part)
    return parts


def _shown(name: bytes) -> str:
    return repr(name.decode("utf-8", "backslashreplace"))


def _add(root: Directory, entry: Entry, layer: int) -> None:
    """Add one entry to its layer's own tree."""
    parts = _clean(entry.name)
    if not parts:
        if entry.kind == "dir":
            root.entry = entry
        return
    name = parts.pop()
    if name.startswith(_AUFS) and name != _OPAQUE:
        return
    if any(part.startswith(_AUFS) for part in parts):
        return
    parent = _parent(root, parts, entry)
    if name == _OPAQUE:
        parent.opaque = True
    elif name.startswith(_WHITEOUT):
        hidden = name[len(_WHITEOUT) :]
        if hidden in {b"", b".", b".."}:
            raise ConversionError(f"the whiteout {_shown(entry.name)} names no file")
        parent.whiteouts.add(hidden)
    elif entry.kind == "dir":
        existing = parent.children.get(name)
        if isinstance(existing, Directory):
            existing.entry = entry
        else:
            parent.children[name] = Directory(entry)
    elif entry.kind == "hardlink":
        target = b"/".join(_clean(entry.link))
        found = _resolve(root, target, follow_last=False)
        if found is None:
            parent.children[name] = _LinkBelow(target)
        elif isinstance(found[1], Directory):
            raise ConversionError(f"the hard link {_shown(entry.name)} leads to a directory")
        else:
            parent.children[name] = found[1]
    else:
        parent.children[name] = Inode(entry, layer)


def _parent(root: Directory, parts: list[bytes], entry: Entry) -> Directory:
    """The directory of this layer that an entry lies in: made where it is missing, links of this layer followed."""
    path: list[tuple[bytes, Directory]] = []
    here = root
    waiting = parts[::-1]
    links = 0
    while waiting:
        part = waiting.pop()
        if part == b"..":
            if path:
                path.pop()
            here = path[-1][1] if path else root
            continue
        child = here.children.get(part)
        if child is None:
            child = here.children[part] = Directory()
        elif isinstance(child, Inode) and child.entry.kind == "symlink":
            links += 1
            if links > _MAX_LINKS:
                raise ConversionError(f"there are too many symbolic links on the way to {_shown(entry.name)}")
            if child.entry.link.startswith(b"/"):
                path, here = [], root
            waiting += [p for p in reversed(child.entry.link.split(b"/")) if p not in {b"", b"."}]
            continue
        if not isinstance(child, Directory):
            raise ConversionError(
                f"the entry {_shown(entry.name)} lies below something that is not a directory"
            )
        path.append((part, child))
        here = child
    if sum(len(part) + 1 for part, _ in path) + len(entry.name.rpartition(b"/")[2]) >= PATH_MAX:
        raise ConversionError("a name is too long for Linux once its links are followed")
    return here


def _resolve(root: Directory, path: bytes, *, follow_last: bool = True) -> tuple[bytes, _Unmerged] | None:
    """The real path that `path` leads to inside the tree, and what is there; None when it leads nowhere."""
    real: list[tuple[bytes, _Unmerged]] = []
    waiting = [part for part in reversed(path.split(b"/")) if part not in {b"", b"."}]
    links = 0
    while waiting:
        part = waiting.pop()
        if part == b"..":
            if real:
                real.pop()
            continue
        here = real[-1][1] if real else root
        child = here.children.get(part) if isinstance(here, Directory) else None
        if child is None:
            return None
        if isinstance(child, Inode) and child.entry.kind == "symlink" and (waiting or follow_last):
            links += 1
            if links > _MAX_LINKS:
                return None
            if child.entry.link.startswith(b"/"):
                real.clear()
            waiting += [p for p in reversed(child.entry.link.split(b"/")) if p not in {b"", b"."}]
            continue
        real.append((part, child))
    return b"/".join(part for part, _ in real), real[-1][1] if real else root


def _lay_over(root: Directory, layer_root: Directory, layer: Layer) -> None:
    """Lay one layer's tree over what the older layers made: OCI layer.md, "Applying Changesets"."""
    _resolve_links_below(root, layer_root, layer)
    waiting = [(root, layer_root)]
    while waiting:
        below, above = waiting.pop()
        if above.entry is not None:
            below.entry = above.entry
        if above.opaque:
            below.children.clear()
        for name in above.whiteouts:
            below.children.pop(name, None)
        for name, node in above.children.items():
            existing = below.children.get(name)
            if isinstance(node, Directory):
                if not isinstance(existing, Directory):
                    existing = below.children[name] = Directory()
                waiting.append((existing, node))
            else:
                below.children[name] = node


def _resolve_links_below(root: Directory, layer_root: Directory, layer: Layer) -> None:
    """Give hard links to files of older layers their Inode, before this layer hides or replaces it."""
    waiting = [layer_root]
    while waiting:
        directory = waiting.pop()
        for name, node in directory.children.items():
            if isinstance(node, Directory):
                waiting.append(node)
            elif isinstance(node, _LinkBelow):
                found = _resolve(root, node.target, follow_last=False)
                if found is None or isinstance(found[1], Directory):
                    raise ConversionError(
                        f"{describe(layer)}: the hard link {_shown(name)} leads to {_shown(node.target)}, which "
                        "is no file in the image"
                    )
                directory.children[name] = found[1]
