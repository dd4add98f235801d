"""Where the cases are built: bases, contexts, a web server, and Docker itself on the lab's host."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests import lab
from tests.dockerfiles.case import PORT, Case, Context, File, Folder, Hard, Link
from tests.dockerfiles.cases_add import SERVED

_HERE = Path(__file__).parent
_CONTEXTS = Path("srv/equal")
_AGENT = _CONTEXTS / "agent.socket"
TIME = 1_600_000_000
"""Everything in a context has this time and a bit: what is newer was made by the build."""


@dataclass(frozen=True)
class Place:
    """The host that has Docker; the contexts lie there, and are read by us as well."""

    host: lab.Host

    def context(self, name: str) -> Path:
        """The context of a case, as found from here."""
        return self.host.root / _CONTEXTS / name

    @property
    def agent(self) -> Path:
        """The socket of what passes for an SSH agent, as found from here."""
        return self.host.root / _AGENT

    def secret(self, case: Case, name: str) -> Path:
        """The file of a secret, as found from here."""
        return self.host.root / _CONTEXTS / f"{case.name}.secret.{name}"

    def docker(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """The docker command of the host, whatever DOCKER_HOST is here."""
        engine = "--host=unix:///run/docker.sock"
        return self.host.run("docker", engine, *arguments, check=check, timeout=300)

    def seen(self, path: Path) -> str:
        """A path as it is on the host."""
        return f"/{path.relative_to(self.host.root)}"


@contextlib.contextmanager
def ready(work: Path, host: lab.Host) -> Iterator[Place]:
    """Base images in Docker, a web server on loopback for both sides, an agent's socket."""
    place = Place(host)
    (host.root / _CONTEXTS).mkdir(parents=True, exist_ok=True)
    lab.wait_until("Docker", lambda: place.docker("info", check=False).returncode == 0)
    _import(place, _busybox(work), "busybox:lab")
    _import(place, lab.root_tarball("debian"), "debian:bookworm")
    served = _served(work / "served")
    program: list[str | Path] = [sys.executable, _HERE / "server.py", served, str(PORT)]
    inside = ["nsenter", f"--net=/proc/{host.leader}/ns/net", *program]
    with (
        lab.process(program, work / "server.log"),
        lab.process(inside, work / "server-inside.log"),
        _listening(place.agent),
    ):
        lab.wait_until("the web server", lambda: _answers(PORT))
        yield place


def _import(place: Place, tarball: Path, name: str) -> None:
    there = place.host.root / _CONTEXTS / "base.tar"
    shutil.copy(tarball, there)
    place.docker("import", place.seen(there), name)
    there.unlink()


def _answers(port: int) -> bool:
    with socket.socket() as attempt:
        return attempt.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def _listening(path: Path) -> Iterator[None]:
    """A socket that takes connections, as an SSH agent's does."""
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
        try:
            listener.bind(f"/proc/self/fd/{here}/{path.name}")  # a socket's path may have 108 bytes
        finally:
            os.close(here)
        listener.listen()
        yield


def _busybox(work: Path) -> Path:
    """A root with nothing but a static busybox, a program that sets attributes, and a few accounts."""
    root = work / "equal-base"
    for directory in ("bin", "etc", "tmp", "root", "mnt"):
        (root / directory).mkdir(parents=True)
    busybox = shutil.which("busybox")
    assert busybox is not None
    shutil.copy(busybox, root / "bin/busybox")
    for applet in lab.run(busybox, "--list").stdout.split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    lab.run("gcc", "-static", "-Os", "-s", "-o", root / "bin/attribute", _HERE / "attribute.c")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/var:/bin/false\n")
    (root / "etc/group").write_text("root:x:0:\ndaemon:x:1:\nwheel:x:10:root\nmail:x:8:daemon\n")
    (root / "tmp").chmod(0o1777)
    (root / "root").chmod(0o700)
    tarball = work / "equal-base.tar"
    lab.run("tar", "-C", root, "--owner=0", "--group=0", f"--mtime=@{TIME}", "-cf", tarball, ".")
    return tarball


def _served(directory: Path) -> Path:
    """What the web server has: SERVED, and /repo.git with a branch, a tag and a subdirectory."""
    directory.mkdir()
    for name, content in SERVED.items():
        (directory / name).write_bytes(content)
        os.utime(directory / name, (TIME, TIME))
    repository = directory / "work"
    date = f"{TIME} +0000"

    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=lab", "-c", "user.email=lab@example.org")
        command = ("git", "-C", str(repository), *identity, *arguments)
        lab.run(*command, GIT_AUTHOR_DATE=date, GIT_COMMITTER_DATE=date)

    lab.run("git", "init", "--quiet", "--initial-branch=main", repository)
    _write(
        repository,
        {"top.txt": "first\n", "run": File(b"#!/bin/sh\n", 0o755), "sub/s.txt": "s\n", "l": Link("run")},
    )
    git("add", ".")
    git("commit", "--quiet", "--message=first")
    git("tag", "v1")
    (repository / "top.txt").write_text("second\n")
    git("commit", "--quiet", "--all", "--message=second")
    git("checkout", "--quiet", "-b", "side")
    (repository / "side.txt").write_text("side\n")
    git("add", ".")
    git("commit", "--quiet", "--message=side")
    git("checkout", "--quiet", "main")
    lab.run("git", "clone", "--quiet", "--bare", repository, directory / "repo.git")
    return directory


def write_context(place: Place, case: Case) -> Path:
    """Make the context of a case, its Dockerfile in it."""
    directory = place.context(case.name)
    directory.mkdir()
    text = case.dockerfile.encode() if isinstance(case.dockerfile, str) else case.dockerfile
    _write(directory, {case.file: text, **case.files})
    for name, content in case.secrets.items():
        place.secret(case, name).write_bytes(content)
    return directory


def _write(directory: Path, entries: Context) -> None:
    directory.mkdir(exist_ok=True)
    for name, entry in entries.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        match entry:
            case Link(target):
                path.symlink_to(target)
            case Hard(target):
                path.hardlink_to(directory / target)
            case Folder(mode):
                path.mkdir(exist_ok=True)
                path.chmod(mode)
            case File(content, mode, uid, gid):
                path.write_bytes(content)
                os.chown(path, uid, gid)
                path.chmod(mode)
            case _:
                path.write_bytes(entry.encode() if isinstance(entry, str) else entry)
                path.chmod(0o644)
    # Directories last: what is put into them changes their times.
    for number, path in enumerate(sorted([directory, *directory.rglob("*")], reverse=True)):
        if path.is_dir() and not path.is_symlink() and str(path.relative_to(directory)) not in entries:
            path.chmod(0o755)
        os.utime(path, (TIME + number, TIME + number), follow_symlinks=False)


def docker_build(place: Place, case: Case, tag: str | None = None) -> subprocess.CompletedProcess[str]:
    """`docker build` of a case whose context is written; the image is equal/NAME."""
    context = place.seen(place.context(case.name))
    command = ["build", "--progress=plain", f"--tag={tag or f'equal/{case.name}'}"]
    command += [f"--file={context}/{case.file}"]
    command += [f"--build-arg={name}={value}" for name, value in case.build_args.items()]
    command += [f"--target={case.target}"] if case.target is not None else []
    command += [f"--secret=id={name},src={place.seen(place.secret(case, name))}" for name in case.secrets]
    command += [f"--allow={name}" for name in case.allow]
    command += [f"--ssh=default={place.seen(place.agent)}"] if case.ssh else []
    return place.docker(*command, context, check=False)
