"""Extended attributes: floods, odd names, large values, and those that would give rights."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest

from tests.hostile import ROOT, Allowed, Outcome, Refused, Scene, staged
from tests.hostile_tar import END, entry, header, pax, pax_raw, record

TOO_LARGE = Refused("too large for Linux")
FILE = {"a": "x"}
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with staged(tmp_path) as made:
        yield made


def on_a_file(records: dict[bytes, bytes]) -> bytes:
    return pax(records) + entry(b"x", name=b"a") + END


def schily(name: bytes, value: bytes = b"v") -> bytes:
    return on_a_file({b"SCHILY.xattr." + name: value})


def libarchive(name: bytes, value: bytes) -> bytes:
    return on_a_file({b"LIBARCHIVE.xattr." + name: value})


REFUSED_OR_KEPT: dict[str, tuple[bytes, Allowed]] = {
    "no name": (schily(b""), TOO_LARGE),
    "a NUL in the name": (schily(b"user.a\0b"), TOO_LARGE),
    "a name of 256 bytes": (schily(b"user." + b"n" * 251), TOO_LARGE),
    "a name of 255 bytes": (schily(b"user." + b"n" * 250), FILE),
    "no namespace": (schily(b"name"), FILE),
    "a namespace alone": (schily(b"user."), FILE),
    "an unknown namespace": (schily(b"evil.name"), FILE),
    "a newline in the name": (schily(b"user.a\nb"), FILE),
    "an escape sequence in the name": (schily(b"evil.\x1b[2J\x07"), FILE),
    "no UTF-8 in the name": (schily(b"user.\xff"), FILE),
    "an empty value": (schily(b"user.a", b""), FILE),
    "NULs in the value": (schily(b"user.a", bytes(100)), FILE),
    "a value of 64 kB": (schily(b"user.a", b"v" * 65_536), FILE),
    "a value of one byte more": (schily(b"user.a", b"v" * 65_537), TOO_LARGE),
    "a value of a megabyte": (schily(b"user.a", b"v" * (1 << 20)), Refused("extended header of")),
    "base64, no name": (libarchive(b"", b"dg=="), TOO_LARGE),
    "base64, a NUL": (libarchive(b"user.a%00b", b"dg=="), TOO_LARGE),
    "base64, parents": (libarchive(b"%2e%2e%2fevil", b"dg=="), FILE),
    "base64, half an escape": (libarchive(b"user.a%", b"dg=="), FILE),
    "base64, garbage": (libarchive(b"user.a", b"\xff\xfe"), Refused("broken extended attribute")),
    "base64, without padding": (libarchive(b"user.a", b"dg"), FILE),
    "base64, one digit": (libarchive(b"user.a", b"d"), Refused("broken extended attribute")),
    "base64, a value of 64 kB": (libarchive(b"user.a", b"AAAA" * 21_845), FILE),
    "base64, a value of a little more": (libarchive(b"user.a", b"AAAA" * 21_846), TOO_LARGE),
    "an access list of garbage": (schily(b"system.posix_acl_access", b"\xff" * 40), FILE),
    "an access list in words": (on_a_file({b"SCHILY.acl.access": b"user::rwx,other::rwx"}), FILE),
    "a label of SELinux": (schily(b"security.selinux", b"system_u:object_r:bin_t:s0\0"), FILE),
    "a signature of IMA": (schily(b"security.ima", b"\3\2\4" + bytes(200)), FILE),
    "a hash of EVM": (schily(b"security.evm", b"\2" + bytes(20)), FILE),
    "a capability of garbage": (schily(b"security.capability", b"\xff" * 20), FILE),
    "a capability too long": (schily(b"security.capability", CAPABILITY * 3), FILE),
    "systemd's own": (schily(b"user.delegate", b"1"), FILE),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED_OR_KEPT)
def test_attribute(scene: Scene, what: str) -> None:
    data, allowed = REFUSED_OR_KEPT[what]
    outcome = scene.check(allowed, data)
    assert_printable(outcome)
    if outcome.status == 0:
        assert set(os.listxattr(scene.tree / "a")) <= named(data)
        # What is not there is told; but lists in words have no bytes that could be set, and are not read.
        told = "the host refused the attribute" in outcome.stdout
        assert os.listxattr(scene.tree / "a") or told or what == "an access list in words"


def named(data: bytes) -> set[str]:
    key = data[512:].partition(b" ")[2].partition(b"=")[0]
    name = key.partition(b".xattr.")[2]
    return {os.fsdecode(unquote_to_bytes(name) if key.startswith(b"LIB") else name)}


def assert_printable(outcome: Outcome) -> None:
    """Nothing of the image drives the terminal."""
    assert all(character.isprintable() or character == "\n" for character in outcome.stdout + outcome.stderr)


def test_a_capability_is_kept_or_told(scene: Scene) -> None:
    outcome = scene.check(FILE, schily(b"security.capability", CAPABILITY))
    if ROOT:
        assert os.getxattr(scene.tree / "a", "security.capability") == CAPABILITY
    else:
        assert "the host refused the attribute security.capability on /a" in outcome.stdout


def test_attributes_on_what_has_none(scene: Scene) -> None:
    """user.* is for files and directories only: on links, fifos and devices it must not reach where they lead."""
    attributes = pax({b"SCHILY.xattr.user.a": b"v", b"SCHILY.xattr.trusted.a": b"v"})
    out = str(scene.outside).encode()
    made = [
        header(name=b"l", flag=b"2", link=out[:100]),
        header(name=b"up", flag=b"2", link=b"../../../../../../outside/passwd"),
        header(name=b"p", flag=b"6"),
        header(name=b"h", flag=b"1", link=b"etc/passwd"),
    ]
    before = [os.listxattr(path) for path in (scene.outside, scene.outside / "passwd")]
    data = b"".join(attributes + one for one in made) + END
    outcome = scene.convert(scene.save(entry(b"inside", name=b"etc/passwd") + END, data))
    assert outcome.status == 0, outcome.stderr
    assert [os.listxattr(path) for path in (scene.outside, scene.outside / "passwd")] == before
    assert "the host refused the attribute user.a on" in outcome.stdout
    assert os.listxattr(scene.tree / "etc/passwd") == []  # a name has none of its own
    scene.assert_untouched(refused=False)


def test_the_same_attribute_twice(scene: Scene) -> None:
    records = record(b"SCHILY.xattr.user.a", b"1") + record(b"SCHILY.xattr.user.a", b"2")
    scene.check(FILE, pax_raw(records) + entry(b"x", name=b"a") + END)
    assert os.getxattr(scene.tree / "a", "user.a") == b"2"


def test_attributes_of_one_entry_are_not_the_next_ones(scene: Scene) -> None:
    first = pax({b"SCHILY.xattr.user.a": b"v"}) + entry(b"x", name=b"a")
    scene.check({"a": "x", "b": "y"}, first + entry(b"y", name=b"b") + END)
    assert os.listxattr(scene.tree / "b") == []


def test_a_hundred_thousand_attributes_on_a_file(scene: Scene) -> None:
    records = b"".join(record(b"SCHILY.xattr.user.%d" % n, b"") for n in range(100_000))
    outcome = scene.convert_measured(
        scene.save(pax_raw(records) + entry(b"x", name=b"a") + END), memory=500_000
    )
    outcome.refused("extended header of")
    assert outcome.peak < 200_000
    scene.assert_untouched(refused=True)


def test_as_many_attributes_as_a_header_holds(scene: Scene) -> None:
    """Far more than a file system takes: what did not come along is told, and the telling stays readable."""
    records = b"".join(record(b"SCHILY.xattr.user.%d" % n, b"") for n in range(36_000))
    outcome = scene.convert_measured(
        scene.save(pax_raw(records) + entry(b"x", name=b"a") + END), memory=500_000
    )
    assert outcome.peak < 200_000
    if outcome.status:
        outcome.refused()
        scene.assert_untouched(refused=True)
    else:
        assert len(os.listxattr(scene.tree / "a")) < 36_000
        assert "the host refused" in outcome.stdout
        assert len(outcome.stdout.splitlines()) < 200
        scene.assert_untouched(refused=False)
