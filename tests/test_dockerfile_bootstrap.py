"""bootstrap.sh: what it says for each base, that it is sound shell, and what it does where no network is needed."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from converter.dockerfile import bootstrap
from converter.dockerfile.bases import Base, find_base
from converter.dockerfile.model import ImageSource
from converter.dockerfile.quoting import data
from converter.errors import ConversionError
from converter.image.model import Platform
from converter.interrupt import Interrupted, in_time, on_signal
from converter.progress import Silent

_NAMES = [
    "debian:buster-slim",
    "debian:bullseye",
    "debian:bookworm",
    "debian:bookworm-slim",
    "debian:trixie-backports",
    "debian:sid",
    "ubuntu:18.04",
    "ubuntu:22.04",
    "ubuntu:24.04",
    "ubuntu:24.10",
    "archlinux",
    "archlinux:base-devel",
    "fedora:39",
    "fedora:44",
    "fedora:rawhide",
    "rockylinux:9",
    "rockylinux/rockylinux:10-minimal",
    "almalinux:10",
    "almalinux:9-minimal",
    "quay.io/centos/centos:stream9",
    "quay.io/centos/centos:stream10",
    "opensuse/leap:15.6",
    "opensuse/leap:16.0",
    "opensuse/tumbleweed",
    "alpine:3.20",
    "alpine:edge",
]
_HOSTILE = "x'; touch /tmp/owned; '$(touch /tmp/owned)`touch /tmp/owned`\nrm -rf /\n"


def _base(name: str, platform: str = "amd64") -> Base:
    base = find_base(ImageSource(name, Platform("linux", platform)))
    assert base is not None
    return base


def _texts() -> dict[str, str]:
    texts = {name: bootstrap.script(_base(name)) for name in _NAMES}
    texts["node:20"] = bootstrap.script(ImageSource("node:20"))
    texts["hostile"] = bootstrap.script(ImageSource(_HOSTILE))
    texts["scratch"] = bootstrap.script(None)
    return texts


@pytest.mark.parametrize("name", [*_NAMES, "node:20", "hostile", "scratch"])
def test_shell_and_shellcheck_are_content(name: str, tmp_path: Path) -> None:
    path = tmp_path / "bootstrap.sh"
    path.write_text(_texts()[name])
    subprocess.run(["sh", "-n", path], check=True)
    if (shellcheck := shutil.which("shellcheck")) is not None:
        done = subprocess.run(
            [shellcheck, "-S", "warning", path], capture_output=True, text=True, check=False
        )
        assert done.stdout == ""


def test_one_says_what_the_other_does_not() -> None:
    texts = _texts()
    assert len(set(texts.values())) == len(texts)


def test_values_are_single_quoted() -> None:
    text = bootstrap.script(_base("debian:bookworm-slim", "arm64"))
    assert "suite='bookworm'\narch='arm64'\n" in text
    assert "mirror=${MIRROR:-'http://deb.debian.org/debian'}\n" in text


def test_a_hostile_name_is_one_word_of_data() -> None:
    text = bootstrap.script(ImageSource(_HOSTILE))
    line = "image=" + data(_HOSTILE) + "\n"
    assert line in text
    assert "touch" not in text.replace(line, "").replace(text.splitlines()[1], "")
    shown = subprocess.run(["sh", "-c", line + 'printf %s "$image"'], capture_output=True, check=True)
    assert shown.stdout.decode() == _HOSTILE


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        (
            "debian:bookworm",
            [
                "deb $mirror bookworm main",
                "deb $mirror bookworm-updates main",
                "deb $security bookworm-security main",
                "put /etc/apt/sources.list.d/debian.sources 0644 <<EOF_",
                "Suites: bookworm bookworm-updates",
                "merged='--merged-usr'",
            ],
        ),
        (
            "debian:bullseye",
            [
                "put /etc/apt/sources.list 0644 <<EOF_",
                "deb http://deb.debian.org/debian-security bullseye-security main",
                "merged='--no-merged-usr'",
            ],
        ),
        (
            "debian:buster-slim",
            [
                "mirror=${MIRROR:-'http://archive.debian.org/debian'}",
                "deb $security buster/updates main",
                "aptopt='Acquire::Check-Valid-Until \"false\"'",
            ],
        ),
        ("debian:sid", ["deb $mirror sid main", "Suites: sid"]),
        ("debian:trixie-backports", ["deb http://deb.debian.org/debian trixie-backports main"]),
        (
            "ubuntu:24.04",
            [
                "mirror=${MIRROR:-'http://archive.ubuntu.com/ubuntu/'}",
                "put /etc/apt/sources.list.d/ubuntu.sources 0644 <<EOF_",
                "Components: main universe restricted multiverse",
                "inside useradd --create-home --uid 1000 --user-group --comment Ubuntu --shell /bin/bash \\",
            ],
        ),
        ("ubuntu:24.10", ["mirror=${MIRROR:-'http://old-releases.ubuntu.com/ubuntu/'}"]),
        ("archlinux:base-devel", ["packages='base base-devel'"]),
        ("fedora:44", ["baseurl=$mirror/releases/44/Everything/$arch/os/", "[updates]"]),
        ("fedora:39", ["mirror=${MIRROR:-'https://archives.fedoraproject.org/pub/archive/fedora/linux'}"]),
        ("fedora:rawhide", ["baseurl=$mirror/development/rawhide/Everything/$arch/os/"]),
        ("rockylinux:9", ["database='/var/lib/rpm'", "baseurl=$mirror/9/BaseOS/$arch/os/"]),
        ("almalinux:10", ["database='/usr/lib/sysimage/rpm'", "baseurl=$mirror/10/AppStream/$arch/os/"]),
        ("quay.io/centos/centos:stream9", ["baseurl=$mirror/9-stream/BaseOS/$arch/os/"]),
        ("opensuse/leap:15.6", ["repo-sle-update $mirror/update/leap/15.6/sle"]),
        ("opensuse/tumbleweed", ["repo-oss $mirror/tumbleweed/repo/oss"]),
        ("alpine:3.20", ["release='v3.20'", "arch='x86_64'"]),
    ],
)
def test_what_a_base_needs(name: str, lines: list[str]) -> None:
    assert not set(lines) - set(bootstrap.script(_base(name)).splitlines())


def test_only_slim_leaves_documentation_out() -> None:
    assert "path-exclude /usr/share/doc/*" in bootstrap.script(_base("debian:bookworm-slim"))
    assert "path-exclude" not in bootstrap.script(_base("debian:bookworm"))


def test_the_identity_is_that_of_what_is_made() -> None:
    identity = bootstrap.identity(_base("debian:bookworm"))
    assert re.fullmatch(r"debian-bookworm-[0-9a-f]{64}", identity)
    assert identity == bootstrap.identity(_base("debian:bookworm"))
    others = {
        bootstrap.identity(_base("debian:bookworm-slim")),
        bootstrap.identity(_base("debian:trixie")),
        bootstrap.identity(_base("debian:bookworm", "arm64")),
        bootstrap.identity(_base("debian:bookworm"), "http://mirror.example/debian"),
    }
    assert len(others | {identity}) == 5


class _Beside:
    """Programs that stand beside the real ones: they record how they are called, and make a tree of sorts."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.calls = directory / "calls"
        self.add("id", "echo 0")
        self.add("unshare", 'shift 2; exec "$@"')
        self.add("mount", "")
        self.add("chroot", "shift; [ -t 0 ] || cat >/dev/null")

    def add(self, name: str, body: str) -> None:
        path = self.directory / name
        record = f"printf '%s\\n' {name} \"$@\" - >>'{self.calls}'\n"
        path.write_text(f"#!/bin/sh\n{record if name not in {'id', 'unshare'} else ''}{body}\n")
        path.chmod(0o755)

    def run(self, name: str, target: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        path = self.directory / "bootstrap.sh"
        path.write_text(bootstrap.script(_base(name)))
        return subprocess.run(
            ["sh", path, target],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            env={
                "PATH": f"{self.directory}:{os.environ['PATH']}",
                "TMPDIR": str(self.directory),
                **environment,
            },
        )

    def called(self) -> list[list[str]]:
        return [call.split("\n")[:-1] for call in self.calls.read_text().removesuffix("-\n").split("-\n")]


@pytest.fixture
def beside(tmp_path: Path) -> _Beside:
    directory = tmp_path / "programs"
    directory.mkdir()
    return _Beside(directory)


def test_dnf_gets_repositories_of_its_own(beside: _Beside, tmp_path: Path) -> None:
    beside.add(
        "dnf5",
        'for word; do case $word in --installroot=*) tree=${word#*=} ;; --setopt=reposdir=*) cat "${word##*=}"/* ;; '
        'esac; done; mkdir -p "$tree/etc" "$tree/usr/bin"; cat "$HOME/.rpmmacros"',
    )
    target = tmp_path / "tree"
    done = beside.run("fedora:44", target, MIRROR="https://mirror.example/fedora")
    assert done.returncode == 0, done.stderr
    assert "baseurl=https://mirror.example/fedora/releases/44/Everything/x86_64/os/\n" in done.stdout
    assert "%_dbpath /usr/lib/sysimage/rpm\n" in done.stdout
    words = beside.called()[0]
    assert words[:2] == ["dnf5", "-y"]
    assert "--releasever=44" in words and "--forcearch=x86_64" in words
    assert "fedora-release-container" in words[words.index("install") :]
    assert (target / "etc/rpm/macros.image-language-conf").read_text() == "%_install_langs C.utf8\n"
    assert (target / "etc/machine-id").read_bytes() == b""


def test_apk_without_keys_fetches_them_over_tls_only(beside: _Beside, tmp_path: Path) -> None:
    beside.add("apk", "")
    if Path("/etc/apk/keys").exists():
        assert list(Path("/etc/apk/keys").iterdir())
        return
    done = beside.run("alpine:3.20", tmp_path / "tree", MIRROR="http://mirror.example/alpine")
    assert done.returncode == 1
    assert "https" in done.stderr
    assert not beside.calls.exists()


def test_a_failure_leaves_nothing(beside: _Beside, tmp_path: Path) -> None:
    beside.add(
        "dnf5",
        'for word; do case $word in --installroot=*) mkdir -p "${word#*=}/etc/half" ;; esac; done; exit 3',
    )
    where = tmp_path / "where"
    where.mkdir()
    done = beside.run("fedora:44", where / "tree")
    assert done.returncode != 0
    assert list(where.iterdir()) == []
    assert {path.name for path in beside.directory.iterdir() if path.is_dir()} == set()


@pytest.mark.parametrize("kind", ["full", "file", "link"])
def test_what_is_there_is_not_touched(beside: _Beside, tmp_path: Path, kind: str) -> None:
    target = tmp_path / "tree"
    match kind:
        case "full":
            target.mkdir()
            (target / "mine").write_text("mine")
        case "file":
            target.write_text("mine")
        case _:
            (tmp_path / "elsewhere").mkdir()
            target.symlink_to(tmp_path / "elsewhere")
    beside.add("dnf5", "exit 9")
    done = beside.run("fedora:44", target)
    assert done.returncode == 1
    assert str(target) in done.stderr and done.stderr.count("\n") == 1
    assert not beside.calls.exists()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "programs") == sorted(
        {"tree"} | ({"elsewhere"} if kind == "link" else set())
    )


def test_an_empty_directory_becomes_the_tree(beside: _Beside, tmp_path: Path) -> None:
    beside.add("dnf5", 'for word; do case $word in --installroot=*) mkdir -p "${word#*=}/etc" ;; esac; done')
    target = tmp_path / "with space"
    target.mkdir()
    done = beside.run("fedora:44", target)
    assert done.returncode == 0, done.stderr
    assert (target / "etc").is_dir()
    assert target.stat().st_mode & 0o7777 == 0o755


def test_a_missing_program_is_named_with_its_package(beside: _Beside, tmp_path: Path) -> None:
    done = beside.run("opensuse/tumbleweed", tmp_path / "tree")
    if shutil.which("zypper") is None:
        assert done.stderr == "bootstrap.sh: zypper is missing; install the package zypper\n"
    assert not (tmp_path / "tree").exists()


def test_an_image_is_left_to_docker2nspawn() -> None:
    text = bootstrap.script(ImageSource("node:20", Platform("linux", "arm64")))
    assert "image='docker.io/library/node:20'\nplatform='linux/arm64'\n" in text
    assert (
        'docker2nspawn convert --name base --root "$work/made" --no-trust --platform "$platform" "$image"'
        in text
    )


# https://github.com/debuerreotype/docker-debian-artifacts, dist-amd64: bookworm/rootfs.manifest
_BOOKWORM = """
adduser apt base-files base-passwd bash bsdutils coreutils dash debconf debian-archive-keyring debianutils diffutils
dpkg e2fsprogs findutils gcc-12-base gpgv grep gzip hostname init-system-helpers libacl1 libapt-pkg6.0 libattr1
libaudit-common libaudit1 libblkid1 libbz2-1.0 libc-bin libc6 libcap-ng0 libcap2 libcom-err2 libcrypt1 libdb5.3
libdebconfclient0 libext2fs2 libffi8 libgcc-s1 libgcrypt20 libgmp10 libgnutls30 libgpg-error0 libhogweed6 libidn2-0
liblz4-1 liblzma5 libmd0 libmount1 libnettle8 libp11-kit0 libpam-modules libpam-modules-bin libpam-runtime libpam0g
libpcre2-8-0 libseccomp2 libselinux1 libsemanage-common libsemanage2 libsepol2 libsmartcols1 libss2 libstdc++6
libsystemd0 libtasn1-6 libtinfo6 libudev1 libunistring2 libuuid1 libxxhash0 libzstd1 login logsave mawk mount
ncurses-base ncurses-bin passwd perl-base sed sysvinit-utils tar tzdata usr-is-merged util-linux util-linux-extra zlib1g
"""


def _without(program: str, directory: Path) -> str:
    """A PATH on which `program` is not."""
    directory.mkdir()
    for place in ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"):
        for path in Path(place).glob("*"):
            if path.name != program and not (directory / path.name).is_symlink():
                (directory / path.name).symlink_to(path)
    return str(directory)


@pytest.mark.lab
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("name", "missing"), [("debian:bookworm-slim", "debootstrap"), ("debian:bookworm", "mmdebstrap")]
)
def test_debian_is_as_its_image_is(
    name: str, missing: str, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", _without(missing, tmp_path / "programs"))
    root = work / f"bases-{missing}"
    bootstrap.make(_base(name), root, mirror=None, spool=tmp_path, progress=Silent())
    query = ["dpkg-query", f"--root={root}", "-W", "-f", "${Package}\\n"]
    installed = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    assert sorted(installed.split()) == sorted(_BOOKWORM.split())
    asked_for = subprocess.run(
        ["chroot", root, "/usr/bin/apt-mark", "showmanual"], capture_output=True, check=True
    )
    assert asked_for.stdout == b""
    assert sorted(path.name for path in (root / "etc/apt/apt.conf.d").iterdir()) == [
        "01autoremove", "70debconf", "docker-autoremove-suggests", "docker-clean", "docker-gzip-indexes",
        "docker-no-languages",
    ]  # fmt: skip
    assert [path.name for path in (root / "etc/apt/sources.list.d").iterdir()] == ["debian.sources"]
    assert not (root / "etc/apt/sources.list").exists()
    assert (root / "usr/sbin/policy-rc.d").read_text() == "#!/bin/sh\nexit 101\n"
    assert [path for path in (root / "var/lib/apt/lists").rglob("*") if path.is_file()] == []
    assert not (root / "etc/machine-id").exists()
    assert (root / "etc/hostname").read_bytes() == b"" and (root / "etc/resolv.conf").read_bytes() == b""
    documents = [path.name for path in (root / "usr/share/doc").rglob("*") if path.is_file()]
    assert (set(documents) == {"copyright"}) == name.endswith("slim")
    assert (root / "usr/share/man/man1").is_dir()
    assert [path.name for path in work.glob(f"{root.name}.*")] == []


@pytest.mark.lab
def test_a_mirror_that_is_not_there(work: Path, tmp_path: Path) -> None:
    with pytest.raises(ConversionError) as caught:
        bootstrap.make(
            _base("debian:bookworm"),
            work / "bases-nowhere",
            mirror="http://127.0.0.1:9/debian",
            spool=tmp_path,
            progress=Silent(),
        )
    assert "debian:bookworm" in str(caught.value) and "MIRROR=URL" in str(caught.value)
    assert list(work.glob("bases-nowhere*")) == []


@pytest.mark.lab
def test_interrupted_it_leaves_nothing(
    beside: _Beside, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (beside.directory / "id").unlink()
    (beside.directory / "unshare").unlink()
    beside.add("mmdebstrap", "kill -USR1 $WATCHED_PROCESS; exec sleep 600")
    text = (beside.directory / "mmdebstrap").read_text().replace("$WATCHED_PROCESS", str(os.getpid()))
    (beside.directory / "mmdebstrap").write_text(text)
    monkeypatch.setenv("PATH", f"{beside.directory}:{os.environ['PATH']}")
    before = signal.signal(signal.SIGUSR1, on_signal)
    in_time()
    try:
        with pytest.raises(Interrupted):
            bootstrap.make(
                _base("debian:bookworm"),
                work / "bases-stopped",
                mirror=None,
                spool=tmp_path,
                progress=Silent(),
            )
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert beside.called()[0][0] == "mmdebstrap"
    assert list(work.glob("bases-stopped*")) == []
