"""Layers become one Plan: for every path the entry that survives, as Docker's overlay2 would show it.

OCI image-spec layer.md ("Applying Changesets", "Whiteouts"); moby pkg/archive Unpack and the overlay2 driver. Each
layer is first made a tree of its own, as overlay2 unpacks it, and the newest layer's tree then comes to lie on top:
older ones only add what nothing newer hides. Nothing touches the disk here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from converter.errors import ConversionError, NoRoomError
from converter.progress import Progress
from converter.rootfs.stream import AnyLayer, LayerStream, describe, open_layer, open_layers
from converter.rootfs.tar import PATH_MAX, Entry, read_entries

_MAX_LINKS = 40  # as the kernel's own limit, path_resolution(7)
_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_AUFS = b".wh..wh."  # aufs' own bookkeeping, which Docker ignores
_OVERLAY = b"trusted.overlay."  # overlayfs' own: means something to it, and nobody sees it in a container
# Bytes of names, attributes and maps: so much, and so much more for each entry. Far above any real image's.
_METADATA = 1 << 26
_ENTRY_METADATA = 1 << 10


@dataclass(frozen=True)
class Limits:
    """What an image may hold: entries of all layers together, and bytes of its files' stored content."""

    entries: int = 5_000_000
    content: int | None = None


class Inode:
    """What is not a directory, of layer number `layer`; hard links are several names with one Inode.

    `names` is how many it has in its own layer, and `restated` that one of them has changed its entry. `written` is
    the path at which its content has been put already while the layers were read.
    """

    __slots__ = ("entry", "layer", "names", "restated", "written")

    def __init__(self, entry: Entry, layer: int) -> None:
        self.entry = entry
        self.layer = layer
        self.names = 1
        self.restated = False
        self.written: bytes | None = None


class Directory:
    """A directory; `entry` is None while no layer has described it. Whiteouts concern older layers only."""

    __slots__ = ("children", "entry", "opaque", "whiteouts")

    def __init__(self, entry: Entry | None = None) -> None:
        self.entry = entry
        self.children: dict[bytes, _Unmerged] = {}
        self.whiteouts: frozenset[bytes] | set[bytes] = _NOTHING
        self.opaque = False

    def hide(self, name: bytes) -> None:
        """Whatever older layers have of this name is not seen."""
        if isinstance(self.whiteouts, frozenset):
            self.whiteouts = set(self.whiteouts)  # made when there is one: most directories never have any
        self.whiteouts.add(name)


_NOTHING: frozenset[bytes] = frozenset()


class _LinkBelow:
    """A hard link to a file of an older layer: `found` once all layers are known."""

    __slots__ = ("found", "target")

    def __init__(self, target: bytes) -> None:
        self.target = target
        self.found: Inode | None = None


Node = Directory | Inode
_Unmerged = Directory | Inode | _LinkBelow

# Is called with each regular file that no newer layer hides, its path and its layer's stream at its content.
Keep = Callable[[Inode, bytes, LayerStream], None]
# Is called with what was kept when its own layer replaces it.
Drop = Callable[[Inode], None]


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
    """The merged tree of `layers`; `entries` and `content` (bytes) are what was counted against the limits.

    Where they are not all of an image's, its directories say what they hide of those below (`whiteouts`, `opaque`).
    """

    layers: tuple[AnyLayer, ...]
    root: Directory
    entries: int = 0
    content: int = 0

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
        found = _resolve([self.root], path.encode("utf-8", "surrogateescape"))
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
        with open_layer(self.layers[found.node.layer]) as stream:
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


def scan(
    layers: Sequence[AnyLayer],
    *,
    progress: Progress,
    limits: Limits | None = None,
    keep: Keep | None = None,
    drop: Drop | None = None,
) -> Plan:
    """Read every layer once to its end, verifying its digests, and merge them.

    `keep` can take the content of files on the way, so that it need not be read again; now and then it gets a file
    that does not survive, of some of which `drop` tells, or misses one that does. Raises ConversionError when a layer
    is damaged, does not verify or reaches outside its root, or when the image holds more than `limits`.
    """
    merged = Directory()
    count = _Count(limits or Limits())
    links: list[tuple[int, _LayerTree]] = []
    trees: dict[int, Directory] = {}
    newest_first = list(enumerate(layers))[::-1]
    with (
        progress.step("unpacking layers", sum(layer.size for layer in layers)) as step,
        closing(open_layers((layer for _, layer in newest_first), step)) as streams,
    ):
        for (number, layer), stream in zip(newest_first, streams, strict=True):
            tree = _LayerTree(number, merged, count, keep, drop)
            try:
                for entry in read_entries(stream):
                    tree.add(entry, stream)
                stream.finish()
            except ConversionError as error:
                raise type(error)(f"{describe(layer)}: {error}") from None
            if links:  # a newer layer has links to what lies below: keep this tree as it is
                trees[number] = tree.root
            if tree.links:
                links.append((number, tree))
            _lay_under(merged, tree.root, copied=number in trees)
    for number, tree in reversed(links):
        _resolve_links(tree, [trees[n] for n in range(number - 1, -1, -1)], layers[number])
    if links:
        _put_links(merged)
    return Plan(tuple(layers), merged, count.entered, count.stored)


class _Count:
    """What has been read of all layers, against the limits."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._metadata = 0
        self.entered = 0
        self.stored = 0  # bytes

    def entry(self, entry: Entry) -> None:
        self.entries(1)
        self._metadata += len(entry.name) + len(entry.link)
        if entry.xattrs or entry.sparse:
            self._metadata += sum(len(name) + len(value) + 128 for name, value in entry.xattrs)
            self._metadata += 128 * len(entry.sparse or ())
        if self._metadata > _METADATA + self.entered * _ENTRY_METADATA:
            raise ConversionError("its entries have more names, attributes and maps than is sensible")

    def entries(self, more: int) -> None:
        self.entered += more
        if self.entered > self._limits.entries:
            raise ConversionError(
                f"the image has more than {self._limits.entries} entries; --max-entries allows more"
            )

    def content(self, entry: Entry) -> None:
        self.stored += entry.stored
        if self._limits.content is not None and self.stored > self._limits.content:
            raise NoRoomError(
                f"the image unpacks to more than {self._limits.content >> 10} KiB; make room first, "
                "or allow more with --max-size"
            )


@dataclass(slots=True)
class _Place:
    """A directory that entries of one layer lie in: where it really is, and what newer layers have there.

    `path` ends in a slash but for the root's. `ignored`: nothing in it counts. `hidden`: newer layers hide it all.
    """

    path: bytes
    directory: Directory
    above: Directory | None = None
    hidden: bool = False
    ignored: bool = False


class _LayerTree:
    """One layer's own tree, grown entry by entry. `links` are those to files of older layers."""

    def __init__(
        self,
        number: int,
        above: Directory,
        count: _Count,
        keep: Keep | None = None,
        drop: Drop | None = None,
    ) -> None:
        self.root = Directory()
        self.links: list[tuple[Directory, bytes, _LinkBelow]] = []
        self._number = number
        self._above = above
        self._count = count
        self._keep = keep
        self._drop = drop
        self._places: dict[
            bytes, _Place
        ] = {}  # by the entry's own words; entries come directory by directory

    def add(self, entry: Entry, stream: LayerStream) -> None:
        """Add the entry whose content is next in the stream."""
        self._count.entry(entry)
        before, _, name = entry.name.rstrip(b"/").rpartition(b"/")
        if name in _NO_NAMES:
            parts = _clean(entry.name)
            if not parts:
                if entry.kind == "dir":
                    self.root.entry = entry
                return
            name = parts.pop()
            before = b"/".join(parts)
        place = self._places.get(before)
        if place is None:
            place = self._places[before] = self._find_place(before, entry)
        if len(place.path) + len(name) >= PATH_MAX:
            raise ConversionError("a name is too long for Linux once its links are followed")
        if place.ignored:
            return
        parent = place.directory
        if name.startswith(_WHITEOUT):
            if name == _OPAQUE:
                parent.opaque = parent is not self.root  # to overlayfs a layer's root never is
            elif not name.startswith(_AUFS):
                self._whiteout(parent, name, entry)
            return
        existing = parent.children.get(name)
        opaque = False
        if entry.xattrs:
            entry, opaque = _without_overlay(entry)
        if entry.kind == "dir":
            if isinstance(existing, Directory):
                existing.entry = entry
                existing.opaque |= opaque
                return
            if name in parent.whiteouts:  # in Docker the directory takes its place
                parent.whiteouts = parent.whiteouts - {name}
        elif entry.kind == "char" and entry.device == (0, 0):  # a whiteout to overlayfs
            if existing is not None:
                self._replaced(parent.children.pop(name))
            parent.hide(name)
            return
        node = self._node(parent, name, entry)
        if opaque and isinstance(node, Directory):
            node.opaque = True
        parent.children[name] = node
        if existing is not None:
            self._replaced(existing)
        if entry.kind == "file" and not place.hidden:
            above = place.above
            if above is None or not (above.opaque or name in above.whiteouts or name in above.children):
                self._count.content(entry)
                if self._keep is not None:
                    assert isinstance(node, Inode)
                    self._keep(node, place.path + name, stream)

    def _node(self, parent: Directory, name: bytes, entry: Entry) -> _Unmerged:
        if entry.kind == "dir":
            return Directory(entry)
        if entry.kind != "hardlink":
            return Inode(entry, self._number)
        target = b"/".join(_clean(entry.link))
        found = _resolve([self.root], target, follow_last=False)
        if found is not None and isinstance(found[1], Directory):
            raise ConversionError(f"the hard link {_shown(entry.name)} leads to a directory")
        if found is not None and isinstance(found[1], Inode):
            _restate(found[1], entry)
            return found[1]
        link = found[1] if found is not None and isinstance(found[1], _LinkBelow) else _LinkBelow(target)
        self.links.append((parent, name, link))
        return link

    def _replaced(self, node: _Unmerged) -> None:
        if isinstance(node, Inode):
            node.names -= 1
            if not node.names and node.written is not None and self._drop is not None:
                self._drop(node)
        self._places.clear()  # what they say may lie below what was replaced

    def _whiteout(self, parent: Directory, name: bytes, entry: Entry) -> None:
        hidden = name[len(_WHITEOUT) :]
        if hidden in _NO_NAMES:
            raise ConversionError(f"the whiteout {_shown(entry.name)} names no file")
        parent.hide(hidden)

    def _find_place(self, before: bytes, entry: Entry) -> _Place:
        """The directory at `before`: made where it is missing, links of this layer followed."""
        parts = _clean(before)
        if any(part.startswith(_AUFS) for part in parts):
            return _Place(b"", self.root, ignored=True)
        path: list[tuple[bytes, Directory]] = []
        here = self.root
        waiting = parts[::-1]
        links = 0
        while waiting:
            part = waiting.pop()
            if part == b"..":
                if path:
                    path.pop()
                here = path[-1][1] if path else self.root
                continue
            child = here.children.get(part)
            if child is None:
                self._count.entries(1)
                child = here.children[part] = Directory()
            elif isinstance(child, Inode) and child.entry.kind == "symlink":
                links += 1
                if links > _MAX_LINKS:
                    raise ConversionError(
                        f"there are too many symbolic links on the way to {_shown(entry.name)}"
                    )
                if child.entry.link.startswith(b"/"):
                    path, here = [], self.root
                waiting += [p for p in reversed(child.entry.link.split(b"/")) if p not in {b"", b"."}]
                continue
            if not isinstance(child, Directory):
                raise ConversionError(
                    f"the entry {_shown(entry.name)} lies below something that is not a directory"
                )
            path.append((part, child))
            here = child
        above, hidden = self._find_above([part for part, _ in path])
        return _Place(b"".join(part + b"/" for part, _ in path), here, above, hidden)

    def _find_above(self, parts: list[bytes]) -> tuple[Directory | None, bool]:
        """The directory of this path in newer layers, None when they have none; and whether they hide this one."""
        here = self._above
        for part in parts:
            if here.opaque or part in here.whiteouts:
                return None, True
            child = here.children.get(part)
            if child is None:
                return None, False
            if not isinstance(child, Directory):
                return None, True
            here = child
        return here, False


_NO_NAMES = frozenset({b"", b".", b".."})


def _without_overlay(entry: Entry) -> tuple[Entry, bool]:
    """The entry without overlayfs' own attributes, and whether they make it opaque."""
    kept = tuple(item for item in entry.xattrs if not item[0].startswith(_OVERLAY))
    opaque = (_OVERLAY + b"opaque", b"y") in entry.xattrs
    return (entry._replace(xattrs=kept) if len(kept) < len(entry.xattrs) else entry), opaque


def _restate(inode: Inode, link: Entry) -> None:
    """A further name in its own layer: Docker gives the file the metadata of each link as it makes it."""
    inode.names += 1
    restated = inode.entry._replace(
        uid=link.uid, gid=link.gid, xattrs=tuple({**dict(inode.entry.xattrs), **dict(link.xattrs)}.items())
    )
    if inode.entry.kind != "symlink":
        restated = restated._replace(mode=link.mode, mtime=link.mtime)
    if restated != inode.entry:
        inode.entry = restated
        inode.restated = True


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


def _resolve(
    roots: list[Directory], path: bytes, *, follow_last: bool = True
) -> tuple[bytes, _Unmerged] | None:
    """The real path that `path` leads to in the trees of `roots`, newest first, laid over one another.

    And what is there; None when it leads nowhere.
    """
    real: list[tuple[bytes, list[Directory] | Inode | _LinkBelow]] = []
    waiting = [part for part in reversed(path.split(b"/")) if part not in {b"", b"."}]
    links = 0
    while waiting:
        part = waiting.pop()
        if part == b"..":
            if real:
                real.pop()
            continue
        here = real[-1][1] if real else roots
        child = _child(here, part) if isinstance(here, list) else None
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
    there = real[-1][1] if real else roots
    return b"/".join(part for part, _ in real), there[0] if isinstance(there, list) else there


def _child(stack: list[Directory], name: bytes) -> list[Directory] | Inode | _LinkBelow | None:
    """What a directory that is several, newest first, shows by this name."""
    found: list[Directory] = []
    for directory in stack:
        node = directory.children.get(name)
        if isinstance(node, Directory):
            found.append(node)
            if node.opaque:
                break
        elif node is not None:
            return found or (node.found or node if isinstance(node, _LinkBelow) else node)
        if name in directory.whiteouts:
            break
    return found or None


def _lay_under(merged: Directory, tree: Directory, *, copied: bool) -> None:
    """Lay an older layer's tree under what the newer ones made: OCI layer.md, "Applying Changesets", backwards.

    Its directories become part of the merged tree, or their copies do.
    """
    waiting = [(merged, tree)]
    while waiting:
        above, below = waiting.pop()
        if above.entry is None:
            above.entry = below.entry
        if above.opaque:
            continue
        for name, node in below.children.items():
            if name in above.whiteouts:
                continue
            existing = above.children.get(name)
            if existing is None:
                above.children[name] = _copy(node) if copied and isinstance(node, Directory) else node
            elif isinstance(existing, Directory):
                if isinstance(node, Directory):
                    waiting.append((existing, node))
                else:
                    above.hide(name)  # also what still older layers had here before this took its place
        for name in below.whiteouts:
            above.hide(name)
        above.opaque = below.opaque


def _copy(tree: Directory) -> Directory:
    """A copy of the directories; the files in them are the same."""
    root = Directory()
    waiting = [(root, tree)]
    while waiting:
        copy, original = waiting.pop()
        copy.entry, copy.opaque, copy.whiteouts = original.entry, original.opaque, set(original.whiteouts)
        for name, node in original.children.items():
            if isinstance(node, Directory):
                child = copy.children[name] = Directory()
                waiting.append((child, node))
            else:
                copy.children[name] = node
    return root


def _resolve_links(tree: _LayerTree, older: list[Directory], layer: AnyLayer) -> None:
    """Find the files that a layer's hard links mean among the `older` trees, newest first."""
    for parent, name, link in tree.links:
        if parent.children.get(name) is not link:
            continue  # replaced in its own layer
        found = _resolve(older, link.target, follow_last=False)
        if found is None or not isinstance(found[1], Inode):
            raise ConversionError(
                f"{describe(layer)}: the hard link {_shown(name)} leads to {_shown(link.target)}, which is no file "
                "in the image"
            )
        link.found = found[1]


def _put_links(merged: Directory) -> None:
    """Put the files in the links' places."""
    waiting = [merged]
    while waiting:
        children = waiting.pop().children
        for name, node in children.items():
            if isinstance(node, Directory):
                waiting.append(node)
            elif isinstance(node, _LinkBelow):
                assert node.found is not None
                children[name] = node.found
