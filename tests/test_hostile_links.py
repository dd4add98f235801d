"""Hard links that aim outside, at themselves, at directories, at what comes later, and across layers."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile import OUT, ROOT, Allowed, Refused, Scene, staged
from tests.hostile_tar import END, entry, header, pax
from tests.layers import directory, file, hardlink, member, symlink, tar

Case = tuple[list[bytes], Allowed]
LEAVES = Refused("leads out of the image")
NO_FILE = Refused("is no file in the image")
DIRECTORY = Refused("leads to a directory")


def cases(out: str) -> dict[str, Case]:
    """What a link is to lead to; `out` is the sentinel's absolute path."""
    f = file("f", b"1")
    through_absolute = tar(symlink("l", "/etc"), hardlink("h", "l/passwd"))
    return {
        # outside
        "parent": ([tar(hardlink("h", "../../etc/passwd"))], LEAVES),
        "the sentinel": ([tar(hardlink("h", f"{OUT}/passwd"))], LEAVES),
        "the sentinel, absolute": ([tar(hardlink("h", f"{out}/passwd"))], NO_FILE),
        "parent behind a name": ([tar(hardlink("h", "etc/../../passwd"))], LEAVES),
        "parent in a PAX link": ([pax({b"linkpath": b"../x"}) + header(name=b"h", flag=b"1") + END], LEAVES),
        "named outside itself": ([tar(f, hardlink("../h", "f"))], LEAVES),
        "the program's own descriptor": ([tar(hardlink("h", "/proc/self/fd/3"))], NO_FILE),
        # what looks like outside and means inside
        "absolute, inside": ([tar(hardlink("h", "/etc/passwd"))], {"h": "inside"}),
        "absolute with parents": ([tar(hardlink("h", "/../../etc/passwd"))], {"h": "inside"}),
        "dots that stay": ([tar(hardlink("h", "./d/../etc//passwd"))], {"h": "inside"}),
        "absolute, in this layer": ([tar(f, hardlink("h", "/f"))], {"f": "1", "h": "1"}),
        # through symbolic links
        "through a link of this layer": (
            [tar(file("d/f", b"1"), symlink("l", "d"), hardlink("h", "l/f"))],
            {"d/f": "1", "l": "-> d", "h": "1"},
        ),
        "through a link of a layer below": ([tar(symlink("l", "/etc")), tar(hardlink("h", "l/passwd"))],
            {"l": "-> /etc", "h": "inside"}),
        "through an absolute link in a directory": (
            [tar(symlink("d/l", "/etc")), tar(hardlink("h", "d/l/passwd"))], {"d/l": "-> /etc", "h": "inside"}),
        "through a link of this layer to one below": ([through_absolute], [Refused(), {"l": "-> /etc", "h": "inside"}]),
        "through a link out": ([tar(symlink("l", OUT), hardlink("h", "l/passwd"))], NO_FILE),
        "through a link out, below": ([tar(symlink("l", OUT)), tar(hardlink("h", "l/passwd"))], NO_FILE),
        "through an absolute link out": ([tar(symlink("l", out)), tar(hardlink("h", "l/passwd"))], NO_FILE),
        "through a circle": ([tar(symlink("l", "l"), hardlink("h", "l/x"))], NO_FILE),
        "to a link": ([tar(symlink("l", f"{out}/passwd"), hardlink("h", "l"))],
            {"l": f"-> {out}/passwd", "h": f"-> {out}/passwd"}),
        "to a link below": ([tar(symlink("l", OUT)), tar(hardlink("h", "l"))], {"l": f"-> {OUT}", "h": f"-> {OUT}"}),
        "through a link to a link, then written": (
            [tar(symlink("l", f"{out}/passwd"), hardlink("h", "l"), file("h", b"x"))],
            {"l": f"-> {out}/passwd", "h": "x"},
        ),
        "below itself through a link": ([tar(symlink("l", "h"), hardlink("h", "l/f"))], NO_FILE),
        # directories
        "to a directory": ([tar(directory("x"), hardlink("h", "x"))], DIRECTORY),
        "to a directory below": ([tar(hardlink("h", "etc"))], NO_FILE),
        "to the root": ([tar(hardlink("h", "/"))], DIRECTORY),
        "to dot": ([tar(hardlink("h", "."))], DIRECTORY),
        "to nothing": ([tar(hardlink("h", ""))], DIRECTORY),
        "to what it lies in": ([tar(hardlink("x/h", "x"))], Refused()),
        "over a directory": ([tar(f, file("x/y", b"2"), hardlink("x", "f"))], {"f": "1", "x": "1"}),
        "over a directory below": ([tar(file("x/y", b"2")), tar(f, hardlink("x", "f"))], {"f": "1", "x": "1"}),
        "over what it leads to": ([tar(file("x/y", b"2"), hardlink("x", "x/y"))], [Refused(), {"x": "2"}]),
        "below a file": ([tar(f, hardlink("f/h", "f"))], Refused("not a directory")),
        # itself, and order
        "to itself": ([tar(hardlink("h", "h"))], NO_FILE),
        "to itself, there before": ([tar(f, hardlink("f", "f"))], [Refused(), {"f": "1"}]),
        "to itself, there below": ([tar(f), tar(hardlink("f", "f"))], [Refused(), {"f": "1"}]),
        "in a circle": ([tar(hardlink("a", "b"), hardlink("b", "a"))], NO_FILE),
        "to a later entry": ([tar(hardlink("h", "f"), f)], NO_FILE),
        "to a later entry, another below": ([tar(file("f", b"0")), tar(hardlink("h", "f"), f)], {"f": "1", "h": "0"}),
        "to what is replaced later": ([tar(f, hardlink("h", "f"), file("f", b"2"))], {"f": "2", "h": "1"}),
        "to a later layer": ([tar(hardlink("h", "f")), tar(f)], NO_FILE),
        "to nothing there": ([tar(hardlink("h", "none"))], NO_FILE),
        "to what an older layer hid": ([tar(f), tar(file(".wh.f")), tar(hardlink("h", "f"))], NO_FILE),
        "to what lay in a hidden directory": (
            [tar(file("x/f", b"1")), tar(file("x/.wh..wh..opq")), tar(hardlink("h", "x/f"))], NO_FILE),
        "to a whiteout": ([tar(file(".wh.f"), hardlink("h", ".wh.f"))], NO_FILE),
        "across four layers": (
            [tar(f), tar(hardlink("a", "f")), tar(hardlink("b", "a"), file(".wh.f")), tar(file(".wh.a"))],
            {"b": "1"},
        ),
        "chain": ([tar(f, *(hardlink(f"h{n + 1}", f"h{n}" if n else "f") for n in range(60)))],
            {"f": "1", **{f"h{n + 1}": "1" for n in range(60)}}),
        # other kinds, and fields that lie
        "to a fifo": ([tar(member("p", tarfile.FIFOTYPE), hardlink("h", "p"))], {"p": "fifo", "h": "fifo"}),
        "to a device": (
            [tar(member("n", tarfile.BLKTYPE, devmajor=8, devminor=0), hardlink("h", "n"))],
            {"n": "block 8:0", "h": "block 8:0"} if ROOT else {},
        ),
        "with a size": (
            [tar(f) [:1024] + header(name=b"h", flag=b"1", link=b"f", size=b"1000") + entry(b"2", name=b"g") + END],
            {"f": "1", "h": "1", "g": "2"},
        ),
        "with a mode of its own": ([tar(f, hardlink("h", "f", mode=0o4777))], {"f": "1", "h": "1"}),
        "with a NUL": ([pax({b"linkpath": b"etc/passwd\0x"}) + header(name=b"h", flag=b"1") + END], Refused("NUL")),
        "of 64 kB": ([tar(hardlink("h", "n/" * 32_000))], Refused("too long")),
        "a component of 256 bytes": ([tar(hardlink("h", "n" * 256))], Refused("too long")),
    }  # fmt: skip


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with staged(tmp_path) as made:
        yield made


@pytest.mark.parametrize("what", cases("/nowhere"))
def test_hard_link(scene: Scene, what: str) -> None:
    layers, allowed = cases(str(scene.outside))[what]
    scene.check(allowed, *layers)


def test_a_link_to_the_inside_passwd_is_the_inside_file(scene: Scene) -> None:
    scene.check({"h": "inside"}, tar(hardlink("h", "/etc/passwd")))
    status = (scene.tree / "h").stat()
    assert status.st_ino == (scene.tree / "etc/passwd").stat().st_ino
    assert status.st_ino != Path("/etc/passwd").stat().st_ino


def test_a_link_does_not_change_the_mode_of_its_file(scene: Scene) -> None:
    """As with link(2): names have no modes, and a later layer must not make an older file setuid."""
    scene.check({"f": "1", "h": "1"}, tar(file("f", b"1", mode=0o600)), tar(hardlink("h", "f", mode=0o4777)))
    assert (scene.tree / "f").stat().st_mode & 0o7777 == 0o600


def test_more_links_than_a_file_can_have(scene: Scene) -> None:
    """ext4 allows 65000 names; elsewhere all of them are there."""
    links = b"".join(header(name=b"h%d" % number, flag=b"1", link=b"f") for number in range(65_100))
    data = entry(b"x", name=b"f") + links + END
    outcome = scene.convert(scene.save(data))
    if outcome.status == 0:
        assert (scene.tree / "f").stat().st_nlink == 65_101
    else:
        outcome.refused()
        scene.assert_untouched(refused=True)
