"""provision.sh, run for real in trees: what its programs see, who they are, what is in the tree afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from converter.dockerfile.blocks import Brought
from converter.dockerfile.model import Mount, StageSource, State
from tests import lab
from tests.recipes import Writer, write_script

pytestmark = pytest.mark.lab  # chroot and mounts need root

_PASSWD = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n  trimmed:x:77:78::/t:\n"
_GROUP = "root:x:0:\nwheel:x:10:root\napp:x:1001:\nextra:x:44:app,root\nwww:x:33:\n"
_PATH = (("PATH", "/usr/local/bin:/usr/bin:/bin"),)

_SEEN = r"""
for fd in 0 1 2; do readlink /proc/self/fd/$fd; done >/dev/null 2>&1
{ id -u; id -g; id -G; pwd; env | sort; cat; } >>/seen
"""


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    """A root with a static busybox and nothing else."""
    root = tmp_path / "root"
    for directory in ("bin", "etc", "usr/bin", "tmp", "dev", "proc", "mnt", "home"):
        (root / directory).mkdir(parents=True)
    busybox = shutil.which("busybox")
    assert busybox is not None
    shutil.copy(busybox, root / "bin/busybox")
    for name in subprocess.run(
        [busybox, "--list"], capture_output=True, text=True, check=True
    ).stdout.split():
        if name != "busybox":
            (root / "bin" / name).symlink_to("busybox")
    (root / "etc/passwd").write_text(_PASSWD)
    (root / "etc/group").write_text(_GROUP)
    (root / "dev/null").touch()
    subprocess.run(["mount", "--bind", "/dev/null", root / "dev/null"], check=True)
    subprocess.run(["mount", "-t", "proc", "proc", root / "proc"], check=True)
    yield root
    _unmount(tmp_path)


def _unmount(path: Path) -> None:
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in reversed(mounts):
        if mount.startswith(f"{path}/"):
            subprocess.run(["umount", mount], check=True)


class Provisioning:
    """A directory with provision.sh, and ways to run it on a tree."""

    def __init__(self, tree: Path, directory: Path) -> None:
        self.tree = tree
        self.directory = directory
        directory.mkdir(exist_ok=True)

    def inside(
        self, *options: str, shell: str = "/bin/sh", **more: str
    ) -> subprocess.CompletedProcess[bytes]:
        """In a chroot, with the directory mounted there."""
        mount = self.tree / "mnt"
        subprocess.run(["mount", "--bind", self.directory, mount], check=True)
        try:
            command = ["chroot", str(self.tree), *shell.split(), "/mnt/provision.sh", *options]
            return subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                env={"PATH": "/usr/sbin:/bin", **more},
            )
        finally:
            subprocess.run(["umount", mount], check=True)

    def outside(self, *options: str, **more: str) -> subprocess.CompletedProcess[bytes]:
        """With --root, by this machine's tools."""
        command = [str(self.directory / "provision.sh"), "--root", str(self.tree), *options]
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, check=False, env={**os.environ, **more}
        )

    def run(self, way: str, *options: str) -> subprocess.CompletedProcess[bytes]:
        """inside or outside, by name."""
        return self.inside(*options) if way == "inside" else self.outside(*options)


@pytest.fixture
def place(tree: Path, tmp_path: Path) -> Provisioning:
    return Provisioning(tree, tmp_path / "out")


WAYS = ("inside", "outside")


def _works(done: subprocess.CompletedProcess[bytes]) -> None:
    assert done.returncode == 0, done.stderr.decode(errors="replace")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("user", "uid", "gid", "groups", "home"),
    [
        ("", 0, 0, "0 10 44", "/root"),
        ("root", 0, 0, "0 10 44", "/root"),
        ("0:0", 0, 0, "0", "/root"),
        ("app", 1000, 1001, "1001 44", "/home/app"),
        ("1000", 1000, 1001, "1001 44", "/home/app"),
        ("trimmed", 77, 78, "78", "/t"),
    ],
)
def test_a_run_is_who_user_says(
    place: Provisioning, way: str, user: str, uid: int, gid: int, groups: str, home: str
) -> None:
    seen = place.tree / "seen"
    seen.touch()
    seen.chmod(0o666)
    write_script(Writer(State(env=_PATH)).setting(f"USER {user}", user=user).run(_SEEN), place.directory)
    _works(place.run(way))
    lines = seen.read_text().splitlines()
    assert lines[:2] == [str(uid), str(gid)]
    assert sorted(lines[2].split()) == sorted(groups.split())
    assert lines[3] == "/"
    variables = [line for line in lines[4:] if not line.startswith(("PWD=", "SHLVL=", "OLDPWD=", "_="))]
    assert variables == [f"HOME={home}", "PATH=/usr/local/bin:/usr/bin:/bin"]


@pytest.mark.parametrize(
    ("user", "expected"),
    [("4000", (4000, 0, "0")), ("4000:4001", (4000, 4001, "4001")), ("app:www", (1000, 33, "33"))],
)
def test_numbers_without_an_entry_and_groups(
    place: Provisioning, user: str, expected: tuple[int, int, str]
) -> None:
    """Where there is no account, only a program that can become any will do: chroot of coreutils, from outside."""
    (place.tree / "seen").touch()
    (place.tree / "seen").chmod(0o666)
    write_script(Writer(State(env=_PATH)).setting(f"USER {user}", user=user).run(_SEEN), place.directory)
    _works(place.outside())
    lines = (place.tree / "seen").read_text().splitlines()
    assert (int(lines[0]), int(lines[1]), lines[2]) == expected


def test_no_way_to_become_a_user_is_said(place: Provisioning) -> None:
    write_script(Writer(State(env=_PATH)).setting("USER 4000", user="4000").run("id"), place.directory)
    done = place.inside()
    assert done.returncode == 1
    assert b"become uid 4000, gid 0: install setpriv" in done.stderr
    assert b"Dockerfile:3: step 2 failed" in done.stderr


@pytest.mark.parametrize("user", ["nobody-here", "app:nothing", "0:nothing"])
def test_an_unknown_user_is_an_error(place: Provisioning, user: str) -> None:
    write_script(Writer(State(env=_PATH)).setting("USER x", user=user).run("id"), place.directory)
    done = place.outside()
    assert done.returncode == 1
    assert b"is not in /etc/" in done.stderr


@pytest.mark.parametrize("way", WAYS)
def test_a_failure_names_its_line_and_goes_on_from_there(place: Provisioning, way: str) -> None:
    writer = Writer(State(env=_PATH)).run("echo one >>/log").env(KEPT="yes").workdir("/w")
    writer.run("test -e /mended || exit 42; echo $KEPT $(pwd) >>/log").run("echo last >>/log")
    write_script(writer, place.directory)
    failed = place.run(way)
    assert failed.returncode == 42
    assert b"Dockerfile:5: step 4 failed with exit status 42: RUN test -e /mended" in failed.stderr
    assert b"--from 4" in failed.stderr
    assert b"[1/5] Dockerfile:2 RUN echo one" in failed.stderr
    assert b"[5/5]" not in failed.stderr
    (place.tree / "mended").touch()
    _works(place.run(way, "--from", "4"))
    assert (place.tree / "log").read_text() == "one\nyes /w\nlast\n"


@pytest.mark.parametrize("way", WAYS)
def test_standard_input_is_empty(place: Provisioning, way: str) -> None:
    write_script(Writer(State(env=_PATH)).run("readlink /proc/self/fd/0 >/in"), place.directory)
    _works(place.run(way))
    assert (place.tree / "in").read_text() == "/dev/null\n"


@pytest.mark.parametrize("way", WAYS)
def test_directories_are_made_with_their_owner(place: Provisioning, way: str) -> None:
    writer = Writer(State(env=_PATH, user="app")).workdir("/home/app/a/b").run("pwd >here")
    (place.tree / "home/app").mkdir()
    write_script(writer, place.directory)
    _works(place.run(way))
    assert _facts(place.tree / "home/app")[1:] == (0, 0)
    assert _facts(place.tree / "home/app/a") == _facts(place.tree / "home/app/a/b") == (0o40755, 1000, 1001)
    assert (place.tree / "home/app/a/b/here").read_text() == "/home/app/a/b\n"


def _facts(path: Path) -> tuple[int, int, int]:
    status = path.lstat()
    return status.st_mode, status.st_uid, status.st_gid


def _lay(directory: Path, *names: str) -> None:
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        os.chown(path, 1234, 1234)


@pytest.mark.parametrize("way", WAYS)
def test_copies_come_with_modes_owners_and_links(place: Provisioning, way: str) -> None:
    files = place.directory / "files"
    _lay(files, "1/src/a", "1/src/deep/b", "2/tool", "3/one", "3/two", "4/tool", "5/src/c")
    (files / "1/src/link").symlink_to("/etc/passwd")
    os.link(files / "1/src/a", files / "1/src/deep/same")
    (files / "1/src/deep").chmod(0o711)
    (files / "2/tool").chmod(0o4755)
    (files / "4/tool").chmod(0o6755)
    (place.tree / "old").mkdir(mode=0o700)
    os.chown(place.tree / "old", 5, 6)
    (place.tree / "old/a").symlink_to("../victim")
    (place.tree / "victim").write_text("whole")
    writer = Writer(State(env=_PATH)).copy("src", to="/old").copy("tool", to="/new/place/name")
    writer.copy("one", "two", to="/old/sub/", chown="app:www", chmod="0640")
    writer.copy("tool", to="/old", chown="app").copy("src", to="/fresh", chown="7")
    copies = {
        1: [Brought("src")],
        2: [Brought("tool")],
        3: [Brought("one"), Brought("two")],
        4: [Brought("tool")],
        5: [Brought("src")],
    }
    write_script(writer, place.directory, copies=copies)
    _works(place.run(way))
    root = place.tree
    assert _facts(root / "old") == (0o40700, 5, 6)
    assert (root / "old/a").read_text() == "1/src/a" and not (root / "old/a").is_symlink()
    assert (root / "victim").read_text() == "whole"
    assert _facts(root / "old/a")[1:] == (0, 0)
    assert (root / "old/a").stat().st_ino == (root / "old/deep/same").stat().st_ino
    assert (root / "old/link").readlink() == Path("/etc/passwd")
    assert _facts(root / "old/deep") == (0o40711, 0, 0)
    assert _facts(root / "new/place/name") == (0o104755, 0, 0)
    assert _facts(root / "old/sub") == (0o40755, 1000, 33)
    assert _facts(root / "old/sub/two") == (0o100640, 1000, 33)
    assert _facts(root / "old/tool") == (0o106755, 1000, 1001)
    assert _facts(root / "fresh") == (0o40755, 7, 7)
    assert _facts(root / "fresh/c")[1:] == (7, 7)


@pytest.mark.parametrize("way", WAYS)
def test_copies_follow_links_inside_the_root_only(place: Provisioning, way: str, tmp_path: Path) -> None:
    _lay(place.directory / "files", "1/x", "2/y")
    outer = tmp_path / "outer"
    outer.mkdir()
    (place.tree / str(outer).lstrip("/")).mkdir(parents=True)
    (place.tree / "absolute").symlink_to(outer)
    (place.tree / "above").symlink_to("../../../../../../etc")
    writer = Writer(State(env=_PATH)).copy("x", to="/absolute/").copy("y", to="/above/y")
    write_script(writer, place.directory, copies={1: [Brought("x")], 2: [Brought("y")]})
    _works(place.run(way))
    assert list(outer.iterdir()) == []
    assert (place.tree / str(outer).lstrip("/") / "x").read_text() == "1/x"
    assert (place.tree / "etc/y").read_text() == "2/y"
    assert not Path("/etc/y").exists()


@pytest.mark.parametrize("way", WAYS)
def test_copies_from_another_stage(place: Provisioning, way: str) -> None:
    other = place.directory / "stages/build/root"
    _lay(
        other, "go/bin/app", "go/bin/.hidden", "go/lib/real.so.1", "srv/data/f", "etc/one.conf", "etc/two.txt"
    )
    (other / "go/lib/lib.so").symlink_to("/go/lib/real.so.1")
    (other / "latest").symlink_to("/srv/data")
    (other / "etc/out").symlink_to("../../../../../../etc/hostname")
    writer = Writer(State(env=_PATH))
    build = StageSource(0)
    writer.copy("/go/bin/*", to="/usr/bin/", origin=build).copy("/go/lib/lib.so", to="/lib/", origin=build)
    writer.copy("latest", to="/data", origin=build).copy(
        "etc/*.conf", "/etc/[s-u]wo.t?t", to="/c/", origin=build
    )
    write_script(writer, place.directory, Writer().stage(name="build"))
    _works(place.run(way))
    root = place.tree
    assert (root / "usr/bin/app").read_text() == "go/bin/app"
    assert (root / "usr/bin/.hidden").exists()
    assert _facts(root / "usr/bin/app")[1:] == (1234, 1234)
    assert (root / "lib/lib.so").read_text() == "go/lib/real.so.1"
    assert (root / "data/f").read_text() == "srv/data/f"
    assert sorted(path.name for path in (root / "c").iterdir()) == ["one.conf", "two.txt"]


@pytest.mark.parametrize("way", WAYS)
def test_parts_of_another_stage(place: Provisioning, way: str) -> None:
    """--exclude and --parents, and wildcards that match nothing."""
    other = place.directory / "stages/build/root"
    _lay(other, "d/keep", "d/a.txt", "d/deep/b.txt", "d/deep/c", "p/q/r/s", "p/q/t", "p/x/s", "e/1.txt")
    os.chown(other / "p/q", 5, 6)
    (other / "p/q").chmod(0o711)
    writer, build = Writer(State(env=_PATH)), StageSource(0)
    writer.copy("/d", to="/d", origin=build, exclude=("**/*.txt",)).copy(
        "/d*/", to="/w/", origin=build, exclude=("deep",)
    )
    writer.copy("p/*/r/s", to="/par/", origin=build, parents=True).copy(
        "/p/./q", to="/piv/", origin=build, parents=True
    )
    writer.copy("/e/*.none", to="/never/", origin=build).copy(
        "/e/1.txt", to="/one", origin=build, exclude=("*",)
    )
    write_script(writer, place.directory, Writer().stage(name="build"))
    _works(place.run(way))

    def names(path: str) -> list[str]:
        below = place.tree / path
        return sorted(str(found.relative_to(below)) for found in below.rglob("*") if found.is_file())

    assert names("d") == ["deep/c", "keep"]
    assert names("w") == ["a.txt", "keep"]
    assert names("par") == ["p/q/r/s"] and _facts(place.tree / "par/p/q") == (0o40711, 5, 6)
    assert names("piv") == ["q/r/s", "q/t"]
    assert not (place.tree / "never").exists()
    assert (place.tree / "one").read_text() == "e/1.txt"
    assert [path.name for path in place.tree.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("source", ["/nothing", "/no/*.txt", "/etc/out"])
def test_nothing_to_copy_is_an_error(place: Provisioning, source: str) -> None:
    other = place.directory / "stages/build/root/etc"
    other.mkdir(parents=True)
    (other / "out").symlink_to("/../../../../../../etc/hostname")
    writer = Writer(State(env=_PATH)).copy(source, to="/x/", origin=StageSource(0))
    write_script(writer, place.directory, Writer().stage(name="build"))
    for way in WAYS:
        done = place.run(way)
        assert done.returncode == 1
        assert b"is not there to copy" in done.stderr
        assert b"step 1 failed" in done.stderr


@pytest.mark.parametrize("way", WAYS)
def test_archives_are_unpacked_with_their_owners(place: Provisioning, way: str, tmp_path: Path) -> None:
    content = tmp_path / "content"
    _lay(content, "etc/new", "bin2/tool")
    (place.directory / "files/1").mkdir(parents=True)
    archive = place.directory / "files/1/a.tar.gz"
    subprocess.run(["tar", "-czf", archive, "-C", content, "."], check=True)
    writer = Writer(State(env=_PATH)).copy("a.tar.gz", to="/", add=True)
    write_script(writer, place.directory, copies={1: [Brought("a.tar.gz", archive="-xzf")]})
    before = _facts(place.tree)
    _works(place.run(way))
    assert _facts(place.tree / "etc/new")[1:] == (1234, 1234)
    assert (place.tree / "etc/passwd").read_text() == _PASSWD
    assert _facts(place.tree) == before
    assert [path.name for path in place.tree.iterdir() if path.name.startswith(".")] == []


_MOUNTED = (
    "cat /proc/self/mounts >/mounts; ls -lan /bind /cache /tmpfs /run/secrets >/listing; touch /cache/kept"
)


@pytest.mark.parametrize("way", WAYS)
def test_mounts_are_there_and_gone_again(place: Provisioning, way: str) -> None:
    _lay(place.directory / "files", "1.1/sub/file")
    (place.directory / "secrets").mkdir()
    (place.directory / "secrets/token").write_text("hush\n\n")
    mounts = (
        Mount("bind", "/bind", source="/", read_only=True),
        Mount("cache", "/cache", id="/cache", mode=0o750, uid=1000, gid=1001),
        Mount("tmpfs", "/tmpfs/deep/er", size=1 << 20),
        Mount("secret", "/run/secrets/token", id="token", uid=1000, mode=0o440),
        Mount("secret", None, id="token", env="TOKEN"),
        Mount("secret", "/run/secrets/none", id="none"),
        Mount("bind", "/stage", source="/d", origin=StageSource(0)),
        Mount("bind", "/file", source="/d/e", origin=StageSource(0)),
        Mount("bind", "/bind/sub/file", source="/d/e", read_only=True, origin=StageSource(0)),
    )
    script = f'{_MOUNTED}; printf %s "$TOKEN" >/token; cat /run/secrets/token >/secret'
    script += "; echo x >/stage/f; echo y >>/file; cat /stage/* /bind/sub/file /file >/both"
    _lay(place.directory / "stages/build/root", "d/e")
    writer = Writer(State(env=_PATH)).run(script, mounts=mounts)
    write_script(writer, place.directory, Writer().stage(name="build"))
    before = Path("/proc/mounts").read_text()
    _works(place.run(way))
    assert Path("/proc/mounts").read_text() == before
    root = place.tree
    for name in ("bind", "cache", "tmpfs", "run", "stage", "file"):
        assert not (root / name).exists(), name
    listing = (root / "listing").read_text()
    assert "deep" in listing and "sub" in listing
    assert (root / "token").read_text() == (root / "secret").read_text() == "hush\n\n"
    secret = next(line for line in listing.splitlines() if line.endswith(" token")).split()
    assert (secret[0], secret[2], secret[3]) == ("-r--r-----", "1000", "0")
    assert (root / "both").read_text() == "d/ex\nd/ed/ey\n"
    assert [path.read_text() for path in (place.directory / "stages/build/root/d").iterdir()] == ["d/e"]
    cache = next((place.directory / "cache").iterdir())
    assert _facts(cache) == (0o40750, 1000, 1001) and (cache / "kept").exists()


@pytest.mark.parametrize("way", WAYS)
def test_mounts_are_gone_after_a_failure(place: Provisioning, way: str) -> None:
    mounts = (Mount("tmpfs", "/a/b/c"), Mount("cache", "/cache"))
    write_script(Writer(State(env=_PATH)).run("touch /a/b/c/x; exit 3", mounts=mounts), place.directory)
    before = Path("/proc/mounts").read_text()
    done = place.run(way)
    assert done.returncode == 3
    assert done.stderr.count(b"failed with exit status 3") == 1
    assert Path("/proc/mounts").read_text() == before
    assert not (place.tree / "a").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_mounts_are_gone_after_a_signal(place: Provisioning, number: signal.Signals) -> None:
    """As from a terminal, to the whole group."""
    mounts = (Mount("tmpfs", "/a/b"), Mount("cache", "/cache"), Mount("tmpfs", "/c"))
    write_script(Writer(State(env=_PATH)).run("touch /started; sleep 1000", mounts=mounts), place.directory)
    command = [str(place.directory / "provision.sh"), "--root", str(place.tree)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True) as running:
        lab.wait_until("the RUN", (place.tree / "started").exists)
        os.killpg(running.pid, number)
        _, said = running.communicate(timeout=60)
    assert running.returncode == 128 + number
    assert b"step 1 failed with exit status" in said
    assert str(place.tree / "a") not in Path("/proc/mounts").read_text()
    assert not (place.tree / "a").exists() and not (place.tree / "c").exists()


def test_a_required_secret_is_asked_for(place: Provisioning) -> None:
    for mount in (
        Mount("secret", "/s", id="../../etc/passwd", required=True),
        Mount("secret", None, id="x", env="X", required=True),
    ):
        write_script(Writer(State(env=_PATH)).run("true", mounts=(mount,)), place.directory)
        done = place.outside()
        assert done.returncode == 1
        assert b"needs a secret: put it into " in done.stderr
        assert b".." not in done.stderr.split(b"put it into")[1].splitlines()[0]


@pytest.mark.parametrize("way", WAYS)
def test_a_script_runs_by_its_own_interpreter(place: Provisioning, way: str) -> None:
    script = b'#!/bin/sh -e\necho "$0 it\'s" >/made\n'
    writer = Writer(State(env=_PATH)).run("/dev/pipes/EOF", script=script, text="RUN <<EOF")
    write_script(writer, place.directory)
    _works(place.run(way))
    assert (place.tree / "made").read_text() == "/dev/pipes/EOF it's\n"
    assert not (place.tree / "dev/pipes").exists()


@pytest.mark.parametrize("way", WAYS)
def test_no_network(place: Provisioning, way: str) -> None:
    writer = Writer(State(env=_PATH)).run("grep -c : /proc/self/net/dev >/without", network="none")
    writer.run("readlink /proc/self/ns/net >/with")
    write_script(writer, place.directory)
    _works(place.run(way))
    assert (place.tree / "without").read_text() == "1\n"
    assert (place.tree / "with").read_text().strip() == str(Path("/proc/self/ns/net").readlink())


HOSTILE: Sequence[str] = (
    "it's",
    "$(touch /bad)`touch /bad`",
    "a\nb\n",
    "; touch /bad; #",
    "-n",
    "--",
    'q"u\\o$HOME\te',
    "\\",
    "'\"'\"'",
    "${IFS}",
    "*",
    "~root",
    "é\u202e\x1b[31m\x01\x7f",
    "!!",
    "a=b",
    "\r\n",
    "\udcff\udc80",
    "",
    "# no comment",
    " lead and trail ",
)


@pytest.mark.parametrize(
    ("way", "shell"),
    [("inside", "busybox"), ("outside", "dash"), ("outside", "bash")],
)
def test_hostile_values_arrive_as_they_are_and_nothing_else_runs(
    place: Provisioning, way: str, shell: str
) -> None:
    """In ENV, in an exec form's words, in names, in WORKDIR, in comments, in COPY's paths."""
    variables = {f"V{number}": value for number, value in enumerate(HOSTILE)}
    names = {"a-b": "1", "x y": "2", "$(touch /bad)": "3", "-u": "4", "'": "5"}
    writer = Writer(State(env=_PATH), file="Docker\n$(touch /bad)'file").variables({**variables, **names})
    directory = "/w'\n$(touch /bad) -x"
    writer.workdir(directory).run("/bin/env", "-0", text="RUN x\n\rtouch /bad")
    writer.run("/bin/sh", "-c", 'for word; do printf "%s\\0" "$word"; done >/words', "sh", *HOSTILE)
    writer.run("/bin/cp", "/proc/self/environ", "/environ").run("pwd >/pwd")
    writer.copy("x", to="/to '$(touch /bad)\n/-n/", chmod="0600")
    _lay(place.directory / "files", "7/-n$(touch x)")
    script = write_script(writer, place.directory, copies={7: [Brought("-n$(touch x)")]})
    if way == "outside":
        interpreter = {"dash": ["dash"], "bash": ["bash", "--posix"]}[shell]
        done = subprocess.run(
            [*interpreter, str(script), "--root", str(place.tree)], capture_output=True, check=False
        )
    else:
        done = place.inside()
    _works(done)
    root = place.tree
    assert not (root / "bad").exists() and not Path("/bad").exists()
    words = (root / "words").read_bytes().decode("utf-8", "surrogateescape")
    assert words.split("\0")[:-1] == list(HOSTILE)
    environ = (root / "environ").read_bytes().decode("utf-8", "surrogateescape").split("\0")
    assert {f"{name}={value}" for name, value in {**variables, **names}.items()} <= set(environ)
    assert (root / "pwd").read_text() == f"{directory}\n"
    copied = root / "to '$(touch /bad)\n/-n/-n$(touch x)"
    assert stat.S_IMODE(copied.stat().st_mode) == 0o600
    assert b"\x1b" not in done.stderr and b"\r" not in done.stderr


@pytest.mark.parametrize("shell", ["/bin/dash", "/bin/bash --posix"])
def test_debian_uses_setpriv(tmp_path: Path, shell: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    lab.run("tar", "-C", root, "-xf", lab.root_tarball("debian"), "--exclude=./dev/*", timeout=300)
    path = (("PATH", "/usr/sbin:/usr/bin"),)
    writer = Writer(State(env=path)).run("useradd -m -G games,users app").setting("USER app", user="app")
    writer.workdir("/home/app/x").run("{ id -u; id -G; echo $HOME; pwd; } >seen")
    writer.setting("USER 33:8", user="33:8").run("{ id -u; id -G; echo $HOME; } >/tmp/seen")
    place = Provisioning(root, tmp_path / "out")
    write_script(writer, place.directory)
    (root / "dev/null").touch()
    subprocess.run(["mount", "--bind", "/dev/null", root / "dev/null"], check=True)
    try:
        _works(place.inside(shell=shell))
    finally:
        _unmount(tmp_path)
    assert (root / "home/app/x/seen").read_text() == "1000\n1000 60 100\n/home/app\n/home/app/x\n"
    assert (root / "tmp/seen").read_text() == "33\n8\n/var/www\n"
