"""What the fuzzers begin with: each form of tar header once, right and slightly wrong. `python -m fuzz.first_seeds`"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

from fuzz.checks import SEPARATOR
from tests import hostile_tar as h
from tests.layers import directory, file, hardlink, member, symlink, tar

_SEEDS = Path(__file__).parent / "seeds"
_V7 = {"magic": b"", "mode": b"100644 ", "uid": b"     0 ", "gid": b"     0 ", "mtime": b"14000000000 "}


def tars() -> Iterator[tuple[str, bytes]]:
    """Names and contents."""
    kinds = (directory("d"), file("d/f", b"text"), symlink("s", "d/f"), hardlink("h", "d/f"))
    devices = (
        member("c", tarfile.CHRTYPE, devmajor=1, devminor=3),
        member("b", tarfile.BLKTYPE),
        member("p", tarfile.FIFOTYPE),
    )
    long = "n" * 90 + "/" + "m" * 95
    for name, form in (
        ("ustar", tarfile.USTAR_FORMAT),
        ("pax", tarfile.PAX_FORMAT),
        ("gnu", tarfile.GNU_FORMAT),
    ):
        yield name, tar(*kinds, *devices, file(long, b"x"), format=form)
    yield (
        "v7",
        h.entry(b"old", name=b"old", flag=b"\0", **_V7) + h.entry(name=b"d/", flag=b"\0", **_V7) + h.END,
    )
    yield "no-end", h.entry(b"text", name=b"f")
    yield "types", b"".join(h.entry(name=b"t", flag=bytes([flag])) for flag in b"7VMNz\0") + h.END
    yield "gnu-long", h.gnu_long(b"l" * 200) + h.gnu_long(b"k" * 200, b"K") + h.entry(flag=b"2") + h.END
    numbers = {"size": h.number(3), "uid": h.number(1 << 31, 8), "gid": h.number(7, 8), "mtime": h.number(-9)}
    yield "base-256", h.header(name=b"n", **numbers) + h.padded(b"abc") + h.END
    yield "negative", h.header(name=b"n", size=h.number(-3)) + h.END
    records = {b"path": b"p/" + b"q" * 120, b"linkpath": b"t", b"size": b"4", b"uid": b"9", b"gid": b"8"}
    times = {b"mtime": b"-1.25", b"atime": b"3", b"comment": b"=\xff"}
    yield "pax-records", h.pax({**records, **times}) + h.entry(b"text", size=b"0", name=b"short") + h.END
    yield (
        "pax-global",
        h.pax({b"uid": b"1", b"mtime": b"2.5"}, b"g") + h.entry(name=b"a") + h.entry(name=b"b") + h.END,
    )
    yield "pax-twice", h.pax({b"path": b"a"}) + h.pax({b"path": b"b"}, b"X") + h.entry(b"b") + h.END
    yield "pax-broken", h.pax_raw(b"9 path=x\n99 y=1\n") + h.entry() + h.END
    yield "pax-padded", h.pax_raw(h.record(b"path", b"a") + bytes(9)) + h.entry() + h.END
    xattrs = {
        b"SCHILY.xattr.user.a": b"\0\1\n=",
        b"LIBARCHIVE.xattr.user.b%3D": b"YWJj",
        b"LIBARCHIVE.xattr.user.a": b"YQ",
        b"SCHILY.xattr.security.capability": bytes.fromhex("0100000200200000") + bytes(12),
    }
    yield "xattrs", h.pax(xattrs) + h.entry(b"x", name=b"x") + h.END
    yield "xattr-broken", h.pax({b"LIBARCHIVE.xattr.user.b": b"*"}) + h.entry() + h.END
    yield "sparse-old", h.old_gnu([(0, 3), (4096, 2)], 8192, b"abcde") + h.entry(name=b"after") + h.END
    many = [(n * 512, 1) for n in range(30)]
    yield "sparse-old-long", h.old_gnu(many, 1 << 20, b"p" * 30) + h.entry(name=b"after") + h.END
    yield "sparse-old-wrong", h.old_gnu([(9, 3), (0, 2)], 8192, b"abcde") + h.END
    for name, make in (("0.0", h.pax_sparse_00), ("0.1", h.pax_sparse_01), ("1.0", h.pax_sparse_10)):
        yield f"sparse-{name}", make([(0, 3), (4096, 2)], 8192, b"abcde") + h.entry(name=b"after") + h.END
        yield f"sparse-{name}-empty", make([], 1 << 40) + h.END
        yield f"sparse-{name}-wrong", make([(0, 3), (2, 2)], 8192, b"abcde") + h.END
    yield "sparse-1.0-text", h.pax_sparse_10([], 9, b"", b"1\n0\n" + b"9" * 40 + b"\n") + h.END
    for name, value in (("nul", b"a\0b"), ("long", b"n" * 300)):
        yield (
            f"sparse-name-{name}",
            h.pax({b"GNU.sparse.map": b"0,1", b"GNU.sparse.size": b"9", b"GNU.sparse.name": value})
            + h.entry(b"x")
            + h.END,
        )
    yield "checksum-wrong", h.entry(name=b"f", checksum=b"0000001\0") + h.END
    yield "cut-header", h.entry(b"text", name=b"f") + h.header(name=b"g")[:300]
    yield "cut-content", h.entry(b"x" * 1500, name=b"f")[:1000]
    yield "cut-extension", h.pax({b"path": b"p"})
    yield "empty", b""
    yield "zeros", bytes(1024)


def stacks() -> Iterator[tuple[str, bytes]]:
    """The same for stacks of layers."""
    base = tar(directory("d"), file("d/f", b"1"), file("d/g", b"22"), symlink("s", "d"), hardlink("h", "d/f"))
    uppers = {
        "whiteout": tar(file("d/.wh.f")),
        "opaque": tar(file("d/.wh..wh..opq"), file("d/new", b"n")),
        "replaced": tar(file("d", b"no directory")),
        "through-link": tar(symlink("t", "s/../d"), file("t/f", b"x")),
        "link-below": tar(hardlink("again", "d/g"), hardlink("once-more", "s")),
        "links-in-circles": tar(symlink("a", "b"), symlink("b", "a"), hardlink("c", "a")),
        "out": tar(file("../x", b"x")),
        "root": tar(directory("."), file("./d/./f", b"y"), file(".wh.s")),
        "aufs": tar(file(".wh..wh.plnk/1", b"z"), file("d/.wh..wh.aufs")),
    }
    for name, upper in uppers.items():
        yield name, _small(base) + SEPARATOR + _small(upper)
    yield "three", SEPARATOR.join(map(_small, (base, uppers["link-below"], uppers["opaque"])))
    yield "backwards", SEPARATOR.join(map(_small, (uppers["whiteout"], base)))


def _small(data: bytes) -> bytes:
    """Without tarfile's padding to 10 KiB."""
    return data.rstrip(b"\0") + bytes(-len(data.rstrip(b"\0")) % 512 + 1024)


def main() -> None:
    """Write the seeds that are missing."""
    for folder, seeds in (("tar", tars()), ("merge", stacks())):
        (_SEEDS / folder).mkdir(parents=True, exist_ok=True)
        for name, data in seeds:
            path = _SEEDS / folder / name
            if not path.exists():
                path.write_bytes(_small(data) if data.endswith(bytes(2048)) else data)


if __name__ == "__main__":
    main()
