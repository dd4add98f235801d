"""The tree on disk: everything that a layer can hold, as the kernel then shows it."""

from __future__ import annotations

import os
import stat
import struct
import tarfile
import traceback
from pathlib import Path

import pytest

from converter.progress import Silent
from converter.rootfs.extract import writing
from converter.rootfs.merge import scan
from tests.hostile_tar import END, entry, number, pax
from tests.layers import directory, file, hardlink, layer, member, symlink, tar
from tests.trees import ROOT, facts, written

needs_root = pytest.mark.skipif(not ROOT, reason="owners and devices need root")


@needs_root
def test_everything_a_layer_can_hold(tmp_path: Path) -> None:
    xattrs = {"SCHILY.xattr.user.note": "value", "SCHILY.xattr.user.empty": ""}
    capability = b"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
    xattrs_file = {
        **xattrs,
        "SCHILY.xattr.security.capability": capability.decode("utf-8", "surrogateescape"),
    }
    lost = written(
        tmp_path / "out",
        tar(
            directory(
                "d", mode=0o2750, uid=70000, gid=80000, mtime=1_234_567_890.123456789, pax_headers=xattrs
            ),
            file("d/f", b"x", mode=0o4755, uid=3_000_000_000, gid=1, mtime=0, pax_headers=xattrs_file),
            file("d/new", b"y", pax_headers={"mtime": "1234567890.987654321"}),
            file("d/old", b"z", pax_headers={"mtime": "-1.5"}),
            symlink("d/s", "/nowhere", uid=33, gid=44, mtime=77),
            member("d/null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
            member("d/disk", tarfile.BLKTYPE, devmajor=7, devminor=200),
            member("d/fifo", tarfile.FIFOTYPE, uid=5),
            directory("sticky", mode=0o1777),
            directory("closed", mode=0),
            file("closed/in", b"w"),
            directory(".", mode=0o700, mtime=99),
        ),
    )
    out = tmp_path / "out"
    assert lost == []
    status = (out / "d").stat()
    assert (stat.filemode(status.st_mode), status.st_uid, status.st_gid) == ("drwxr-s---", 70000, 80000)
    assert int(status.st_mtime) == 1_234_567_890
    status = (out / "d/f").stat()
    assert (stat.filemode(status.st_mode), status.st_uid, status.st_mtime_ns) == (
        "-rwsr-xr-x",
        3_000_000_000,
        0,
    )
    assert os.getxattr(out / "d/f", "user.note") == b"value"
    assert os.getxattr(out / "d/f", "user.empty") == b""
    assert os.getxattr(out / "d/f", "security.capability") == capability
    assert os.getxattr(out / "d", "user.note") == b"value"
    assert (out / "d/new").stat().st_mtime_ns == 1_234_567_890_987_654_321
    assert (out / "d/old").stat().st_mtime_ns == -1_500_000_000
    status = (out / "d/s").lstat()
    assert (status.st_uid, status.st_gid, status.st_mtime_ns) == (33, 44, 77 * 10**9)
    status = (out / "d/null").stat()
    assert (stat.filemode(status.st_mode), status.st_rdev) == ("crw-rw-rw-", os.makedev(1, 3))
    assert (out / "d/disk").stat().st_rdev == os.makedev(7, 200)
    assert stat.S_ISFIFO((out / "d/fifo").stat().st_mode)
    assert stat.filemode((out / "sticky").stat().st_mode) == "drwxrwxrwt"
    assert stat.filemode((out / "closed").stat().st_mode) == "d---------"
    # Docker's root directory is always 0755 and root's.
    assert (stat.filemode(out.stat().st_mode), out.stat().st_mtime_ns) == ("drwxr-xr-x", 99 * 10**9)


@needs_root
def test_what_the_host_refuses_is_reported(tmp_path: Path) -> None:
    lost = written(tmp_path / "out", tar(file("f", b"x", pax_headers={"SCHILY.xattr.nonsense.name": "v"})))
    assert lost == ["the host refused the attribute nonsense.name on /f"]


def test_without_root(tmp_path: Path) -> None:
    """Not even the right to one's own directories keeps the tree from being written and removed again."""
    data = tar(
        directory("closed", mode=0, uid=7),
        file("closed/f", b"x", uid=8),
        member("null", tarfile.CHRTYPE, devmajor=1, devminor=3),
        hardlink("null2", "null"),
    )
    if os.geteuid() == 0:
        tmp_path.chmod(0o777)
        for parent in tmp_path.parents[:2]:  # pytest's own
            parent.chmod(0o755)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            os.write(writer, "\n".join(written(tmp_path / "out", data, ownership=False)).encode())
        except BaseException:
            os.write(writer, traceback.format_exc().encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    lines = os.read(reader, 10_000).decode().splitlines()
    assert lines == [
        "the owners of 3 files and directories could not be set without root",
        "devices need root: /null, /null2",
    ]
    assert stat.filemode((tmp_path / "out/closed").stat().st_mode) == "d---------"


# --- attributes ----------------------------------------------------------------------------------------------


def _acl(*entries: tuple[int, int, int]) -> bytes:
    """A POSIX ACL as its extended attribute has it: (tag, permissions, id)."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


_NOBODY = 0xFFFFFFFF
ACL = _acl((1, 6, _NOBODY), (2, 7, 1234), (4, 4, _NOBODY), (16, 7, _NOBODY), (32, 4, _NOBODY))
CAPABILITY = b"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"


def with_xattrs(name: bytes, content: bytes = b"", *, flag: bytes = b"0", **xattrs: bytes) -> bytes:
    """An entry of mode 0674, owned by 1000; the names of attributes have a dot for every double underscore."""
    records = {b"SCHILY.xattr." + key.replace("__", ".").encode(): value for key, value in xattrs.items()}
    return pax(records) + entry(content, name=name, flag=flag, mode=b"0000674", uid=b"1750", gid=b"1750")


def test_access_control_lists(tmp_path: Path) -> None:
    out = tmp_path / "out"
    data = with_xattrs(b"f", b"x", system__posix_acl_access=ACL)
    data += with_xattrs(b"large", bytes(1 << 20), system__posix_acl_access=ACL)
    data += with_xattrs(
        b"d", flag=b"5", system__posix_acl_access=ACL, system__posix_acl_default=ACL
    )  # which what is made in it must not get
    data += entry(b"x", name=b"d/f", mode=b"0000640") + entry(name=b"d/d", flag=b"5", mode=b"0000750")
    assert [loss for loss in written(out, data + END) if "attribute" in loss] == []
    for name in ("f", "large", "d"):
        assert os.getxattr(out / name, "system.posix_acl_access") == ACL
        assert stat.S_IMODE((out / name).stat().st_mode) == 0o674
    assert os.getxattr(out / "d", "system.posix_acl_default") == ACL
    (out / "d").chmod(0o700)  # for us to look into it, who may not be root
    for name, mode in (("d/f", 0o640), ("d/d", 0o750)):
        assert os.listxattr(out / name) == []
        assert stat.S_IMODE((out / name).stat().st_mode) == mode


SEVERAL = tar(
    file("f", b"x", mode=0o666), file("large", bytes(1 << 20), mode=0o666), directory("d", mode=0o777),
    file("d/f", b"x", mode=0o660), directory("d/d", mode=0o700), symlink("s", "f", mode=0o777),
)  # fmt: skip
SEVERAL_MODES = {
    ".": 0o755, "f": 0o666, "large": 0o666, "d": 0o777, "d/f": 0o660, "d/d": 0o700, "s": 0o777,
}  # fmt: skip


def test_the_host_s_umask_is_not_used(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        written(tmp_path / "out", SEVERAL)
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(before)
    assert {name.decode(): what.mode for name, what in facts(tmp_path / "out").items()} == SEVERAL_MODES


def test_the_umask_is_not_changed_while_a_tree_is_written(tmp_path: Path) -> None:
    """It is the whole process's, which may have other threads. Over 200 files, so that a process makes some of them."""
    many = [file(f"{n}", b"x", mode=0o666) for n in range(300)]
    found = []
    before = os.umask(0o077)
    try:
        (tmp_path / "out").mkdir()
        root_fd = os.open(tmp_path / "out", os.O_RDONLY | os.O_DIRECTORY)
        with writing(root_fd, ownership=False) as writer:
            plan = scan([layer(tmp_path, tar(*many))], progress=Silent(), keep=writer.keep, drop=writer.drop)
            found.append(os.umask(0o077))
            writer.finish(plan, Silent())
            found.append(os.umask(0o077))
        os.close(root_fd)
    finally:
        os.umask(before)
    assert found == [0o077, 0o077]
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").iterdir()} == {0o666}


def test_the_host_s_default_acl_is_not_inherited(tmp_path: Path) -> None:
    os.setxattr(
        tmp_path, "system.posix_acl_default", ACL.replace(_acl((1, 6, _NOBODY)), _acl((1, 7, _NOBODY)))
    )
    written(tmp_path / "out", SEVERAL)
    found = facts(tmp_path / "out")
    assert {name.decode(): what.mode for name, what in found.items()} == SEVERAL_MODES
    assert {name: what.xattrs for name, what in found.items() if what.xattrs} == {}


@needs_root
def test_the_host_s_setgid_directory_passes_its_group_to_nothing(tmp_path: Path) -> None:
    os.chown(tmp_path, 0, 1234)
    tmp_path.chmod(0o2755)
    written(tmp_path / "out", SEVERAL)
    found = facts(tmp_path / "out")
    assert {name.decode(): what.mode for name, what in found.items()} == SEVERAL_MODES
    assert {name for name, what in found.items() if what.gid != 0} == set()


@needs_root
@pytest.mark.parametrize("size", [1, 1 << 20])
def test_capabilities_and_setuid_survive_the_change_of_owner(tmp_path: Path, size: int) -> None:
    headers = {"SCHILY.xattr.security.capability": CAPABILITY.decode("utf-8", "surrogateescape")}
    members = [
        file("with-capability", bytes(size), uid=1000, gid=1001, mode=0o755, pax_headers=headers),
        file("with-setuid", bytes(size), uid=1000, gid=1001, mode=0o6755),
        hardlink("again", "with-capability", uid=1000, gid=1001, mode=0o755),
    ]
    assert written(tmp_path / "out", tar(*members)) == []
    for name, mode in (("with-capability", 0o755), ("again", 0o755), ("with-setuid", 0o6755)):
        status = (tmp_path / "out" / name).stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (mode, 1000, 1001)
    assert os.getxattr(tmp_path / "out/again", "security.capability") == CAPABILITY


@needs_root
def test_attributes_of_every_kind_are_set_or_reported(tmp_path: Path) -> None:
    label = b"system_u:object_r:bin_t:s0\0"
    more = {"trusted__note": b"\xff\x00\xfe", "security__selinux": label}
    data = with_xattrs(b"f", b"x", **more) + with_xattrs(b"d", flag=b"5", **more)
    data += pax({b"SCHILY.xattr.trusted.note": b"1", b"SCHILY.xattr.security.selinux": label})
    data += entry(name=b"s", flag=b"2", link=b"f")
    data += pax({b"SCHILY.xattr.trusted.note": b"1"}) + entry(name=b"p", flag=b"6")
    data += pax({b"SCHILY.xattr.user.note": b"1"}) + entry(name=b"q", flag=b"6")  # which no kernel takes
    lost = written(tmp_path / "out", data + END)
    assert "the host refused the attribute user.note on /q" in lost
    lost.remove("the host refused the attribute user.note on /q")
    found = {name: dict(what.xattrs) for name, what in facts(tmp_path / "out").items()}
    assert found[b"f"]["trusted.note"] == found[b"d"]["trusted.note"] == b"\xff\x00\xfe"
    assert found[b"s"]["trusted.note"] == found[b"p"]["trusted.note"] == b"1"
    if lost:
        assert [line.startswith("the host refused the attribute security.selinux on /") for line in lost] == [
            True
        ]
    else:
        assert {found[name].get("security.selinux") for name in (b"f", b"d", b"s")} <= {label, label[:-1]}


@needs_root
def test_owners_that_octal_has_no_room_for(tmp_path: Path) -> None:
    data = tar(
        file("f", uid=3_000_000_000, gid=(1 << 32) - 2), directory("d", uid=1 << 21, gid=(1 << 21) - 1),
        format=tarfile.GNU_FORMAT,
    )  # fmt: skip
    assert data[108] == 0x80
    assert written(tmp_path / "out", data) == []
    found = facts(tmp_path / "out")
    assert (found[b"f"].uid, found[b"f"].gid) == (3_000_000_000, (1 << 32) - 2)
    assert (found[b"d"].uid, found[b"d"].gid) == (1 << 21, (1 << 21) - 1)


def test_times_to_the_nanosecond_and_before_1970(tmp_path: Path) -> None:
    times = {
        "1.000000001": 1_000_000_001,
        "-0.5": -500_000_000,
        "-1.5": -1_500_000_000,
        "3000000000.25": 3_000_000_000_250_000_000,
    }
    for at, (text, expected) in enumerate(times.items()):
        headers = {"mtime": text}
        members = [
            file("f", b"x", pax_headers=headers), file("large", bytes(1 << 20), pax_headers=headers),
            symlink("s", "f", pax_headers=headers), member("p", tarfile.FIFOTYPE, pax_headers=headers),
            directory("d", pax_headers=headers), file("d/f", b"x"), directory(".", pax_headers=headers),
        ]  # fmt: skip
        written(tmp_path / str(at), tar(*members))
        found = facts(tmp_path / str(at))
        assert {what.mtime for name, what in found.items() if name != b"d/f"} == {expected}
    written(tmp_path / "gnu", entry(name=b"f", mtime=number(-86400)) + END)
    assert (tmp_path / "gnu/f").stat().st_mtime_ns == -86400 * 10**9


def test_a_directory_that_no_layer_describes(tmp_path: Path) -> None:
    written(tmp_path / "out", tar(file("a/b/f", b"x", mtime=5)))
    found = facts(tmp_path / "out")
    assert {(found[name].mode, found[name].mtime) for name in (b".", b"a", b"a/b")} == {(0o755, 0)}


def test_a_directory_is_what_the_newest_layer_says_of_it(tmp_path: Path) -> None:
    stack = (
        tar(directory("d", mode=0o700, mtime=5), file("d/f", b"x")),
        tar(file("d/g", b"y")),  # says nothing of d
        tar(directory("d", mode=0o711, mtime=6)),
        tar(file("d/.wh.f")),
    )
    for count, expected in ((2, (0o700, 5)), (4, (0o711, 6))):
        written(tmp_path / str(count), *stack[:count])
        found = facts(tmp_path / str(count))[b"d"]
        assert (found.mode, found.mtime // 10**9) == expected


def test_hard_links_to_what_is_no_file(tmp_path: Path) -> None:
    members = [
        symlink("s", "nowhere", mtime=5),
        hardlink("t", "s"),
        member("p", tarfile.FIFOTYPE),
        hardlink("q", "p"),
    ]
    devices = [member("c", tarfile.CHRTYPE, devmajor=1, devminor=3), hardlink("d", "c")] if ROOT else []
    above = tar(hardlink("u", "s"), file(".wh.p"), hardlink("r", "q"))
    assert written(tmp_path / "out", tar(*members, *devices), above) == []
    found = facts(tmp_path / "out")
    assert found[b"s"].names == {b"s", b"t", b"u"}
    assert (found[b"s"].kind, found[b"s"].content) == ("symlink", b"nowhere")
    assert (found[b"q"].kind, found[b"q"].names) == ("fifo", frozenset({b"q", b"r"}))
    if devices:
        assert (found[b"c"].device, found[b"c"].names) == ((1, 3), frozenset({b"c", b"d"}))


def test_a_hard_link_brings_its_own_metadata(tmp_path: Path) -> None:
    """As Docker has it: each entry's owner, mode and time go to the file, so the last one's stay."""
    data = tar(file("a", b"x", mode=0o755, mtime=5), hardlink("b", "a", mode=0o600, mtime=7))
    written(tmp_path / "out", data)
    found = facts(tmp_path / "out")[b"a"]
    assert (found.mode, found.mtime // 10**9, found.names) == (0o600, 7, frozenset({b"a", b"b"}))


def test_closed_directories_have_their_content(tmp_path: Path) -> None:
    base = tar(directory("d", mode=0), directory("d/e", mode=0), file("d/e/f", b"x", mode=0))
    above = tar(file("d/e/g", b"y"), hardlink("d/h", "d/e/f"))
    written(tmp_path / "out", base, above)
    found = facts(tmp_path / "out")
    assert (found[b"d"].mode, found[b"d/e"].mode, found[b"d/e/f"].mode) == (0, 0, 0)
    assert (found[b"d/e/f"].content, found[b"d/e/g"].content) == (b"x", b"y")
    assert found[b"d/h"].names == {b"d/h", b"d/e/f"}
