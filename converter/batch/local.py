"""The processes of this host that do the jobs of a batch.

They are forked by a server process that has loaded what they need, so that each costs little memory, and none inherits
what the threads of the main process are in the middle of. Events come as datagrams: no lock is held that somebody could
die with.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from converter import interrupt
from converter.batch.model import Event

_MEMORY = 512 << 20  # bytes that one conversion may well take
_LARGEST = 1 << 16  # bytes of a datagram
_PRELOADED = ("converter.batch.work", "converter.image.registry", "rich.console")
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def default_jobs() -> int:
    """As many jobs at a time as there are processors for us, and memory."""
    available = 0
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        available = int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) << 10
    processors = len(os.sched_getaffinity(0))
    return max(1, min(processors, available // _MEMORY if available else processors))


@contextmanager
def crew(jobs: int, listen: Callable[[Event], None], preload: tuple[str, ...] = ()) -> Iterator[Processes]:
    """`jobs` processes; `listen` gets what they tell, in a thread. `preload` are modules that the jobs will need."""
    processes = Processes(jobs, listen, preload)
    try:
        yield processes
    finally:
        processes.close()


class Processes:
    """Processes of this host; a Crew."""

    def __init__(self, jobs: int, listen: Callable[[Event], None], preload: tuple[str, ...]) -> None:
        self._jobs = jobs
        self._listen = listen
        self._pids: set[int] = set()
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([*_PRELOADED, *preload])
        self._thread = threading.Thread(target=self._hear, name="events", daemon=True)
        self._thread.start()
        self._executor = self._new_executor()

    @property
    def executor(self) -> ProcessPoolExecutor:
        return self._executor

    @property
    def jobs(self) -> int:
        return self._jobs

    @property
    def tell(self) -> Callable[[Event], None]:
        return tell

    def submitted(self, function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
        return partial(call, function, *arguments)

    def interrupt(self) -> None:
        for pid in tuple(self._pids):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)

    def renew(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)
        self._pids.clear()
        self._executor = self._new_executor()

    def everywhere(self, function: Callable[..., Any], *arguments: Any) -> None:
        function(*arguments)

    def close(self) -> None:
        """End the processes. What they were doing is taken back."""
        for pid in tuple(self._pids):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        self._executor.shutdown(wait=True, cancel_futures=True)
        self._theirs.send(b"")
        self._thread.join()
        self._ours.close()
        self._theirs.close()

    def _new_executor(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self._jobs, self._context, _begin, (self._theirs,))

    def _hear(self) -> None:
        while data := self._ours.recv(_LARGEST):
            heard = pickle.loads(data)
            if isinstance(heard, int):
                self._pids.add(heard)
            else:
                self._listen(heard)


# --- in each of the processes -------------------------------------------------------------------------------

_to_parent: socket.socket | None = None
_busy = False
_ending = False


def tell(event: Event) -> None:
    """Tell the main process. Nobody waits for it: what finds no room is not heard."""
    _send(event)


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Do what was submitted, so that signals interrupt it and nothing else."""
    global _busy
    _busy = True
    try:
        return function(*arguments)
    finally:
        _busy = False
        if _ending:
            os._exit(128 + signal.SIGTERM)


def _send(what: Event | int) -> None:
    if _to_parent is not None:
        with suppress(OSError):
            _to_parent.send(pickle.dumps(what), socket.MSG_DONTWAIT)


def _begin(to_parent: socket.socket) -> None:
    global _to_parent
    _to_parent = to_parent
    interrupt.too_late()
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN or number != signal.SIGHUP:  # as nohup asks
            signal.signal(number, _on_signal)
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    _send(os.getpid())


def _on_signal(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends the process, SIGINT only what it is doing."""
    global _ending
    if number == signal.SIGTERM:
        _ending = True
        if not _busy:
            os._exit(128 + number)
    if _busy:
        interrupt.on_signal(number, frame)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
