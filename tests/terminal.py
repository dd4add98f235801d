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
    """A batch's live table, fed with events through a pipe, on a terminal of its own."""

    def __init__(self, columns: int, lines: int, total: int) -> None:
        self.written = b""
        self._screen = pyte.HistoryScreen(columns, lines, history=5000, ratio=0.5)
        self._stream = pyte.ByteStream(self._screen)
        self._terminal, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        environment = {k: v for k, v in os.environ.items() if k not in {"COLUMNS", "LINES", "NO_COLOR"}}
        environment |= {"TERM": "xterm-256color", "PYTHONUTF8": "1"}
        self._program = subprocess.Popen(
            [sys.executable, "-c", _DRIVER, str(total)],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=theirs, env=environment,
        )  # fmt: skip
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
        """Every line that stays when the batch is over."""
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
    terminal = Terminal(columns, lines, total)
    try:
        yield terminal
    finally:
        terminal.close()
