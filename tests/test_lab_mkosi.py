"""The article's program, from its Dockerfile: by bootstrap.sh and provision.sh, by real mkosi, by convert; all run."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from converter.dockerfile import mkosi
from converter.dockerfile.bases import find_base
from converter.dockerfile.model import ImageSource
from converter.dockerfile.translate import Wanted, translate
from converter.image.model import Image
from tests import lab, steps

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1500)]

_ARTICLE = Path(__file__).parent.parent / "fixtures/article"
_PACKAGES = "systemd,systemd-container,ca-certificates,mkosi,apt,bubblewrap,debian-archive-keyring,zstd,cpio"
_SID = '--aptopt=Acquire::Check-Valid-Until "false"'
_BASES = {
    "debian:12": "debian bookworm",
    "debian:stable-slim": "debian stable",
    "ubuntu:24.04": "ubuntu noble",
    "archlinux": "arch rolling",
    "fedora:44": "fedora 44",
    "rockylinux:9": "rocky 9",
    "almalinux:10-minimal": "alma 10",
    "quay.io/centos/centos:stream9": "centos 9",
    "opensuse/leap:15.6": "opensuse 15.6",
    "opensuse/tumbleweed": "opensuse tumbleweed",
    "alpine:3.20": "custom",
    "node:20": "custom",
}
# What is told of the run itself, and what mmdebstrap or mkosi alone leave behind.
_OF_THE_RUN = (
    "/dev/",
    "/etc/hostname",
    "/etc/hosts",  # the machines' names are in it
    "/etc/resolv.conf",
    "/run/",
    "/var/cache/",
    "/var/lib/apt/extended_states",  # marks of packages that nobody asked for, in another order
    "/var/lib/dpkg/arch",
    "/var/lib/dpkg/available",
    "/var/lib/dpkg/lock",
    "/var/lib/dpkg/triggers/Lock",
    "/var/log/",
)


def _no_image(*_: object) -> Image:
    raise AssertionError("no image is needed")


def _translate(output: Path, name: str) -> Path:
    translate(Wanted(_ARTICLE, output, name), _no_image)
    return output


def _host_with_mkosi(work: Path, suite: str) -> Path:
    """A root of that suite with its mkosi: 25 in trixie, 27 in sid."""
    mark = hashlib.sha256(_PACKAGES.encode()).hexdigest()[:12]
    kept = lab.CACHE / f"mkosi-{suite}-{mark}.tar"
    if not kept.exists():
        lab.CACHE.mkdir(parents=True, exist_ok=True)
        options = [_SID] if suite == "sid" else []
        with tempfile.TemporaryDirectory(dir=lab.CACHE, prefix=".making-") as making:
            made = Path(making) / "root.tar"
            command = ["mmdebstrap", "--variant=minbase", "--quiet", f"--include={_PACKAGES}", *options]
            lab.run(*command, suite, made, timeout=900)
            made.replace(kept)
    root = work / f"mkosi-{suite}"
    root.mkdir()
    lab.run("tar", "-C", root, "-xf", kept, "--xattrs", "--xattrs-include=*", timeout=300)
    return root


def _in(root: Path, output: Path, script: str) -> str:
    """Run a shell script on that host, on `output`, which is moved there to /root/output; what it has said."""
    place = root / "root/output"
    shutil.move(output, place)
    command: list[str | Path] = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--pipe"]
    command += ["--capability=all", "--private-users=no", "--resolv-conf=copy-host", "--link-journal=no"]
    command += [f"--directory={root}", f"--machine=bases-{root.name}", "--chdir=/root/output"]
    done = lab.run(
        *command,
        "sh",
        "-euc",
        script,
        timeout=900,
        SYSTEMD_SECCOMP="0",
        SYSTEMD_NSPAWN_API_VFS_WRITABLE="1",
        SYSTEMD_NSPAWN_UNIFIED_HIERARCHY="1",
    )
    shutil.move(place, output)
    return done.stdout + done.stderr


def _listed(root: Path) -> Mapping[str, tuple[str, str, str]]:
    """Every path with its kind and mode, owner, and content."""
    found = {}
    for directory, names, files in os.walk(root):
        for path in (Path(directory, name) for name in (*names, *files)):
            shown = "/" + str(path.relative_to(root))
            if shown.startswith(_OF_THE_RUN):
                continue
            status = path.lstat()
            content = ""
            if stat.S_ISLNK(status.st_mode):
                content = str(path.readlink())
            elif stat.S_ISREG(status.st_mode):
                content = hashlib.sha256(path.read_bytes()).hexdigest()
            found[shown] = (stat.filemode(status.st_mode), f"{status.st_uid}:{status.st_gid}", content)
    return found


@pytest.fixture(scope="module")
def by_scripts(work: Path) -> Path:
    """What build.sh has made: bootstrap.sh, then provision.sh."""
    output = _translate(work / "by-scripts", "bases-scripts")
    lab.run("sh", output / "build.sh", timeout=900)
    return output


@pytest.fixture(scope="module")
def trixie(work: Path) -> Path:
    """A host with mkosi 25."""
    return _host_with_mkosi(work, "trixie")


@pytest.fixture(scope="module")
def sid(work: Path) -> Path:
    """A host with mkosi 27."""
    return _host_with_mkosi(work, "sid")


@pytest.fixture(scope="module")
def by_mkosi(work: Path, trixie: Path) -> Path:
    """The same with mkosi 25, its tree where build.sh would have made one."""
    output = _translate(work / "by-mkosi", "bases-mkosi")
    _in(trixie, output, "cd mkosi && mkosi")
    (output / "mkosi/mkosi.output/bases-mkosi").rename(output / "root")
    lab.run("sh", output / "build.sh", "--settings", output / "root")
    return output


def test_packages_and_first_files_are_mkosis(by_mkosi: Path) -> None:
    config = (by_mkosi / "mkosi/mkosi.conf").read_text()
    assert "    file\n    libx11-6\n" in config
    extra = by_mkosi / "mkosi/mkosi.extra"
    assert [path.name for path in extra.rglob("*") if path.is_file()] == ["start-tor-browser"]
    copied = (by_mkosi / "mkosi/mkosi.output/bases-mkosi.nspawn").read_text()
    assert "kilgore" not in copied and "[Exec]" in copied


def test_both_ways_give_the_same_tree(by_scripts: Path, by_mkosi: Path) -> None:
    one, other = _listed(by_scripts / "root"), _listed(by_mkosi / "root")
    assert {path: one.get(path) for path in one if one[path] != other.get(path)} == {}
    assert {path: other[path] for path in other if path not in one} == {}
    assert one["/usr/local/bin/tor-browser/settings"][1] == "1000:1000"
    assert not any(path.startswith("/root/install") for path in other)


def _check_run(host: lab.Host, name: str) -> None:
    try:
        said = host.run_machine(name).splitlines()
    finally:
        host.run("machinectl", "remove", name, check=False)
    seen = [line.expandtabs(1) for line in said]
    for line in (
        "user noroot 1000:1000",
        "directory /usr/local/bin/tor-browser",
        "display :0",
        "CapEff: 0000000000000000",
        "text/plain",
        "its own files are writable",
        "the system is not",
    ):
        assert line in seen, said


@pytest.mark.parametrize("way", ["by_scripts", "by_mkosi"])
def test_the_machine_runs(way: str, request: pytest.FixtureRequest, systemd_host: lab.Host) -> None:
    output: Path = request.getfixturevalue(way)
    name = next(path for path in output.iterdir() if path.suffix == ".nspawn").stem
    lab.run("sh", output / "build.sh", "--install", "--destination", systemd_host.root)
    _check_run(systemd_host, name)


def test_so_does_the_one_that_convert_makes(systemd_host: lab.Host) -> None:
    command = [sys.executable, "-m", "converter.cli", "convert", f"dockerfile:{_ARTICLE}"]
    options = ["--name", "bases-convert", "--systemd", systemd_host.version]
    lab.run(*command, *options, "--root", systemd_host.root, timeout=900)
    _check_run(systemd_host, "bases-convert")


def test_mkosi_27_makes_it_too(work: Path, sid: Path, by_mkosi: Path) -> None:
    output = _translate(work / "by-mkosi-27", "bases-mkosi")
    assert lab.run("chroot", sid, "mkosi", "--version").stdout.startswith("mkosi 27")
    _in(sid, output, "cd mkosi && mkosi")
    made = output / "mkosi/mkosi.output/bases-mkosi"
    one, other = _listed(by_mkosi / "root"), _listed(made)
    assert {path for path in {*one, *other} if one.get(path) != other.get(path)} == set()


def test_a_tar_for_machinectl(work: Path, trixie: Path) -> None:
    output = _translate(work / "as-tar", "bases-tar")
    # Compressed, as mkosi likes it; its host can read that.
    _in(
        trixie,
        output,
        "cd mkosi && mkosi --format=tar && tar -tvf mkosi.output/bases-tar --numeric-owner >listing",
    )
    listing = (output / "mkosi/listing").read_text().splitlines()
    settings = [line for line in listing if line.endswith("./usr/local/bin/tor-browser/settings")]
    assert ["1000/1000" in line for line in settings] == [True]


@pytest.mark.parametrize("suite", ["trixie", "sid"])
def test_mkosi_understands_every_tree(suite: str, work: Path, request: pytest.FixtureRequest) -> None:
    state = replace(steps.STATE, env=(*steps.STATE.env, ("APP_NAME", "a b, c=d")))
    plain = "apt-get update && apt-get install -y --no-install-recommends curl && rm -rf /var/lib/apt/lists/*"
    output = work / f"trees-{suite}"
    for number, image in enumerate(_BASES):
        stage = steps.stage(image, steps.run(plain, state), steps.run("true"))
        assert isinstance(stage.base, ImageSource)
        place = output / f"{number:02}"
        place.mkdir(parents=True)
        mkosi.write(steps.recipe(stage), find_base(stage.base), place, name="machine", nspawn="[Exec]\n")
        (place / "mkosi/base").mkdir()
    script = "for tree in *; do (cd $tree/mkosi && mkosi --json summary >../summary 2>../warnings); done"
    _in(request.getfixturevalue(suite), output, script)
    for number, (image, expected) in enumerate(_BASES.items()):
        place = output / f"{number:02}"
        assert (place / "warnings").read_text() == "", image
        (told,) = json.loads((place / "summary").read_text())["Images"]
        assert " ".join(filter(None, (told["Distribution"], told["Release"]))) == expected, image
        if image.startswith("debian"):
            assert "curl" in told["Packages"]
            assert told["Environment"]["APP_NAME"] == "a b, c=d"
