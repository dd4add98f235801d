"""A stage for hostile images: the front door, what an attack aims at, and whether anything there has changed."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import signal
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from converter import cli
from tests.layers import directory, file, tar

ROOT = os.geteuid() == 0
ANY = "*"  # whatever content
OUT = "../../../../../../outside"  # from a tree that is being written to what lies beside --root
NAME = "hostile"
_REPOSITORY = Path(__file__).parent.parent

BASE = tar(
    directory("usr"), directory("etc"), file("etc/hosts", b"hosts"), file("etc/passwd", b"inside"), directory("d")
)  # fmt: skip
# What the converter writes into every tree, whatever is there.
MADE = ("hosts", "hostname", "mtab", "resolv.conf")
BASE_TREE = {"usr": "dir", "etc": "dir", "etc/passwd": "inside", "d": "dir"}
BASE_TREE |= {f"etc/{name}": ANY for name in MADE}

_LARGE = 1 << 20  # bytes; what is larger is known by its size

_HOST = ("/", "/etc", "/etc/passwd", "/etc/shadow", "/etc/hosts", "/root", "/usr", "/dev/null")


@dataclass(frozen=True)
class Refused:
    """Exit status 1 and one line, with `because` in it; nothing changed."""

    because: str = ""


Tree = Mapping[str, str | None]  # what differs from BASE_TREE; None: it is gone
Expected = Refused | Tree
Allowed = Expected | Sequence[Expected]  # where Docker's versions differ, or refusing is as right


@dataclass(frozen=True)
class Outcome:
    """What a run came to."""

    status: int
    stdout: str
    stderr: str
    peak: int = 0  # kB of memory, where it was measured

    def refused(self, because: str = "") -> None:
        assert self.status == 1, (self.stdout, self.stderr)
        assert self.stdout == ""
        assert self.stderr.startswith("docker2nspawn: ")
        assert self.stderr.count("\n") == 1 and self.stderr.endswith("\n"), self.stderr
        assert self.stderr[:-1].isprintable(), self.stderr
        assert because in self.stderr


Snapshot = dict[Path, tuple[object, ...]]


def snapshot(top: Path, *, without: Path | None = None) -> Snapshot:
    """All below `top`: kind, mode, owner, inode, links, time, content."""
    found: Snapshot = {}
    for path, status, content in _walk(top, without):
        links = 0 if stat.S_ISDIR(status.st_mode) else status.st_nlink
        owner = (status.st_uid, status.st_gid)
        found[top / os.fsdecode(path)] = (
            status.st_mode,
            owner,
            status.st_ino,
            links,
            content,
            status.st_mtime_ns,
        )
    return found


def tree_of(top: Path) -> dict[str, str]:
    """Path -> "dir", "-> target", "fifo", "block 8:0", or a file's content; large files show their size."""
    found: dict[str, str] = {}
    for path, status, content in _walk(top, None):
        device = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
        match stat.S_IFMT(status.st_mode):
            case stat.S_IFDIR:
                what = "dir"
            case stat.S_IFLNK:
                what = f"-> {os.fsdecode(content)}"
            case stat.S_IFIFO:
                what = "fifo"
            case stat.S_IFCHR:
                what = f"char {device}"
            case stat.S_IFBLK:
                what = f"block {device}"
            case _:
                what = os.fsdecode(content) if status.st_size <= _LARGE else f"{status.st_size} bytes"
        found[os.fsdecode(path)] = what
    del found["."]
    return found


def _walk(top: Path, without: Path | None) -> Iterator[tuple[bytes, os.stat_result, bytes]]:
    """Every path, with a file's or link's content. No recursion and no long paths: trees are as deep as PATH_MAX."""
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    try:
        waiting = [b"."]
        while waiting:
            path = waiting.pop()
            status = os.lstat(path, dir_fd=fd)
            content = b""
            if stat.S_ISLNK(status.st_mode):
                content = os.readlink(path, dir_fd=fd)
            elif stat.S_ISREG(status.st_mode) and status.st_size <= _LARGE:
                with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=fd), "rb") as opened:
                    content = opened.read()
            yield path, status, content
            if stat.S_ISDIR(status.st_mode) and (without is None or top / os.fsdecode(path) != without):
                inner = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
                names = [os.fsencode(name) for name in os.listdir(inner)]  # noqa: PTH208 - a descriptor
                os.close(inner)
                waiting += [name if path == b"." else path + b"/" + name for name in names]
    finally:
        os.close(fd)


def _host() -> list[tuple[object, ...]]:
    states: list[tuple[object, ...]] = []
    for name in _HOST:
        status = Path(name).lstat()
        states.append((name, status.st_mode, status.st_uid, status.st_ino, status.st_mtime_ns))
    return states


def _victims(top: Path) -> None:
    """What attacks aim at."""
    top.mkdir(parents=True)
    (top / "passwd").write_text("SECRET")
    (top / "shadow").write_text("SECRET")
    (top / "passwd").chmod(0o4755)
    (top / "link").symlink_to("passwd")
    (top / "below").mkdir(mode=0o750)
    (top / "below/file").write_text("SECRET")
    os.mkfifo(top / "fifo")
    os.utime(top, ns=(10**18, 10**18))


class Scene:
    """`root` with a machine in it, `outside` beside it with what attacks aim at, `inputs` for archives."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.root = place / "root"
        self.outside = place / "outside"
        self.inputs = place / "in"
        self.machines = self.root / "var/lib/machines"
        self.tree = self.machines / NAME
        self.inputs.mkdir()
        for top in (self.outside, self.machines / "victim/etc"):
            _victims(top)
        (self.machines / "victim.nspawn").write_text("SECRET")
        settings, state = self.machines / f"{NAME}.nspawn", self.root / "var/lib/docker2nspawn"
        self._own = (self.tree, settings, state, self.root / "etc")
        self._before = self._snapshot()
        self._host = _host()

    def _snapshot(self) -> Snapshot:
        return snapshot(self.outside) | snapshot(self.root, without=self.tree)

    def assert_untouched(self, *, refused: bool) -> None:
        """Nothing outside the new machine has changed; when refused, nothing but empty directories is new."""
        after = self._snapshot()
        grown = {self.root, *self.machines.parents, self.machines}
        for path, state in self._before.items():
            kept = slice(0, -1) if path in grown else slice(None)  # their times tell of new entries
            assert after[path][kept] == state[kept], path
        new = [path for path in after if path not in self._before]
        if refused:
            assert [path for path in new if not path.is_dir() or path.is_symlink()] == []
            assert not self.tree.exists()
            assert [path.name for path in self.machines.iterdir() if path.name.startswith(".#")] == []
        assert [p for p in new if not any(p.is_relative_to(own) for own in self._own)] == []
        assert {path.name for path in self.place.iterdir()} <= {"root", "outside", "in", "peak"}
        assert _host() == self._host

    def restage(self) -> None:
        """Something else has taken the place of /var/lib/machines: there is nothing yet."""
        self._before = self._snapshot()

    def forget(self) -> None:
        """Take the new machine away."""
        subprocess.run(["rm", "-rf", *self._own], check=True)

    def save(self, *layers: bytes, diff_ids: Sequence[str] | None = None, **config: Any) -> Path:
        """A docker archive of these layers, which may be compressed if their diff ids are given."""
        if diff_ids is None:
            diff_ids = [sha256(layer) for layer in layers]
        names = [f"layer-{number}" for number in range(len(layers))]
        files = dict(zip(names, layers, strict=True))
        return self.save_files(names, config_of(diff_ids, **config), files)

    def save_files(self, names: Sequence[str], config: bytes, files: Mapping[str, bytes]) -> Path:
        """A docker archive whose manifest.json lists the layers `names`, with any files in it."""
        manifest = [{"Config": "config.json", "RepoTags": ["hostile:latest"], "Layers": list(names)}]
        path = self.inputs / "image.tar"
        with tarfile.open(path, "w") as archive:
            for name, data in {**files, "config.json": config, "manifest.json": as_json(manifest)}.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        return path

    def arguments(self, source: str | Path) -> list[str]:
        where = str(source) if ":" in str(source) else f"docker-archive:{source}"
        return ["convert", where, "--root", str(self.root), "--name", NAME]

    def convert(self, source: str | Path, *more: str) -> Outcome:
        """The command line, in this process, with what must not change as working directory."""
        out, err = io.StringIO(), io.StringIO()
        handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        status: object = 0
        with (
            mock.patch.object(sys, "argv", ["docker2nspawn", *self.arguments(source), *more]),
            contextlib.chdir(self.outside),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                cli.main()
            except SystemExit as end:
                status = end.code or 0
            finally:
                for number, handler in handlers.items():
                    signal.signal(number, handler)
        assert isinstance(status, int)
        return Outcome(status, out.getvalue(), err.getvalue())

    def convert_measured(
        self, source: str | Path, *, memory: int, file_size: int | None = None, timeout: float = 240
    ) -> Outcome:
        """The command line in a process that gets `memory` kB of addresses; its peak is that of its own pages."""
        limits = {"memory": memory * 1024, "file_size": file_size}
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                _MEASURED,
                json.dumps(limits),
                str(self.place / "peak"),
                *self.arguments(source),
            ],
            capture_output=True,
            text=True,
            cwd=self.outside,
            env={**os.environ, "PYTHONPATH": str(_REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"},
            check=False,
            timeout=timeout,
        )
        peak = int((self.place / "peak").read_text())
        return Outcome(done.returncode, done.stdout, done.stderr, peak)

    def check(self, allowed: Allowed, *layers: bytes, **more: Any) -> Outcome:
        """Convert BASE and these layers; the outcome must be (one of) what is allowed."""
        outcome = self.convert(self.save(BASE, *layers, **more))
        self.check_outcome(outcome, allowed)
        return outcome

    def check_outcome(self, outcome: Outcome, allowed: Allowed) -> None:
        choices: Sequence[Expected] = [allowed] if isinstance(allowed, Refused | Mapping) else allowed
        refusals = [choice for choice in choices if isinstance(choice, Refused)]
        if outcome.status != 0 and refusals:
            outcome.refused(refusals[0].because)
            self.assert_untouched(refused=True)
            return
        assert outcome.status == 0, outcome.stderr
        assert outcome.stderr == ""
        found = tree_of(self.tree)
        trees = [_whole(choice, found) for choice in choices if not isinstance(choice, Refused)]
        assert trees, f"not refused; the tree is {found}"
        assert found in trees[1:] or found == trees[0]
        self.assert_untouched(refused=False)


def _whole(changes: Tree, found: Mapping[str, str]) -> dict[str, str]:
    """BASE_TREE with `changes`, whose directories need not be named."""
    whole = {path: what for path, what in {**BASE_TREE, **changes}.items() if what is not None}
    for path in list(whole):
        if changes.get(path) is not None:
            for parent in Path(path).parents[:-1]:
                whole.setdefault(str(parent), "dir")
    return {path: found.get(path, ANY) if what == ANY else what for path, what in whole.items()}


@contextlib.contextmanager
def staged(place: Path) -> Iterator[Scene]:
    """A scene that takes its trees away: some are large, and deeper than pytest's own cleaning goes."""
    try:
        yield Scene(place)
    finally:
        if not ROOT:
            subprocess.run(["chmod", "-R", "u+rwx", place / "root"], check=False, stderr=subprocess.DEVNULL)
        subprocess.run(["rm", "-rf", place / "root", place / "in"], check=True)


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def as_json(document: object) -> bytes:
    return json.dumps(document).encode()


def config_of(diff_ids: Iterable[str], **config: Any) -> bytes:
    rootfs = {"type": "layers", "diff_ids": list(diff_ids)}
    return as_json({"os": "linux", "architecture": "amd64", "config": config, "rootfs": rootfs})


# VmHWM, not ru_maxrss: that one begins with the memory of the process that forked.
_MEASURED = """
import json, re, resource, sys
from pathlib import Path
limits, place, *arguments = sys.argv[1:]
limits = json.loads(limits)
from converter import cli
sys.argv = ["docker2nspawn", *arguments]
before = int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (before + limits["memory"],) * 2)
if limits["file_size"] is not None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits["file_size"],) * 2)
try:
    cli.main()
finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.getrlimit(resource.RLIMIT_FSIZE)[1],) * 2)
    peak = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]
    Path(place).write_text(peak)
"""
