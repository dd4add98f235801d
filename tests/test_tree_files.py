"""The tree on disk: large files, holes, and files that change places while layers are read."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from converter.errors import ConversionError
from tests.hostile_tar import END, old_gnu, pax_sparse_00, pax_sparse_01, pax_sparse_10
from tests.layers import directory, file, hardlink, symlink, tar
from tests.trees import facts, shown, written

KB, MB = 1 << 10, 1 << 20
Pieces = list[tuple[int, int]]
FORMS: dict[str, Callable[[Pieces, int, bytes], bytes]] = {
    "old GNU": old_gnu,
    "PAX 0.0": pax_sparse_00,
    "PAX 0.1": pax_sparse_01,
    "PAX 1.0": pax_sparse_10,
}
LAYOUTS: dict[str, tuple[Pieces, int]] = {
    "ends and middle": ([(0, 5), (2 * MB, 10), (5 * MB - 3, 3)], 5 * MB),
    "begins and ends with a hole": ([(MB + 1, 4096), (3 * MB, 77)], 5 * MB),
    "one hole": ([(5 * MB, 0)], 5 * MB),
    "many pieces": ([(n * 200_000, 1000 + n) for n in range(50)], 50 * 200_000),
    "large pieces": ([(MB, 700_001), (4 * MB, 2 * MB + 5)], 9 * MB),
    "larger than any disk": ([(1 << 43, 3)], (1 << 43) + 4096),
}


def content(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", FORMS)
def test_holes_stay_holes(tmp_path: Path, form: str, layout: str) -> None:
    pieces, size = LAYOUTS[layout]
    stored = content(sum(length for _, length in pieces))
    written(tmp_path / "out", FORMS[form](pieces, size, stored) + END)
    path = tmp_path / "out/sparse"
    assert path.stat().st_size == size
    assert path.stat().st_blocks * 512 <= len(stored) + 128 * KB * len(pieces)
    with path.open("rb") as opened:
        at = 0
        for offset, length in pieces:
            opened.seek(offset)
            assert opened.read(length) == stored[at : at + length]
            at += length
        if size < 100 * MB:
            opened.seek(0)
            whole = bytearray(size)
            at = 0
            for offset, length in pieces:
                whole[offset : offset + length] = stored[at : at + length]
                at += length
            assert opened.read() == whole


EDGES = [edge + more for edge in (512, 4 * KB, 128 * KB, 256 * KB, MB, 2 * MB) for more in (-1, 0, 1)]
SIZES = [0, 1, *EDGES, 3 * MB + 17, 7 * MB + 4096]


def test_every_byte_of_large_files(tmp_path: Path) -> None:
    """Around the sizes of blocks, pages and chunks; also where a file's content begins anywhere in a chunk."""
    members = [file(f"d/{size}", content(size, size), mtime=size, mode=0o640) for size in SIZES]
    shuffled = [members[at] for at in random.Random(1).sample(range(len(members)), len(members))]
    for keep in (True, False):
        assert written(tmp_path / str(keep), tar(*shuffled), keep=keep) == []
        for size in SIZES:
            path = tmp_path / str(keep) / "d" / str(size)
            assert path.read_bytes() == content(size, size)
            assert path.stat().st_mtime_ns == size * 10**9
            assert path.stat().st_mode & 0o7777 == 0o640


def test_many_large_files_and_layers(tmp_path: Path) -> None:
    """Each layer replaces half of what is older."""
    stack = [
        tar(*(file(f"f{n}", content(300_000 + n, at), mtime=at) for n in range(0, 24, at + 1)))
        for at in range(4)
    ]
    written(tmp_path / "out", *stack)
    for n in range(24):
        newest = max(at for at in range(4) if n % (at + 1) == 0)
        path = tmp_path / "out" / f"f{n}"
        assert path.read_bytes() == content(300_000 + n, newest)
        assert path.stat().st_mtime_ns == newest * 10**9


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("size", [3, 300_000, 3 * MB + 17])
class TestChangingPlaces:
    """What a file's name becomes in its own layer or a newer one; small files and large go different ways."""

    def test_replaced_by_another_file(self, tmp_path: Path, size: int, keep: bool) -> None:
        old, new = content(size, 1), content(size + 1, 2)
        written(tmp_path / "out", tar(file("f", old, mtime=1), file("f", new, mtime=2)), keep=keep)
        found = facts(tmp_path / "out")[b"f"]
        assert (found.content, found.mtime, found.names) == (shown(new), 2 * 10**9, frozenset({b"f"}))

    def test_replaced_many_times(self, tmp_path: Path, size: int, keep: bool) -> None:
        data = tar(
            *(file("f", content(size, n)) for n in range(5)), symlink("f", "g"), file("f", content(size, 9))
        )
        written(tmp_path / "out", data, keep=keep)
        assert facts(tmp_path / "out")[b"f"].content == shown(content(size, 9))

    def test_replaced_by_a_directory(self, tmp_path: Path, size: int, keep: bool) -> None:
        data = tar(file("f", content(size, 1)), directory("f"), file("f/f", content(size, 2)))
        written(tmp_path / "out", data, keep=keep)
        assert facts(tmp_path / "out").keys() == {b".", b"f", b"f/f"}
        assert facts(tmp_path / "out")[b"f/f"].content == shown(content(size, 2))

    def test_taking_a_directory_s_place(self, tmp_path: Path, size: int, keep: bool) -> None:
        data = tar(file("d/e/f", content(size, 1)), file("d", content(size, 2)))
        written(tmp_path / "out", data, keep=keep)
        assert facts(tmp_path / "out").keys() == {b".", b"d"}
        assert facts(tmp_path / "out")[b"d"].content == shown(content(size, 2))

    def test_hidden_by_newer_layers(self, tmp_path: Path, size: int, keep: bool) -> None:
        base = tar(
            *(file(name, content(size, 1)) for name in ("a", "b", "c", "d/e", "f/g")), file("f/h", b"stays")
        )
        above = tar(file("a", b"new"), file(".wh.b"), directory("c"), symlink("d", "a"), file("f/.wh.g"))
        written(tmp_path / "out", base, above, keep=keep)
        found = facts(tmp_path / "out")
        assert found.keys() == {b".", b"a", b"c", b"d", b"f", b"f/h"}
        assert (found[b"a"].content, found[b"f/h"].content) == (b"new", b"stays")

    def test_living_on_under_another_name(self, tmp_path: Path, size: int, keep: bool) -> None:
        base = tar(file("a", content(size, 1)), hardlink("b", "a"), file("d/c", content(size, 2)))
        above = tar(file("a", b"new"), hardlink("e", "d/c"), directory("d"), file("d/.wh..wh..opq"))
        written(tmp_path / "out", base, above, keep=keep)
        found = facts(tmp_path / "out")
        assert (found[b"b"].content, found[b"b"].names) == (shown(content(size, 1)), frozenset({b"b"}))
        assert (found[b"e"].content, found[b"e"].names) == (shown(content(size, 2)), frozenset({b"e"}))
        assert found[b"a"].content == b"new"

    def test_two_files_and_their_links_in_each_other_s_places(
        self, tmp_path: Path, size: int, keep: bool
    ) -> None:
        one, two = content(size, 1), content(size, 2)
        data = tar(
            file("a", one), hardlink("x", "a"), file("b", two), hardlink("y", "b"),
            hardlink("a", "y"), hardlink("b", "x"),
        )  # fmt: skip
        written(tmp_path / "out", data, keep=keep)
        found = facts(tmp_path / "out")
        assert (found[b"a"].content, found[b"a"].names) == (shown(two), frozenset({b"a", b"y"}))
        assert (found[b"b"].content, found[b"b"].names) == (shown(one), frozenset({b"b", b"x"}))


def test_nothing_is_left_running_or_open(tmp_path: Path) -> None:
    """Whether the layers are good or not."""
    members = [file(f"f{n}", content(3 * MB, n)) for n in range(4)]
    good = tar(*members)
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    written(tmp_path / "good", good)
    bad = (good[: len(good) // 2], tar(*members, file("../evil", b"x")))
    for number, data in enumerate(bad):
        with pytest.raises(ConversionError):
            written(tmp_path / str(number), good, data)
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) == descriptors  # noqa: PTH208
