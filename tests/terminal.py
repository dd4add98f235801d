"""A program on a real pseudo terminal, and what is to be seen there, by a terminal emulator."""

from __future__ import annotations

import fcntl
import os
import pickle
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import pyte

from converter.batch.model import Event

_DRIVER = """
import pickle, sys
from converter.batch.live import show
with show(int(sys.argv[1])) as screen:
    while True:
        try:
            screen.event(pickle.load(sys.stdin.buffer))
        except EOFError:
            break
"""


class Terminal:
    """A Python program with a terminal of its own as `stream`, and a pipe for events as its standard input."""

    def __init__(
        self,
        columns: int,
        lines: int,
        code: str,
        *arguments: str,
        stream: Literal["stdout", "stderr"] = "stderr",
    ) -> None:
        self.written = b""
        self._screen = pyte.HistoryScreen(columns, lines, history=5000, ratio=0.5)
        self._stream = pyte.ByteStream(self._screen)
        self._terminal, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        environment = {k: v for k, v in os.environ.items() if k not in {"COLUMNS", "LINES", "NO_COLOR"}}
        environment |= {"TERM": "xterm-256color", "PYTHONUTF8": "1"}
        self._program = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            stdin=subprocess.PIPE,
            stdout=theirs if stream == "stdout" else subprocess.DEVNULL,
            stderr=theirs if stream == "stderr" else None,
            env=environment,
        )
        os.close(theirs)

    def send(self, *events: Event) -> None:
        assert self._program.stdin is not None
        for event in events:
            pickle.dump(event, self._program.stdin)
        self._program.stdin.flush()

    def read(self, seconds: float) -> None:
        """What the program writes until then."""
        end = time.monotonic() + seconds
        while (rest := end - time.monotonic()) > 0:
            if not select.select([self._terminal], [], [], rest)[0]:
                return
            try:
                data = os.read(self._terminal, 65536)
            except OSError:  # nobody has the other end any more
                return
            self.written += data
            self._stream.feed(data)

    def until(self, condition: Callable[[list[str]], bool], seconds: float = 20) -> list[str]:
        """The visible lines, as soon as they are so."""
        end = time.monotonic() + seconds
        while not condition(self.visible()):
            assert time.monotonic() < end, "\n".join(self.visible())
            self.read(0.05)
        return self.visible()

    def visible(self) -> list[str]:
        """The lines on the screen, without empty ones."""
        return [line.rstrip() for line in self._screen.display if line.strip()]

    def scrolled(self) -> list[str]:
        """The lines that have left the screen at its top."""
        columns = range(self._screen.columns)
        return ["".join(line[x].data for x in columns).rstrip() for line in self._screen.history.top]

    def end(self) -> list[str]:
        """Every line that stays when the program is over."""
        assert self._program.stdin is not None
        self._program.stdin.close()
        while self._program.poll() is None:
            self.read(0.1)
        self.read(0.2)
        assert self._program.returncode == 0
        return [*self.scrolled(), *self.visible()]

    def close(self) -> None:
        if self._program.poll() is None:
            self._program.kill()
        self._program.wait()
        if self._program.stdin is not None and not self._program.stdin.closed:
            self._program.stdin.close()
        os.close(self._terminal)


@contextmanager
def batch_on_terminal(columns: int, lines: int, total: int) -> Iterator[Terminal]:
    """A batch's live table, to be fed with events."""
    terminal = Terminal(columns, lines, _DRIVER, str(total))
    try:
        yield terminal
    finally:
        terminal.close()


def run_on_terminal(code: str, *, columns: int, lines: int) -> list[str]:
    """The lines that a program prints to stdout where that is a terminal, without empty ones."""
    terminal = Terminal(columns, lines, code, stream="stdout")
    try:
        return [line for line in terminal.end() if line]
    finally:
        terminal.close()
