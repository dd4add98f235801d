"""Little input that asks for much: bounded memory, bounded disk, bounded time, and one line when it is too much.

Memory is that of the converting process alone; without an image it needs about 60 MB.
"""

from __future__ import annotations

import bz2
import hashlib
import lzma
import subprocess
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tests.hostile import BASE, BASE_TREE, ROOT, Outcome, Scene, sha256, staged, tree_of
from tests.hostile_tar import (
    END,
    entry,
    gnu_long,
    header,
    number,
    padded,
    pax,
    pax_raw,
    pax_sparse_10,
    record,
)

MIB = 1 << 20
ZEROS = bytes(MIB)
MEMORY = 400_000  # kB for what streams by
KEPT = 700_000  # kB for an image whose entries are few, however much they claim
TREE = 1_520_000  # kB for one of very many entries, and the program; a real one has 100,000 and takes a tenth of it

needs_root = pytest.mark.skipif(not ROOT, reason="mounting needs root")


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with staged(tmp_path) as made:
        yield made


def gzip_() -> Any:
    return zlib.compressobj(9, zlib.DEFLATED, 31)


def zstd() -> Any:
    return zstandard.ZstdCompressor(level=3).compressobj()


PACKERS: dict[str, Callable[[], Any]] = {
    "gzip": gzip_,
    "zstd": zstd,
    "xz": lambda: lzma.LZMACompressor(preset=0),
    "bzip2": bz2.BZ2Compressor,
}


def packed(parts: Iterable[bytes], make: Callable[[], Any] = gzip_) -> tuple[bytes, str]:
    """What has never been whole in our own memory, compressed, and its diff id."""
    packer, digest, out = make(), hashlib.sha256(), bytearray()
    for part in parts:
        digest.update(part)
        out += packer.compress(part)
    return bytes(out + packer.flush()), f"sha256:{digest.hexdigest()}"


def zeros(size: int) -> Iterator[bytes]:
    for _ in range(size // MIB):
        yield ZEROS


def convert(scene: Scene, parts: Iterable[bytes], *, memory: int = MEMORY, **more: Any) -> Outcome:
    """Convert BASE and the gzipped parts; an end without a line of our own fails here."""
    data, diff_id = packed(parts)
    outcome = scene.convert_measured(
        scene.save(BASE, data, diff_ids=[sha256(BASE), diff_id]), memory=memory + 300_000, **more
    )
    assert outcome.peak < memory, f"{outcome.peak} kB for {len(data)} bytes of gzip"
    if outcome.status:
        outcome.refused()
    scene.assert_untouched(refused=outcome.status != 0)
    return outcome


# --- zeros ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packing", PACKERS)
def test_a_file_of_zeros(scene: Scene, packing: str) -> None:
    size = 256 * MIB

    def parts() -> Iterator[bytes]:
        yield header(name=b"zeros", size=b"%o" % size)
        yield from zeros(size)
        yield END

    data, diff_id = packed(parts(), PACKERS[packing])
    assert len(data) < MIB
    image = scene.save(BASE, data, diff_ids=[sha256(BASE), diff_id])
    outcome = scene.convert_measured(image, memory=900_000)
    assert outcome.status == 0, outcome.stderr
    assert outcome.peak < MEMORY
    assert (scene.tree / "zeros").stat().st_size == size
    scene.assert_untouched(refused=False)


@pytest.mark.parametrize("packing", PACKERS)
def test_zeros_behind_the_end(scene: Scene, packing: str) -> None:
    """They are covered by the digest, and take no room."""

    def parts() -> Iterator[bytes]:
        yield entry(b"x", name=b"a") + END
        yield from zeros(512 * MIB)

    data, diff_id = packed(parts(), PACKERS[packing])
    image = scene.save(BASE, data, diff_ids=[sha256(BASE), diff_id])
    outcome = scene.convert_measured(image, memory=900_000, file_size=10 * MIB)
    assert outcome.peak < MEMORY
    scene.check_outcome(outcome, {"a": "x"})


def test_zeros_in_what_is_passed_over(scene: Scene) -> None:
    def parts() -> Iterator[bytes]:
        yield header(name=b"label", flag=b"V", size=b"%o" % (256 * MIB))
        yield from zeros(256 * MIB)
        yield entry(b"x", name=b"a") + END

    outcome = convert(scene, parts(), file_size=10 * MIB)
    assert outcome.status != 0 or (scene.tree / "a").read_bytes() == b"x"


def test_a_bomb_around_the_archive(scene: Scene) -> None:
    """The outer file may be compressed too, and is unpacked beside the tree: it must not stay there."""
    plain = scene.save(BASE, entry(b"x", name=b"a") + END).read_bytes()
    data, _ = packed([plain[: plain.rindex(b"manifest.json") // 512 * 512], *zeros(300 * MIB)])
    image = scene.inputs / "image.tar.gz"
    image.write_bytes(data)
    outcome = scene.convert_measured(image, memory=900_000)
    outcome.refused()
    assert outcome.peak < MEMORY
    scene.assert_untouched(refused=True)


def test_a_bomb_that_is_no_tar(scene: Scene) -> None:
    data, diff_id = packed([b"x" * 512, *zeros(1024 * MIB)])
    image = scene.save(BASE, data, diff_ids=[sha256(BASE), diff_id])
    outcome = scene.convert_measured(image, memory=900_000, timeout=20)
    outcome.refused("not a tar")
    assert outcome.peak < MEMORY


def test_xz_that_wants_a_gigabyte_for_its_dictionary(scene: Scene) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 30}]
    small = lzma.compress(entry(b"x", name=b"a") + END, filters=[{**filters[0], "dict_size": 1 << 20}])
    # The dictionary's size is one byte of the block header, whose checksum is made right again.
    size, flags = (small[12] + 1) * 4, small[13:14]
    block = bytearray(small[12 : 12 + size - 4])
    assert flags == b"\0" and block[2:4] == b"\x21\x01"
    block[4] = 40  # 4 GiB - 1
    forged = small[:12] + bytes(block) + zlib.crc32(block).to_bytes(4, "little") + small[12 + size :]
    image = scene.save(BASE, forged, diff_ids=[sha256(BASE), sha256(entry(b"x", name=b"a") + END)])
    outcome = scene.convert_measured(image, memory=900_000)
    outcome.refused("xz")
    assert outcome.peak < MEMORY


# --- room ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1 << 33, 1 << 45, 1 << 61], ids=["8 GB", "32 TB", "2 EB"])
def test_a_file_that_is_larger_than_its_layer(scene: Scene, size: int) -> None:
    outcome = convert(scene, [header(name=b"a", size=number(size)), ZEROS], file_size=10 * MIB)
    assert "cut short" in outcome.stderr or "make room first" in outcome.stderr  # whichever is seen first


def test_a_file_larger_than_may_be(scene: Scene) -> None:
    parts = [header(name=b"a", size=b"%o" % (64 * MIB)), *zeros(64 * MIB), END]
    outcome = convert(scene, parts, file_size=8 * MIB)
    assert "File too large" in outcome.stderr


@needs_root
def test_a_file_larger_than_the_free_space(scene: Scene) -> None:
    """Known before anything is written."""
    parts = [header(name=b"a", size=b"%o" % (64 * MIB)), *zeros(64 * MIB), END]
    with small_disk(scene, "16m"):
        outcome = convert(scene, parts)
    assert "make room first" in outcome.stderr


@needs_root
@pytest.mark.parametrize("what", ["files", "copies of run"])
def test_more_than_the_free_space(scene: Scene, what: str) -> None:
    """Small files take more than their bytes, and /run is copied: found while writing, and taken back."""
    place = "run/d" if what == "copies of run" else "d"
    content = {"files": b"x", "copies of run": bytes(60_000)}[what]
    count = {"files": 3_000, "copies of run": 100}[what]
    parts = [entry(content, name=b"%s/%d" % (place.encode(), n)) for n in range(count)]
    with small_disk(scene, "10m"):
        outcome = convert(scene, [*parts, END])
        assert outcome.status == 1
        assert "No space left" in outcome.stderr


@contextmanager
def small_disk(scene: Scene, size: str) -> Iterator[None]:
    """A file system of `size` in the place of /var/lib/machines; the other machine is not on it."""
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "none", scene.machines], check=True
    )
    try:
        scene.restage()
        yield
    finally:
        subprocess.run(["umount", scene.machines], check=True)


# --- many ----------------------------------------------------------------------------------------------------


def test_hundreds_of_thousands_of_entries_of_one_name(scene: Scene) -> None:
    """100 MB of headers in a hundred kilobytes."""
    one = header(name=b"a") * 2048
    outcome = convert(scene, [*([one] * 100), END], memory=MEMORY, timeout=280)
    assert outcome.status != 0 or (scene.tree / "a").read_bytes() == b""


def test_many_entries(scene: Scene) -> None:
    """Names have to be kept until the tree is written: for each of them no more than a few kB."""
    count = 50_000
    parts = [header(name=b"d%d/%d" % (n % 100, n)) for n in range(count)]
    outcome = convert(scene, [*parts, END], memory=250_000)
    assert outcome.status == 0
    assert len(tree_of(scene.tree)) == count + 100 + len(BASE_TREE)


def test_many_directories_without_an_entry(scene: Scene) -> None:
    """A name of 4 kB makes two thousand directories, which no limit on entries counts."""
    deep = b"/d" * 1990
    parts = [gnu_long(b"%05d" % n + deep) + header(name=b"x", flag=b"5") for n in range(3_000)]
    outcome = convert(scene, [*parts, END], memory=TREE, timeout=280)
    assert outcome.status != 0


def test_whiteouts_without_end(scene: Scene) -> None:
    parts = [header(name=b"d/.wh.%d" % n) for n in range(100_000)]
    outcome = convert(scene, [*parts, END], memory=250_000)
    assert outcome.status == 0
    assert sorted(path.name for path in (scene.tree / "d").iterdir()) == []


def test_many_layers(scene: Scene) -> None:
    small = entry(b"x", name=b"a") + END
    outcome = scene.convert_measured(scene.save(BASE, *([small] * 1000)), memory=MEMORY * 2)
    assert outcome.peak < MEMORY
    scene.check_outcome(outcome, {"a": "x"})


def test_extended_headers_without_an_entry(scene: Scene) -> None:
    """300 MB of them."""
    large = pax({b"comment": b"c" * (MIB - 100)})
    name = gnu_long(b"n" * (MIB - 100))
    outcome = convert(scene, [*([large, name] * 150), entry(b"x", name=b"a"), END])
    assert outcome.status == 1


def test_global_headers_that_add_up(scene: Scene) -> None:
    """Each has another key: 300 MB if they are kept."""
    parts = [pax({b"VENDOR.%d" % n: b"v" * (MIB - 100)}, flag=b"g") for n in range(300)]
    convert(scene, [*parts, entry(b"x", name=b"a"), END], memory=MEMORY // 2)


def test_a_global_header_that_is_repeated_for_every_entry(scene: Scene) -> None:
    """Thirty-five thousand attributes, for each of five hundred files."""
    attributes = b"".join(record(b"SCHILY.xattr.user.%d" % n, b"") for n in range(35_000))
    parts = [pax_raw(attributes, flag=b"g"), *(header(name=b"%d" % n) for n in range(500))]
    convert(scene, [*parts, END], memory=KEPT, timeout=280)


def test_attributes_that_add_up(scene: Scene) -> None:
    """Almost a megabyte for each of a thousand files: a gigabyte from a megabyte."""
    large = pax({b"SCHILY.xattr.user.%d" % n: b"v" * 65_000 for n in range(16)})
    parts = (large + header(name=b"%d" % n) for n in range(1_000))
    convert(scene, [*parts, END], memory=KEPT, timeout=280)


def test_sparse_maps_that_add_up(scene: Scene) -> None:
    """Half a million empty pieces for each of thirty files: a gigabyte from 60 kB."""
    text = padded(b"500000\n" + b"0\n" * 1_000_000)
    one = pax_sparse_10([], 9, b"", text)
    files = [one.replace(b"=sparse\n", b"=%06d\n" % n, 1) for n in range(30)]
    convert(scene, [*files, END], memory=KEPT, timeout=280)


def test_old_sparse_maps_that_add_up(scene: Scene) -> None:
    """A map goes on for as long as it likes, if its pieces are empty."""
    piece = number(0) + number(0)
    more = (piece * 21).ljust(504, b"\0") + b"\1" + bytes(7)
    first = header(
        name=b"sparse", flag=b"S", magic=b"ustar  \0", map=piece * 4, more=b"\1", realsize=number(9)
    )
    parts = [first, *([more * 2000] * 24), bytes(512), END]
    convert(scene, parts, memory=MEMORY, timeout=120)
