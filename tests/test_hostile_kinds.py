"""Devices, fifos and unknown types are made and never opened; modes are kept; of equal names the last one wins."""

from __future__ import annotations

import itertools
import stat
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.hostile import ROOT, Allowed, Refused, Scene, Tree, staged
from tests.hostile_tar import END, entry, header
from tests.layers import directory, file, hardlink, member, symlink, tar

DEVICES = {
    "a disk": ("block", 8, 0),
    "this machine's disk": ("block", 254, 0),
    "a loop device": ("block", 7, 0),
    "memory": ("char", 1, 1),
    "ports": ("char", 1, 4),
    "the terminal": ("char", 5, 0),
    "the kernel's log": ("char", 1, 11),
    "a tape that would rewind": ("char", 9, 0),
    "a watchdog": ("char", 10, 130),
    "none": ("char", 0, 0),
    "the largest": ("block", 4095, 1048575),
}

_opened: list[str] | None = None


def _listen(event: str, arguments: tuple[object, ...]) -> None:
    if _opened is not None and event == "open":
        _opened.append(str(arguments[0]))


sys.addaudithook(_listen)  # there is no way to take it back


@contextmanager
def opened() -> Iterator[list[str]]:
    """The names of all that is opened meanwhile."""
    global _opened
    names: list[str] = []
    _opened = names
    try:
        yield names
    finally:
        _opened = None


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with staged(tmp_path) as made:
        yield made


@pytest.mark.parametrize("what", DEVICES)
def test_a_device_is_made_and_never_opened(scene: Scene, what: str) -> None:
    kind, major, minor = DEVICES[what]
    flag = tarfile.BLKTYPE if kind == "block" else tarfile.CHRTYPE
    made = member("dev/trap", flag, devmajor=major, devminor=minor, mode=0o4666)
    whiteout = (kind, major, minor) == ("char", 0, 0)  # to overlayfs, so to Docker
    expected: Tree = {"dev/trap": f"{kind} {major}:{minor}"} if ROOT and not whiteout else {"dev": "dir"}
    with opened() as names:
        outcome = scene.check(expected, tar(made))
    assert names != []
    assert [name for name in names if "trap" in name] == []
    assert ("devices need root: /dev/trap" in outcome.stdout) == (not ROOT and not whiteout)


PLACES = ("etc/passwd", "etc/group", "etc/os-release", "usr/lib/os-release", "x", "run/trap")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ["fifo", "disk"])
def test_special_files_where_files_are_read_are_never_opened(scene: Scene, kind: str, place: str) -> None:
    """Opening a fifo waits for ever; a disk would answer."""
    flag = tarfile.FIFOTYPE if kind == "fifo" else tarfile.BLKTYPE
    data = tar(member(place, flag, devmajor=8, devminor=0))
    with opened() as names:
        outcome = scene.convert(scene.save(tar(file("usr/f", b"1")), data, Cmd=["/x"]))
    assert [name for name in names if Path(name).name == Path(place).name] == []
    if kind == "disk" and not ROOT and place.startswith("run/"):
        # There is nothing to copy.
        assert outcome.status in {0, 1}
        return
    assert outcome.status == 0, outcome.stderr
    if kind == "fifo" or ROOT:
        status = (scene.tree / place).lstat()
        assert stat.S_ISFIFO(status.st_mode) if kind == "fifo" else stat.S_ISBLK(status.st_mode)
    scene.assert_untouched(refused=False)


@pytest.mark.parametrize("name", ["hosts", "hostname", "resolv.conf", "mtab"])
def test_what_is_made_takes_the_place_of_a_special_file(scene: Scene, name: str) -> None:
    scene.check({}, tar(member(f"etc/{name}", tarfile.FIFOTYPE)))


def test_a_user_looked_up_in_a_fifo(scene: Scene) -> None:
    data = tar(member("etc/passwd", tarfile.FIFOTYPE))
    scene.check(Refused("ghost"), data, User="ghost")


@pytest.mark.parametrize(
    "kind", [tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE], ids=["fifo", "char", "block"]
)
def test_nothing_lies_below_a_special_file(scene: Scene, kind: bytes) -> None:
    scene.check(Refused("not a directory"), tar(member("p", kind, devmajor=8), file("p/evil", b"x")))


def test_a_directory_takes_the_place_of_a_special_file(scene: Scene) -> None:
    below = tar(member("p", tarfile.FIFOTYPE), member("q", tarfile.BLKTYPE, devmajor=8))
    scene.check({"p/x": "1", "q/x": "1"}, below, tar(file("p/x", b"1"), file("q/x", b"1")))


FLAGS: dict[str, tuple[bytes, Allowed]] = {
    "a contiguous file": (b"7", {"f": "x"}),
    "an unknown lower-case type": (b"z", {"f": "x"}),
    "a digit without meaning": (b"9", {"f": "x"}),
    "a type of NUL": (b"\0", {"f": "x"}),
    "a volume label": (b"V", {}),
    "a rest of a volume": (b"M", [Refused(), {}]),
    "GNU's old names": (b"N", [Refused(), {}]),
    "GNU's dump of a directory": (b"D", Refused("unknown type")),
    "Solaris' access list": (b"A", Refused("unknown type")),
    "an inode only": (b"I", Refused("unknown type")),
    "a socket, for who might write one": (b"s", [Refused(), {"f": "x"}]),
    "a byte beyond ASCII": (b"\xff", [Refused(), {"f": "x"}]),
}


@pytest.mark.parametrize("what", FLAGS)
def test_types(scene: Scene, what: str) -> None:
    flag, allowed = FLAGS[what]
    scene.check(allowed, entry(b"x", name=b"f", flag=flag) + END)


@pytest.mark.parametrize("flag", "123456")
def test_what_has_no_content_is_not_followed_by_any(scene: Scene, flag: str) -> None:
    """A size on a link, device or directory says nothing of the archive; Go's reader, so Docker, sees it that way."""
    seen = entry(b"x", name=b"seen")
    data = header(name=b"made", flag=flag.encode(), link=b"etc/passwd", size=b"%o" % len(seen)) + seen + END
    outcome = scene.convert(scene.save(tar(file("etc/passwd", b"inside")), data))
    assert outcome.status == 0, outcome.stderr
    assert (scene.tree / "seen").read_bytes() == b"x"


MODES = (0o4755, 0o2755, 0o6711, 0o1755, 0o7777, 0o4000, 0o644)


@pytest.mark.parametrize("mode", MODES, ids=[f"{mode:04o}" for mode in MODES])
def test_modes_are_kept(scene: Scene, mode: int) -> None:
    data = tar(
        directory("x", mode=mode | 0o700),
        file("x/f", b"1", mode=mode),
        member("x/p", tarfile.FIFOTYPE, mode=mode),
    )
    assert scene.convert(scene.save(data)).status == 0
    assert (scene.tree / "x").stat().st_mode & 0o7777 == mode | 0o700
    assert (scene.tree / "x/f").stat().st_mode & 0o7777 == mode
    assert (scene.tree / "x/p").stat().st_mode & 0o7777 == mode
    scene.assert_untouched(refused=False)


def test_setuid_survives_the_owner_that_is_set_after_it(scene: Scene) -> None:
    """chown(2) takes setuid away: the mode must come after the owner."""
    scene.check({"su": "1"}, tar(file("su", b"1", mode=0o6755, uid=1234, gid=4321)))
    status = (scene.tree / "su").stat()
    assert stat.filemode(status.st_mode) == "-rwsr-sr-x"
    if ROOT:
        assert (status.st_uid, status.st_gid) == (1234, 4321)


def test_type_bits_in_the_mode_change_nothing(scene: Scene) -> None:
    """A mode field may hold a whole st_mode, here that of a block device and of a link."""
    data = entry(b"x", name=b"a", mode=b"060644") + entry(b"y", name=b"b", mode=b"120777") + END
    scene.check({"a": "x", "b": "y"}, data)
    assert (scene.tree / "a").stat().st_mode == stat.S_IFREG | 0o644


def test_the_root_stays_what_it_is(scene: Scene) -> None:
    scene.check({}, tar(directory(".", mode=0o7777, uid=1234), directory("/", mode=0, uid=1234)))
    status = scene.tree.stat()
    assert status.st_mode & 0o7777 == 0o755
    assert status.st_uid == (0 if ROOT else status.st_uid)


KINDS = {
    "file": [file("n", b"F")],
    "dir": [directory("n"), file("n/x", b"D")],
    "implied dir": [file("n/y", b"I")],
    "symlink": [symlink("n", "../../..")],
    "hard link": [hardlink("n", "etc/passwd")],
    "fifo": [member("n", tarfile.FIFOTYPE)],
}
TREES: dict[str, dict[str, str]] = {
    "file": {"n": "F"},
    "dir": {"n": "dir", "n/x": "D"},
    "implied dir": {"n": "dir", "n/y": "I"},
    "symlink": {"n": "-> ../../.."},
    "hard link": {"n": "inside"},
    "fifo": {"n": "fifo"},
}
ORDERS = list(itertools.product(KINDS, repeat=2))


@pytest.mark.parametrize(("first", "second"), ORDERS, ids=[f"{first}, {second}" for first, second in ORDERS])
def test_the_last_of_equal_names_wins(scene: Scene, first: str, second: str) -> None:
    """Within a layer; a directory that is only implied by a name below it takes nobody's place there."""
    allowed: Refused | Tree = TREES[second]
    if "dir" in first and "dir" in second:
        allowed = {**TREES[first], **TREES[second]}
    elif second == "implied dir" and first == "symlink":
        allowed = {**TREES["symlink"], "y": "I"}
    elif second == "implied dir":
        allowed = Refused("not a directory")
    scene.check(allowed, tar(*KINDS[first], *KINDS[second]))


@pytest.mark.parametrize(("first", "second"), ORDERS, ids=[f"{first}, {second}" for first, second in ORDERS])
def test_the_last_layer_with_a_name_wins(scene: Scene, first: str, second: str) -> None:
    merged = "dir" in first and "dir" in second
    scene.check(
        {**TREES[first], **TREES[second]} if merged else TREES[second],
        tar(*KINDS[first]),
        tar(*KINDS[second]),
    )


def test_a_name_many_times(scene: Scene) -> None:
    members = [one for _ in range(30) for kind in ("file", "symlink", "dir", "fifo") for one in KINDS[kind]]
    scene.check({"n": "F"}, tar(*members, file("n", b"F")), tar(*members, file("n", b"F")))
