"""On a btrfs a machine is a subvolume, made, replaced and recovered like any other."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from converter.linux import identity
from converter.places import Places
from tests.hostile import BASE, NAME, Scene, staged, tree_of
from tests.layers import directory, file, hardlink, tar

pytestmark = pytest.mark.lab  # a loop mount needs root

_SUBVOLUME = 256  # the inode number of every subvolume's root, BTRFS_FIRST_FREE_OBJECTID


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    disk, mount = tmp_path / "disk", tmp_path / "mount"
    with disk.open("wb") as made:
        made.truncate(400 << 20)
    subprocess.run(["mkfs.btrfs", "--quiet", disk], check=True)
    mount.mkdir()
    subprocess.run(["mount", "-o", "loop", disk, mount], check=True)
    try:
        with staged(mount) as made_scene:
            yield made_scene
    finally:
        subprocess.run(["umount", mount], check=True)


def test_a_machine_is_a_subvolume(scene: Scene) -> None:
    assert scene.convert(scene.save(BASE, tar(file("a", b"x" * 300_000), hardlink("b", "a")))).status == 0
    assert scene.tree.stat().st_ino == _SUBVOLUME
    assert scene.tree.stat().st_mode & 0o7777 == 0o755
    assert (scene.tree / "a").read_bytes() == b"x" * 300_000
    copy = scene.machines / "copy"
    subprocess.run(["btrfs", "--quiet", "subvolume", "snapshot", scene.tree, copy], check=True)
    assert tree_of(copy) == tree_of(scene.tree)


def test_what_was_written_aside_finds_its_place(scene: Scene) -> None:
    """A rename does not lead from one subvolume into another."""
    above = tar(
        file("a", b"1"),
        hardlink("b", "a"),
        file("a", b"2"),
        directory("c"),
        file("c/d", b"3"),
        file("c", b"4"),
    )
    outcome = scene.convert(scene.save(BASE, tar(file("b/x", b"0")), above))
    scene.check_outcome(outcome, {"a": "2", "b": "1", "c": "4"})


def test_a_subvolume_is_replaced(scene: Scene) -> None:
    assert scene.convert(scene.save(BASE, tar(file("a", b"old")))).status == 0
    before = identity(scene.tree)
    subprocess.run(["btrfs", "--quiet", "subvolume", "create", scene.tree / "nested"], check=True)
    assert scene.convert(scene.save(BASE, tar(file("a", b"new"))), "--force").status == 0
    assert (scene.tree / "a").read_bytes() == b"new"
    assert identity(scene.tree) != before
    assert [path.name for path in scene.machines.iterdir() if path.name.startswith(".#")] == []


def test_a_plain_directory_is_replaced(scene: Scene) -> None:
    assert scene.convert(scene.save(BASE)).status == 0
    old = scene.machines / "old"
    subprocess.run(["cp", "-a", "--reflink=auto", scene.tree, old], check=True)
    subprocess.run(["btrfs", "--quiet", "subvolume", "delete", scene.tree], check=True)
    old.rename(scene.tree)
    assert scene.convert(scene.save(BASE, tar(file("a", b"new"))), "--force").status == 0
    assert scene.tree.stat().st_ino == _SUBVOLUME


def test_a_read_only_machine_is_not_replaced(scene: Scene) -> None:
    assert scene.convert(scene.save(BASE)).status == 0
    subprocess.run(["btrfs", "property", "set", scene.tree, "ro", "true"], check=True)
    outcome = scene.convert(scene.save(BASE, tar(file("a", b"new"))), "--force")
    subprocess.run(["btrfs", "property", "set", scene.tree, "ro", "false"], check=True)
    outcome.refused(f"machinectl read-only {NAME} no")


def test_identities_of_subvolumes_differ(scene: Scene) -> None:
    places = Places(scene.root)
    for name in ("one", "two"):
        subprocess.run(["btrfs", "--quiet", "subvolume", "create", places.tree(name)], check=True)
    one, two = places.tree("one"), places.tree("two")
    assert one.stat().st_ino == two.stat().st_ino
    assert identity(one) != identity(two)
    one.rename(places.tree("three"))
    assert identity(places.tree("three")) != identity(two)
