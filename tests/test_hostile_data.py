"""Layers that are cut at every block, that are something else than a tar, or have something behind their end."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from tests.hostile import BASE, BASE_TREE, Allowed, Refused, Scene, sha256, staged, tree_of
from tests.hostile_tar import END, entry, gnu_long, old_gnu, pax, pax_sparse_10
from tests.layers import directory, file, hardlink, symlink, tar

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "zstd": zstandard.compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
}
# Every form of header and some content, so that cuts fall into each.
PARTS = [
    entry(random.Random(1).randbytes(1300), name=b"a"),
    gnu_long(b"b" * 150) + gnu_long(b"t" * 150, b"K") + entry(name=b"b", flag=b"2"),
    pax({b"path": b"c" * 200, b"SCHILY.xattr.user.x": b"v"}) + entry(b"c" * 513, name=b"c"),
    old_gnu([(2 * n, 1) for n in range(30)], 60, b"s" * 30, name=b"s"),
    pax_sparse_10([(0, 3)], 9, b"abc"),
    entry(name=b"h", flag=b"1", link=b"a"),
]  # each makes one thing
WHOLE = b"".join(PARTS) + END


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with staged(tmp_path) as made:
        yield made


@pytest.mark.parametrize("packing", ["none", *PACKERS])
def test_cut_at_every_block(scene: Scene, packing: str) -> None:
    packed = PACKERS[packing](WHOLE) if packing != "none" else WHOLE
    for length in range(0, len(packed), 512 if packing == "none" else max(1, len(packed) // 24)):
        outcome = scene.convert(scene.save(BASE, packed[:length], diff_ids=[sha256(BASE), sha256(WHOLE)]))
        outcome.refused()
        scene.assert_untouched(refused=True)


def test_cut_at_every_block_with_a_digest_that_fits(scene: Scene) -> None:
    """A layer that ends between two entries lacks nothing but its end marker: tar(1) and Docker take it."""
    kept = {sum(map(len, PARTS[: n + 1])): n + 1 for n in range(len(PARTS))}
    for length in range(0, len(WHOLE), 512):
        outcome = scene.convert(scene.save(BASE, WHOLE[:length]))
        if length in kept or length == len(WHOLE) - 512:
            assert outcome.status == 0, (length, outcome.stderr)
            assert len(tree_of(scene.tree)) == len(BASE_TREE) + kept.get(length, len(PARTS))
            scene.forget()
        else:
            outcome.refused()
            scene.assert_untouched(refused=True)


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("../../evil", "x")
    return buffer.getvalue()


NO_TAR = Refused("not a tar")
OTHERS: dict[str, tuple[bytes, Allowed]] = {
    "an ELF": (b"\x7fELF\2\1\1" + bytes(57) + b"\x90" * 4000, NO_TAR),
    "HTML": (b"<!DOCTYPE html><title>502 Bad Gateway</title>" * 30, NO_TAR),
    "JSON": (b'{"errors":[{"code":"UNAUTHORIZED"}]}', NO_TAR),
    "nothing": (b"", Refused("is empty")),
    "one byte": (b"x", NO_TAR),
    "one NUL": (b"\0", NO_TAR),
    "511 NULs": (bytes(511), NO_TAR),
    "one block of NULs": (bytes(512), {}),
    "ten megabytes of NULs": (bytes(10 << 20), {}),
    "noise": (random.Random(2).randbytes(100_000), NO_TAR),
    "noise behind a good header": (entry(b"x", name=b"a") + random.Random(3).randbytes(5120), Refused("checksum")),
    "a ZIP": (zipped(), NO_TAR),
    "a cpio": (b"070701" + b"0" * 104 + b"evil\0" + bytes(1000), NO_TAR),
    "an ar": (b"!<arch>\n" + b"debian-binary   0           0     0     100644  4         `\n2.0\n" * 20, NO_TAR),
    "a squashfs": (b"hsqs" + bytes(2000), NO_TAR),
    "a shell script": (b"#!/bin/sh\nrm -rf /\n" * 100, NO_TAR),
    "an image in the image": (tar(file("manifest.json", b"[]")), {"manifest.json": "[]"}),
    "the word ustar": (bytes(257) + b"ustar\x0000" + bytes(247), NO_TAR),
    "a tar without a header's last byte": (entry(name=b"a")[:511], Refused()),
}  # fmt: skip


@pytest.mark.parametrize("packing", ["plain", "packed"])
@pytest.mark.parametrize("what", OTHERS)
def test_something_else_than_a_tar(scene: Scene, what: str, packing: str) -> None:
    data, allowed = OTHERS[what]
    stored = data if packing == "plain" else gzip.compress(data)
    outcome = scene.convert(scene.save(BASE, stored, diff_ids=[sha256(BASE), sha256(data)]))
    scene.check_outcome(outcome, allowed)


GOOD = tar(file("a", b"x"))
GZIP = gzip.compress(GOOD, mtime=0)
CORRUPT: dict[str, bytes] = {
    "magic alone": b"\x1f\x8b",
    "half a gzip header": GZIP[:9],
    "a gzip method that does not exist": GZIP[:2] + b"\x07" + GZIP[3:],
    "a gzip name without end": GZIP[:3] + b"\x08" + GZIP[4:10] + b"n" * 5000,
    "a wrong gzip checksum": GZIP[:-8] + struct.pack("<I", 1) + GZIP[-4:],
    "a wrong gzip length": GZIP[:-4] + struct.pack("<I", 1),
    "no gzip checksum": GZIP[:-8],
    "garbage behind gzip": GZIP + b"garbage",
    "half a member behind gzip": GZIP + GZIP[:20],
    "a broken member behind gzip": GZIP + b"\x1f\x8b" + b"\xff" * 100,
    "garbage behind zeros behind gzip": GZIP + bytes(5000) + b"garbage",
    "a flipped bit in gzip": GZIP[:40] + bytes([GZIP[40] ^ 0x10]) + GZIP[41:],
    "gzip in gzip": gzip.compress(GZIP),
    "zstd in gzip": gzip.compress(zstandard.compress(GOOD)),
    "zlib without gzip": zlib.compress(GOOD),
    "zstd magic alone": b"\x28\xb5\x2f\xfd",
    "zstd that needs a dictionary": b"\x28\xb5\x2f\xfd\x23\x01\x02\x03\x04\x05" + bytes(100),
    "a zstd window of 2 GB": b"\x28\xb5\x2f\xfd\x00\xa8" + b"\x01\x00\x00" + bytes(100),
    "garbage behind zstd": zstandard.compress(GOOD) + b"garbage",
    "a zstd frame that can be skipped, first": b"\x50\x2a\x4d\x18\4\0\0\0abcd" + zstandard.compress(GOOD),
    "xz magic alone": b"\xfd7zXZ\0",
    "xz with a wrong check": lzma.compress(GOOD)[:-13] + b"\xff" + lzma.compress(GOOD)[-12:],
    "garbage behind xz": lzma.compress(GOOD) + b"garbage",
    "bzip2 magic alone": b"BZh",
    "bzip2 of level 0": b"BZh0" + bz2.compress(GOOD)[4:],
    "garbage behind bzip2": bz2.compress(GOOD) + b"garbage",
    "lz4": b"\x04\x22\x4d\x18" + GOOD,
    "lzma without xz": lzma.compress(GOOD, format=lzma.FORMAT_ALONE),
    "compress": b"\x1f\x9d\x90" + GOOD,
}  # fmt: skip


@pytest.mark.parametrize("what", CORRUPT)
def test_corrupt_compression(scene: Scene, what: str) -> None:
    outcome = scene.convert(scene.save(BASE, CORRUPT[what], diff_ids=[sha256(BASE), sha256(GOOD)]))
    outcome.refused()
    scene.assert_untouched(refused=True)


BEHIND: dict[str, bytes] = {
    "zeros": GOOD + bytes(1 << 20),
    "noise": GOOD + random.Random(4).randbytes(10_000),
    "another tar": GOOD + tar(file("../../evil", b"x"), symlink("etc", "/")),
    "another tar behind one block": entry(b"x", name=b"a") + bytes(512) + tar(file("b", b"evil")),
    "half a header": GOOD + entry(name=b"b")[:300],
}


@pytest.mark.parametrize("what", BEHIND)
def test_behind_the_end_marker(scene: Scene, what: str) -> None:
    """The digest covers it, no reader sees it."""
    scene.check([Refused(), {"a": "x"}], BEHIND[what])


def test_gzip_flags_that_do_not_exist(scene: Scene) -> None:
    """RFC 1952 refuses them, Go's reader does not look: the content is verified either way."""
    packed = GZIP[:3] + b"\xe0" + GZIP[4:]
    outcome = scene.convert(scene.save(BASE, packed, diff_ids=[sha256(BASE), sha256(GOOD)]))
    scene.check_outcome(outcome, [Refused(), {"a": "x"}])


def test_no_end_marker_in_a_gzip(scene: Scene) -> None:
    data = entry(b"x", name=b"a")
    outcome = scene.convert(scene.save(BASE, gzip.compress(data), diff_ids=[sha256(BASE), sha256(data)]))
    scene.check_outcome(outcome, {"a": "x"})


def test_noise_is_never_an_image(scene: Scene) -> None:
    """Good layers with a few bytes changed: refused or converted, nothing else."""
    random_ = random.Random(5)
    good = tar(
        directory("x"),
        file("x/f", b"1" * 700),
        symlink("l", "x"),
        hardlink("h", "x/f"),
        format=tarfile.GNU_FORMAT,
    )
    for _ in range(150):
        data = bytearray(good)
        for _ in range(random_.randint(1, 8)):
            data[random_.randrange(len(data))] = random_.randrange(256)
        outcome = scene.convert(scene.save(BASE, bytes(data)))
        if outcome.status:
            outcome.refused()
        scene.assert_untouched(refused=outcome.status != 0)
        scene.forget()
