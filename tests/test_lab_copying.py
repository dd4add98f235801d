"""COPY and ADD of what nobody would write, with Docker's BuildKit and here: the same trees, and the same refusals."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from converter.dockerfile.context import open_context
from converter.dockerfile.copying import put, select
from converter.dockerfile.model import Copy
from converter.errors import ConversionError
from tests import lab
from tests.test_dockerfile_copying import Files, make, step

pytestmark = pytest.mark.lab

Listing = dict[str, tuple[str, int, int, int, str]]

_CONTEXT: Files = {
    name: name
    for name in (
        *("a/x", "a/y.txt", "a/b/x", "a/b/c/z.md", "a/d/w", "b/x", "b/a/y.txt", "b/a/c/q", "foo.d/f.txt"),
        *(
            ".h/x/i",
            ".env",
            "top.txt",
            "top.md",
            "sp ace",
            "new\nline.txt",
            "b/é",
            "star*",
            "set[1]",
            "back\\slash",
        ),
    )
} | {"la": ("->", "a"), "lx": ("->", "a/b/x"), "abs": ("->", "/b"), "up": ("->", "../../b/x"), "a/e": None}
_PARTS = [
    *(
        "a",
        "b",
        "c",
        "d",
        "*",
        "**",
        "?",
        "x",
        "*.txt",
        "*.md",
        "foo.d",
        "[ab]",
        "[^a]",
        "top*",
        ".h",
        ".*",
        "..",
    ),
    *(".", "é", "\\a", "new*", "**x", "a**", "set[[]*", "star\\*", "back\\\\*"),
]
_SOURCES = [
    *("a", "b", "*", "a/*", "*/*", "*/x", "*/*/*", "[ab]", "?", "la", "l*", "top.*", "*.txt", "a/b", "b/*/c"),
    *(
        "foo.d/",
        ".*",
        "/*",
        "./a/b/*",
        "la/*",
        "*a*",
        "abs",
        "up",
        "sp ace",
        "set[[]1]",
        "star\\*",
        "nothing",
        "no*",
    ),
]


@pytest.fixture(scope="module")
def contexts(systemd_host: lab.Host) -> Iterator[Path]:
    """A directory on the host that has Docker."""
    path = systemd_host.root / "srv/copying"
    path.mkdir(parents=True, exist_ok=True)
    lab.wait_until("Docker", lambda: systemd_host.run("docker", "info", check=False).returncode == 0)
    yield path
    shutil.rmtree(path)


def with_docker(host: lab.Host, context: Path, steps: list[Copy]) -> Listing | None:
    """What BuildKit makes of it in an empty tree; None: it refuses."""
    lines = []
    for copied in steps:
        # Words are expanded, also those in JSON.
        words = [word.replace("\\", "\\\\") for word in (*copied.sources, copied.destination)]
        lines.append(f"{copied.instruction.keyword} {json.dumps(words)}")
    dockerfile = context.with_name(f"{context.name}.Dockerfile")
    dockerfile.write_text("\n".join(["FROM scratch", *lines, ""]))
    made = context.with_name(f"{context.name}.tar")
    seen = {path: f"/{path.relative_to(host.root)}" for path in (context, dockerfile, made)}
    arguments = ("--output", f"type=tar,dest={seen[made]}", "--file", seen[dockerfile], seen[context])
    done = host.run("docker", "build", "--quiet", "--no-cache", *arguments, check=False, timeout=120)
    if done.returncode != 0:
        assert "failed to solve" in done.stderr, done.stderr
        return None
    found: Listing = {}
    kinds = {
        tarfile.REGTYPE: "file",
        tarfile.LNKTYPE: "file",
        tarfile.DIRTYPE: "dir",
        tarfile.SYMTYPE: "symlink",
    }
    with tarfile.open(made) as archive:
        for member in archive:
            content = member.linkname
            if member.isfile() or member.islnk():
                file = archive.extractfile(member)
                assert file is not None
                content = hashlib.sha256(file.read()).hexdigest()
            name = member.name.removeprefix("./").rstrip("/")
            found[name] = (kinds[member.type], member.mode, member.uid, member.gid, content)
    return found


def here(context: Path, steps: list[Copy], work: Path) -> tuple[Listing | None, str]:
    """What we make of it in an empty tree, or None and why we refuse."""
    root = work / "root"
    root.mkdir()
    try:
        source = open_context(context, context.with_name(f"{context.name}.Dockerfile"))
        for number, copied in enumerate(steps):
            put(select(copied, source, work / f"spool{number}"), copied, root, None)
    except ConversionError as error:
        return None, str(error)
    found: Listing = {}
    for directory, names, files in os.walk(root):
        for path in (Path(directory) / name for name in (*names, *files)):
            status = path.lstat()
            kind = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "symlink"}[
                stat.S_IFMT(status.st_mode)
            ]
            content = str(path.readlink()) if kind == "symlink" else ""
            if kind == "file":
                content = hashlib.sha256(path.read_bytes()).hexdigest()
            mode = stat.S_IMODE(status.st_mode)
            found[str(path.relative_to(root))] = (kind, mode, status.st_uid, status.st_gid, content)
    return found, ""


def compare(host: lab.Host, context: Path, steps: list[Copy], work: Path) -> None:
    expected = with_docker(host, context, steps)
    found, why = here(context, steps, work)
    assert found == expected, why


@pytest.mark.parametrize("seed", range(20))
def test_any_ignore_file_and_any_sources(
    systemd_host: lab.Host, contexts: Path, tmp_path: Path, seed: int
) -> None:
    chosen = random.Random(seed)

    def pattern() -> str:
        parts = (chosen.choice(_PARTS) for _ in range(chosen.choice([1, 1, 2, 2, 3, 4])))
        return chosen.choice(["", "", "/", "!", "!", "!/"]) + "/".join(parts) + chosen.choice(["", "", "/"])

    context = make(contexts / f"ignore{seed}", _CONTEXT)
    if patterns := [pattern() for _ in range(chosen.randint(0, 5))]:
        (context / ".dockerignore").write_text("\n".join(patterns))
    steps = [step(".", to="/all/")]
    for number in range(4):
        sources = [chosen.choice(_SOURCES) for _ in range(chosen.choice([1, 1, 2]))]
        steps.append(step(*sources, to=f"/d{number}/"))
    compare(systemd_host, context, steps, tmp_path)


_BEFORE: Files = {
    "a/x": "old",
    "a/keep": "k",
    "b": "old",
    "real/r": "r",
    "l": ("->", "/real"),
    "m": ("->", "../real"),
}
_NAMES = [
    "a",
    "b",
    "c",
    "a/x",
    "b/y",
    "c/x/z",
    "../u",
    "/v",
    "./",
    "l",
    "l/x",
    "m/y",
    "a/../b/w",
    "c",
    "c/x",
    "real",
    "s/t",
]
_TARGETS = ["a", "b", "/", "..", "nowhere", "../../real", "/real", "c/x"]


@pytest.mark.parametrize("seed", range(20))
def test_any_archive(systemd_host: lab.Host, contexts: Path, tmp_path: Path, seed: int) -> None:
    chosen = random.Random(seed)
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for number in range(chosen.randint(1, 6)):
            info = tarfile.TarInfo(chosen.choice(_NAMES))
            kinds = [tarfile.REGTYPE, tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE]
            info.type = tarfile.DIRTYPE if info.name.endswith("/") else chosen.choice(kinds)
            info.mode = chosen.choice([0o644, 0o755, 0o4711, 0o1777])
            info.uid, info.gid = chosen.choice([(0, 0), (7, 8)])
            content = f"{number}".encode() if info.isreg() else b""
            info.size = len(content)
            if info.issym() or info.islnk():
                info.linkname = chosen.choice(_TARGETS if info.issym() else _NAMES)
            archive.addfile(info, io.BytesIO(content))
    context = make(contexts / f"archive{seed}", {f"before/{name}": what for name, what in _BEFORE.items()})
    (context / "a.tar").write_bytes(made.getvalue())
    steps = [step("before", to="/d/"), step("a.tar", to="/d", add=True)]
    compare(systemd_host, context, steps, tmp_path)
