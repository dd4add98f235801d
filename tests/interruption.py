"""Conversions that do not come to their end, made so that hundreds of them take a minute; images for them.

A process that has imported everything forks one child for each conversion: what is killed at a random instant is
then converting, not importing. `python -m tests.interruption` is that process.
"""

from __future__ import annotations

import faulthandler
import gc
import hashlib
import json
import os
import select
import signal
import stat
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter import cli, interrupt
from tests.layers import directory, file, hardlink, symlink, tar
from tests.test_wrong_input import saved

_REPOSITORY = Path(__file__).parent.parent
NAME = "web"
OTHER = "other"  # the name of a machine that look() does not see
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_HUGE = 2_500_000
_HANG = 30  # seconds


@dataclass(frozen=True)
class Ended:
    """How a conversion ended: its exit status, negative for a signal, after so many seconds."""

    status: int
    stderr: str
    seconds: float


class Runner:
    """Makes conversions, one at a time."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def convert(
        self,
        source: Path,
        root: Path,
        *more: str,
        name: str = NAME,
        after: float = 60,
        number: int = signal.SIGKILL,
    ) -> Ended:
        """Convert `source`; `after` so many seconds without an end, the signal `number` is sent."""
        arguments = ["convert", str(source), "--root", str(root), "--name", name, *more]
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([arguments, after, number]) + "\n")
        self._process.stdin.flush()
        return Ended(*json.loads(self._process.stdout.readline()))

    def duration(self, source: Path, root: Path, *more: str) -> float:
        """What a conversion takes; the middle one of some."""
        runs = [self.convert(source, root, *more) for _ in range(5)]
        assert [run.status for run in runs] == [0] * 5, runs
        return sorted(run.seconds for run in runs)[2]


@contextmanager
def runner() -> Iterator[Runner]:
    """A process that conversions are forked from."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.interruption"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=_REPOSITORY,
        env={**os.environ, "DOCKER_HOST": "unix:///nowhere/docker.sock"},
    ) as process:
        yield Runner(process)
        assert process.stdin is not None
        process.stdin.close()


def make_image(path: Path, mark: str, **config: object) -> Path:
    """An image in four layers, whose every file says which image it is of: small files and some that are large,
    hard links within and across layers, symbolic links, whiteouts, an opaque directory."""
    text = mark.encode() + b" "
    times = {"mtime": int.from_bytes(mark.encode()[:3], "big")}
    base: list[tuple[tarfile.TarInfo, bytes]] = [directory(f"d{n}", **times) for n in range(30)]
    base += [file(f"d{n % 30}/f{n}", text * (1 + n % 300), **times) for n in range(300)]
    base += [file(f"large{n}", text * (100_000 + 30_000 * n), **times) for n in range(3)]
    base += [hardlink("link", "large0"), symlink("here", "d1", **times)]
    middle = [file(f"d{n}/.wh.f{n}") for n in range(0, 30, 2)]
    middle += [hardlink("again", "d1/f31"), file("d3/.wh..wh..opq"), file("d3/only", text, **times)]
    middle += [directory("new", mode=0o2750, **times), file("new/huge", text * (_HUGE // len(text)), **times)]
    upper = [file(f"d5/f{n}", text * 2, mode=0o4755, **times) for n in range(5, 300, 30)]
    upper += [file("d7", b"no directory any more", **times), symlink("new/away", "/etc/passwd", **times)]
    top = [file("mark", text, **times), file(".wh.large1"), hardlink("new/huger", "new/huge")]
    saved(
        path, {"config": {"Cmd": ["/mark"], **config}}, [tar(*layer) for layer in (base, middle, upper, top)]
    )
    return path


def make_small_image(path: Path) -> Path:
    """One that takes no time."""
    saved(path, {"config": {"Cmd": ["/mark"]}}, [tar(file("mark", b"small"))])
    return path


@dataclass(frozen=True)
class Machine:
    """What there is of a machine: a digest of its tree, "" without one; everything else; traces of unfinished runs."""

    tree: str
    files: dict[str, str]
    leftovers: tuple[str, ...] = ()

    def is_part_of(self, *whole: Machine) -> bool:
        """Is the tree that of one of these, and every file, too, if not of the same one?"""
        return self.tree in {machine.tree for machine in whole} and all(
            what in {machine.files.get(path) for machine in whole} for path, what in self.files.items()
        )


def look(root: Path) -> Machine:
    """What there is below `root`, but for machine OTHER and its files."""
    tree = root / "var/lib/machines" / NAME
    files = {}
    leftovers = []
    for directory_, names, others in os.walk(root):
        for name in sorted((*names, *others)):
            path = Path(directory_, name)
            seen = not path.is_relative_to(tree) and OTHER not in name and not name.startswith(".#")
            if not seen and name in names:
                names.remove(name)
            if name.startswith(".#"):
                leftovers.append(name)
            elif seen and path.is_symlink():
                files[str(path.relative_to(root))] = f"-> {path.readlink()}"
            elif seen:
                files[str(path.relative_to(root))] = "dir" if path.is_dir() else path.read_text()
    return Machine(_digest(tree) if tree.is_dir() else "", files, tuple(leftovers))


def _digest(tree: Path) -> str:
    """Of all that a tree holds: paths, kinds, modes, owners, times, contents and which names are one file."""
    digest = hashlib.blake2b()
    first_name: dict[int, str] = {}
    for directory_, names, others in os.walk(tree):
        names.sort()
        for name in (".", *sorted((*names, *others))):
            path = Path(directory_, name)
            status = path.lstat()
            relative = str(path.relative_to(tree))
            one = "" if path.is_dir() else first_name.setdefault(status.st_ino, relative)
            facts = (relative, one, status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns)
            digest.update(repr(facts).encode())
            if stat.S_ISREG(status.st_mode):
                digest.update(path.read_bytes())
            elif stat.S_ISLNK(status.st_mode):
                digest.update(os.fsencode(path.readlink()))
    return digest.hexdigest()


def _serve() -> None:
    """Conversions as they come on stdin."""
    gc.freeze()
    _ignore_signals()  # so does a conversion until it handles them: it has not begun
    for line in sys.stdin:
        arguments, after, number = json.loads(line)
        print(json.dumps(_forked(arguments, after, number)), flush=True)


def _forked(arguments: list[str], after: float, number: int) -> tuple[Any, ...]:
    with tempfile.TemporaryFile() as errors:
        started = time.monotonic()
        pid = os.fork()
        if pid == 0:
            _convert_and_exit(arguments, errors.fileno())
        ended = os.pidfd_open(pid)
        try:
            # What does not heed the signal is made to say where it stands.
            for patience, signal_ in ((after, number), (_HANG, signal.SIGABRT), (_HANG, signal.SIGKILL)):
                if select.select([ended], [], [], patience)[0]:
                    break
                os.kill(pid, signal_)
            _, status = os.waitpid(pid, 0)
        finally:
            os.close(ended)
        seconds = time.monotonic() - started
        errors.seek(0)
        return os.waitstatus_to_exitcode(status), errors.read().decode(errors="replace"), seconds


def _convert_and_exit(arguments: list[str], errors: int) -> None:
    status: Any = 0
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for fd, source in ((0, null), (1, null), (2, errors)):
            os.dup2(source, fd)
        faulthandler.enable(errors)
        sys.argv = ["docker2nspawn", *arguments]
        cli.main()
    except SystemExit as end:
        status = end.code or 0
    except interrupt.Interrupted:
        pass  # just after its end: it has done what it had to
    except BaseException:
        traceback.print_exc()
        status = 70
    finally:
        _ignore_signals()
        sys.stderr.flush()
        os._exit(status)


def _ignore_signals() -> None:
    """By a handler: what is ignored as nohup(1) does it, a conversion ignores too."""
    for number in STOPPING:
        signal.signal(number, lambda *_: None)


if __name__ == "__main__":
    _serve()
