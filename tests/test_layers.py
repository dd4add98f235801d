"""From layers to a tree: merging against a slow and obvious reference, writing against the kernel, hostile input."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.errors import ConversionError
from converter.image.model import Layer
from converter.progress import Silent
from converter.rootfs.extract import write
from converter.rootfs.merge import Directory, Plan, scan
from tests.layers import directory, file, hardlink, layer, member, symlink, tar

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="owners and devices need root")
Members = list[tuple[tarfile.TarInfo, bytes]]


def plan_of(path: Path, *layers: bytes) -> Plan:
    return scan([layer(path, data) for data in layers], progress=Silent())


def written(plan: Plan, target: Path) -> list[str]:
    target.mkdir()
    fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return write(plan, fd, progress=Silent(), ownership=os.geteuid() == 0)
    finally:
        os.close(fd)


def contents(root: Path) -> dict[str, str]:
    """Path -> content of a file, target of a link, or "dir"; hard links show as equal inode marks."""
    found = {}
    for path in root.rglob("*"):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_dir():
            found[name] = "dir"
        else:
            found[name] = path.read_bytes().decode()
    return found


# --- merging -------------------------------------------------------------------------------------------------

NAMES = ["a", "b", "c"]
PATHS = [*NAMES, *(f"{x}/{y}" for x in NAMES for y in NAMES), "a/b/c", "a/b/a", "b/c/a"]
operations = st.lists(
    st.one_of(
        st.tuples(st.just("file"), st.sampled_from(PATHS), st.text("xyz", max_size=2)),
        st.tuples(st.just("dir"), st.sampled_from(PATHS), st.sampled_from(["700", "755"])),
        st.tuples(st.just("whiteout"), st.sampled_from(PATHS), st.just("")),
        st.tuples(st.just("opaque"), st.sampled_from(["", *NAMES, "a/b"]), st.just("")),
        st.tuples(st.just("symlink"), st.sampled_from([f"{p}-link" for p in PATHS]), st.sampled_from(PATHS)),
        st.tuples(st.just("hardlink"), st.sampled_from([f"{p}-hard" for p in PATHS]), st.sampled_from(PATHS)),
    ),
    max_size=8,
)

Tree = dict[str, tuple[str, str]]  # path -> kind and content


def parents(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: n + 1]) for n in range(len(parts))]


def below(path: str, tree: Tree) -> list[str]:
    return [other for other in tree if not path or other.startswith(f"{path}/")]


def reference(layers: list[list[tuple[str, str, str]]]) -> Tree | None:
    """The layers one after the other, in words of "remove" and "put"; None when Docker could not unpack them."""
    tree: Tree = {}
    for operations_ in layers:
        own: Tree = {}
        hidden: list[str] = []
        emptied: list[str] = []
        for kind, path, value in operations_:
            for parent in parents(path):
                if own.get(parent, ("dir",))[0] != "dir":
                    return None  # an entry below a file of the same layer
                own.setdefault(parent, ("dir", ""))
            if kind == "opaque":
                if path:
                    if own.get(path, ("dir",))[0] != "dir":
                        return None
                    own.setdefault(path, ("dir", ""))
                emptied.append(path)
            elif kind == "whiteout":
                hidden.append(path)
            elif kind == "dir":
                if own.get(path, ("dir",))[0] != "dir":
                    del own[path]
                own[path] = ("dir", value)
            else:
                if kind == "hardlink":
                    target = own.get(value, ("below", value))
                    if target[0] == "dir":
                        return None
                    kind, value = target
                for other in below(path, own):
                    del own[other]
                own[path] = (kind, value)
        # A link to a file below is found there even where this layer hides it, so hiding comes second.
        for path, (kind, value) in own.items():
            if kind == "below":
                if tree.get(value, ("dir",))[0] == "dir":
                    return None
                own[path] = tree[value]
        for path in emptied:
            for other in below(path, tree):
                del tree[other]
        for path in hidden:
            for other in [path, *below(path, tree)]:
                tree.pop(other, None)
        for path, (kind, value) in own.items():
            if kind == "dir":
                if tree.get(path, ("",))[0] != "dir" or value:
                    tree[path] = ("dir", value)
            else:
                for other in below(path, tree):
                    del tree[other]
                tree[path] = (kind, value)
    return tree


def members_of(operations_: list[tuple[str, str, str]]) -> Members:
    made: Members = []
    for kind, path, value in operations_:
        head, _, name = path.rpartition("/")
        prefix = f"{head}/" if head else ""
        if kind == "file":
            made.append(file(path, value.encode()))
        elif kind == "dir":
            made.append(directory(path, mode=int(value, 8)))
        elif kind == "whiteout":
            made.append(file(f"{prefix}.wh.{name}"))
        elif kind == "opaque":
            made.append(file(f"{path}/.wh..wh..opq".lstrip("/")))
        elif kind == "symlink":
            made.append(symlink(path, value))
        else:
            made.append(hardlink(path, value))
    return made


@settings(max_examples=3000, deadline=None)
@given(st.lists(operations, min_size=1, max_size=4))
def test_merging_is_laying_layers_over_one_another(stack: list[list[tuple[str, str, str]]]) -> None:
    expected = reference(stack)
    with tempfile.TemporaryDirectory() as place:
        data = [tar(*members_of(operations_)) for operations_ in stack]
        if expected is None:
            with pytest.raises(ConversionError):
                plan_of(Path(place), *data)
            return
        plan = plan_of(Path(place), *data)
        found: Tree = {}
        for raw, node in plan.walk():
            path = raw.decode()
            if isinstance(node, Directory):
                found[path] = ("dir", f"{node.entry.mode:o}" if node.entry else "")
            elif node.entry.kind == "symlink":
                found[path] = ("symlink", node.entry.link.decode())
            else:
                content = plan.read(path, 10)
                assert content is not None
                found[path] = ("file", content.decode())
        assert found == expected


def test_hard_links_carry_what_they_linked_to(tmp_path: Path) -> None:
    base = tar(file("one", b"first"), hardlink("two", "one"), file("three", b"3"))
    above = tar(file(".wh.one"), hardlink("four", "three"), file("three", b"new"))
    written(plan_of(tmp_path, base, above), tmp_path / "out")
    assert contents(tmp_path / "out") == {"two": "first", "four": "3", "three": "new"}


def test_hard_links_stay_hard_links(tmp_path: Path) -> None:
    written(
        plan_of(tmp_path, tar(file("a", b"x"), hardlink("b", "a"), hardlink("d/c", "b"))), tmp_path / "out"
    )
    inodes = {(tmp_path / "out" / name).stat().st_ino for name in ("a", "b", "d/c")}
    assert len(inodes) == 1


def test_a_link_of_the_same_layer_is_followed_inside_the_root(tmp_path: Path) -> None:
    data = tar(
        directory("usr/lib"), symlink("lib", "usr/lib"), file("lib/x", b"1"),
        symlink("up", "../../../usr"), file("up/y", b"2"), symlink("abs", "/usr/lib"), file("abs/z", b"3"),
    )  # fmt: skip
    written(plan_of(tmp_path, data), tmp_path / "out")
    found = contents(tmp_path / "out")
    assert (found["usr/lib/x"], found["usr/y"], found["usr/lib/z"]) == ("1", "2", "3")
    assert found["lib"] == "-> usr/lib"


def test_a_link_of_an_older_layer_is_replaced(tmp_path: Path) -> None:
    base = tar(directory("usr/lib"), file("usr/lib/old", b"0"), symlink("lib", "usr/lib"))
    written(plan_of(tmp_path, base, tar(file("lib/new", b"1"))), tmp_path / "out")
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
    assert plan.entry_count == 201


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
    written(plan_of(tmp_path, (tmp_path / "x.tar").read_bytes()), tmp_path / "out")
    assert (tmp_path / "out/sparse").read_bytes() == (source / "sparse").read_bytes()
    assert (tmp_path / "out/sparse").stat().st_blocks * 512 < 1_000_000


# --- writing -------------------------------------------------------------------------------------------------


@needs_root
def test_everything_a_layer_can_hold(tmp_path: Path) -> None:
    xattrs = {"SCHILY.xattr.user.note": "value", "SCHILY.xattr.user.empty": ""}
    capability = b"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
    xattrs_file = {
        **xattrs,
        "SCHILY.xattr.security.capability": capability.decode("utf-8", "surrogateescape"),
    }
    lost = written(
        plan_of(
            tmp_path,
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
        ),
        tmp_path / "out",
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
    lost = written(
        plan_of(tmp_path, tar(file("f", b"x", pax_headers={"SCHILY.xattr.nonsense.name": "v"}))),
        tmp_path / "out",
    )
    assert lost == ["the host refused the attribute nonsense.name on /f"]


def test_without_root(tmp_path: Path) -> None:
    """Not even the right to one's own directories keeps the tree from being written and removed again."""
    data = tar(
        directory("closed", mode=0, uid=7),
        file("closed/f", b"x", uid=8),
        member("null", tarfile.CHRTYPE, devmajor=1, devminor=3),
        hardlink("null2", "null"),
    )
    plan = plan_of(tmp_path, data)
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
            (tmp_path / "out").mkdir()
            fd = os.open(tmp_path / "out", os.O_RDONLY)
            os.write(writer, "\n".join(write(plan, fd, progress=Silent(), ownership=False)).encode())
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


# --- hostile -------------------------------------------------------------------------------------------------


def header(**fields: bytes) -> bytes:
    """A ustar header whose fields are these raw bytes, with a right checksum."""
    places = {
        "name": (0, 100),
        "mode": (100, 8),
        "uid": (108, 8),
        "gid": (116, 8),
        "size": (124, 12),
        "mtime": (136, 12),
    }
    places |= {"flag": (156, 1), "link": (157, 100), "magic": (257, 8), "major": (329, 8), "minor": (337, 8)}
    block = bytearray(512)
    block[257:265] = b"ustar\x0000"
    block[156:157] = b"0"
    for name, value in fields.items():
        at, size = places[name]
        block[at : at + size] = value.ljust(size, b"\0")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pax(records: bytes, flag: bytes = b"x") -> bytes:
    return header(name=b"pax", flag=flag, size=b"%o" % len(records)) + records + bytes(-len(records) % 512)


def record(key: bytes, value: bytes) -> bytes:
    body = b" " + key + b"=" + value + b"\n"
    length = len(body) + 1
    while len(str(length)) + len(body) != length:
        length += 1
    return b"%d" % length + body


END = bytes(1024)
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
    "entry below a device": tar(member("a", tarfile.CHRTYPE), file("a/b", b"2")),
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
    "PAX length beyond its end": pax(b"999 path=a\n") + header(name=b"a") + END,
    "PAX length of zero": pax(b"0 path=a\n") + header(name=b"a") + END,
    "PAX without an equals sign": pax(b"8 path\n\n") + header(name=b"a") + END,
    "PAX that is text": pax(b"hello world") + header(name=b"a") + END,
    "PAX size of nonsense": pax(record(b"size", b"many")) + header(name=b"a") + END,
    "PAX negative size": pax(record(b"size", b"-5")) + header(name=b"a") + END,
    "PAX huge size": pax(record(b"size", b"9" * 20)) + header(name=b"a") + END,
    "PAX name with a NUL": pax(record(b"path", b"a\0b")) + header(name=b"a") + END,
    "PAX path to outside": pax(record(b"path", b"../../evil")) + header(name=b"a") + END,
    "PAX header at the end": pax(record(b"path", b"a")) + END,
    "GNU name at the end": header(name=b"././@LongLink", flag=b"L", size=b"2") + b"aa".ljust(512, b"\0") + END,
    "GNU name to outside": header(name=b"l", flag=b"L", size=b"7") + b"../evil".ljust(512, b"\0") + header() + END,
    "sparse map that overlaps": pax(
        record(b"GNU.sparse.map", b"0,5,3,5") + record(b"GNU.sparse.size", b"100")
    ) + header(name=b"a", size=b"12") + bytes(512) + END,
    "sparse map that leaves its file": pax(
        record(b"GNU.sparse.map", b"95,10") + record(b"GNU.sparse.size", b"100")
    ) + header(name=b"a", size=b"12") + bytes(512) + END,
    "sparse map of another size": pax(
        record(b"GNU.sparse.map", b"0,5") + record(b"GNU.sparse.size", b"100")
    ) + header(name=b"a", size=b"12") + bytes(512) + END,
    "sparse map cut in two": pax(
        record(b"GNU.sparse.map", b"0,5,6") + record(b"GNU.sparse.size", b"100")
    ) + header(name=b"a", size=b"5") + bytes(512) + END,
    "sparse map without end": pax(
        record(b"GNU.sparse.major", b"1") + record(b"GNU.sparse.minor", b"0") + record(b"GNU.sparse.realsize", b"9")
    ) + header(name=b"a", size=b"1000") + b"99999999\n".ljust(512, b"1") + END,
    "sparse of an unknown version": pax(
        record(b"GNU.sparse.major", b"9") + record(b"GNU.sparse.minor", b"0")
    ) + header(name=b"a") + END,
    "xattr too large": pax(record(b"SCHILY.xattr.user.x", b"v" * 70_000)) + header(name=b"a") + END,
    "xattr name too long": pax(record(b"SCHILY.xattr." + b"n" * 300, b"v")) + header(name=b"a") + END,
    "xattr that is no base64": pax(record(b"LIBARCHIVE.xattr.user.x", b"!!!")) + header(name=b"a") + END,
    "nothing": b"",
    "a JPEG": b"\xff\xd8\xff\xe0" * 500,
    "text": b"hello\n" * 500,
    "an ELF": b"\x7fELF" * 500,
    "half a header": header(name=b"a")[:300],
    "gzip within gzip": gzip.compress(gzip.compress(SAMPLE)),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_layers_end_in_one_line(tmp_path: Path, what: str) -> None:
    with pytest.raises(ConversionError) as raised:
        plan_of(tmp_path, HOSTILE[what])
    assert "\n" not in str(raised.value)
    assert str(raised.value)


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
    written(plan_of(tmp_path, data), tmp_path / "target")
    assert contents(tmp_path / "target") == expected
    assert {p: p.lstat().st_mtime_ns for p in before if p != Path("/tmp")} == {
        p: t for p, t in before.items() if p != Path("/tmp")
    }
    assert not (Path("/tmp") / "f").exists()


def test_links_between_layers_lead_nowhere(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    base = tar(symlink("d", str(outside)))
    written(plan_of(tmp_path, base, tar(file("d/evil", b"x")), tar(file("d/.wh.evil"))), tmp_path / "target")
    assert list(outside.iterdir()) == []
    assert contents(tmp_path / "target") == {"d": "dir"}


def test_a_bomb_takes_no_memory(tmp_path: Path) -> None:
    """4 GiB of zeros in 4 MB: read to its end and refused by its entry count or size, without being held."""
    import resource
    import zlib

    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    size = 1 << 30
    packed = packer.compress(header(name=b"a", size=b"%o" % size))
    for _ in range(1024):
        packed += packer.compress(bytes(1 << 20))
    packed += packer.compress(END) + packer.flush()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    plan = plan_of(tmp_path, packed)
    assert plan.total_bytes == size
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def test_too_many_entries(tmp_path: Path) -> None:
    data = layer(tmp_path, tar(*(file(f"f{n}") for n in range(50))))
    with pytest.raises(ConversionError, match="more than 49 entries"):
        scan([data], progress=Silent(), max_entries=49)


def test_a_file_that_is_too_short_is_noticed(tmp_path: Path) -> None:
    good = layer(tmp_path, SAMPLE)
    cut = Layer(good.path, 0, good.size)
    good.path.write_bytes(SAMPLE[:1500])
    with pytest.raises(ConversionError, match="cut short"):
        scan([cut], progress=Silent())
