"""Header fields and extended headers that lie: about names, sizes, owners, times, and about themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile import Allowed, Refused, Scene, Tree, staged
from tests.hostile_tar import END, entry, gnu_long, header, number, pax, pax_raw, record
from tests.layers import file, symlink, tar

LONG = Refused("too long")
BROKEN = Refused("broken extended header")
A = entry(b"x", name=b"a")
SAVED: Tree = {"a": "x"}


def deep(length: int) -> str:
    """A path of that many bytes, of components of 200."""
    parts = "/".join(["n" * 200] * (length // 201 + 1))
    return parts[: length - 1].rstrip("/").ljust(length - 1, "m") + "e"


def names() -> dict[str, tuple[bytes, Allowed]]:
    def as_gnu(name: bytes) -> bytes:
        return gnu_long(name) + entry(b"x", name=b"short") + END

    def as_pax(name: bytes) -> bytes:
        return pax({b"path": name}) + entry(b"x", name=b"short") + END

    made: dict[str, tuple[bytes, Allowed]] = {}
    for form, write in {"GNU": as_gnu, "PAX": as_pax}.items():
        made |= {
            f"{form}: 64 kB": (write(b"n" * 65_536), LONG),
            f"{form}: 64 kB of parents": (write(b"../" * 21_845), LONG),
            f"{form}: 64 kB of dots": (write(b"./" * 32_768 + b"a"), [LONG, SAVED]),
            f"{form}: 64 kB of slashes": (write(b"/" * 65_536 + b"a"), [LONG, SAVED]),
            f"{form}: a megabyte": (write(b"n/" * 524_288), Refused("extended header of")),
            f"{form}: component of 255": (write(b"n" * 255), {"n" * 255: "x"}),
            f"{form}: component of 256": (write(b"n" * 256), LONG),
            f"{form}: component of 256 among others": (write(b"a/" + b"n" * 256 + b"/b"), LONG),
            f"{form}: path of 4095": (write(deep(4095).encode()), [Refused(), {deep(4095): "x"}]),
            f"{form}: path of 4096": (write(deep(4096).encode()), LONG),
            f"{form}: a newline": (write(b"a\nb/c\n"), {"a\nb/c\n": "x"}),
            f"{form}: no UTF-8": (write(b"\xff\xc0\x80"), {"\udcff\udcc0\udc80": "x"}),
            f"{form}: overlong slash and dots": (write(b"\xc0\xae\xc0\xae\xc0\xafevil"),
                {"\udcc0\udcae\udcc0\udcae\udcc0\udcafevil": "x"}),
        }  # fmt: skip
    made |= {
        "GNU: NUL": (as_gnu(b"a\0/../../evil"), SAVED),
        "PAX: NUL": (as_pax(b"a\0/../../evil"), Refused("NUL")),
        "GNU: empty": (as_gnu(b""), [Refused(), {"short": "x"}, {}]),
        "GNU: twice": (gnu_long(b"b") + gnu_long(b"a") + entry(b"x", name=b"short") + END, SAVED),
        "PAX: twice": (pax({b"path": b"b"}) + pax({b"path": b"a"}) + entry(b"x", name=b"c") + END, SAVED),
        "PAX: path twice in one": (pax_raw(record(b"path", b"b") + record(b"path", b"a")) + A + END, SAVED),
        "PAX: a header for nothing": (A + pax({b"path": b"b"}) + END, Refused("cut short")),
        "PAX: a header before a label": (
            pax({b"path": b"b"}) + header(name=b"label", flag=b"V") + A + END, [Refused(), SAVED]),
        "GNU: a link for a file": (gnu_long(b"../../x", b"K") + A + END, SAVED),
        "field: NUL in it": (entry(b"x", name=b"a\0/../../evil") + END, SAVED),
        "field: full": (entry(b"x", name=b"n" * 100) + END, {"n" * 100: "x"}),
        "field: full, and the prefix": (
            entry(b"x", name=b"n" * 100, prefix=b"p" * 155) + END, {"p" * 155 + "/" + "n" * 100: "x"}),
        "field: prefix in a GNU header": (
            entry(b"x", name=b"a", magic=b"ustar  \0", prefix=b"../..") + END, SAVED),
    }  # fmt: skip
    return made


def sizes() -> dict[str, tuple[bytes, Allowed]]:
    def field(size: bytes, content: bytes = b"x") -> bytes:
        return entry(content, name=b"a", size=size) + END

    def in_pax(size: bytes, content: bytes = b"x") -> bytes:
        return pax({b"size": size}) + entry(content, name=b"a") + END

    cut, claims = Refused("cut short"), Refused("claims a size")
    return {
        "octal garbage": (field(b"12x"), Refused("not a number")),
        "octal with a nine": (field(b"19"), Refused("not a number")),
        "a sign": (field(b"-1"), Refused("not a number")),
        "a plus": (field(b"+1"), Refused("not a number")),
        "hexadecimal": (field(b"0x1"), Refused("not a number")),
        "a space inside": (field(b"1 1"), Refused("not a number")),
        "spaces around": (field(b"   1 "), SAVED),
        "no digits": (entry(name=b"a", size=b"") + END, {"a": ""}),
        "twelve digits": (field(b"000000000001"), SAVED),
        "larger than there is": (field(b"77777777777"), cut),
        "one more than there is": (field(b"3001", b"x" * 512), cut),
        "base 256": (field(number(1)), SAVED),
        "base 256, negative": (field(number(-1)), claims),
        "base 256, very negative": (field(number(-(1 << 62))), claims),
        "base 256, huge": (field(b"\x80" + b"\xff" * 11), claims),
        "base 256, 2 to the 63": (field(number(1 << 63)), claims),
        "base 256, more than there is": (field(number(1 << 50)), Refused("make room first")),
        "base 256, neither sign": (field(b"\xbf" + b"\xff" * 11), claims),
        "PAX, larger than there is": (in_pax(b"100000"), cut),
        "PAX, smaller: the rest is no header": (in_pax(b"1", b"x" * 600), Refused("wrong checksum")),
        "PAX, smaller within the block": (in_pax(b"1", b"xyz"), SAVED),
        "PAX, zero: the content is no header": (in_pax(b"0"), Refused("wrong checksum")),
        "PAX, negative": (in_pax(b"-1"), claims),
        "PAX, huge": (in_pax(b"9" * 20), claims),
        "PAX, longer than a number": (in_pax(b"9" * 5000), claims),
        "PAX, 2 to the 63": (in_pax(b"%d" % (1 << 63)), claims),
        "PAX, 2 to the 64 plus one": (in_pax(b"%d" % ((1 << 64) + 1)), claims),
        "PAX, a fraction": (in_pax(b"1.0"), claims),
        "PAX, hexadecimal": (in_pax(b"0x1"), claims),
        "PAX, a word": (in_pax(b"many"), claims),
        "PAX, a plus": (in_pax(b"+1"), [claims, SAVED]),
        "PAX, a space": (in_pax(b" 1"), claims),
        "PAX, a newline": (in_pax(b"1\n"), claims),
        "PAX, other digits": (in_pax("١".encode()), claims),
        "PAX, empty": (in_pax(b""), [claims, SAVED]),
        "PAX, twice": (pax_raw(record(b"size", b"9") + record(b"size", b"1")) + A + END, SAVED),
        "PAX, on the header of a header": (
            pax({b"size": b"1"}) + pax({b"path": b"b"}) + entry(b"x", name=b"a") + END, {"b": "x"}),
        "extended header beyond the end": (header(name=b"p", flag=b"x", size=b"3000") + END, cut),
        "extended header of 8 GB": (
            header(name=b"p", flag=b"x", size=b"77777777777") + END, Refused("extended header of")),
        "extended header, negative": (header(name=b"p", flag=b"L", size=number(-1)) + END, claims),
        "extended header of nothing": (header(name=b"p", flag=b"x", size=b"0") + A + END, SAVED),
    }  # fmt: skip


def fields() -> dict[str, tuple[bytes, Allowed]]:
    def with_(**more: bytes) -> bytes:
        return entry(b"x", name=b"a", **more) + END

    wrong = bytearray(A)
    wrong[0] ^= 1
    return {
        "checksum wrong": (A + bytes(wrong) + END, Refused("wrong checksum")),
        "checksum wrong at once": (bytes(wrong) + END, Refused("not a tar")),
        "checksum of another header": (A + with_(checksum=b"000001\0 "), Refused("wrong checksum")),
        "checksum missing": (A + with_(checksum=b""), Refused("wrong checksum")),
        "checksum of spaces": (A + with_(checksum=b" " * 8), Refused("wrong checksum")),
        "checksum not octal": (A + with_(checksum=b"99999999"), Refused("wrong checksum")),
        "checksum in base 256": (A + with_(checksum=number(5000, 8)), Refused("wrong checksum")),
        "mode not octal": (with_(mode=b"rwxr-xr"), Refused("not a number")),
        "mode negative": (with_(mode=number(-1, 8)), Refused("claims a mode")),
        "mode huge": (with_(mode=b"7777777"), SAVED),
        "uid negative": (with_(uid=number(-1, 8)), Refused("claims a uid")),
        "uid huge": (with_(uid=number(1 << 40, 8)), Refused("claims a uid")),
        "uid that chown(2) ignores": (with_(uid=number((1 << 32) - 1, 8)), Refused("claims a uid")),
        "gid that chown(2) ignores": (with_(gid=number((1 << 32) - 1, 8)), Refused("claims a gid")),
        "PAX uid that chown(2) ignores": (pax({b"uid": b"4294967295"}) + A + END, Refused("claims a uid")),
        "PAX uid negative": (pax({b"uid": b"-1"}) + A + END, Refused("claims a uid")),
        "PAX gid of nonsense": (pax({b"gid": b"wheel"}) + A + END, Refused("claims a gid")),
        "time not octal": (with_(mtime=b"yesterday"), Refused("not a number")),
        "time huge": (with_(mtime=number(1 << 70)), Refused("has a time")),
        "PAX time huge": (pax({b"mtime": b"9" * 20}) + A + END, Refused("has a time")),
        "PAX time of nonsense": (pax({b"mtime": b"1e9"}) + A + END, Refused("has a time")),
        "PAX time not a number": (pax({b"mtime": b"nan"}) + A + END, Refused("has a time")),
        "PAX time with many digits": (pax({b"mtime": b"1." + b"9" * 100_000}) + A + END, SAVED),
        "time before 1970": (with_(mtime=number(-(1 << 30))), SAVED),
        "device not octal": (with_(flag=b"3", major=b"x"), Refused("not a number")),
        "device negative": (with_(flag=b"4", minor=number(-1, 8)), Refused("claims a device")),
        "device huge": (with_(flag=b"4", major=b"7777777"), Refused("claims the device")),
    }  # fmt: skip


def records() -> dict[str, tuple[bytes, Allowed]]:
    """PAX records that are not what they say."""
    texts = {
        "longer than the header": b"999 path=b\n",
        "one longer": b"11 path=b\n9 path=b\n",
        "one shorter": b"8 path=b\n",
        "nothing": b"0 path=b\n",
        "shorter than itself": b"2 path=b\n",
        "of 30 digits": b"9" * 30 + b" path=b\n",
        "negative": b"-9 path=b\n",
        "missing": b" path=b\n",
        "not decimal": b"0xa path=b\n",
        "without a space": b"9path=b\n\n",
        "without an equals sign": b"9 path b\n",
        "without a newline": b"10 path=bb",
        "binary": bytes(range(1, 256)),
        "a good one, then garbage": record(b"path", b"b") + b"garbage",
    }
    made: dict[str, tuple[bytes, Allowed]] = {
        f"record {what}": (pax_raw(text) + A + END, BROKEN) for what, text in texts.items()
    }
    return made | {
        "record without a key": (pax({b"": b"b"}) + A + END, [BROKEN, SAVED]),
        "record with a newline in it": (pax({b"comment": b"\n9 path=b\n"}) + A + END, SAVED),
        "record with leading zeros": (pax_raw(b"0010 path=b\n"[:10] + b"\n") + A + END, [BROKEN, {"b": "x"}]),
        "records without meaning": (pax({b"VENDOR.%d" % n: b"v" for n in range(20_000)}) + A + END, SAVED),
        "records and NULs": (pax_raw(record(b"path", b"b") + bytes(100)) + A + END, [BROKEN, {"b": "x"}]),
        "record of another charset": (
            pax({b"hdrcharset": b"BINARY", b"path": b"\xff"}) + A + END,
            {"\udcff": "x"},
        ),
        "Sun's extended header": (pax({b"path": b"b"}, flag=b"X") + A + END, [Refused(), {"b": "x"}]),
    }


def globals_() -> dict[str, tuple[bytes, Allowed]]:
    """Global headers. Docker's reader, Go's, applies none of them: an image is what Docker makes of it."""
    two = tar(file("a", b"1"), file("b", b"2"), symlink("l", "a"))
    plain: Tree = {"a": "1", "b": "2", "l": "-> a"}
    hidden = entry(entry(b"x", name=b"hidden"), name=b"a")
    return {
        "path": (pax({b"path": b"evil"}, flag=b"g") + two, [Refused(), plain]),
        "path to outside": (pax({b"path": b"../../evil"}, flag=b"g") + two, [Refused(), plain]),
        "linkpath": (pax({b"linkpath": b"/etc/shadow"}, flag=b"g") + two, [Refused(), plain]),
        "size": (pax({b"size": b"0"}, flag=b"g") + hidden + END, [Refused(), {"a": hidden[512:].decode()}]),
        "size, to show another header": (
            pax({b"size": b"0"}, flag=b"g") + entry(header(name=b"hidden"), name=b"a") + END,
            [Refused(), {"a": header(name=b"hidden").decode()}],
        ),
        "a whiteout as path": (pax({b"path": b"etc/.wh.passwd"}, flag=b"g") + two, [Refused(), plain]),
        "sparse": (
            pax({b"GNU.sparse.map": b"0,1", b"GNU.sparse.size": b"1000"}, flag=b"g") + two, [Refused(), plain]),
        "comment": (pax({b"comment": b"c" * 40}, flag=b"g") + two, plain),
        "at the end": (two[: two.rindex(b"l\0") // 512 * 512 + 512] + pax({b"comment": b"c"}, flag=b"g") + END, plain),
        "broken": (pax_raw(b"99 path=a\n", flag=b"g") + two, [BROKEN, plain]),
    }  # fmt: skip


def cases() -> dict[str, tuple[bytes, Allowed]]:
    groups = {"name": names(), "size": sizes(), "field": fields(), "pax": records(), "global": globals_()}
    return {f"{group}: {what}": case for group, found in groups.items() for what, case in found.items()}


CASES = cases()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with staged(tmp_path) as made:
        yield made


@pytest.mark.parametrize("what", CASES)
def test_header(scene: Scene, what: str) -> None:
    data, allowed = CASES[what]
    scene.check(allowed, data)
