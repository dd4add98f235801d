"""Whiteouts and opaque markers with odd names, in odd places and of odd kinds."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile import ANY, OUT, Allowed, Refused, Scene, Tree, staged
from tests.hostile_tar import END, entry
from tests.layers import directory, file, hardlink, member, symlink, tar

Case = tuple[list[bytes], Allowed]
NO_FILE = Refused("names no file")
LEAVES = Refused("leads out of the image")
OPAQUE = ".wh..wh..opq"
GONE = {"etc/passwd": None}
ETC_EMPTIED = {"etc/passwd": None, "etc/hosts": ANY}  # without one, the converter makes it


def _kinds(name: str, target: str) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    return {
        "an empty file": file(name),
        "a file with content": file(name, b"text" * 300),
        "a directory": directory(name),
        "a symbolic link": symlink(name, target),
        "a hard link": hardlink(name, "etc/passwd"),
        "a hard link to outside": hardlink(name, f"{OUT}/passwd"),
        "a fifo": member(name, tarfile.FIFOTYPE),
        "a device": member(name, tarfile.CHRTYPE, devmajor=1, devminor=3),
    }


def cases(out: str) -> dict[str, Case]:
    there = out.lstrip("/")
    lower = tar(file("x/f", b"1"), file("x/y/g", b"2"))
    below = {"x/f": "1", "x/y": "dir", "x/y/g": "2"}
    made: dict[str, Case] = {
        # names
        "nothing": ([tar(file(".wh."))], NO_FILE),
        "nothing, in a directory": ([tar(file("d/.wh."))], NO_FILE),
        "nothing, as a directory": ([tar(directory(".wh."))], NO_FILE),
        "dot": ([tar(file(".wh.."))], NO_FILE),
        "dot, in a directory": ([tar(file("d/.wh.."))], NO_FILE),
        "parent": ([tar(file(".wh..."))], NO_FILE),
        "parent, in a directory": ([tar(file("d/.wh..."))], NO_FILE),
        "the root": ([tar(file(".wh./"))], NO_FILE),
        "above the root": ([tar(file("../.wh.victim"))], LEAVES),
        "the sentinel": ([tar(file(f"{OUT}/.wh.passwd"))], LEAVES),
        "absolute": ([tar(file("/etc/.wh.passwd"))], GONE),
        "absolute with parents": ([tar(file("/../../etc/.wh.passwd"))], GONE),
        "dots that stay": ([tar(file("d/../etc/.wh.passwd"))], GONE),
        "a whole tree": ([tar(file(".wh.etc"))], ETC_EMPTIED),
        "not there": ([tar(file("none/.wh.none"))], {"none": "dir"}),
        "in the first layer of its file": ([tar(file(".wh.a"), file("a", b"1"))], {"a": "1"}),
        "after its file": ([tar(file("a", b"1"), file(".wh.a"))], {"a": "1"}),
        "three dots": ([tar(file("...", b"1")), tar(file(".wh...."))], {}),
        "a whiteout": ([tar(file("a", b"1")), tar(file(".wh.a")), tar(file(".wh..wh.a"))], {}),
        "not UTF-8": ([tar(file("\udcff", b"1")), entry(name=b".wh.\xff") + END], {}),
        "a newline": ([tar(file("a\nb", b"1")), tar(file(".wh.a\nb"))], {}),
        "a pattern": ([tar(file("abc", b"1")), tar(file(".wh.*"))], {"abc": "1"}),
        "255 bytes": ([tar(file("n" * 251, b"1")), tar(file(".wh." + "n" * 251))], {}),
        "256 bytes": ([tar(file(".wh." + "n" * 252))], Refused("too long")),
        "aufs bookkeeping": ([tar(directory(".wh..wh.orph"), file(".wh..wh.orph/../../.wh.victim", b"1"))], LEAVES),
        "the parent of aufs bookkeeping": ([tar(file("etc/.wh..wh.plnk/../.wh.passwd"))], GONE),
        # through links
        "through a link of this layer": ([tar(symlink("l", "etc"), file("l/.wh.passwd"))], {"l": "-> etc", **GONE}),
        "through an absolute link": ([tar(symlink("l", "/etc"), file("l/.wh.passwd"))], {"l": "-> /etc", **GONE}),
        "through a link out": (
            [tar(symlink("l", OUT), file("l/.wh.passwd"))], {"l": f"-> {OUT}", "outside": "dir"}),
        "through an absolute link out": (
            [tar(symlink("l", out), file("l/.wh.passwd"))], {"l": f"-> {out}", there: "dir"}),
        "through a link of the layer below": (
            [tar(symlink("l", "/etc")), tar(file("l/.wh.passwd"))], {"l": "dir"}),
        "through a link below to outside": ([tar(symlink("l", out)), tar(file("l/.wh.passwd"))], {"l": "dir"}),
        "of a link": ([tar(symlink("l", f"{out}/passwd")), tar(file(".wh.l"))], {}),
        "of a link to a directory": ([tar(symlink("l", "etc")), tar(file(".wh.l"))], {}),
        "of what hard links share": (
            [tar(file("a", b"1"), hardlink("b", "a")), tar(file(".wh.a"))], {"b": "1"}),
        "below a file of this layer": ([tar(file("f", b"1"), file("f/.wh.x"))], Refused("not a directory")),
        "below a file of the layer below": ([tar(file("f", b"1")), tar(file("f/.wh.x"))], {"f": "dir"}),
        "and something below it": (
            [tar(directory("a")), tar(file(".wh.a"), file(".wh.a/x", b"1"))], [Refused(), {".wh.a/x": "1"}]),
        # overlayfs' own whiteout, which is a device: Docker's overlay2 hides the file with it
        "as overlayfs does": (
            [tar(file("a", b"1")), tar(member("a", tarfile.CHRTYPE))], [Refused(), {}, {"a": "char 0:0"}]),
        # opaque
        "opaque": ([lower, tar(file(f"x/{OPAQUE}"))], {"x": "dir"}),
        "opaque, with a file before": ([lower, tar(file("x/new", b"3"), file(f"x/{OPAQUE}"))], {"x/new": "3"}),
        "opaque, with a file after": ([lower, tar(file(f"x/{OPAQUE}"), file("x/new", b"3"))], {"x/new": "3"}),
        "opaque in opaque": ([lower, tar(file(f"x/{OPAQUE}"), file(f"x/y/{OPAQUE}"))], {"x": "dir", "x/y": "dir"}),
        "opaque and a whiteout": ([lower, tar(file(f"x/{OPAQUE}"), file("x/.wh.f"))], {"x": "dir"}),
        "opaque, the root": ([lower, tar(file(OPAQUE))], below),
        "opaque, the root by its name": ([lower, tar(file(f"/./{OPAQUE}"))], below),
        "opaque, above the root": ([tar(file(f"../{OPAQUE}"))], LEAVES),
        "opaque, nothing there": ([tar(file(f"none/{OPAQUE}"))], {"none": "dir"}),
        "opaque, below a file": ([tar(file("f", b"1"), file(f"f/{OPAQUE}"))], Refused("not a directory")),
        "opaque, below a file of the layer below": (
            [tar(file(f"etc/passwd/{OPAQUE}"))], {"etc/passwd": "dir"}),
        "opaque, below a device": (
            [tar(member("f", tarfile.BLKTYPE, devmajor=8), file(f"f/{OPAQUE}"))], Refused("not a directory")),
        "opaque, through a link": ([lower, tar(symlink("l", "x"), file(f"l/{OPAQUE}"))], {"l": "-> x", "x": "dir"}),
        "opaque, through a link out": (
            [tar(symlink("l", out), file(f"l/{OPAQUE}"))], {"l": f"-> {out}", there: "dir"}),
        "opaque, through a link below": (
            [tar(symlink("l", out)), tar(file(f"l/{OPAQUE}"))], {"l": "dir"}),
        "opaque, then a link": (
            [lower, tar(file(f"x/{OPAQUE}"), symlink("x", out))], {"x": f"-> {out}"}),
        "opaque, as a parent": ([lower, tar(file(f"x/{OPAQUE}/f", b"3"))], [Refused(), below]),
        "opaque, misspelt": ([lower, tar(file("x/.wh..opq"))], below),
    }  # fmt: skip
    for kind, one in _kinds("etc/.wh.passwd", out).items():
        made[f"as {kind}"] = ([tar(one)], GONE)
    for kind, one in _kinds(f"x/{OPAQUE}", out).items():
        made[f"opaque, as {kind}"] = ([lower, tar(one)], {"x": "dir"})
    return made


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with staged(tmp_path) as made:
        yield made


@pytest.mark.parametrize("what", cases("/nowhere"))
def test_whiteout(scene: Scene, what: str) -> None:
    layers, allowed = cases(str(scene.outside))[what]
    scene.check(allowed, *layers)


OVERLAY = {"opaque": "y", "whiteout": "y", "redirect": "/../../../../victim", "metacopy": "", "origin": "x"}


@pytest.mark.parametrize("name", OVERLAY)
@pytest.mark.parametrize("namespace", ["trusted", "user"])
def test_overlay_attributes_hide_no_more_than_in_docker(scene: Scene, namespace: str, name: str) -> None:
    """overlayfs takes orders from trusted ones, and shows them to nobody; others are kept or reported."""
    attribute = f"{namespace}.overlay.{name}"
    above = tar(directory("x", pax_headers={f"SCHILY.xattr.{attribute}": OVERLAY[name]}), file("x/new", b"2"))
    old: Tree = {} if attribute == "trusted.overlay.opaque" else {"x/old": "1"}
    outcome = scene.check({**old, "x/new": "2"}, tar(file("x/old", b"1")), above)
    if namespace == "trusted":
        assert attribute not in os.listxattr(scene.tree / "x")
        assert attribute not in outcome.stdout
    else:
        assert attribute in os.listxattr(scene.tree / "x") or attribute in outcome.stdout
