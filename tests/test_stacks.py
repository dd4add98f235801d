"""Any stack of layers, on disk, is what tests/stack_reference.py says: one layer applied after the other."""

from __future__ import annotations

import os
import random
import tarfile
import tempfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from converter.errors import ConversionError
from converter.rootfs import files as writing_files
from tests.layers import member, tar
from tests.stack_reference import Item, OpenQuestionError, RefusedError, reference
from tests.trees import ROOT, facts, written

Stack = list[list[Item]]

_TYPES = {
    "file": tarfile.REGTYPE,
    "dir": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "hardlink": tarfile.LNKTYPE,
    "char": tarfile.CHRTYPE,
    "block": tarfile.BLKTYPE,
    "fifo": tarfile.FIFOTYPE,
}
_HOLE = 1 << 16  # bytes that no file system's block is larger than


def packed(items: list[Item]) -> bytes:
    """The layer as a tar."""
    return tar(*map(_member, items))


def _member(item: Item) -> tuple[tarfile.TarInfo, bytes]:
    headers = {f"SCHILY.xattr.{name}": value.decode() for name, value in item.xattrs}
    seconds, rest = divmod(item.mtime, 10**9)
    if seconds < 0 and rest:
        seconds, rest = seconds + 1, 10**9 - rest
        headers["mtime"] = f"-{-seconds}.{rest:09}"
    else:
        headers["mtime"] = f"{seconds}.{rest:09}"
    content = item.content
    if item.pieces is not None:
        pieces = item.pieces or ((len(content), 0),)  # as GNU tar writes what is one hole
        headers["GNU.sparse.map"] = ",".join(f"{offset},{length}" for offset, length in pieces)
        headers["GNU.sparse.size"] = str(len(content))
        content = b"".join(content[offset : offset + length] for offset, length in item.pieces)
    return member(
        item.name,
        _TYPES[item.kind],
        content,
        mode=item.mode,
        uid=item.uid,
        gid=item.gid,
        linkname=item.link,
        devmajor=item.device[0],
        devminor=item.device[1],
        pax_headers=headers,
    )


def check(stack: Stack, *, keep: bool = True) -> None:
    """Write the stack and compare; where the reference refuses, so must the program."""
    layers = [packed(items) for items in stack]
    with tempfile.TemporaryDirectory(prefix="stack-") as place:
        out = Path(place, "out")
        try:
            expected = reference(stack)
        except RefusedError:
            with pytest.raises(ConversionError):
                written(out, *layers, keep=keep)
            return
        except OpenQuestionError:
            return
        assert written(out, *layers, keep=keep) == []
        found = facts(out)
        assert found == expected
        _check_holes(out, found.keys(), stack)


def _check_holes(out: Path, names: object, stack: Stack) -> None:
    sparse = [item for items in stack for item in items if item.pieces is not None]
    assert isinstance(names, type({}.keys()))
    for item in sparse:
        path = out / item.name.lstrip("/")
        if os.fsencode(item.name) in names and path.is_file() and not path.is_symlink():
            status = path.stat()
            if status.st_size == len(item.content):
                stored = sum(length for _, length in item.pieces or ())
                assert status.st_blocks * 512 <= stored + 2 * _HOLE * len(item.pieces or ())


# --- what stacks are made of ---------------------------------------------------------------------------------

NAMES = ("a", "b", "c")
PATHS = (
    *NAMES,
    *(f"{x}/{y}" for x in NAMES for y in NAMES),
    "a/b/c",
    "a/b/a",
    "b/c/a",
    "b/c/\udcff",
    "c/a/b/d",
)
_DECORATIONS = ("{}", "{}", "{}", "{}", "./{}", "/{}", ".//{}", "x/../{}", "/../{}")
SPELLED = tuple(decoration.format(path) for path in PATHS for decoration in _DECORATIONS)
_TARGETS = tuple(
    form.format(path) for path in PATHS[:12] for form in ("{}", "{}", "/{}", "../{}", "../../{}")
)


def _xattrs(*pairs: tuple[str, str]) -> tuple[tuple[str, bytes], ...]:
    return tuple((name, value.encode()) for name, value in pairs)


_METADATA = (
    Item("", "", 0o644, 0, 0, 0),
    Item("", "", 0o755, 0, 0, 1_700_000_000_000_000_000),
    Item("", "", 0o600, 1000, 1000, 1_234_567_890_123_456_789),
    Item("", "", 0o4755, 0, 33, 1),
    Item("", "", 0o2770, 3_000_000, 4_000_000_000, 999_999_999),
    Item("", "", 0o1777, 0, 0, -1),
    Item("", "", 0o000, 5, 6, -1_500_000_000),
    Item("", "", 0o444, 7, 7, 2 * 10**9, xattrs=_xattrs(("user.one", "1"), ("user.two", "zwei"))),
    Item("", "", 0o7755, 8, 9, 3 * 10**9, xattrs=_xattrs(("user.empty", ""))),
)
metadata = st.sampled_from(_METADATA)
_PLAIN = [replace(item, xattrs=()) for item in _METADATA]


def _content(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


def _sparse(layout: tuple[int, ...], seed: int) -> tuple[bytes, tuple[tuple[int, int], ...]]:
    """A file of which every second stretch of `layout` is stored."""
    bounds = [0]
    for length in layout:
        bounds.append(bounds[-1] + length)
    pieces = tuple((start, end - start) for start, end in list(pairwise(bounds))[1::2])
    content = bytearray(bounds[-1])
    for offset, length in pieces:
        content[offset : offset + length] = _content(length, seed)
    return bytes(content), pieces


def files(paths: tuple[str, ...], sizes: tuple[int, ...]) -> st.SearchStrategy[Item]:
    return st.builds(
        lambda what, name, size, seed: replace(what, kind="file", name=name, content=_content(size, seed)),
        metadata, st.sampled_from(paths), st.sampled_from(sizes), st.integers(0, 9),
    )  # fmt: skip


_LAYOUTS = (
    (0, 3),
    (5,),
    (9, 1, 4, 0, 2),
    (300_000, 7, 200_000),
    (0, 5000, 600_000),
    (70_000, 300_000, 1_000_000, 9),
)


def sparse_files(paths: tuple[str, ...]) -> st.SearchStrategy[Item]:
    def build(what: Item, name: str, layout: tuple[int, ...], seed: int) -> Item:
        content, pieces = _sparse(layout, seed)
        return replace(what, kind="file", name=name, content=content, pieces=pieces)

    return st.builds(build, metadata, st.sampled_from(paths), st.sampled_from(_LAYOUTS), st.integers(0, 9))


def directories(paths: tuple[str, ...]) -> st.SearchStrategy[Item]:
    return st.builds(
        lambda what, name: replace(what, kind="dir", name=name), metadata, st.sampled_from(paths)
    )


def links(kind: str, paths: tuple[str, ...], targets: tuple[str, ...]) -> st.SearchStrategy[Item]:
    return st.builds(
        lambda what, name, target: replace(what, kind=kind, name=name, link=target),
        st.sampled_from(_PLAIN), st.sampled_from(paths), st.sampled_from(targets),
    )  # fmt: skip


_DEVICES = [("fifo", 0, 0)] + [("char", 1, 3), ("char", 0xFFF, 0xFFFFF), ("block", 7, 200)] * ROOT


def specials(paths: tuple[str, ...]) -> st.SearchStrategy[Item]:
    return st.builds(
        lambda what, name, device: replace(what, kind=device[0], name=name, device=device[1:]),
        st.sampled_from(_PLAIN), st.sampled_from(paths), st.sampled_from(_DEVICES),
    )  # fmt: skip


def _marks(paths: tuple[str, ...], whole: str) -> st.SearchStrategy[Item]:
    """Whiteouts: files whose names say what is gone."""

    def build(path: str) -> Item:
        directory, slash, name = path.rpartition("/")
        return Item("file", whole.format(path=path, directory=directory + slash, name=name))

    return st.builds(build, st.sampled_from(paths))


def whiteouts(paths: tuple[str, ...]) -> st.SearchStrategy[Item]:
    return _marks(paths, "{directory}.wh.{name}")


def opaques(paths: tuple[str, ...]) -> st.SearchStrategy[Item]:
    return _marks(paths, "{path}/.wh..wh..opq")


_AIMED = tuple(f"#{number}" for number in range(8))
SMALL = (0, 1, 2, 3, 700)
INNER = ("a", "b", "c", "a/b", "b/c", "c/a", "c/a/b")
LEAVES = tuple(path for path in PATHS if path not in INNER)
SPELLED_LEAVES = tuple(spelled for spelled in SPELLED if spelled.removeprefix("x/..").strip("./") in LEAVES)
_ODD = st.sampled_from(
    [
        Item("dir", "./", mode=0o700, mtime=77 * 10**9, uid=5),
        Item("dir", ".", mode=0o1777, mtime=78 * 10**9),
        Item("file", ".wh..wh..opq"),
        Item("dir", ".wh..wh.plnk"),
        Item("file", ".wh..wh.plnk/1.2", content=b"x"),
        Item("file", "a/.wh..wh.aufs", content=b"x"),
        Item("dir", "//a//b//", mode=0o711),
    ]
)
_OUTSIDE = st.sampled_from(
    [
        Item("file", ".wh.."),
        Item("file", "../evil"),
        Item("dir", "a/../.."),
        Item("hardlink", "h", link="../../b"),
    ]
)


def _mixed(*choices: tuple[int, st.SearchStrategy[Item]]) -> st.SearchStrategy[Item]:
    """One of the strategies, each as often as its weight says."""
    weighed = [strategy for weight, strategy in choices for _ in range(weight)]
    return st.integers(0, len(weighed) - 1).flatmap(weighed.__getitem__)


anything = _mixed(
    (5, files(SPELLED_LEAVES, SMALL)),
    (1, files(PATHS, SMALL)),
    (4, directories(INNER)),
    (1, directories(SPELLED)),
    (2, whiteouts(PATHS)),
    (2, opaques(INNER)),
    (2, links("symlink", SPELLED_LEAVES, _TARGETS)),
    (1, links("symlink", PATHS, _TARGETS)),
    (4, links("hardlink", SPELLED_LEAVES, _AIMED)),
    (1, links("hardlink", PATHS, _AIMED)),
    (1, specials(LEAVES)),
    (1, specials(PATHS)),
    (1, sparse_files(LEAVES)),
    (1, _ODD),
)


def _aim(stack: Stack) -> Stack:
    """Hard links to "#n" lead to the n-th last of the names before them; most lead nowhere otherwise."""
    names: list[str] = []
    aimed: Stack = []
    for items in stack:
        aimed.append([])
        for item in items:
            if item.kind == "hardlink" and item.link.startswith("#"):
                if not names:
                    continue
                item = replace(item, link=names[-1 - int(item.link[1:]) % len(names)])
            if item.kind != "dir" and ".wh." not in item.name:
                names.append(item.name)
            aimed[-1].append(item)
    return aimed


def stacks(items: st.SearchStrategy[Item], *, layers: int, size: int) -> st.SearchStrategy[Stack]:
    return st.lists(st.lists(items, max_size=size), min_size=1, max_size=layers).map(_aim)


def thorough(examples: int) -> settings:
    return settings(
        max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
    )


@thorough(1000)
@given(stacks(anything, layers=4, size=7))
def test_any_stack(stack: Stack) -> None:
    check(stack)


@thorough(250)
@given(stacks(anything, layers=4, size=9))
def test_any_stack_whose_small_files_processes_make(stack: Stack) -> None:
    with mock.patch.object(writing_files, "_FEW", 0), mock.patch.object(writing_files, "_BATCH_FILES", 3):
        check(stack)


@thorough(300)
@given(stacks(_mixed((9, anything), (1, _OUTSIDE)), layers=3, size=7))
def test_any_stack_that_may_be_hostile(stack: Stack) -> None:
    check(stack)


@thorough(300)
@given(stacks(anything, layers=3, size=7))
def test_any_stack_that_is_read_twice(stack: Stack) -> None:
    check(stack, keep=False)


_FEW = ("a", "b", "a/b", "a/a", "a/b/a")
replacing = _mixed(
    (3, files(_FEW, SMALL)),
    (4, directories(_FEW)),
    (2, links("symlink", _FEW, ("a", "b", "/a/b", "../b"))),
    (2, links("hardlink", _FEW, _AIMED)),
    (2, specials(_FEW)),
    (2, whiteouts(_FEW)),
    (2, opaques(("a", "b", "a/b"))),
)


@thorough(600)
@given(stacks(replacing, layers=4, size=6))
def test_a_few_names_that_become_everything(stack: Stack) -> None:
    check(stack)


_PARENTS = ("a", "b", "c/a", "c")
_THROUGH = tuple(f"{parent}/{name}" for parent in _PARENTS for name in ("d", "e", "d/e"))
through_links = _mixed(
    (4, links("symlink", _PARENTS, ("a", "b", "/b", "c/a", "../c", "../../a", "none", "/"))),
    (3, directories((*_PARENTS, *_THROUGH))),
    (6, files(_THROUGH, SMALL)),
    (2, whiteouts(_THROUGH)),
    (1, opaques(_PARENTS)),
    (2, links("hardlink", _THROUGH, _AIMED)),
    (1, links("hardlink", _THROUGH, _THROUGH)),
)


@thorough(500)
@given(stacks(through_links, layers=3, size=8))
def test_parents_that_are_links(stack: Stack) -> None:
    check(stack)


_CHAIN = ("a", "b", "d/a", "d/b", "d/c")
linking = _mixed(
    (4, files(_CHAIN, SMALL)),
    (8, links("hardlink", _CHAIN, _AIMED)),
    (1, links("symlink", _CHAIN, ("a",))),
    (1, specials(_CHAIN)),
    (3, whiteouts((*_CHAIN, "d"))),
    (1, opaques(("d", "."))),
    (1, directories(("d", "./"))),
)


@thorough(600)
@given(stacks(linking, layers=5, size=6))
def test_chains_of_hard_links_across_layers(stack: Stack) -> None:
    check(stack)


@thorough(100)
@given(st.lists(st.lists(anything, max_size=2), min_size=10, max_size=25).map(_aim))
def test_many_thin_layers(stack: Stack) -> None:
    check(stack)


_KB, _MB = 1 << 10, 1 << 20
_EDGES = tuple(edge + off for edge in (4 * _KB, 128 * _KB, 256 * _KB, _MB) for off in (-1, 0, 1))
LARGE = (*_EDGES, 300_000, 2 * _MB + 5, 3 * _MB + 17, 0, 1)
large = _mixed(
    (6, files(_CHAIN, LARGE)),
    (1, files(_CHAIN, SMALL)),
    (1, sparse_files(_CHAIN)),
    (2, links("hardlink", _CHAIN, _AIMED)),
    (1, directories(("a", "d", "d/a"))),
    (1, whiteouts((*_CHAIN, "d"))),
    (1, opaques(("d",))),
)


@thorough(150)
@given(stacks(large, layers=3, size=5))
def test_large_files(stack: Stack) -> None:
    check(stack)
