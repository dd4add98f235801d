"""COPY and ADD: what is found in a build context, and how it comes to lie in a tree, as in BuildKit."""

from __future__ import annotations

import os
import socket
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from converter.dockerfile.context import Source, open_context
from converter.dockerfile.copying import fingerprint, lay_out, put, select
from converter.dockerfile.layout import LaidOut
from converter.dockerfile.model import Copy, DockerfileError, Flag, InlineFile, Instruction, State
from converter.dockerfile.modes import change_mode
from converter.errors import ConversionError

ROOT = os.geteuid() == 0

Files = dict[str, str | bytes | tuple[str, str] | None]


def make(root: Path, files: Files) -> Path:
    """A tree: text or bytes is a file, None a directory, ("->", target) a link, ("=", name) a further name."""
    root.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        match content:
            case None:
                path.mkdir(exist_ok=True)
            case ("->", str(target)):
                path.symlink_to(target)
            case ("=", str(other)):
                path.hardlink_to(root / other)
            case str():
                path.write_text(content)
            case bytes():
                path.write_bytes(content)
    return root


def listed(root: Path) -> Files:
    """The tree as `make` takes it, but for further names; empty directories alone are named."""
    found: Files = {}
    for directory, names, files in os.walk(root):
        here = Path(directory)
        for name in sorted([*names, *files]):
            path = here / name
            relative = str(path.relative_to(root))
            if path.is_symlink():
                found[relative] = ("->", str(path.readlink()))
            elif path.is_dir():
                if not any(path.iterdir()):
                    found[relative] = None
            elif path.is_file():
                found[relative] = path.read_bytes().decode(errors="surrogateescape")
    return found


def step(*sources: str, to: str = "/d/", add: bool = False, **more: object) -> Copy:
    instruction = Instruction("ADD" if add else "COPY", (), "", "Dockerfile", 7, 7)
    return replace(Copy(1, instruction, State(), add, sources, to), **more)  # type: ignore[arg-type]


class Build:
    """A context, a tree, and a COPY between them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.context = path / "context"
        self.root = path / "root"
        self.context.mkdir()
        self.root.mkdir()
        self._spools = 0

    def source(self) -> Source:
        return open_context(self.context, self.context / "Dockerfile")

    def spool(self) -> Path:
        self._spools += 1
        return self.path / f"spool{self._spools}"

    def copy(self, copied: Copy, owner: tuple[int, int] | None = None) -> Files:
        selection = select(copied, self.source(), self.spool())
        put(selection, copied, self.root, owner)
        return listed(self.root)

    def fingerprint(self, copied: Copy) -> str:
        return fingerprint(select(copied, self.source(), self.spool()))


@pytest.fixture
def build(tmp_path: Path) -> Build:
    return Build(tmp_path)


CONTEXT: Files = {
    "a.txt": "a",
    "b.txt": "b",
    "c.md": "c",
    "dir/d.txt": "d",
    "dir/sub/e.txt": "e",
    "dir/empty": None,
    "other/f.txt": "f",
}


@pytest.mark.parametrize(
    ("copied", "expected"),
    [
        (step("a.txt"), {"d/a.txt": "a"}),
        (step("a.txt", to="/new"), {"new": "a"}),
        (step("a.txt", to="/x/y/new"), {"x/y/new": "a"}),
        (step("a.txt", to="/x/."), {"x/a.txt": "a"}),
        (step("a.txt", to="/"), {"a.txt": "a"}),
        (step("./a.txt", "/b.txt"), {"d/a.txt": "a", "d/b.txt": "b"}),
        (step("a.txt", "b.txt", to="/one"), {"one": "b"}),
        (step("../../a.txt"), {"d/a.txt": "a"}),
        (step("dir"), {"d/d.txt": "d", "d/sub/e.txt": "e", "d/empty": None}),
        (step("dir/"), {"d/d.txt": "d", "d/sub/e.txt": "e", "d/empty": None}),
        (step("dir/.", to="/d"), {"d/d.txt": "d", "d/sub/e.txt": "e", "d/empty": None}),
        (step("dir/sub/..", to="/d"), {"d/d.txt": "d", "d/sub/e.txt": "e", "d/empty": None}),
        (step("*.txt"), {"d/a.txt": "a", "d/b.txt": "b"}),
        (step("?.txt", "c*"), {"d/a.txt": "a", "d/b.txt": "b", "d/c.md": "c"}),
        (step("*/*.txt"), {"d/d.txt": "d", "d/f.txt": "f"}),
        (step("dir/s*"), {"d/e.txt": "e"}),
        (step("[do]*"), {"d/d.txt": "d", "d/sub/e.txt": "e", "d/empty": None, "d/f.txt": "f"}),
        (step("*.none"), {}),
        (step("a.txt", "*.none"), {"d/a.txt": "a"}),
        (step("a.txt", parents=True), {"d/a.txt": "a"}),
        (step("dir/sub/e.txt", parents=True), {"d/dir/sub/e.txt": "e"}),
        (step("dir/./sub/e.txt", parents=True), {"d/sub/e.txt": "e"}),
        (step("./dir/sub", parents=True), {"d/dir/sub/e.txt": "e"}),
        (step("**/*.txt", parents=True), {
            "d/a.txt": "a", "d/b.txt": "b", "d/dir/d.txt": "d", "d/dir/sub/e.txt": "e", "d/other/f.txt": "f"}),
        (step("*/*.txt", parents=True), {"d/dir/d.txt": "d", "d/other/f.txt": "f"}),
        (step("dir", exclude=("sub",)), {"d/d.txt": "d", "d/empty": None}),
        (step("dir", exclude=("**/*.txt",)), {"d/sub": None, "d/empty": None}),
        (step("dir", exclude=("*", "!sub/e.txt")), {"d/sub/e.txt": "e"}),
        (step("dir", exclude=("*",)), {"d": None}),
        (step(".", exclude=("dir", "*.md")), {"d/a.txt": "a", "d/b.txt": "b", "d/other/f.txt": "f"}),
        (step("a.txt", exclude=("a.txt",)), {"d/a.txt": "a"}),
        (step(inline=(InlineFile("x y", b"1\n"), InlineFile("z", b""))), {"d/x y": "1\n", "d/z": ""}),
        (step(to="/file", inline=(InlineFile("x", b"1\n"),)), {"file": "1\n"}),
    ],
    ids=lambda value: repr(value.sources) if isinstance(value, Copy) else "",
)  # fmt: skip
def test_where_files_go(build: Build, copied: Copy, expected: Files) -> None:
    make(build.context, CONTEXT)
    assert build.copy(copied) == expected


@pytest.mark.parametrize(
    ("before", "copied", "expected"),
    [
        ({"d/x": "x"}, step("a.txt", to="/d"), {"d/x": "x", "d/a.txt": "a"}),
        ({"d": "old"}, step("a.txt", to="/d"), {"d": "a"}),
        ({"d/a.txt": "old"}, step("a.txt"), {"d/a.txt": "a"}),
        ({"d/x": "x", "d/sub/y": "y"}, step("dir"), {
            "d/x": "x", "d/sub/y": "y", "d/d.txt": "d", "d/sub/e.txt": "e", "d/empty": None}),
        # Links of the tree are followed inside it, the last one of a destination too.
        ({"real": None, "d": ("->", "real")}, step("a.txt"), {"real/a.txt": "a", "d": ("->", "real")}),
        ({"real": None, "d": ("->", "/real")}, step("a.txt", to="/d"), {"real/a.txt": "a", "d": ("->", "/real")}),
        ({"real": "old", "d": ("->", "/real")}, step("a.txt", to="/d"), {"real": "a", "d": ("->", "/real")}),
        ({"d": ("->", "../../../etc")}, step("a.txt"), {"d": ("->", "../../../etc"), "etc/a.txt": "a"}),
        ({"d": ("->", "nowhere/deep")}, step("a.txt"), {"d": ("->", "nowhere/deep"), "nowhere/deep/a.txt": "a"}),
        ({"d/a.txt": ("->", "/keep"), "keep": "k"}, step("a.txt"), {"d/a.txt": "a", "keep": "k"}),
        ({"lib": ("->", "usr/lib"), "usr/lib": None}, step("a.txt", to="/lib/x/"), {
            "lib": ("->", "usr/lib"), "usr/lib/x/a.txt": "a"}),
        ({"d/sub": "file"}, step("other", to="/d"), {"d/sub": "file", "d/f.txt": "f"}),
    ],
)  # fmt: skip
def test_what_is_there_already(build: Build, before: Files, copied: Copy, expected: Files) -> None:
    make(build.context, CONTEXT)
    make(build.root, before)
    assert build.copy(copied) == expected


@pytest.mark.parametrize(
    ("before", "copied", "text"),
    [
        ({"d/a.txt": None}, step("a.txt"), "cannot replace the directory /d/a.txt with the file 'a.txt'"),
        ({"d": "file"}, step("a.txt"), "/d is not a directory"),
        ({"d": "file"}, step("dir", to="/d"), "/d, which is not a directory"),
        ({"d/sub": "file"}, step("dir"), "cannot copy the directory 'dir/sub' to /d/sub, which is not"),
        ({"x": None, "d/sub": ("->", "/x")}, step("dir"), "cannot copy the directory 'dir/sub' to /d/sub"),
        ({"d": ("->", "e"), "e": ("->", "d")}, step("a.txt"), "too many links in /d"),
    ],
)
def test_what_is_in_the_way(build: Build, before: Files, copied: Copy, text: str) -> None:
    make(build.context, CONTEXT)
    make(build.root, before)
    with pytest.raises(DockerfileError) as caught:
        build.copy(copied)
    assert str(caught.value).startswith("Dockerfile:7:1: ")
    assert text in str(caught.value)


LINKS: Files = {
    "dir/d.txt": "d",
    "file": "f",
    "to-file": ("->", "file"),
    "to-dir": ("->", "dir"),
    "absolute": ("->", "/dir"),
    "up": ("->", "../../../dir"),
    "tree/link": ("->", "/etc/passwd"),
    "chain": ("->", "to-dir"),
    "dangling": ("->", "nothing"),
    "out": ("->", "/etc"),
}


@pytest.mark.parametrize(
    ("copied", "expected"),
    [
        (step("to-file"), {"d/to-file": "f"}),
        (step("to-f*"), {"d/to-file": "f"}),
        (step("to-dir"), {"d/d.txt": "d"}),
        (step("to-dir/d.txt"), {"d/d.txt": "d"}),
        (step("to-dir/*"), {"d/d.txt": "d"}),
        (step("absolute/d.txt"), {"d/d.txt": "d"}),
        (step("up"), {"d/d.txt": "d"}),
        (step("chain"), {"d/d.txt": "d"}),
        (step("tree"), {"d/link": ("->", "/etc/passwd")}),
    ],
    ids=lambda value: repr(value.sources) if isinstance(value, Copy) else "",
)
def test_links_of_the_context(build: Build, copied: Copy, expected: Files) -> None:
    make(build.context, LINKS)
    assert build.copy(copied) == expected


@pytest.mark.parametrize("source", ["dangling", "dang*", "out", "out/passwd", "tree/link", "loop"])
def test_links_lead_out_of_no_context(build: Build, source: str) -> None:
    make(build.context, LINKS | {"loop": ("->", "loop")})
    with pytest.raises(DockerfileError, match=r"^Dockerfile:7:1: "):
        build.copy(step(source))
    assert listed(build.root) == {}


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("nothing", "'nothing' is not in the build context; it would be {context}/nothing"),
        ("a.tx", "'a.tx' is not in the build context; is 'a.txt' meant?"),
        ("dir/d.text", "'dir/d.text' is not in the build context; is 'dir/d.txt' meant?"),
        ("none/*.txt", "'none/*.txt' is not in the build context; it would be {context}/none"),
        ("a.txt/b", "'a.txt/b' is not in the build context"),
        ("../../etc/shadow", "'..' does not lead out of the build context; move the file into it"),
        ("secret.key", "'secret.key' is kept out of the build context by {context}/.dockerignore:2; its pattern "
         "is '*.key'; add the line '!secret.key' to have it"),
        ("kept/inner", "is kept out of the build context by {context}/.dockerignore:3"),
        ("a[", "malformed pattern 'a['"),
    ],
)  # fmt: skip
def test_what_is_not_there(build: Build, source: str, text: str) -> None:
    make(build.context, {**CONTEXT, "secret.key": "s", "kept/inner": "i"})
    make(build.context, {".dockerignore": "# no secrets\n*.key\nkept\n"})
    with pytest.raises(DockerfileError) as caught:
        build.copy(step(source))
    assert str(caught.value).startswith("Dockerfile:7:1: ")
    assert text.format(context=build.context) in str(caught.value)


def test_what_is_ignored_behind_a_link(build: Build) -> None:
    make(build.context, {"dir/x": "x", "link": ("->", "dir"), ".dockerignore": "dir"})
    with pytest.raises(DockerfileError, match=r"'link' is kept out of .*; add the line '!dir' to have it"):
        build.copy(step("link"))


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("COPY nothing /d/", "7:6"),
        ("  COPY --chown=nothing nothing /d/", "7:24"),
        ('COPY ["a", "nothing","/d/"]', "7:13"),
        ("COPY a \\\n # nothing\n  nothing /d/", "9:3"),
        ("COPY no$x /d/", "7:1"),
        ("COPY not nothings /d/", "7:1"),
    ],
)
def test_the_word_that_is_wrong_is_pointed_at(build: Build, text: str, place: str) -> None:
    column = len(text) - len(text.lstrip()) + 1
    instruction = Instruction("COPY", (), text, "Dockerfile", 7, 9, column=column)
    with pytest.raises(DockerfileError) as caught:
        build.copy(replace(step("nothing"), instruction=instruction))
    assert str(caught.value).startswith(f"Dockerfile:{place}: 'nothing' is not in the build context")


def test_the_flag_that_is_wrong_is_pointed_at(build: Build) -> None:
    flags = (Flag("chown", "1", 8, 3), Flag("chmod", "x", 9, 4))
    instruction = Instruction("COPY", (), "COPY a /d/", "Dockerfile", 7, 9, flags)
    with pytest.raises(DockerfileError, match=r"^Dockerfile:9:4: --chmod=x is no mode"):
        build.copy(replace(step("a", chmod="x"), instruction=instruction))


def test_a_required_path_of_parents(build: Build) -> None:
    make(build.context, CONTEXT)
    with pytest.raises(DockerfileError, match="is not in the build context"):
        build.copy(step("dir/./none", parents=True))


@pytest.mark.parametrize(
    ("ignored", "copied", "expected"),
    [
        ("*.md\ndir\n", step("."), {
            "d/a.txt": "a", "d/b.txt": "b", "d/other/f.txt": "f",
            "d/.dockerignore": "*.md\ndir\n", "d/Dockerfile": "FROM scratch"}),
        ("*\n!dir/sub\n", step("."), {"d/dir/sub/e.txt": "e"}),
        ("*\n!dir/sub\n", step("dir"), {"d/sub/e.txt": "e"}),
        ("*\n!dir/sub\n", step("*"), {"d/sub/e.txt": "e"}),
        ("dir/*\n!dir/empty\n", step("dir"), {"d/empty": None}),
        ("**/*.txt\n!a*\n.dockerignore\n", step("."), {
            "d/a.txt": "a", "d/c.md": "c", "d/dir/sub": None, "d/dir/empty": None, "d/other": None,
            "d/Dockerfile": "FROM scratch"}),
        ("**\n!**/e.txt\n", step("."), {"d/dir/sub/e.txt": "e"}),
        ("**\n!**/e.txt\n", step("dir", exclude=("sub/*",)), {"d/sub": None}),
        ("*\n!*.txt\n", step("*.md", "a.txt"), {"d/a.txt": "a"}),
        ("Dockerfile\n.dockerignore\nother\ndir", step("."), {"d/a.txt": "a", "d/b.txt": "b", "d/c.md": "c"}),
    ],
)  # fmt: skip
def test_what_is_ignored_is_not_there(build: Build, ignored: str, copied: Copy, expected: Files) -> None:
    make(build.context, {**CONTEXT, "Dockerfile": "FROM scratch", ".dockerignore": ignored})
    assert build.copy(copied) == expected


def test_the_dockerfile_s_own_ignore_file_wins(build: Build) -> None:
    make(
        build.context,
        {**CONTEXT, ".dockerignore": "*.txt", "docker/app.Dockerfile.dockerignore": "*\n!a.txt"},
    )
    source = open_context(build.context, build.context / "docker/app.Dockerfile")
    copied = step(".")
    put(select(copied, source, build.spool()), copied, build.root, None)
    assert listed(build.root) == {"d/a.txt": "a"}


def test_no_context() -> None:
    with pytest.raises(ConversionError, match="is not a directory"):
        open_context(Path("/nonexistent/context"), Path("/nonexistent/Dockerfile"))


def test_modes_times_and_kinds(build: Build) -> None:
    make(build.context, {"dir/run": "r", "dir/in/x": "x", "dir/link": ("->", "run")})
    (build.context / "dir/run").chmod(0o4751)
    (build.context / "dir/in").chmod(0o1700)
    (build.context / "dir").chmod(0o700)
    os.mkfifo(build.context / "dir/fifo", 0o640)
    os.utime(build.context / "dir/run", ns=(10**18, 10**18 + 5))
    os.utime(build.context / "dir/in", ns=(10**18, 10**18 + 6))
    os.utime(build.context / "dir/link", ns=(10**18, 10**18 + 7), follow_symlinks=False)
    build.copy(step("dir"))
    made = build.root / "d"
    assert {
        str(path.relative_to(build.root)): oct(path.lstat().st_mode) for path in (made, *made.rglob("*"))
    } == {
        "d": "0o40755",  # BuildKit makes it, and then there is something to copy into
        "d/run": "0o104751",
        "d/in": "0o41700",
        "d/in/x": "0o100644",
        "d/link": "0o120777",
        "d/fifo": "0o10640",
    }
    assert (made / "run").stat().st_mtime_ns == 10**18 + 5
    assert (made / "in").stat().st_mtime_ns == 10**18 + 6
    assert (made / "link").lstat().st_mtime_ns == 10**18 + 7


def test_directories_that_are_there_get_the_source_s_modes_below_the_top(build: Build) -> None:
    make(build.context, {"dir/in/x": "x"})
    make(build.root, {"d/in/y": "y"})
    (build.context / "dir").chmod(0o700)
    (build.context / "dir/in").chmod(0o700)
    (build.root / "d").chmod(0o711)
    build.copy(step("dir"))
    assert stat.S_IMODE((build.root / "d").stat().st_mode) == 0o711
    assert stat.S_IMODE((build.root / "d/in").stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("chmod", "file", "directory"),
    [
        ("640", 0o640, 0o640),
        ("4755", 0o4755, 0o4755),
        ("0", 0, 0),
        ("u=rwx,go=rX", 0o755, 0o755),
        ("a-x", 0o644, 0o644),
        ("go-rwx,u+s", 0o4700, 0o4700),
        ("o=u", 0o757, 0o757),
        ("+t", 0o1755, 0o1755),
    ],
)
def test_chmod(build: Build, chmod: str, file: int, directory: int) -> None:
    make(build.context, {"dir/in": None, "dir/x": "x", "dir/link": ("->", "x")})
    (build.context / "dir/x").chmod(0o755)
    copied = step("dir", chmod=chmod)
    put(select(copied, build.source(), build.spool()), copied, build.root, None)
    made = build.root / "d"
    assert stat.S_IMODE((made / "x").stat().st_mode) == file
    assert stat.S_IMODE((made / "in").stat().st_mode) == directory
    assert stat.S_IMODE(made.stat().st_mode) == 0o755


@pytest.mark.parametrize(
    ("text", "mode", "expected"),
    [
        ("u+x,go+X", 0o644, 0o744),  # X is about the mode before all
        ("a+X", 0o744, 0o755),
        ("+s", 0o755, 0o6755),
        ("o+s", 0o755, 0o755),
        ("o+t", 0o755, 0o755),
        ("u+t", 0o755, 0o1755),
        ("u=rwx", 0o4644, 0o744),
        ("g=u", 0o2740, 0o2770),
        ("o=", 0o1777, 0o1770),
        ("=", 0o1777, 0o1000),
        ("a=rx", 0o6777, 0o555),
        ("u+r-w+x", 0o600, 0o500),
        ("go=u-w", 0o700, 0o755),
        ("-x", 0o755, 0o644),
        ("ug+w,o-r", 0o444, 0o660),
    ],
)
def test_symbolic_modes(text: str, mode: int, expected: int) -> None:
    assert oct(change_mode(text, mode, directory=False)) == oct(expected)


@pytest.mark.parametrize("chmod", ["8", "77777", "u", "u=q", "rwx", "u+x,", "-755"])
def test_a_mode_that_is_none(build: Build, chmod: str) -> None:
    make(build.context, CONTEXT)
    with pytest.raises(DockerfileError, match="is no mode"):
        build.copy(step("a.txt", chmod=chmod))


@pytest.mark.skipif(not ROOT, reason="owners need root")
def test_owners(build: Build) -> None:
    make(build.context, {"dir/x": "x", "dir/in/y": "y"})
    for path in (build.context / "dir", *(build.context / "dir").rglob("*")):
        os.chown(path, 1234, 5678)

    def owners() -> dict[str, tuple[int, int]]:
        return {
            str(path.relative_to(build.root)): (path.lstat().st_uid, path.lstat().st_gid)
            for path in build.root.rglob("*")
        }

    build.copy(step("dir", to="/a/b/"))
    assert set(owners().values()) == {(0, 0)}
    build.copy(step("dir", to="/c/d/"), (33, 44))
    assert {path: owner for path, owner in owners().items() if path.startswith("c")} == dict.fromkeys(
        ["c", "c/d", "c/d/x", "c/d/in", "c/d/in/y"], (33, 44)
    )
    copied = step("dir", to="/e/")
    stage = Source(build.context, "stage 'build'")
    put(select(copied, stage, build.spool()), copied, build.root, None)
    assert owners()["e"] == (0, 0)
    assert owners()["e/in/y"] == (1234, 5678)


def test_further_names_stay_one_file(build: Build) -> None:
    make(
        build.context,
        {"dir/x": "x", "dir/y": ("=", "dir/x"), "dir/in/z": ("=", "dir/x"), "w": ("=", "dir/x")},
    )
    build.copy(step("dir", "w"))
    inodes = {name: (build.root / "d" / name).stat().st_ino for name in ("x", "y", "in/z", "w")}
    assert len({inodes["x"], inodes["y"], inodes["in/z"]}) == 1
    assert inodes["w"] != inodes["x"]  # each source is copied for itself


def test_attributes_and_holes(build: Build) -> None:
    make(build.context, {"x": "x", "sparse": ""})
    try:
        os.setxattr(build.context / "x", "user.test", b"\0value")
    except OSError:
        pytest.fail("the tests need a file system with extended attributes")
    with (build.context / "sparse").open("r+b") as file:
        file.truncate(1 << 26)
        file.seek(1 << 25)
        file.write(b"middle")
    build.copy(step("."))
    assert os.getxattr(build.root / "d/x", "user.test") == b"\0value"
    made = build.root / "d/sparse"
    assert made.read_bytes() == (build.context / "sparse").read_bytes()
    assert made.stat().st_blocks * 512 < 1 << 20


@pytest.mark.skipif(not ROOT, reason="capabilities need root")
def test_capabilities_are_kept_but_for_those_of_a_context(build: Build) -> None:
    make(build.context, {"x": "x"})
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    os.setxattr(build.context / "x", "security.capability", capability)
    build.copy(step("x"))
    assert os.listxattr(build.root / "d/x") == []
    stage = Source(build.context, "stage 'build'")
    selection = select(step("x"), stage, build.spool())
    put(selection, step("x"), build.root, (5, 6))
    assert os.getxattr(build.root / "d/x", "security.capability") == capability
    assert fingerprint(selection) != build.fingerprint(step("x"))


def test_names_of_all_kinds(build: Build) -> None:
    names = [b"new\nline", b"\xff\xfe", b"-rf", b"a b", b"$(id)", b"*", "ü".encode(), b"x" * 255]
    for name in names:
        (build.context / os.fsdecode(name)).write_bytes(name)
    build.copy(step("."))
    assert {path.read_bytes() for path in (build.root / "d").iterdir()} == set(names)
    assert {os.fsencode(path.name) for path in (build.root / "d").iterdir()} == set(names)


@pytest.mark.parametrize(
    "copied",
    [
        step("a\0b"),
        step("a.txt", to="/a\0b"),
        step("\ud800"),
        step(inline=(InlineFile("a\0", b""),)),
        step("x" * 256),
        step("x/" * 2500),
        step("a.txt", to="/" + "x" * 256),
        step("a.txt", to="/" + "x/" * 2500),
        step("a" + "*a" * 1000 + "["),
        step(*["*" * 100 + "a" * 100] * 10),
        step("a.txt", exclude=("[",)),
        step("..", parents=True, exclude=("a\\",)),
    ],
    ids=range(12),
)
def test_names_that_cannot_be(build: Build, copied: Copy) -> None:
    make(build.context, CONTEXT)
    try:
        build.copy(copied)
    except DockerfileError as error:
        assert str(error).startswith("Dockerfile:7:1: ")
    else:
        assert copied.sources[0].startswith("*")
    assert not (build.root / "d/a.txt").exists()


def test_a_deep_tree(build: Build) -> None:
    deep = "/".join(["d"] * 400)
    os.makedirs(build.context / deep)  # noqa: PTH103 (Path.mkdir recurses)
    (build.context / deep / "x").write_text("x")
    build.copy(step("d", to="/t/"))
    assert (build.root / "t" / deep[2:] / "x").read_text() == "x"


def test_a_socket_becomes_an_empty_file(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(build.context)  # a socket's path may have 108 bytes
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind("socket")
        assert build.copy(step("socket")) == {"d/socket": ""}


def test_a_source_that_is_exchanged_while_it_is_read(build: Build) -> None:
    make(build.context, {"dir/x": "x"})
    make(build.path / "outside", {"x": "secret"})
    copied = step("dir")
    selection = select(copied, build.source(), build.spool())
    (build.context / "dir/x").unlink()
    (build.context / "dir").rmdir()
    (build.context / "dir").symlink_to(build.path / "outside")
    with pytest.raises(DockerfileError):
        put(selection, copied, build.root, None)
    with pytest.raises(ConversionError):
        fingerprint(selection)
    assert "secret" not in listed(build.root).values()


def changed(context: Path, change: str) -> None:
    """One thing that counts."""
    file = context / "dir/d.txt"
    match change:
        case "content":
            file.write_text("D")
        case "name":
            file.rename(context / "dir/e.txt")
        case "mode":
            file.chmod(0o755)
        case "directory's mode":
            (context / "dir/empty").chmod(0o700)
        case "kind":
            file.unlink()
            file.mkdir()
        case "fifo":
            file.unlink()
            os.mkfifo(file, 0o644)
        case "new":
            (context / "dir/new").write_text("")
        case "less":
            (context / "dir/empty").rmdir()
        case "link":
            (context / "dir/link").unlink()
            (context / "dir/link").symlink_to("elsewhere")
        case "attribute":
            os.setxattr(file, "user.a", b"1")
        case "further name":
            (context / "dir/g").unlink()
            (context / "dir/g").hardlink_to(file)


CHANGES = ["content", "name", "mode", "directory's mode", "kind", "fifo", "new", "less", "link", "attribute"]


@pytest.mark.parametrize("change", [*CHANGES, "further name"])
def test_a_fingerprint_changes_with_what_counts(build: Build, change: str) -> None:
    make(build.context, {**CONTEXT, "dir/link": ("->", "d.txt"), "dir/g": "d"})
    before = build.fingerprint(step("dir"))
    changed(build.context, change)
    assert build.fingerprint(step("dir")) != before


def test_a_fingerprint_stays_when_nothing_counts(build: Build) -> None:
    make(build.context, CONTEXT | {".dockerignore": "ignored"})
    before = build.fingerprint(step("dir", "*.txt"))
    os.utime(build.context / "dir/d.txt", (1, 1))
    os.utime(build.context / "dir", (1, 1))
    make(build.context, {"c.md": "changed", "other/new": "n", "ignored": "i"})
    if ROOT:
        os.chown(build.context / "dir/d.txt", 1000, 1000)
    assert build.fingerprint(step("dir", "*.txt")) == before
    assert build.fingerprint(step("dir", "a.txt")) != before
    assert build.fingerprint(step(inline=(InlineFile("a", b"1"),))) != build.fingerprint(
        step(inline=(InlineFile("a", b"2"),))
    )


def test_laid_out_for_a_script(build: Build) -> None:
    make(build.context, CONTEXT | {"link": ("->", "a.txt")})
    copied = step("a.txt", "dir", "*.md", inline=(InlineFile("x", b"1"),), chmod="700", to="/d/")
    made = lay_out(select(copied, build.source(), build.spool()), copied, build.path / "out/files/3")
    assert made == (
        LaidOut("0/a.txt", "file"),
        LaidOut("1", "contents"),
        LaidOut("2/c.md", "file"),
        LaidOut("3/x", "file"),
    )
    assert listed(build.path / "out/files/3") == {
        "0/a.txt": "a",
        "1/d.txt": "d",
        "1/sub/e.txt": "e",
        "1/empty": None,
        "2/c.md": "c",
        "3/x": "1",
    }
    assert stat.S_IMODE((build.path / "out/files/3/0/a.txt").stat().st_mode) == 0o700
    assert stat.S_IMODE((build.path / "out/files/3/1").stat().st_mode) == 0o755
