"""Trees as deep as a path can be: made, replaced, and taken back when something fails later."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile import BASE, Scene, staged, tree_of
from tests.layers import directory, file, symlink, tar

DEPTHS = (900, 2040)
FAILS = symlink(
    "l", ""
)  # the kernel makes no such link, so this fails when the directories are there already


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with staged(tmp_path) as made:
        yield made


def deep(depth: int) -> str:
    return "/".join(["d"] * depth)


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_deep_tree(scene: Scene, depth: int) -> None:
    outcome = scene.convert(scene.save(BASE, tar(directory(deep(depth)))))
    assert outcome.status == 0, outcome.stderr
    found = [path for path in tree_of(scene.tree) if path.startswith("d/")]
    assert len(found) == depth - 1
    assert max(found, key=len) == deep(depth)


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_deep_tree_is_taken_back(scene: Scene, depth: int) -> None:
    outcome = scene.convert(scene.save(tar(directory(deep(depth)), FAILS)))
    outcome.refused()
    scene.assert_untouched(refused=True)


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_deep_tree_is_replaced(scene: Scene, depth: int) -> None:
    assert scene.convert(scene.save(tar(directory(deep(depth))))).status == 0
    outcome = scene.convert(scene.save(tar(file("a", b"1"))), "--force")
    assert outcome.status == 0, outcome.stderr
    assert (scene.tree / "a").read_bytes() == b"1"
    assert not (scene.tree / "d").exists()
    assert [path.name for path in scene.machines.iterdir() if path.name.startswith(".#")] == []
    scene.assert_untouched(refused=False)


def test_a_deep_tree_in_the_way_of_an_addition(scene: Scene) -> None:
    """What the image has where the converter puts its own copy of /run is removed first."""
    path = f"usr/lib/docker2nspawn/run/x/{deep(2000)}"
    outcome = scene.convert(scene.save(tar(directory(path), file("run/x", b"1"))))
    assert outcome.status == 0, outcome.stderr
    assert (scene.tree / "usr/lib/docker2nspawn/run/x").read_bytes() == b"1"
    scene.assert_untouched(refused=False)


def test_a_deep_tree_in_run(scene: Scene) -> None:
    """The copy lies deeper than its original: beyond what a path can be."""
    outcome = scene.convert(scene.save(tar(directory(f"run/{deep(2040)}"))))
    if outcome.status:
        outcome.refused()
    scene.assert_untouched(refused=outcome.status != 0)


def test_a_deep_tree_that_a_dead_run_left(scene: Scene) -> None:
    """It must not keep later conversions of other images from working."""
    left = scene.machines / ".#docker2nspawn-dead"
    assert scene.convert(scene.save(tar(directory(deep(2040))))).status == 0
    left.mkdir(mode=0o700)
    scene.tree.rename(left / "root")
    for path in (scene.root / "etc").rglob("*.nspawn"):
        path.unlink()
    (scene.machines / "hostile.nspawn").unlink()
    outcome = scene.convert(scene.save(tar(file("a", b"1"))))
    assert outcome.status == 0, outcome.stderr
    assert (scene.tree / "a").read_bytes() == b"1"
    assert not left.exists()
