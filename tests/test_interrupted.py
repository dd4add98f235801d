"""Killed at any instant, or on a full disk: the old machine or the new one is whole, and the next run tidies up."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from tests import lab
from tests.layers import directory, file, hardlink, symlink, tar
from tests.test_wrong_input import cli, saved

INSTANTS = 16


def make_archive(path: Path, mark: bytes) -> str:
    """An image of some thousand small files and a few large ones, in three layers; every file says which image."""
    members: list[tuple[tarfile.TarInfo, bytes]] = []
    for number in range(400):
        members.append(file(f"d{number % 40}/f{number}", mark * (1 + number % 50)))
    members += [file(f"large{n}", mark * 300_000) for n in range(4)]
    members += [hardlink("link", "large0"), symlink("here", "d1")]
    base = tar(*members)
    middle = tar(*(file(f"d{n}/.wh.f{n}") for n in range(40)), directory("new"))
    return saved(path, {"config": {"Cmd": ["/large0"]}}, [base, middle, tar(file("mark", mark))])


def state(root: Path) -> str:
    """A digest of a machine's tree: names, types and contents; "" without one."""
    tree = root / "var/lib/machines/web"
    if not tree.exists():
        return ""
    digest = hashlib.sha256()
    for path in sorted(tree.rglob("*")):
        digest.update(os.fsencode(path.relative_to(tree)) + b"\0")
        if path.is_symlink():
            digest.update(os.fsencode(path.readlink()))
        elif path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def leftovers(root: Path) -> list[str]:
    return [p.name for p in root.rglob(".#*")]


def test_killed_at_random_instants(tmp_path: Path) -> None:
    old, new, other = (make_archive(tmp_path / f"{m.decode()}.tar", m) for m in (b"old", b"new", b"tiny"))
    root = tmp_path / "root"
    arguments = ("--root", root, "--name", "web", "--force")
    states = {}
    for label, source in (("new", new), ("old", old)):
        assert cli("convert", source, *arguments).returncode == 0
        states[label] = state(root)
    assert states["old"] != states["new"]
    started = time.monotonic()
    assert cli("convert", new, *arguments).returncode == 0
    whole = time.monotonic() - started
    command = [sys.executable, "-m", "converter.cli", "convert", new, *map(str, arguments)]
    dice = random.Random(7)
    in_the_middle = 0
    for number in range(INSTANTS):
        assert cli("convert", old, *arguments).returncode == 0
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(whole * 1.6 * (number + dice.random()) / INSTANTS)
        process.send_signal(signal.SIGKILL)
        process.wait()
        found = state(root)
        assert found in states.values()
        in_the_middle += bool(leftovers(root))
        # The next run, of another machine, finishes or removes what is left.
        assert cli("convert", other, "--root", root, "--name", "other", "--force").returncode == 0
        assert leftovers(root) == []
        label = "old" if state(root) == states["old"] else "new"
        assert state(root) == states[label]
        assert f"{label}.tar" in (root / "var/lib/machines/web.nspawn").read_text()
        assert f"{label}.tar" in (root / "var/lib/docker2nspawn/machines/web.json").read_text()
    assert in_the_middle >= 3, "the kills came too early, or too late, to show anything"


@pytest.mark.lab
def test_full_disk_at_random_sizes(tmp_path: Path) -> None:
    """A tmpfs that holds the old machine, and too little beside it for all of the new one."""
    old, new = (make_archive(tmp_path / f"{m.decode()}.tar", m) for m in (b"old", b"new"))
    root = tmp_path / "root"
    root.mkdir()
    dice = random.Random(11)
    outcomes = set()
    for _ in range(12):
        lab.run("mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", root)
        try:
            assert cli("convert", old, "--root", root, "--name", "web").returncode == 0
            before = state(root)
            used = os.statvfs(root)
            size = (used.f_blocks - used.f_bfree) * used.f_frsize + dice.randrange(0, 9 << 20)
            lab.run("mount", "-o", f"remount,size={size}", root)
            done = cli("convert", new, "--root", root, "--name", "web", "--force")
            outcomes.add(done.returncode)
            assert leftovers(root) == []
            if done.returncode == 0:
                assert state(root) != before
            else:
                assert done.returncode == 1
                assert done.stderr.count("\n") == 1, done.stderr
                assert "make room" in done.stderr or "No space left" in done.stderr, done.stderr
                assert state(root) == before
                assert "old.tar" in (root / "var/lib/machines/web.nspawn").read_text()
            lab.run("mount", "-o", "remount,size=128m", root)
            assert cli("convert", new, "--root", root, "--name", "web", "--force").returncode == 0
        finally:
            lab.run("umount", root)
    assert outcomes == {0, 1}
