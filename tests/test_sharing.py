"""Newer layers laid over a tree of the older ones make what all layers together make."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.errors import ConversionError
from converter.progress import Silent
from converter.rootfs.clone import clone_tree
from converter.rootfs.merge import Limits
from converter.rootfs.over import lay_over
from tests.layers import directory, file, hardlink, layer, symlink, tar
from tests.stack_reference import OpenQuestionError, RefusedError, reference
from tests.test_stacks import Stack, anything, packed, replacing, stacks, thorough
from tests.trees import ROOT, contents, facts, written

pytestmark = pytest.mark.skipif(not ROOT, reason="only root shares trees")


def laid_over(place: Path, tree: Path, *layers: bytes) -> None:
    root_fd = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)
    try:
        lay_over(root_fd, [layer(place, data) for data in layers], progress=Silent(), limits=Limits())
    finally:
        os.close(root_fd)


def check(stack: Stack, below: int) -> None:
    """The lowest `below` layers become a tree, of which a clone gets the others."""
    layers = [packed(items) for items in stack]
    count = below % len(layers)
    with tempfile.TemporaryDirectory(prefix="shared-") as name:
        place = Path(name)
        try:
            expected = reference(stack)
        except OpenQuestionError:
            return
        except RefusedError:
            expected = None
        try:
            assert written(place / "base", *layers[:count]) == []
            before = facts(place / "base")
            clone_tree(place / "base", place / "out")
            laid_over(place, place / "out", *layers[count:])
        except ConversionError:
            # Then the image is converted by itself: only what has links to lower layers may come to that.
            assert expected is None or any(item.kind == "hardlink" for items in stack for item in items)
            return
        assert expected is not None
        assert facts(place / "out") == expected
        assert facts(place / "base") == before


@thorough(700)
@given(stacks(anything, layers=4, size=7), st.integers(0, 3))
def test_any_stack_in_two_parts(stack: Stack, below: int) -> None:
    check(stack, below)


@thorough(400)
@given(stacks(replacing, layers=5, size=6), st.integers(0, 4))
def test_any_stack_that_replaces_much(stack: Stack, below: int) -> None:
    check(stack, below)


def test_links_of_the_older_layers_lead_no_file_elsewhere(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    base = tar(
        symlink("way", str(outside)), symlink("etc", "/etc"), directory("usr"), symlink("usr/out", "../..")
    )
    upper = tar(file("way/in", b"1"), file("etc/passwd.docker2nspawn", b"2"), file("usr/out/x", b"3"))
    assert written(tmp_path / "base", base) == []
    clone_tree(tmp_path / "base", tmp_path / "out")
    laid_over(tmp_path, tmp_path / "out", upper)
    assert list(outside.iterdir()) == []
    assert not Path("/etc/passwd.docker2nspawn").exists()
    tree = contents(tmp_path / "out")
    assert {name: tree[name] for name in ("way/in", "etc/passwd.docker2nspawn", "usr/out/x")} == {
        "way/in": "1",
        "etc/passwd.docker2nspawn": "2",
        "usr/out/x": "3",
    }


def test_a_link_to_a_file_below_is_refused(tmp_path: Path) -> None:
    assert written(tmp_path / "base", tar(file("a", b"1"))) == []
    clone_tree(tmp_path / "base", tmp_path / "out")
    with pytest.raises(ConversionError, match="hard link"):
        laid_over(tmp_path, tmp_path / "out", tar(hardlink("b", "a")))
