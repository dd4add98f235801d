"""What a host's root tells about its systemd, without running anything from it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from converter import inside
from converter.systemd import installed_version, resolv_conf_mode


@pytest.mark.parametrize(
    ("library", "version"),
    [
        ("usr/lib/x86_64-linux-gnu/systemd/libsystemd-shared-252.so", 252),
        ("usr/lib/aarch64-linux-gnu/systemd/libsystemd-shared-257.so", 257),
        ("usr/lib/systemd/libsystemd-shared-257.9-2.fc42.so", 257),
        ("usr/lib/systemd/libsystemd-shared-258~rc1.so", 258),
        ("usr/lib64/systemd/libsystemd-shared-256.5+suse.17.so", 256),
        ("usr/lib/systemd/libsystemd-core-256.so", None),
        ("usr/lib/libsystemd.so.0.38.0", None),
    ],
)
def test_the_version_of_another_root(tmp_path: Path, library: str, version: int | None) -> None:
    path = tmp_path / library
    path.parent.mkdir(parents=True)
    path.touch()
    assert installed_version(tmp_path) == version


def test_no_link_leads_out_of_another_root(tmp_path: Path) -> None:
    real = tmp_path / "real/usr/lib/systemd"
    real.mkdir(parents=True)
    (real / "libsystemd-shared-257.so").touch()
    root = tmp_path / "root"
    (root / "usr").mkdir(parents=True)
    (root / "usr/lib").symlink_to(tmp_path / "real/usr/lib")
    assert installed_version(root) is None
    (root / "usr/lib").unlink()
    (root / "usr/lib").symlink_to("../../../../../lib")
    (root / "lib/systemd").mkdir(parents=True)
    (root / "lib/systemd/libsystemd-shared-255.so").touch()
    assert installed_version(root) == 255


def test_nothing_and_no_root_at_all(tmp_path: Path) -> None:
    assert installed_version(tmp_path) is None
    assert installed_version(tmp_path / "missing") is None
    assert resolv_conf_mode(tmp_path / "missing") == "copy-host"


def test_the_version_of_this_host_is_what_its_program_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "systemd-nspawn"
    program.write_text("#!/bin/sh\necho 'systemd 261 (261~rc2-1)'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert installed_version(Path("/")) == 261


STUB = "../run/systemd/resolve/stub-resolv.conf"


@pytest.mark.parametrize(
    ("link", "content", "mode"),
    [
        (None, None, "copy-host"),
        (None, "nameserver 192.0.2.1\n", "copy-host"),
        (None, "nameserver 127.0.0.1\n", "copy-host"),  # some other server of the host's
        (None, "# by hand\nnameserver 127.0.0.53\noptions edns0\n", "copy-uplink"),
        (None, "nameserver 127.0.0.53\nnameserver 192.0.2.1\n", "copy-host"),
        (STUB, None, "copy-uplink"),  # a host that does not run
        (STUB, "nameserver 127.0.0.53\n", "copy-uplink"),
        ("/run/systemd/resolve/stub-resolv.conf", "nameserver 127.0.0.53\n", "copy-uplink"),
        ("/run/systemd/resolve/resolv.conf", None, "copy-host"),
        ("/run/systemd/resolve/resolv.conf", "nameserver 192.0.2.1\n", "copy-host"),
    ],
)
def test_how_a_machine_gets_name_servers(
    tmp_path: Path, link: str | None, content: str | None, mode: str
) -> None:
    (tmp_path / "etc").mkdir()
    path = tmp_path / "etc/resolv.conf"
    if link is not None:
        path.symlink_to(link)
        path = tmp_path / "run/systemd/resolve" / Path(link).name
    if content is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    assert resolv_conf_mode(tmp_path) == mode


def test_a_file_is_found_as_from_inside(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "a/b").mkdir(parents=True)
    (root / "a/file").write_text("inside")
    (tmp_path / "file").write_text("outside")
    (root / "a/b/up").symlink_to("../file")
    (root / "a/b/absolute").symlink_to("/a/file")
    (root / "a/b/out").symlink_to("../../../file")
    (root / "a/b/loop").symlink_to("loop")
    os.mkfifo(root / "a/pipe")
    assert inside.read(root, "/a/b/up") == inside.read(root, "a/b/absolute") == b"inside"
    assert inside.read(root, "a/b/../../../../a/file", limit=2) == b"in"
    for nothing in ("a/b/out", "a/b/loop", "a/pipe", "a/b", "a/b/none"):
        assert inside.read(root, nothing) is None, nothing
    assert inside.status(root, "a/b/none") is None
    assert inside.link(root, "a/file") is None
    assert inside.names(root, "a") == ("b", "file", "pipe")
    assert inside.link(root, "a/b/up") == "../file"
