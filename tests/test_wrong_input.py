"""Wrong input at the front door: exit status 1, one line that says what to do, and nothing written."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

FIXTURES = Path(__file__).parent.parent / "fixtures"


def cli(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "converter.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "DOCKER_HOST": "unix:///nowhere/docker.sock", **environment},
        check=False,
        timeout=120,
    )


def saved(path: Path, config: dict[str, object], layers: list[bytes]) -> str:
    """A docker archive in the old form."""
    names = [f"{hashlib.sha256(layer).hexdigest()}/layer.tar" for layer in layers]
    diff_ids = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    document = json.dumps(
        {"os": "linux", **config, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    ).encode()
    config_name = f"{hashlib.sha256(document).hexdigest()}.json"
    manifest = json.dumps([{"Config": config_name, "RepoTags": ["test:latest"], "Layers": names}]).encode()
    with tarfile.open(path, "w") as archive:
        for name, data in [
            (config_name, document),
            *zip(names, layers, strict=True),
            ("manifest.json", manifest),
        ]:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return str(path)


def layer(*names: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 4
            tar.addfile(member, io.BytesIO(b"text"))
    return buffer.getvalue()


def written(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


def directory(path: Path) -> str:
    path.mkdir()
    (path / "file").write_text("x")
    return str(path)


HELLO = (FIXTURES / "hello.tar").read_bytes()
WRONG: dict[str, tuple[Callable[[Path], str], str]] = {
    "missing file": (lambda d: f"docker-archive:{d}/none.tar", "none.tar"),
    "missing file without transport": (lambda d: str(d / "none.tar"), "none.tar"),
    "missing layout": (lambda d: f"oci:{d}/none", "none"),
    "a directory": (lambda d: directory(d / "x"), "not"),
    "a directory as archive": (lambda d: f"docker-archive:{directory(d / 'x')}", "x"),
    "an empty file": (lambda d: written(d / "x", b""), "empty"),
    "an empty file as archive": (lambda d: f"docker-archive:{written(d / 'x', b'')}", "x"),
    "a JPEG": (lambda d: written(d / "x.jpg", b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(2000)), "x.jpg"),
    "a JPEG as OCI archive": (lambda d: "oci-archive:" + written(d / "x", b"\xff\xd8\xff\xe0" * 999), "x"),
    "a truncated tar": (lambda d: written(d / "x.tar", HELLO[: len(HELLO) // 2]), "x.tar"),
    "a truncated archive": (lambda d: f"docker-archive:{written(d / 'x.tar', HELLO[:-3000])}", "x.tar"),
    "a Windows image": (lambda d: saved(d / "x", {"os": "windows"}, [layer("a")]), "windows"),
    "no layers": (lambda d: saved(d / "x", {"config": {}}, []), "no layers"),
    "a layer that is no tar": (lambda d: saved(d / "x", {}, [b"nonsense" * 100]), "not a tar"),
    "a layer that breaks out": (lambda d: saved(d / "x", {}, [layer("../../evil")]), "out of the image"),
    "a config of wrong types": (lambda d: saved(d / "x", {"config": {"Env": 7}}, [layer("a")]), "Env"),
    "an unknown user": (lambda d: saved(d / "x", {"config": {"User": "ghost"}}, [layer("a")]), "ghost"),
    "a file as WORKDIR": (lambda d: saved(d / "x", {"config": {"WorkingDir": "/a/b"}}, [layer("a")]), "/a"),
    "no such name in it": (lambda d: f"docker-archive:{FIXTURES}/hello.tar:nothing", "hello"),
    "no daemon": (lambda d: "docker-daemon:debian:bookworm", "no Docker daemon"),
    "no daemon for a container": (lambda d: "container:web", "no Docker daemon"),
    "no registry": (lambda d: "docker://127.0.0.1:9/no/image", "127.0.0.1:9"),
    "not a name": (lambda d: "docker://UPPER/Case", "lower case"),
    "no text": (lambda d: "", "''"),
}


@pytest.mark.parametrize("command", ["convert", "plan"])
@pytest.mark.parametrize("what", WRONG)
def test_one_line_and_nothing_written(what: str, command: str, tmp_path: Path) -> None:
    make, expected = WRONG[what]
    (tmp_path / "in").mkdir()
    source = make(tmp_path / "in")
    done = cli(command, source, "--root", tmp_path / "out")
    assert done.returncode == 1, done.stdout
    assert done.stdout == ""
    assert done.stderr.startswith("docker2nspawn: ")
    assert done.stderr.count("\n") == 1 and done.stderr.endswith("\n")
    assert expected in done.stderr
    assert not (tmp_path / "out").exists()


def test_every_truncation_of_a_good_archive_is_refused(tmp_path: Path) -> None:
    """In one process, for speed. What stands behind manifest.json, the last that is needed, may be missing."""
    from converter import conversion
    from converter.errors import ConversionError
    from converter.options import Options
    from converter.progress import Silent

    with tarfile.open(FIXTURES / "hello.tar") as archive:
        manifest = archive.getmember("manifest.json")
    for length in range(0, manifest.offset_data + manifest.size, 512):
        path = tmp_path / "x.tar"
        path.write_bytes(HELLO[:length])
        options = Options(root=tmp_path / "out")
        with pytest.raises(ConversionError):
            conversion.convert(f"docker-archive:{path}", options, Silent())
        assert not (tmp_path / "out").exists(), length


def test_no_permission(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        done = cli("convert", FIXTURES / "hello.tar", "--root", "/proc/1")
    else:
        done = cli("convert", FIXTURES / "hello.tar", "--root", "/")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "cannot prepare" in done.stderr


def test_wrong_usage_is_2() -> None:
    assert cli("convert").returncode == 2
    assert cli("convert", "a", "b").returncode == 2
    assert cli("frobnicate").returncode == 2
    assert cli("plan", "x", "--force").returncode == 2


def test_bad_options(tmp_path: Path) -> None:
    for option, value, expected in (
        ("--name", "no_good", "no-good"),
        ("--platform", "a/b/c/d", "not a platform"),
        ("--platform", "linux/s390x", "s390x"),
    ):
        done = cli("convert", FIXTURES / "multi.oci", "--root", tmp_path / "out", option, value)
        assert done.returncode == 1, option
        assert expected in done.stderr
        assert done.stderr.count("\n") == 1
        assert not (tmp_path / "out").exists()


def test_strict_refuses_a_loss_and_writes_nothing(tmp_path: Path) -> None:
    lost = ("--network", "none", "-p", "8080:80")
    done = cli("convert", FIXTURES / "hello.tar", "--root", tmp_path / "out", "--strict", *lost)
    assert done.returncode == 1
    assert "publish 8080:80/tcp" in done.stderr
    assert not (tmp_path / "out").exists()


def test_json_is_alone_on_stdout(tmp_path: Path) -> None:
    done = cli("convert", FIXTURES / "hello.tar", "--root", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    result = json.loads(done.stdout)
    assert result["name"] == "hello"
    without_root = {"dropped"} if os.geteuid() else set()  # the files' owners
    assert {note["kind"] for note in result["notes"]} == {"exact", "adapted"} | without_root
    assert Path(result["settings_path"]).read_text() == result["settings"]


def test_plan_writes_nothing_and_agrees_with_convert(tmp_path: Path) -> None:
    planned = cli("plan", FIXTURES / "hello.tar", "--root", tmp_path / "out", "--json")
    assert planned.returncode == 0, planned.stderr
    assert not (tmp_path / "out").exists()
    done = cli("convert", FIXTURES / "hello.tar", "--root", tmp_path / "out", "--json")
    before, after = json.loads(planned.stdout), json.loads(done.stdout)
    # Only writing can tell what the disk refuses.
    before["notes"] = [note for note in before["notes"] if note["subject"] != "files"]
    after["notes"] = [note for note in after["notes"] if note["subject"] != "files"]
    assert before == after


def test_two_sources_of_one_name_are_two_machines(tmp_path: Path) -> None:
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "hello.tar").write_bytes(HELLO)
    names = []
    for place in ("a", "b"):
        done = cli("convert", tmp_path / place / "hello.tar", "--root", tmp_path / "out", "--json")
        names.append(json.loads(done.stdout)["name"])
    assert names[0] == "hello"
    assert names[1].startswith("hello-")
    again = cli("convert", tmp_path / "b" / "hello.tar", "--root", tmp_path / "out")
    assert again.returncode == 1
    assert "--force" in again.stderr
    assert cli("convert", tmp_path / "b" / "hello.tar", "--root", tmp_path / "out", "--force").returncode == 0
    assert sorted(p.name for p in (tmp_path / "out/var/lib/machines").iterdir() if p.is_dir()) == sorted(
        names
    )


def test_trust_is_a_link_that_can_be_left_out(tmp_path: Path) -> None:
    root = tmp_path / "out"
    link = root / "etc/systemd/nspawn/hello.nspawn"
    assert cli("convert", FIXTURES / "hello.tar", "--root", root).returncode == 0
    assert str(link.readlink()) == "/var/lib/machines/hello.nspawn"
    done = cli("convert", FIXTURES / "hello.tar", "--root", root, "--force", "--no-trust")
    assert done.returncode == 0
    assert not link.is_symlink()
    assert re.search("nspawn ignores SystemCallFilter, .*PrivateUsers, .*VirtualEthernet", done.stdout)


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    """As under nohup(1)."""
    code = (
        "import signal, sys\n"
        "from converter import cli\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "sys.argv = ['docker2nspawn', 'convert', '/nowhere']\n"
        "try:\n    cli.main()\nexcept SystemExit:\n"
        "    print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN, signal.getsignal(signal.SIGTERM).__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True on_signal\n"
