"""Builds that do not come to their end, that meet, or that run out of room; and the file systems they are on."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from converter.dockerfile.model import DockerfileError, StageSource
from converter.errors import ConversionError
from tests import lab
from tests.building import Site, bind_mount, copy, run, slow, stage
from tests.trees import facts

pytestmark = pytest.mark.lab  # root

_REPOSITORY = Path(__file__).parent.parent
_STEPS = 8
_KILLS = 25


@contextmanager
def building(place: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    """A process that builds the slow stage, which has begun."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.building", place, str(_STEPS), *more],
        cwd=_REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "building\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def processes(mark: str) -> list[str]:
    """The command lines that name a path."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if mark in line and int(path.parent.name) != os.getpid():
            found.append(line)
    return found


def children_of(pid: int) -> list[int]:
    """All below it."""
    found = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in thread.read_text().split():
            found += [int(child), *children_of(int(child))]
    return found


def _have_ended(pids: list[int]) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.parametrize("chroot", ["", "chroot"], ids=["nspawn", "chroot"])
def test_a_build_killed_at_any_instant(tmp_path: Path, chroot: str) -> None:
    whole = Site(tmp_path / "whole")
    expected = facts(whole.tree(whole.build(slow(_STEPS))))
    site = Site(tmp_path / "killed")
    chance = random.Random(1)
    complete = 0
    for _ in range(_KILLS):
        with building(site.place, chroot) as process:
            time.sleep(chance.uniform(0, 0.8))
            started = children_of(process.pid)
            process.kill()
            process.wait()
        lab.wait_until("the end of what it had started", partial(_have_ended, started))
        lab.wait_until("the end of its commands", lambda: processes(f"{site.place}") == [])
        assert str(site.place) not in Path("/proc/mounts").read_text()
        layers = {path.name for path in (site.cache / "layers").glob("[!.]*")}
        complete = max(complete, len(layers))
    built = site.build(slow(_STEPS), chroot=bool(chroot))
    found = facts(site.tree(built))
    assert {path: fact._replace(mtime=0) for path, fact in found.items()} == {
        path: fact._replace(mtime=0) for path, fact in expected.items()
    }
    assert complete > 1
    assert site.left() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("chroot", ["", "chroot"], ids=["nspawn", "chroot"])
def test_a_signal_ends_the_step_and_keeps_what_is_complete(tmp_path: Path, number: int, chroot: str) -> None:
    site = Site(tmp_path)
    with building(tmp_path, chroot) as process:
        lab.wait_until("some steps", lambda: len(list(site.cache.glob("layers/[!.]*"))) > 3)
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
        assert (process.returncode, errors) == (130, "")
    assert site.left() == []
    assert processes(str(tmp_path)) == []
    kept = {path.name for path in site.cache.glob("layers/*")}
    assert 3 < len(kept) <= _STEPS + 1
    built = site.build(slow(_STEPS), chroot=bool(chroot))
    assert kept <= {path.parent.name for path in built.layers}


def test_builds_that_meet_share_their_work(tmp_path: Path) -> None:
    with building(tmp_path) as one, building(tmp_path) as two, building(tmp_path) as three:
        outputs = [process.communicate(timeout=120) for process in (one, two, three)]
    layers = [[line for line in output.splitlines() if line != "running"] for output, _ in outputs]
    assert [errors for _, errors in outputs] == ["", "", ""]
    assert layers[0] == layers[1] == layers[2]
    assert len(layers[0]) == _STEPS + 1
    site = Site(tmp_path)
    assert site.left() == []
    assert {path.name for path in site.cache.glob("layers/*")} == {*layers[0]}


def test_one_build_of_many_is_killed(tmp_path: Path) -> None:
    with building(tmp_path) as one, building(tmp_path) as two:
        time.sleep(0.4)
        one.kill()
        _, errors = two.communicate(timeout=120)
        assert (two.returncode, errors) == (0, "")
    assert Site(tmp_path).left() == []


def test_what_printed_is_told_in_a_pipe(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    site = Site(tmp_path)
    step = run("for i in $(seq 5000); do echo line $i; done; printf last; exit 1")
    with pytest.raises(DockerfileError):
        site.build(stage(step), output=None)
    shown = capfd.readouterr().err.splitlines()
    assert shown[0] == "[...]"
    assert shown[-1] == "last"
    assert shown[-2] == "line 5000"
    assert len(shown) < 2000
    site.build(stage(run("echo all is well")), output=None)
    assert capfd.readouterr().err == ""


# --- file systems ---


@contextmanager
def disk(place: Path, kind: str, size: int) -> Iterator[Path]:
    """A file system of that kind and so many bytes."""
    place.mkdir()
    mount = place / "mount"
    mount.mkdir()
    if kind == "tmpfs":
        command: list[str | Path] = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", mount]
    elif kind == "overlay":
        for name in ("lower", "upper", "work"):
            (place / name).mkdir()
        options = f"lowerdir={place}/lower,upperdir={place}/upper,workdir={place}/work"
        command = ["mount", "-t", "overlay", "-o", options, "overlay", mount]
    else:
        with (place / "image").open("wb") as image:
            image.truncate(size)
        subprocess.run([f"mkfs.{kind}", "-q", place / "image"], check=True)
        command = ["mount", "-o", "loop", place / "image", mount]
    subprocess.run(command, check=True)
    try:
        yield mount
    finally:
        subprocess.run(["umount", mount], check=True)


_KINDS = ("ext4", "btrfs", "tmpfs", "overlay")


@pytest.mark.parametrize("kind", _KINDS)
def test_the_same_on_every_file_system(tmp_path: Path, kind: str) -> None:
    here = Site(tmp_path / "here")
    with disk(tmp_path / "disk", kind, 400 << 20) as mount:
        there = Site(mount / "site")
        trees = []
        for site in (here, there):
            (site.context / "file").write_text("content")
            (site.context / "file").chmod(0o640)
            first = stage(run("mkdir /made; echo 1 >/made/1; ln /made/1 /made/2; rm -r /lib/old"))
            second = stage(
                copy("file", to="/lib/old/", chown="app:extra"),
                copy("/made", to="/taken", origin=StageSource(0)),
                run(
                    "rm /m/2; echo >/m/3; mv /lib/old /lib/new; ls /m",
                    mounts=(bind_mount("/m", origin=StageSource(0), source="/made"),),
                ),
                run("echo >>/taken/3; touch -d @1 /taken"),
                index=1,
            )
            built = site.build(first, second)
            assert site.output == "1\n3\n"
            copied = site is there and kind == "overlay"
            assert any("each step is a copy" in note.text for note in built.notes) == copied
            assert site.build(first, second).layers == built.layers
            # overlayfs parts the names of a file of a lower layer when one of them is moved; a copy does not.
            trees.append(
                {
                    path: fact._replace(mtime=0, names=frozenset() if kind == "overlay" else fact.names)
                    for path, fact in facts(site.tree(built)).items()
                }
            )
        assert trees[0] == trees[1]
        assert there.left() == []


def test_on_btrfs_a_tree_takes_no_room(tmp_path: Path) -> None:
    with disk(tmp_path / "disk", "btrfs", 400 << 20) as mount:
        site = Site(mount / "site")
        built = site.build(stage(run("dd if=/dev/urandom of=/big bs=1M count=100")))
        os.sync()
        before = shutil.disk_usage(mount).free
        tree = site.tree(built)
        os.sync()
        assert (tree / "big").stat().st_size == 100 << 20
        assert before - shutil.disk_usage(mount).free < 10 << 20


@pytest.mark.parametrize("kind", ["ext4", "btrfs", "tmpfs"])
def test_a_full_disk(tmp_path: Path, kind: str) -> None:
    with disk(tmp_path / "disk", kind, (300 if kind == "btrfs" else 130) << 20) as mount:
        site = Site(mount / "site")
        (site.context / "big").write_bytes(b"x" * (20 << 20))
        good = run("echo 1 >/1")
        site.build(stage(good))
        with pytest.raises(DockerfileError, match="RUN has failed with exit status"):
            site.build(stage(good, run("dd if=/dev/zero of=/big bs=1M count=500; exit 4")))
        assert "No space left" in site.output
        assert site.left() == []
        filler = mount / "filler"
        with filler.open("wb") as file:
            os.sync()
            os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(mount).free - (10 << 20))
        with pytest.raises(ConversionError, match="No space left"):
            site.build(stage(good, copy("big", to="/")))
        assert site.left() == []
        filler.unlink()
        tree = site.run(good, copy("big", to="/"))
        assert (tree / "big").stat().st_size == 20 << 20


def test_directories_of_any_depth(tmp_path: Path) -> None:
    """A path that no system call takes whole is an error, and goes from the cache like any other."""
    site = Site(tmp_path)
    name = "d" * 200
    deep = f"mkdir /t; for i in $(seq {{}}); do mkdir /u && mv /t /u/{name} && mv /u /t || exit 1; done"
    tree = site.run(run(deep.format(18)))
    assert tree.joinpath("t", *[name] * 18).is_dir()
    with pytest.raises(OSError, match="File name too long"):
        site.run(run(deep.format(60)))
    assert site.left() == []
    subprocess.run(["rm", "-rf", tmp_path], check=True)
