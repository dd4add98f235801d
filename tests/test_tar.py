"""Every form of tar, and tars that are damaged or hostile: a layer, or an error of one line."""

from __future__ import annotations

import gzip
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from converter.errors import ConversionError
from converter.rootfs.merge import Directory
from tests.hostile_tar import END, header, pax_raw, record
from tests.layers import directory, file, hardlink, member, symlink, tar
from tests.trees import plan_of, written


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_tarfile_writes(tmp_path: Path, format: int) -> None:
    long = "d" * 90 + "/" + "f" * 90
    members = [
        file(long, b"content", mode=0o4711, uid=1234, gid=5678, mtime=1_000_000_007),
        symlink("s", "t" * 99),
        member("fifo", tarfile.FIFOTYPE, mode=0o600),
    ]
    if format != tarfile.USTAR_FORMAT:
        members += [
            file("é" * 100 + "/x" * 60, b"y", uid=3_000_000_000, gid=2_200_000),
            symlink("long", "t" * 200),
            file("\udcff\udcfe", b"not utf-8"),
        ]
    plan = plan_of(tmp_path, tar(*members, format=format))
    found = dict(plan.walk())
    for info, content in members:
        name = os.fsencode(info.name)
        node = found[name]
        assert not isinstance(node, Directory)
        entry = node.entry
        assert (entry.mode, entry.uid, entry.gid, entry.mtime) == (
            info.mode,
            info.uid,
            info.gid,
            info.mtime * 10**9,
        )
        assert entry.link == info.linkname.encode()
        if entry.kind == "file":
            assert plan.read(info.name, 100) == content


@pytest.mark.parametrize(
    "options",
    [
        ["--format=gnu"],
        ["--format=posix", "--sparse-version=0.0"],
        ["--format=posix", "--sparse-version=0.1"],
        ["--format=posix", "--sparse-version=1.0"],
    ],
)
def test_sparse_files_as_gnu_tar_writes_them(tmp_path: Path, options: list[str]) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with (source / "sparse").open("wb") as made:
        for number in range(40):
            made.seek(number * 100_000)
            made.write(f"piece {number}".encode())
        made.truncate(5_000_000)
    subprocess.run(
        ["tar", "-C", source, "--sparse", *options, "-cf", tmp_path / "x.tar", "sparse"], check=True
    )
    written(tmp_path / "out", (tmp_path / "x.tar").read_bytes())
    assert (tmp_path / "out/sparse").read_bytes() == (source / "sparse").read_bytes()
    assert (tmp_path / "out/sparse").stat().st_blocks * 512 < 1_000_000


HOSTILE: dict[str, bytes] = {
    "parent directory": tar(file("../evil", b"x")),
    "deep parent directory": tar(file("a/../../evil", b"x")),
    "hard link to outside": tar(hardlink("a", "../../etc/passwd")),
    "hard link to an absolute name": tar(hardlink("a", "/etc/shadow")),
    "hard link to a directory": tar(directory("d"), hardlink("a", "d")),
    "hard link to nothing": tar(hardlink("a", "b")),
    "hard link to itself": tar(hardlink("a", "a")),
    "hard link through a link to outside": tar(symlink("l", "/etc"), hardlink("a", "l/passwd")),
    "whiteout of nothing": tar(file(".wh.")),
    "whiteout of dot": tar(file("d/.wh..")),
    "whiteout of the parent": tar(file("d/.wh...")),
    "whiteout above the root": tar(file("../.wh.etc")),
    "link loop as parent": tar(symlink("a", "b"), symlink("b", "a"), file("a/x", b"1")),
    "entry below a file": tar(file("a", b"1"), file("a/b", b"2")),
    "entry below a device": tar(member("a", tarfile.CHRTYPE, devmajor=1, devminor=3), file("a/b", b"2")),
    "wrong checksum": header(name=b"a")[:-1] + b"x" + END,
    "not octal": header(name=b"a", size=b"12x") + END,
    "negative size": header(name=b"a", size=b"\xff" * 12) + END,
    "huge size": header(name=b"a", size=b"\x80" + b"\xff" * 11) + END,
    "size beyond the end": header(name=b"a", size=b"77777777777") + END,
    "negative uid": header(name=b"a", uid=b"\xff" * 8) + END,
    "huge uid": header(name=b"a", uid=b"\x80" + b"\xff" * 7) + END,
    "huge time": header(name=b"a", mtime=b"\x80\x7f" + b"\xff" * 10) + END,
    "huge device": header(name=b"a", flag=b"3", major=b"7777777") + END,
    "unknown type": header(name=b"a", flag=b"Z") + END,
    "name component too long": tar(file("n" * 256, b"x")),
    "name of 64 kB": tar(file("/".join(["n" * 200] * 320), b"x")),
    "link of 64 kB": tar(symlink("a", "n/" * 32_000)),
    "PAX header of a gigabyte": header(name=b"p", flag=b"x", size=b"10000000000") + END,
    "PAX length beyond its end": pax_raw(b"999 path=a\n") + header(name=b"a") + END,
    "PAX length of zero": pax_raw(b"0 path=a\n") + header(name=b"a") + END,
    "PAX without an equals sign": pax_raw(b"8 path\n\n") + header(name=b"a") + END,
    "PAX that is text": pax_raw(b"hello world") + header(name=b"a") + END,
    "PAX size of nonsense": pax_raw(record(b"size", b"many")) + header(name=b"a") + END,
    "PAX negative size": pax_raw(record(b"size", b"-5")) + header(name=b"a") + END,
    "PAX huge size": pax_raw(record(b"size", b"9" * 20)) + header(name=b"a") + END,
    "PAX name with a NUL": pax_raw(record(b"path", b"a\0b")) + header(name=b"a") + END,
    "PAX path to outside": pax_raw(record(b"path", b"../../evil")) + header(name=b"a") + END,
    "PAX header at the end": pax_raw(record(b"path", b"a")) + END,
    "GNU name at the end": header(name=b"././@LongLink", flag=b"L", size=b"2") + b"aa".ljust(512, b"\0") + END,
    "GNU name to outside": header(name=b"l", flag=b"L", size=b"7") + b"../evil".ljust(512, b"\0") + header() + END,
    "sparse map that overlaps": pax_raw(
        record(b"GNU.sparse.map", b"0,5,3,5") + record(b"GNU.sparse.size", b"100")
    ) + header(name=b"a", size=b"12") + bytes(512) + END,
    "sparse map that leaves its file": pax_raw(
        record(b"GNU.sparse.map", b"95,10") + record(b"GNU.sparse.size", b"100")
    ) + header(name=b"a", size=b"12") + bytes(512) + END,
    "sparse map of another size": pax_raw(
        record(b"GNU.sparse.map", b"0,5") + record(b"GNU.sparse.size", b"100")
    ) + header(name=b"a", size=b"12") + bytes(512) + END,
    "sparse map cut in two": pax_raw(
        record(b"GNU.sparse.map", b"0,5,6") + record(b"GNU.sparse.size", b"100")
    ) + header(name=b"a", size=b"5") + bytes(512) + END,
    "sparse map without end": pax_raw(
        record(b"GNU.sparse.major", b"1") + record(b"GNU.sparse.minor", b"0") + record(b"GNU.sparse.realsize", b"9")
    ) + header(name=b"a", size=b"1000") + b"99999999\n".ljust(512, b"1") + END,
    "sparse of an unknown version": pax_raw(
        record(b"GNU.sparse.major", b"9") + record(b"GNU.sparse.minor", b"0")
    ) + header(name=b"a") + END,
    "xattr too large": pax_raw(record(b"SCHILY.xattr.user.x", b"v" * 70_000)) + header(name=b"a") + END,
    "xattr name too long": pax_raw(record(b"SCHILY.xattr." + b"n" * 300, b"v")) + header(name=b"a") + END,
    "xattr that is no base64": pax_raw(record(b"LIBARCHIVE.xattr.user.x", b"!!!")) + header(name=b"a") + END,
    "nothing": b"",
    "a JPEG": b"\xff\xd8\xff\xe0" * 500,
    "text": b"hello\n" * 500,
    "an ELF": b"\x7fELF" * 500,
    "half a header": header(name=b"a")[:300],
    "gzip within gzip": gzip.compress(gzip.compress(tar(file('a', b'x')))),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_layers_end_in_one_line(tmp_path: Path, what: str) -> None:
    with pytest.raises(ConversionError) as raised:
        plan_of(tmp_path, HOSTILE[what])
    assert "\n" not in str(raised.value)
    assert str(raised.value)
