"""A tree on the disk is seen as the Plan that it was made from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from converter.errors import ConversionError
from converter.image.model import ImageConfig
from converter.machine.facts import observe
from converter.rootfs.merge import Found
from converter.rootfs.standing import StandingTree, There
from tests.layers import directory, file, hardlink, symlink, tar
from tests.trees import plan_of, written

_LAYER = tar(
    directory("etc"),
    file("etc/passwd", b"root:x:0:0::/root:/bin/sh\n"),
    symlink("etc/group", "../usr/group"),
    directory("usr"),
    directory("usr/bin"),
    file("usr/group", b"root:x:0:\n"),
    file("usr/bin/app", b"app", mode=0o755),
    hardlink("usr/bin/other", "usr/bin/app"),
    symlink("bin", "usr/bin"),
    symlink("run", "/var/run"),
    directory("var"),
    directory("var/run"),
    directory("var/run/app"),
    symlink("sys", "nowhere"),
    symlink("up", "../../../../etc"),
    symlink("host", "/etc/hostname"),
    symlink("one", "two"),
    symlink("two", "one"),
    symlink("dot", "."),
    directory("dev"),
)
_PATHS = (
    *(
        "",
        "/",
        "etc/passwd",
        "/etc/passwd",
        "etc/group",
        "bin/app",
        "bin/../bin/other",
        "run/app",
        "run",
        "sys",
        "up",
    ),
    *(
        "up/passwd",
        "host",
        "one",
        "one/x",
        "dot/dot/etc",
        "dev",
        "etc/passwd/x",
        "nothing",
        "nothing/x",
        "x" * 300,
    ),
    *("..", "../../etc", "usr//bin/./app/", "\udcff"),
)
_CONFIGS = (
    ImageConfig(),
    ImageConfig(
        cmd=("app",), env=("PATH=/sbin:/bin",), working_dir="/run/app", volumes=("/etc/passwd/x", "/var/run")
    ),
    ImageConfig(entrypoint=("./app",), working_dir="/bin"),
    ImageConfig(cmd=("/bin/other",), working_dir="/up", volumes=("/sys", "/one", "/nothing")),
)


@contextmanager
def standing(path: Path) -> Iterator[StandingTree]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield StandingTree(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize("path", _PATHS)
def test_the_same_is_found(tmp_path: Path, path: str) -> None:
    plan = plan_of(tmp_path, _LAYER)
    written(tmp_path / "tree", _LAYER)
    with standing(tmp_path / "tree") as tree:
        planned, there = plan.lookup(path), tree.lookup(path)
        assert _seen(there) == _seen(planned)
        assert tree.children(path) == plan.children(path)
        assert tree.read(path, 100) == plan.read(path, 100)


def _seen(found: Found | There | None) -> tuple[bytes, str] | None:
    return (found.path, found.kind) if found is not None else None


@pytest.mark.parametrize("config", _CONFIGS)
def test_the_same_facts(tmp_path: Path, config: ImageConfig) -> None:
    plan = plan_of(tmp_path, _LAYER)
    written(tmp_path / "tree", _LAYER)
    with standing(tmp_path / "tree") as tree:
        assert observe(tree, config) == observe(plan, config)


def test_links_do_not_lead_out(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    root = tmp_path / "tree"
    root.mkdir()
    (root / "absolute").symlink_to(tmp_path / "secret")
    (root / "relative").symlink_to("../secret")
    (root / "magic").symlink_to(f"/proc/self/fd/{os.open(tmp_path, os.O_RDONLY)}")
    with standing(root) as tree:
        for path in ("absolute", "relative", "magic", "../secret", "magic/secret"):
            assert tree.lookup(path) is None
            assert tree.read(path, 100) is None


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "large").write_bytes(b"x" * 101)
    with standing(tmp_path) as tree:
        assert tree.read("fifo", 100) is None
        assert tree.read(".", 100) is None
        found = tree.lookup("fifo")
        assert found is not None
        assert found.kind == "fifo"
        with pytest.raises(ConversionError, match="/large has 101 bytes, which is not sensible"):
            tree.read("large", 100)
