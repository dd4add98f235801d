"""Layers merged into one tree, from every compression, inside the root; tests/test_stacks.py tries any stack."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import resource
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from converter.errors import ConversionError
from converter.image.model import Layer
from converter.progress import Silent
from converter.rootfs.merge import Limits, scan
from tests.hostile_tar import END, header
from tests.layers import directory, file, hardlink, layer, symlink, tar
from tests.trees import contents, plan_of, written


def test_hard_links_carry_what_they_linked_to(tmp_path: Path) -> None:
    base = tar(file("one", b"first"), hardlink("two", "one"), file("three", b"3"))
    above = tar(file(".wh.one"), hardlink("four", "three"), file("three", b"new"))
    for keep in (True, False):
        written(tmp_path / str(keep), base, above, keep=keep)
        assert contents(tmp_path / str(keep)) == {"two": "first", "four": "3", "three": "new"}


def test_hard_links_stay_hard_links(tmp_path: Path) -> None:
    written(tmp_path / "out", tar(file("a", b"x"), hardlink("b", "a"), hardlink("d/c", "b")))
    inodes = {(tmp_path / "out" / name).stat().st_ino for name in ("a", "b", "d/c")}
    assert len(inodes) == 1


def test_a_link_of_the_same_layer_is_followed_inside_the_root(tmp_path: Path) -> None:
    data = tar(
        directory("usr/lib"), symlink("lib", "usr/lib"), file("lib/x", b"1"),
        symlink("up", "../../../usr"), file("up/y", b"2"), symlink("abs", "/usr/lib"), file("abs/z", b"3"),
    )  # fmt: skip
    written(tmp_path / "out", data)
    found = contents(tmp_path / "out")
    assert (found["usr/lib/x"], found["usr/y"], found["usr/lib/z"]) == ("1", "2", "3")
    assert found["lib"] == "-> usr/lib"


def test_a_link_of_an_older_layer_is_replaced(tmp_path: Path) -> None:
    base = tar(directory("usr/lib"), file("usr/lib/old", b"0"), symlink("lib", "usr/lib"))
    written(tmp_path / "out", base, tar(file("lib/new", b"1")))
    assert contents(tmp_path / "out") == {
        "usr": "dir",
        "usr/lib": "dir",
        "usr/lib/old": "0",
        "lib": "dir",
        "lib/new": "1",
    }


def test_depth_is_no_recursion(tmp_path: Path) -> None:
    deep = "/".join(["d"] * 2000)
    plan = plan_of(tmp_path, tar(file(f"{deep}/f", b"x")), tar(file(f"{deep}/g", b"y")))
    assert sum(1 for _ in plan.walk()) == 2002


def test_many_layers(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, *(tar(file(f"f{n}", b"x"), file("same", str(n).encode())) for n in range(200)))
    assert plan.read("same", 10) == b"199"
    assert sum(1 for _ in plan.walk()) == 201


def test_lookup_follows_links_inside(tmp_path: Path) -> None:
    plan = plan_of(
        tmp_path,
        tar(
            file("usr/etc/passwd", b"root"),
            symlink("etc", "/usr/etc"),
            symlink("loop", "loop"),
            symlink("out", "../.."),
        ),
    )
    assert plan.read("etc/passwd", 10) == b"root"
    assert plan.read("out/etc/passwd", 10) == b"root"
    assert plan.lookup("loop/x") is None
    assert plan.lookup("etc/passwd/x") is None


# --- reading -------------------------------------------------------------------------------------------------


CODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "gzip of two members": lambda d: gzip.compress(d[:700]) + gzip.compress(d[700:]),
    "gzip and zeros": lambda d: gzip.compress(d) + bytes(1000),
    "zstd": zstandard.compress,
    "zstd of two frames": lambda d: zstandard.compress(d[:700]) + zstandard.compress(d[700:]),
    "xz": lzma.compress,
    "bzip2": bz2.compress,
    "nothing": lambda d: d,
}


SAMPLE = tar(
    directory("d", mtime=5), file("d/f", bytes(range(256)) * 20), symlink("s", "d/f"), hardlink("h", "d/f")
)


@pytest.mark.parametrize("coder", CODERS)
def test_every_compression(tmp_path: Path, coder: str) -> None:
    diff_id = f"sha256:{hashlib.sha256(SAMPLE).hexdigest()}"
    plan = scan([layer(tmp_path, CODERS[coder](SAMPLE), diff_id=diff_id)], progress=Silent())
    assert plan.read("h", 10_000) == bytes(range(256)) * 20


@pytest.mark.parametrize("coder", CODERS)
def test_every_truncation(tmp_path: Path, coder: str) -> None:
    data = CODERS[coder](SAMPLE)
    with tarfile.open(fileobj=io.BytesIO(SAMPLE)) as archive:
        boundaries = {info.offset for info in archive.getmembers()} - {0} | {
            len(SAMPLE.rstrip(b"\0")) // 512 * 512 + 512
        }
    for length in {*range(0, len(data), 512), *range(0, len(data) - 1, max(1, len(data) // 40))}:
        if coder == "gzip and zeros" and length >= len(data) - 1000:
            continue  # only padding is missing
        cut = data[:length]
        if coder == "nothing" and (length in boundaries or length >= max(boundaries) + 512):
            continue  # a whole archive without its end marker, which tar(1) and Docker take too
        with pytest.raises(ConversionError):
            # The digest is that of the cut data: the reader itself must notice.
            plan_of(tmp_path, cut)


@pytest.mark.parametrize("coder", [name for name in CODERS if name != "nothing"])
def test_garbage_after_the_data(tmp_path: Path, coder: str) -> None:
    with pytest.raises(ConversionError, match="corrupt"):
        plan_of(tmp_path, CODERS[coder](SAMPLE) + b"garbage")


def test_digests_are_checked(tmp_path: Path) -> None:
    good = layer(tmp_path, gzip.compress(SAMPLE))
    wrong = "sha256:" + "0" * 64
    for bad in (replace(good, digest=wrong), replace(good, diff_id=wrong)):
        with pytest.raises(ConversionError, match="corrupt"):
            scan([bad], progress=Silent())
    with pytest.raises(ConversionError, match="cut short"):
        scan([replace(good, size=good.size + 1)], progress=Silent())


HARMLESS: dict[str, tuple[bytes, dict[str, str]]] = {
    "absolute name": (tar(file("/a", b"1")), {"a": "1"}),
    "absolute name with dots": (tar(file("/../../a", b"1")), {"a": "1"}),
    "dots that stay inside": (tar(file("x/../a", b"1")), {"a": "1"}),
    "link to outside": (tar(symlink("l", "../../../etc")), {"l": "-> ../../../etc"}),
    "file through a link to outside": (
        tar(symlink("l", "../../../out"), file("l/f", b"1")),
        {"l": "-> ../../../out", "out": "dir", "out/f": "1"},
    ),
    "file through an absolute link": (
        tar(symlink("l", "/tmp"), file("l/f", b"1")),
        {"l": "-> /tmp", "tmp": "dir", "tmp/f": "1"},
    ),
    "link swapped for a directory": (
        tar(symlink("l", "/tmp"), directory("l"), file("l/f", b"1")),
        {"l": "dir", "l/f": "1"},
    ),
    "directory swapped for a link": (
        tar(directory("l"), file("l/f", b"1"), symlink("l", "/tmp")),
        {"l": "-> /tmp"},
    ),
    "link overwritten by a file": (tar(symlink("l", "/etc/passwd"), file("l", b"mine")), {"l": "mine"}),
    "duplicate entries": (tar(file("a", b"1"), file("a", b"2")), {"a": "2"}),
    "aufs bookkeeping": (
        tar(directory(".wh..wh.plnk"), file(".wh..wh.plnk/1.2", b"x"), file("a", b"1")),
        {"a": "1"},
    ),
    "whiteout of nothing there": (tar(file(".wh.none"), file("a", b"1")), {"a": "1"}),
    "an empty tar": (END, {}),
}


@pytest.mark.parametrize("what", HARMLESS)
def test_odd_layers_stay_inside(tmp_path: Path, what: str) -> None:
    data, expected = HARMLESS[what]
    (tmp_path / "canary").write_text("untouched")
    before = {p: p.lstat().st_mtime_ns for p in (Path("/tmp"), Path("/etc"), Path("/etc/passwd"))}
    written(tmp_path / "target", data)
    assert contents(tmp_path / "target") == expected
    assert {p: p.lstat().st_mtime_ns for p in before if p != Path("/tmp")} == {
        p: t for p, t in before.items() if p != Path("/tmp")
    }
    assert not (Path("/tmp") / "f").exists()


def test_links_between_layers_lead_nowhere(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    base = tar(symlink("d", str(outside)))
    written(tmp_path / "target", base, tar(file("d/evil", b"x")), tar(file("d/.wh.evil")))
    assert list(outside.iterdir()) == []
    assert contents(tmp_path / "target") == {"d": "dir"}


def test_a_bomb_takes_no_memory(tmp_path: Path) -> None:
    """1 GiB of zeros in 1 MB: read to its end without being held, and refused by its size."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    size = 1 << 30
    packed = packer.compress(header(name=b"a", size=b"%o" % size))
    for _ in range(1024):
        packed += packer.compress(bytes(1 << 20))
    packed += packer.compress(END) + packer.flush()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    plan_of(tmp_path, packed, limits=Limits(content=size))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB
    with pytest.raises(ConversionError, match="unpacks to more than"):
        plan_of(tmp_path, packed, limits=Limits(content=size - 1))


def test_what_newer_layers_hide_takes_no_room(tmp_path: Path) -> None:
    base = tar(*(file(name, b"12345") for name in ("a", "b", "d/c", "d/e/f", "g/h", "g/i/j", "k/l/m")))
    above = tar(
        file("a", b"123"), file(".wh.b"), file("d", b"12"), directory("g"), file("g/.wh..wh..opq"), file("k/.wh.l")
    )  # fmt: skip
    plan_of(tmp_path, base, above, limits=Limits(content=5))
    with pytest.raises(ConversionError, match="--max-size"):
        plan_of(tmp_path, base, above, limits=Limits(content=4))


def test_too_many_entries(tmp_path: Path) -> None:
    halves = [tar(*(file(f"f{n}") for n in range(25))) for _ in range(2)]
    plan_of(tmp_path, *halves, limits=Limits(entries=50))
    with pytest.raises(ConversionError, match="more than 49 entries"):
        plan_of(tmp_path, *halves, limits=Limits(entries=49))


def test_a_file_that_is_too_short_is_noticed(tmp_path: Path) -> None:
    good = layer(tmp_path, SAMPLE)
    cut = Layer(good.path, 0, good.size)
    good.path.write_bytes(SAMPLE[:1500])
    with pytest.raises(ConversionError, match="cut short"):
        scan([cut], progress=Silent())
