"""The tree on disk: names of every sort, as every form of tar has them, and many layers."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

from tests.hostile_tar import END, entry, gnu_long, header, pax
from tests.layers import directory, file, hardlink, symlink, tar
from tests.trees import contents, facts, written


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    name = b"\xff\xfe\x80"
    data = entry(name=name, flag=b"5", mode=b"0000755") + entry(b"x", name=name + b"/" + name)
    data += entry(name=b"s", flag=b"2", link=name) + entry(
        name=name + b"h", flag=b"1", link=name + b"/" + name
    )
    data += pax({b"path": name + b"/p\xc3"}) + entry(b"y", name=b"?")
    written(tmp_path / "out", data + END)
    found = facts(tmp_path / "out")
    assert {key: (what.kind, what.content) for key, what in found.items()} == {
        b".": ("dir", b""),
        name: ("dir", b""),
        name + b"/" + name: ("file", b"x"),
        name + b"h": ("file", b"x"),
        name + b"/p\xc3": ("file", b"y"),
        b"s": ("symlink", name),
    }


def test_names_as_long_as_linux_has_them(tmp_path: Path) -> None:
    longest = "n" * 255
    deep = "/".join(["d" * 200] * 20)[: 4095 - 75] + "/f"
    data = tar(
        file(longest, b"x"), file(deep, b"y"), symlink("s", "t/" * 2047 + "t"), format=tarfile.GNU_FORMAT
    )
    written(tmp_path / "out", data, tar(hardlink("l" * 255, longest), file("./" + deep[:-1] + "g", b"z")))
    assert (tmp_path / "out" / ("l" * 255)).read_bytes() == b"x"
    fd = os.open(tmp_path / "out", os.O_RDONLY)
    try:
        assert sorted(os.listdir(os.open(deep[:-2], os.O_RDONLY, dir_fd=fd))) == ["f", "g"]  # noqa: PTH208
    finally:
        os.close(fd)
    assert len(os.readlink(tmp_path / "out/s")) == 4095  # noqa: PTH115


def test_a_link_may_lead_to_any_text(tmp_path: Path) -> None:
    """It is no path until somebody follows it: programs keep locks in links, with a target of any length."""
    for target in (b"t" * 300, b"user@host.1:" + b"9" * 1000, b"t" * 4095):
        out = tmp_path / str(len(target))
        written(out, gnu_long(target, b"K") + entry(name=b"s", flag=b"2", link=target[:100]) + END)
        assert facts(out)[b"s"].content == target


def test_tars_of_version_7(tmp_path: Path) -> None:
    data = header(name=b"d/", flag=b"\0", magic=b"", mode=b"000700 ")
    data += entry(b"x", name=b"d/f", flag=b"\0", magic=b"", mode=b"000640 ", mtime=b"17")
    data += entry(name=b"h", flag=b"1", link=b"d/f", magic=b"", mode=b"000640 ", mtime=b"17")
    written(tmp_path / "out", data + END)
    found = facts(tmp_path / "out")
    assert (found[b"d"].kind, found[b"d"].mode) == ("dir", 0o700)
    assert (found[b"d/f"].content, found[b"d/f"].mode, found[b"d/f"].mtime) == (b"x", 0o640, 15 * 10**9)
    assert found[b"h"].names == {b"h", b"d/f"}


def test_gnu_long_names_and_links(tmp_path: Path) -> None:
    name, target = b"n" * 120 + b"/" + b"m" * 120, b"t/" * 150 + b"t"
    data = gnu_long(name) + entry(b"x", name=name[:100]) + gnu_long(target, b"K") + gnu_long(name + b"2")
    data += entry(name=name[:100], flag=b"2", link=target[:100])
    data += gnu_long(name, b"K") + entry(name=b"h", flag=b"1", link=name[:100]) + entry(b"y", name=b"short")
    written(tmp_path / "out", data + END)
    found = facts(tmp_path / "out")
    assert found.keys() == {b".", b"n" * 120, name, name + b"2", b"h", b"short"}
    assert found[name].names == {name, b"h"}
    assert found[name + b"2"].content == target


def test_global_headers_say_nothing(tmp_path: Path) -> None:
    """As in Docker: Go's reader passes them over."""
    data = pax({b"comment": b"from git archive", b"mtime": b"5.5"}, b"g") + entry(b"x", name=b"a", mtime=b"7")
    data += pax({b"mtime": b"6"}) + entry(b"x", name=b"b") + entry(b"x", name=b"c")
    written(tmp_path / "out", data + END)
    found = facts(tmp_path / "out")
    assert [found[name].mtime // 10**9 for name in (b"a", b"b", b"c")] == [7, 6, 0]


def test_two_hundred_layers(tmp_path: Path) -> None:
    stack = []
    for n in range(200):
        gone = [file(f"d/.wh.f{n - 3}")] if n >= 3 else []
        stack.append(
            tar(directory("d", mtime=n), file(f"d/f{n}", b"%d" % n, mtime=n), file("same", b"%d" % n), *gone)
        )
    assert written(tmp_path / "out", *stack) == []
    assert contents(tmp_path / "out") == {
        "d": "dir", "d/f197": "197", "d/f198": "198", "d/f199": "199", "same": "199",
    }  # fmt: skip
    assert (tmp_path / "out/d").stat().st_mtime_ns == 199 * 10**9
