"""What a stack of layers comes to, told slowly: each layer is unpacked in order, then laid over the older ones.

Docker's overlay2 is what this tells: moby's archive.Unpack makes each layer a directory of its own, overlayfs lays one
over the other. Where Docker refuses what others take, or has quirks of its own, it goes by OCI's layer.md instead:

- what overlayfs takes for a whiteout is one: a character device 0:0; a layer's root is never opaque;
- a directory after its own whiteout takes its place, and shows what older layers have there;
- a hard link's owner, mode and time go to its file, if that is of the same layer: each entry has its say;
- a hard link may lead to a file of an older layer, as that layer's stack showed it;
- an entry below a dangling link of its own layer makes the directories it leads to;
- a path may come twice: the later entry replaces the earlier, and a directory only gets new metadata;
- a whiteout concerns older layers only, wherever it stands;
- what Docker gives the time of unpacking has the time 0: directories that no layer has an entry for;
- a directory that a layer has no entry for keeps what older layers say of it.

One dict per tree, a path is a tuple of names, and nothing is shared with converter/rootfs.
"""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass, field, replace

from tests.trees import ROOT, Facts, shown

Path = tuple[str, ...]


@dataclass(frozen=True)
class Item:
    """One entry of a layer; `pieces` are the stored parts (offset, length) of a sparse file."""

    kind: str
    name: str
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    content: bytes = b""
    pieces: tuple[tuple[int, int], ...] | None = None
    link: str = ""
    device: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[str, bytes], ...] = ()


class RefusedError(Exception):
    """No tree comes of this stack."""


class OpenQuestionError(Exception):
    """Refusing is as right as not: a hard link to nothing, which its own layer replaces later; Docker refuses it."""


@dataclass(eq=False)
class _Dir:
    item: Item | None = None


@dataclass(eq=False)
class _File:
    """Anything but a directory; each is one object, however many names it has."""

    item: Item


@dataclass(eq=False)
class _Older:
    """A hard link to a file that an older layer has at `target`."""

    target: Path


_Nodes = dict[Path, _Dir | _File | _Older]


@dataclass
class _Layer:
    nodes: _Nodes = field(default_factory=dict)
    gone: set[Path] = field(default_factory=set)
    opaque: set[Path] = field(default_factory=set)
    replaced: list[_Older] = field(default_factory=list)
    root: Item | None = None


def reference(stack: list[list[Item]]) -> dict[bytes, Facts]:
    """The tree that tests.trees.facts finds. Raises RefusedError."""
    tree: _Nodes = {}
    root: Item | None = None
    for items in stack:
        layer = _Layer()
        for item in items:
            _unpack(layer, item)
        _link_to_older(layer, tree)
        tree = _lay_over(layer, tree)
        root = layer.root or root
    return _told(tree, root)


def _clean(name: str) -> Path:
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            if parts:
                parts.pop()
            elif not name.startswith("/"):
                raise RefusedError("it leads out")
        elif part not in {"", "."}:
            parts.append(part)
    return tuple(parts)


def _is_link(node: object) -> bool:
    return isinstance(node, _File) and node.item.kind == "symlink"


def _follow(nodes: _Nodes, path: Path, *, make: bool) -> Path | None:
    """Where a directory path really leads, links followed and missing directories made; None when nowhere."""
    here: Path = ()
    waiting = list(path)
    for _ in range(10_000):
        if not waiting:
            return here
        part = waiting.pop(0)
        if part == "..":
            here = here[:-1]
            continue
        child = (*here, part)
        if child not in nodes and make:
            nodes[child] = _Dir()
        node = nodes.get(child)
        if isinstance(node, _File) and _is_link(node):
            if node.item.link.startswith("/"):
                here = ()
            waiting = [p for p in node.item.link.split("/") if p not in {"", "."}] + waiting
        elif isinstance(node, _Dir):
            here = child
        else:
            return None
    return None  # a loop


def _at(nodes: _Nodes, path: Path) -> _Dir | _File | _Older | None:
    """What is there when links on the way are followed, but not the last."""
    if not path:
        return _Dir()
    directory = _follow(nodes, path[:-1], make=False)
    return None if directory is None else nodes.get((*directory, path[-1]))


def _below(path: Path, top: Path) -> bool:
    return len(path) > len(top) and path[: len(top)] == top


def _remove(layer: _Layer, path: Path) -> None:
    """What the layer itself has there goes, with all that it says of what is below."""
    going = {p: node for p, node in layer.nodes.items() if p == path or _below(p, path)}
    layer.replaced += [node for node in going.values() if isinstance(node, _Older)]
    layer.nodes = {p: node for p, node in layer.nodes.items() if p not in going}
    layer.gone = {p for p in layer.gone if not _below(p, path)}
    layer.opaque = {p for p in layer.opaque if p != path and not _below(p, path)}


def _unpack(layer: _Layer, item: Item) -> None:
    path = _clean(item.name)
    if not path:
        layer.root = item
        return
    if any(part.startswith(".wh..wh.") for part in path[:-1]):
        return  # aufs' own
    directory = _follow(layer.nodes, path[:-1], make=True)
    if directory is None:
        raise RefusedError("it lies below what is no directory")
    name = path[-1]
    path = (*directory, name)
    if name == ".wh..wh..opq":
        if directory:
            layer.opaque.add(directory)
    elif name.startswith(".wh..wh."):
        pass
    elif name.startswith(".wh."):
        if name[4:] in {"", ".", ".."}:
            raise RefusedError("a whiteout of nothing")
        layer.gone.add((*directory, name[4:]))
    elif item.kind == "dir" and isinstance(layer.nodes.get(path), _Dir):
        layer.nodes[path] = _Dir(item)
    elif item.kind == "char" and item.device == (0, 0):
        _remove(layer, path)
        layer.gone.add(path)
    else:
        if item.kind == "dir":
            layer.gone.discard(path)
        node: _Dir | _File | _Older = _Dir(item) if item.kind == "dir" else _File(item)
        if item.kind == "hardlink":
            target = _clean(item.link)
            node = _at(layer.nodes, target) or _Older(target)
            if isinstance(node, _Dir):
                raise RefusedError("a hard link to a directory")
            if isinstance(node, _File):
                node.item = _restated(node.item, item)
        _remove(layer, path)
        layer.nodes[path] = node


def _restated(item: Item, link: Item) -> Item:
    xattrs = tuple(sorted({**dict(item.xattrs), **dict(link.xattrs)}.items()))
    item = replace(item, uid=link.uid, gid=link.gid, xattrs=xattrs)
    return item if item.kind == "symlink" else replace(item, mode=link.mode, mtime=link.mtime)


def _link_to_older(layer: _Layer, tree: _Nodes) -> None:
    for path, node in layer.nodes.items():
        if isinstance(node, _Older):
            found = _at(tree, node.target)
            if not isinstance(found, _File):
                raise RefusedError("a hard link to nothing")
            layer.nodes[path] = found
    for node in layer.replaced:
        if not isinstance(_at(tree, node.target), _File):
            raise OpenQuestionError


def _lay_over(layer: _Layer, tree: _Nodes) -> _Nodes:
    merged: _Nodes = {}
    for path, node in tree.items():
        ways = [path[: length + 1] for length in range(len(path))]
        removed = any(way in layer.gone for way in ways)
        emptied = any(_below(path, top) for top in layer.opaque)
        covered = any(isinstance(layer.nodes.get(way), _File) for way in ways)
        if not (removed or emptied or covered):
            merged[path] = node
    for path, node in layer.nodes.items():
        older = merged.get(path)
        if isinstance(node, _Dir) and isinstance(older, _Dir) and node.item is None:
            continue
        merged[path] = node
    return merged


def _told(tree: _Nodes, root: Item | None) -> dict[bytes, Facts]:
    names: dict[_Dir | _File | _Older, set[bytes]] = defaultdict(set)
    for path, node in tree.items():
        names[node].add(_name(path))
    found = {b".": _facts(Item("dir", "", mode=0o755, mtime=root.mtime if root else 0), set())}
    for path, node in tree.items():
        assert not isinstance(node, _Older)
        item = node.item or Item("dir", "", mode=0o755)
        found[_name(path)] = _facts(item, set() if isinstance(node, _Dir) else names[node])
    return found


def _name(path: Path) -> bytes:
    return os.fsencode("/".join(path))


def _facts(item: Item, names: set[bytes]) -> Facts:
    return Facts(
        kind=item.kind,
        mode=0o777 if item.kind == "symlink" else item.mode,
        uid=item.uid if ROOT else os.geteuid(),
        gid=item.gid if ROOT else os.getegid(),
        mtime=item.mtime,
        content=os.fsencode(item.link) if item.kind == "symlink" else shown(item.content),
        device=item.device,
        xattrs=item.xattrs,
        names=frozenset(names),
    )
