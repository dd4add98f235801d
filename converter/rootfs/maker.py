"""Small files are made by processes of their own: of Python's threads one runs at a time, and making a file is mostly
many short calls of the kernel, which several processors can do at once.

Frames go to such a process through a pipe: a length (4 bytes) and so many bytes of marshal, a list of SmallFile; a
length of 0 asks what came of them. Answers are such frames too: numbers put aside, attributes refused, an error.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import marshal
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from converter.rootfs.content import write_all
from converter.rootfs.create import NewFiles, finish, first_mode, is_aside

_PIPES = (1 << 25, 1 << 20)  # bytes that may wait; only root may have a pipe hold more than the latter
_F_SETPIPE_SZ = 1031
_PR_SET_PDEATHSIG = 1
_HERE = Path(__file__).parent.parent.parent  # what the package converter lies in


class SmallFile(NamedTuple):
    """All that has to be known of one. `number` is its name when something is in its way and it is put aside."""

    path: bytes
    number: int
    data: bytes
    mode: int
    owner: tuple[int, int] | None
    mtime: int
    xattrs: tuple[tuple[bytes, bytes], ...]


class Made(NamedTuple):
    """What came of files: the numbers of those put aside; the attributes that the host refused, with their paths."""

    aside: list[int]
    refused: list[tuple[bytes, bytes]]


class Maker:
    """A process that makes files below the directory `root`, or in `aside` there."""

    def __init__(self, root: int, aside: str) -> None:
        program = (
            f"import sys; sys.path.insert(0, {str(_HERE)!r}); from converter.rootfs.maker import main; main()"
        )
        command = [sys.executable, "-I", "-S", "-c", program, str(os.getpid()), str(root), aside]
        # A session of its own: what is typed at a terminal is for the process that it answers to.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=(root,),
            start_new_session=True,
        )
        self._to = cast(BinaryIO, self._process.stdin)
        self._from = cast(BinaryIO, self._process.stdout)
        for size in _PIPES:
            with contextlib.suppress(OSError):
                fcntl.fcntl(self._to, _F_SETPIPE_SZ, size)
                break

    def make(self, files: list[SmallFile]) -> None:
        """Have them made, some time. Raises OSError, also of earlier ones."""
        try:
            self._to.write(_frame([tuple(file) for file in files]))
            self._to.flush()
        except BrokenPipeError:
            self._answer()
            raise

    def wait(self) -> Made:
        """Return when all is made, with what came of it since the last time. Raises OSError."""
        with contextlib.suppress(BrokenPipeError):
            self._to.write(bytes(4))
            self._to.flush()
        return self._answer()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._to, self._from):
            with contextlib.suppress(OSError):
                pipe.close()

    def _answer(self) -> Made:
        answer = _read_frame(self._from)
        if answer is None:
            raise OSError(0, "a process that makes files has ended by itself")
        aside, refused, error = marshal.loads(answer)
        if error is not None:
            raise OSError(*error)
        return Made(aside, refused)


def _frame(content: Any) -> bytes:
    data = marshal.dumps(content)
    return len(data).to_bytes(4, "little") + data


def _read_frame(source: BinaryIO) -> bytes | None:
    """None at the end, also in the midst of a frame; b"" is the empty one."""
    head = source.read(4)
    size = int.from_bytes(head, "little")
    data = source.read(size) if len(head) == 4 else b""
    return data if len(head) == 4 and len(data) == size else None


# --- in the process ------------------------------------------------------------------------------------------


def main() -> None:
    """Make files until nobody asks for more, or the asking process has died."""
    asking, root, aside = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != asking:
        return
    os.umask(0)  # here, because it is the whole process's, and another process may have other things to do
    work = _Work(root, aside)
    source, target = open(0, "rb"), open(1, "wb")  # noqa: SIM115 - the process's own
    while (data := _read_frame(source)) is not None:
        error = None
        try:
            for values in marshal.loads(data) if data else ():
                work.make(SmallFile(*values))
        except OSError as raised:
            error = (raised.errno, raised.strerror, os.fsencode(raised.filename) if raised.filename else None)
        if error or not data:
            target.write(_frame((work.aside, work.refused, error)))
            target.flush()
            work.aside, work.refused = [], []
        if error:
            return


class _Work:
    def __init__(self, root: int, aside: str) -> None:
        self._new = NewFiles(root, aside)
        self.aside: list[int] = []
        self.refused: list[tuple[bytes, bytes]] = []

    def make(self, file: SmallFile) -> None:
        first = first_mode(file.mode, file.xattrs)
        fd, written = self._new.create(file.path, file.number, first)
        try:
            if file.data:
                write_all(fd, memoryview(file.data))
            refused = finish(fd, first, file.mode, file.owner, file.mtime, file.xattrs)
        finally:
            os.close(fd)
        self.refused += [(name, file.path) for name in refused]
        if is_aside(written):
            self.aside.append(file.number)
