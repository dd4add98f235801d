"""Hostile build contexts, archives and destinations: nothing outside is read, nothing outside is written."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import socket
import stat
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from converter.dockerfile import copying
from converter.dockerfile.context import Source, open_context
from converter.dockerfile.model import Copy, InlineFile, Instruction, State
from converter.errors import ConversionError
from tests import hostile_tar
from tests.hostile import ROOT, snapshot, tree_of
from tests.layers import directory, file, hardlink, member, symlink, tar

_REPOSITORY = Path(__file__).parent.parent
SECRET = "SECRET-1f0c"


def step(
    *sources: str, destination: str = "/x/", add: bool = False, inline: tuple[InlineFile, ...] = ()
) -> Copy:
    keyword = "ADD" if add else "COPY"
    instruction = Instruction(keyword, (*sources, destination), keyword, "Dockerfile", 2, 2)
    return Copy(1, instruction, State(), add, sources, destination, inline)


class Scene:
    """A context and a root, and beside them `outside`, whose content must be found nowhere else."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.context = place / "context"
        self.root = place / "root"
        self.outside = place / "outside"
        self.context.mkdir()
        (self.root / "etc").mkdir(parents=True)
        (self.outside / "below").mkdir(parents=True)
        for name in ("secret", "below/secret", "passwd"):
            (self.outside / name).write_text(f"{SECRET}\n")
        (self.context / "Dockerfile").write_text("FROM scratch\n")
        (self.context / "plain").write_text("plain\n")
        self._before = snapshot(self.outside)

    def source(self) -> Source:
        return open_context(self.context, self.context / "Dockerfile")

    def copy(self, what: Copy, source: Source | None = None) -> str:
        """Do it; the message, if it is refused."""
        try:
            selection = copying.select(what, source or self.source(), self.place / "spool")
            copying.fingerprint(selection)
            copying.put(selection, what, self.root, None)
        except ConversionError as error:
            return str(error)
        return ""

    def assert_nothing_out(self) -> None:
        assert snapshot(self.outside) == self._before
        assert {path.name for path in self.place.iterdir()} <= {
            "context",
            "root",
            "outside",
            "spool",
            "inputs",
        }
        for top in (self.root, self.place / "spool"):
            if top.exists():
                leaked = [
                    path
                    for path, content in tree_of(top).items()
                    if SECRET in content and "->" not in content
                ]
                assert leaked == []


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.assert_nothing_out()
    subprocess.run(["rm", "-rf", made.root], check=True)  # some are deeper than pytest's own cleaning goes


_LINKS = {
    "file": "../outside/secret",
    "dir": "../outside",
    "absolute": "{outside}/secret",
    "absolute-dir": "{outside}",
    "top": "/",
    "up": "../../../../../../../../..",
    "proc": "/proc/self/root/{outside}",
    "through-proc": "/proc/self/cwd",
    "chain": "dir/below",
    "loop": "loop",
    "loop-a": "loop-b",
    "loop-b": "loop-a",
    "long": "a/" * 2000,
}
_SOURCES = (
    *("../outside/secret", "../../../../../../{outside}/secret", "/../outside/secret", "{outside}/secret", ".."),
    *("./../outside", "d/../../outside", "plain/../../outside/secret", "../outside/s*", "*/../../outside/secret"),
    *("file", "dir", "dir/secret", "dir/", "dir/.", "dir/s*", "*/secret", "d*/secret", "dir/below/secret"),
    *("absolute", "absolute-dir/secret", "absolute-dir", "top/etc/passwd", "up{outside}/secret"),
    *("proc/secret", "proc", "through-proc/../outside/secret", "chain/secret", "chain", "loop", "loop/x", "loop-a/*"),
    *("loop*", "long", "long/x", ".", "*", "*/*", "*/*/*", "[d]ir/secret", "d?r/secret", "sub", "sub/link"),
    *("sub/*/secret", "dir/../secret", "top{outside}", "top{outside}/secret", "absolute-dir/*", "../*"),
)  # fmt: skip


@pytest.mark.parametrize("source", _SOURCES)
@pytest.mark.parametrize("parents", [False, True])
def test_sources_that_lead_out(scene: Scene, source: str, parents: bool) -> None:
    outside = str(scene.outside)
    for name, target in _LINKS.items():
        (scene.context / name).symlink_to(target.format(outside=outside))
    (scene.context / "sub").mkdir()
    (scene.context / "sub/link").symlink_to("../../outside")
    asked = step(source.format(outside=outside))
    if parents:
        asked = Copy(**{**vars(asked), "parents": True})
    for what in (asked, Copy(**{**vars(asked), "add": True})):
        scene.copy(what)


@pytest.mark.parametrize("source", [source for source in _SOURCES if not source.startswith("..")])
def test_another_stage_that_leads_out(scene: Scene, source: str) -> None:
    outside = str(scene.outside)
    stage = scene.context / "stage"
    stage.mkdir()
    for name, target in _LINKS.items():
        (stage / name).symlink_to(target.format(outside=outside))
    scene.copy(step(source.format(outside=outside)), Source(stage, "stage 0"))


def test_what_is_no_file(scene: Scene) -> None:
    os.mkfifo(scene.context / "fifo")
    with socket.socket(socket.AF_UNIX) as listening, contextlib.chdir(scene.context):
        listening.bind("socket")
    if ROOT:
        os.mknod(scene.context / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
        os.mknod(scene.context / "disk", stat.S_IFBLK | 0o666, os.makedev(8, 0))
    for what in (step("."), step("fifo"), step("*"), step("fifo", add=True), step(".", add=True)):
        scene.copy(what)


def test_names_of_any_bytes(scene: Scene) -> None:
    names = [
        b"new\nline",
        b"\xff\xfe",
        b"-rf",
        b" ",
        b"'",
        b'"',
        b"$(x)",
        b"*",
        b"[",
        b"a\\b",
        b"\x1b[2J",
        b"n" * 255,
    ]
    for name in names:
        (scene.context / os.fsdecode(name)).write_bytes(name)
    assert scene.copy(step(".")) == ""
    for name in names:
        assert (scene.root / "x" / os.fsdecode(name)).read_bytes() == name


_DESTINATIONS = (
    *("/../outside/secret", "/../../../../../../../../{outside}/secret", "/link/secret", "/link/", "/file", "/link/."),
    *("/absolute/new", "/absolute/", "/loop/x", "/loop", "/link/../secret", "/link/below/", "/etc/link/secret", "/."),
    *("/dangling", "/dangling/x", "/proc-link/secret", "/", "/..", "/deep/secret", "/fifo", "/fifo/x", "/etc/passwd/x"),
)  # fmt: skip


@pytest.mark.parametrize("destination", _DESTINATIONS)
def test_destinations_that_lead_out(scene: Scene, destination: str) -> None:
    outside = str(scene.outside)
    for name, target in {
        "link": "../outside",
        "file": "../outside/secret",
        "absolute": outside,
        "deep": "link/below",
        "loop": "loop",
        "dangling": "../outside/new",
        "proc-link": f"/proc/self/root{outside}",
        "etc/link": "../../outside",
    }.items():
        (scene.root / name).symlink_to(target)
    (scene.root / "etc/passwd").write_text("inside\n")
    os.mkfifo(scene.root / "fifo")
    (scene.context / "d").mkdir()
    (scene.context / "d/secret").write_text("from the context\n")
    where = destination.format(outside=outside)
    scene.copy(step("plain", destination=where))
    scene.copy(step("d", destination=where))
    scene.copy(step(destination=where, inline=(InlineFile("secret", b"inline"),)))


@pytest.mark.parametrize(
    "name",
    ["../../outside/secret", "/etc/x", "..", ".", "", "a/b", "\n", "x" * 300, "a/../../../outside/secret"],
)
def test_names_of_heredocs(scene: Scene, name: str) -> None:
    for destination in ("/x/", "/x", "/"):
        scene.copy(step(destination=destination, inline=(InlineFile(name, b"inline"),)))


_ARCHIVES = {
    "up": tar(file("../outside/secret", b"x"), file("../../new", b"x"), file("a/../../outside/secret", b"x")),
    "absolute": tar(file("/etc/absolute", b"x"), file("//x", b"x")),
    "through-link": tar(symlink("l", "../../outside"), file("l/secret", b"x"), file("l/new", b"x")),
    "through-two-links": tar(symlink("a", ".."), symlink("a/b", "../outside"), file("a/b/new", b"x")),
    "link-then-file": tar(symlink("l", "../../outside/secret"), file("l", b"x")),
    "link-then-directory": tar(
        symlink("l", "../../outside"), directory("l", mode=0o777), file("l/secret", b"x")
    ),
    "hard-link-out": tar(hardlink("h", "../../outside/secret"), file("h", b"x")),
    "hard-link-through": tar(symlink("l", "../../outside"), hardlink("h", "l/secret"), file("h", b"x")),
    "hard-link-to-link": tar(symlink("l", "../../outside/secret"), hardlink("h", "l"), file("h", b"x")),
    "hard-link-to-nothing": tar(hardlink("h", "missing")),
    "hard-link-to-directory": tar(directory("d"), hardlink("h", "d")),
    "hard-link-to-itself": tar(hardlink("h", "h")),
    "directory-over-link": tar(directory("link"), file("link/secret", b"x")),
    "devices": tar(
        member("null", tarfile.CHRTYPE, devmajor=1, devminor=3),
        member("disk", tarfile.BLKTYPE, devmajor=8, devminor=0),
        member("fifo", tarfile.FIFOTYPE),
        file("fifo", b"x"),
    ),
    "dots": tar(directory("."), directory(".."), file(".", b"x"), file("..", b"x"), file("", b"x")),
    "whiteouts": tar(file(".wh.etc"), file(".wh..wh..opq"), file("x/.wh.y")),
    "nul": hostile_tar.pax({b"path": b"a\0b"}) + hostile_tar.entry(b"x") + hostile_tar.END,
    "huge-size": hostile_tar.header(name=b"f", size=hostile_tar.number(1 << 62)) + b"x" * 512,
    "cut": tar(file("a", b"x" * 5000))[:2000],
    "set-user-id": tar(file("su", b"x", mode=0o6755, uid=0), file("over", b"x", uid=1 << 31)),
    "many-levels": tar(*(directory("/".join("d" * n)) for n in range(1, 120)), file("d/" * 1500 + "f", b"x")),
    "sparse-exabyte": hostile_tar.old_gnu([(0, 1)], 1 << 60, b"x") + hostile_tar.END,
    "attributes": hostile_tar.pax({b"SCHILY.xattr.trusted.overlay.opaque": b"y", b"SCHILY.xattr.user.": b""})
    + hostile_tar.entry(name=b"f")
    + hostile_tar.END,
}


@pytest.mark.parametrize("name", _ARCHIVES)
@pytest.mark.parametrize("destination", ["/", "/x/", "/link/"])
def test_archives(scene: Scene, name: str, destination: str) -> None:
    (scene.root / "link").symlink_to("../outside")
    (scene.context / "a.tar").write_bytes(_ARCHIVES[name])
    scene.copy(step("a.tar", destination=destination, add=True))


def test_a_context_that_changes_meanwhile(scene: Scene) -> None:
    """A directory and a link to the outside change places all the time: either is seen as what it is."""
    real, link = scene.context / "now", scene.context / "then"
    (real / "below").mkdir(parents=True)
    for name in ("secret", "below/secret", "passwd"):
        (real / name).write_text("from the context\n")
    link.symlink_to(scene.outside)
    libc = ctypes.CDLL(None, use_errno=True)
    over = threading.Event()

    def exchange() -> None:
        while not over.is_set():
            libc.renameat2(-100, os.fsencode(real), -100, os.fsencode(link), 2)

    flipping = threading.Thread(target=exchange)
    flipping.start()
    try:
        for turn, source in zip(
            range(300), itertools.cycle((".", "now", "now/secret", "*/secret", "now/below/")), strict=False
        ):
            scene.copy(step(source, destination=f"/{turn}/"))
    finally:
        over.set()
        flipping.join()


def _deep_context(context: Path) -> None:
    here = context
    for _ in range(12):
        here = here / ("a" * 120)
        here.mkdir()
        (here / ("a" * 250)).write_text("x")


_IGNORE_BOMBS: dict[str, Callable[[], str]] = {
    "stars": lambda: "*a" * 40 + "b\n",
    "double-stars": lambda: "**/" * 40 + "b\n",
    "double-stars-between": lambda: "**a" * 40 + "b\n",
    "mixed": lambda: "**/*a*a*a*a*a*a*a*a*a*a*a*a/**/*a*a*a*a*a*a*a*a*a*a*a*a*b\n",
    "exceptions": lambda: "**\n" + "!**/*a*a*a*a*a*a*a*a*a*a*b\n" * 20,
    "classes": lambda: "[a-z]*" * 40 + "[0-9]\n",
    "question-marks": lambda: "*?" * 60 + "b\n",
    "many": lambda: "".join(f"**/name-{n}/*\n" for n in range(3000)),
    "many-exceptions": lambda: "**\n" + "".join(f"!**/name-{n}/*\n" for n in range(3000)),
    "long": lambda: "a/" * 100_000 + "\n",
    "backslashes": lambda: "\\" * 100_000 + "\n",
    "brackets": lambda: "[" * 100_000 + "\n",
    "binary": lambda: "".join(map(chr, range(256))) * 100,
    "carriage-returns": lambda: "*\r\n!plain\r\n",
}

_BOUNDED = """
import resource, sys
from pathlib import Path
from tests.test_hostile_context import Scene, step
from converter.dockerfile import copying
from converter.errors import ConversionError
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
context = Path(sys.argv[1])
from converter.dockerfile.context import open_context
try:
    for source in (".", "plain", "*", sys.argv[2]):
        copying.select(step(source), open_context(context, context / "Dockerfile"), context.parent / "spool")
except ConversionError as error:
    print(error)
"""


def _bounded(context: Path, source: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _BOUNDED, context, source],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(_REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("\n") <= 1


@pytest.mark.parametrize("name", _IGNORE_BOMBS)
def test_ignore_files_that_take_long(scene: Scene, name: str) -> None:
    _deep_context(scene.context)
    (scene.context / ".dockerignore").write_text(_IGNORE_BOMBS[name]())
    _bounded(scene.context, "plain")


@pytest.mark.parametrize(
    "source", ["*a" * 40 + "b", "*?" * 60 + "b", "[a-z]*" * 40 + "[0-9]", "*/" * 11 + "*a" * 40 + "b"]
)
def test_wildcards_that_take_long(scene: Scene, source: str) -> None:
    _deep_context(scene.context)
    _bounded(scene.context, source)


def test_ignore_files_that_are_none(scene: Scene) -> None:
    ignore = scene.context / ".dockerignore"
    for target in ("../outside/secret", "/dev/zero", ".dockerignore"):
        ignore.symlink_to(target)
        assert SECRET not in scene.copy(step("plain"))
        ignore.unlink()
    os.mkfifo(ignore)
    scene.copy(step("plain"))
    ignore.unlink()
    ignore.mkdir()
    scene.copy(step("plain"))
