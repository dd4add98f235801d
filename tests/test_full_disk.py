"""No room, at random sizes: the old machine stays as it is, nothing is left, and with room it works."""

from __future__ import annotations

import errno
import gzip
import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import lab
from tests.interruption import Runner, look, make_image, runner

SIZES = {"tmpfs": 32, "inodes": 6, "ext4": 12}
AMPLE = 64 << 20


@pytest.fixture(scope="module")
def run() -> Iterator[Runner]:
    with runner() as running:
        yield running


class Disk:
    """A file system of its own, whose room can be made scarce."""

    def __init__(self, root: Path, kind: str) -> None:
        self.root = root
        self.kind = kind
        self._filler = root / "filler"

    @property
    def used(self) -> int:
        """Bytes, or inodes."""
        status = os.statvfs(self.root)
        if self.kind == "inodes":
            return status.f_files - status.f_ffree
        return (status.f_blocks - status.f_bfree) * status.f_frsize

    def leave(self, room: int) -> None:
        """There is this much and no more."""
        match self.kind:
            case "tmpfs":
                lab.run("mount", "-o", f"remount,size={self.used + room}", self.root)
            case "inodes":
                lab.run("mount", "-o", f"remount,nr_inodes={self.used + room}", self.root)
            case _:
                status = os.statvfs(self.root)
                with self._filler.open("wb") as file:
                    os.posix_fallocate(file.fileno(), 0, max(status.f_bavail * status.f_frsize - room, 1))

    def leave_ample(self) -> None:
        self._filler.unlink(missing_ok=True)
        if self.kind != "ext4":
            lab.run("mount", "-o", f"remount,size={AMPLE},nr_inodes=100000", self.root)

    def clear(self) -> None:
        for path in self.root.iterdir():
            if path.name != "lost+found":
                shutil.rmtree(path)


@pytest.fixture(params=SIZES)
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    root = tmp_path / "root"
    root.mkdir()
    if request.param == "ext4":
        image = tmp_path / "disk"
        with image.open("wb") as file:
            file.truncate(AMPLE)
        lab.run("mkfs.ext4", "-q", "-m", "0", image)
        lab.run("mount", "-o", "loop", image, root)
    else:
        lab.run("mount", "-t", "tmpfs", "-o", f"size={AMPLE},nr_inodes=100000", "tmpfs", root)
    try:
        yield Disk(root, request.param)
    finally:
        lab.run("umount", root)


@pytest.mark.lab
@pytest.mark.parametrize("fresh", [False, True])
def test_full_disk(run: Runner, disk: Disk, tmp_path: Path, fresh: bool) -> None:
    """Half of the sizes from a third to more than what is needed, half of them about what is needed."""
    old = make_image(tmp_path / "old.tar", "old")
    new = [make_image(tmp_path / "new.tar", "new"), tmp_path / "new.tar.gz"]
    # A compressed archive is decompressed beside the tree, and needs room there as well.
    new[1].write_bytes(gzip.compress(new[0].read_bytes(), 1))
    needed = {}
    whole = {}
    for image in new:
        disk.clear()
        before = disk.used
        assert run.convert(image, disk.root, "--force").status == 0
        needed[image] = disk.used - before
        whole[image] = look(disk.root)
    if disk.kind != "inodes":
        needed[new[1]] += new[0].stat().st_size
    dice = random.Random(11)
    outcomes: Counter[int] = Counter()
    count = SIZES[disk.kind] // 2
    for number in range(count):
        image = new[number % 2]
        disk.clear()
        if not fresh:
            assert run.convert(old, disk.root).status == 0
        before_all = look(disk.root)
        disk.leave(int(needed[image] * dice.uniform(*dice.choice([(0.3, 1.3), (0.9, 1.1)]))))
        ended = run.convert(image, disk.root, "--force")
        outcomes[ended.status] += 1
        disk.leave_ample()
        found = look(disk.root)
        if ended.status == 0:
            assert found == whole[image]
        else:
            assert ended.status == 1
            assert ended.stderr.count("\n") == 1, ended.stderr
            assert "make room" in ended.stderr or os.strerror(errno.ENOSPC) in ended.stderr, ended.stderr
            assert found == before_all
        assert run.convert(image, disk.root, "--force").status == 0
        assert look(disk.root) == whole[image]
    assert outcomes[0] and outcomes[1], outcomes
