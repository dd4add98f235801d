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
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from types import FrameType
from typing import Any

from converter import interrupt
from converter.batch.model import Event

_MEMORY = 512 << 20  # bytes that one conversion may well take
_LARGEST = 1 << 16  # bytes of a datagram
_PRELOADED = ("converter.batch.server", "converter.batch.work", "converter.image.registry", "rich.console")
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_AGAIN = 0.2  # seconds
_TAKING_BACK = 10.0  # seconds for which a signal that comes again only disturbs what the first one has begun


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
    except BaseException:
        processes.interrupt()
        raise
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
        _start_server()
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
        """End the processes, when what they are doing is done. One that is killed may hold what another waits for."""
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


def _start_server() -> None:
    """Start the process that forks the others. Signals to it wait until it ignores them (server.py)."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
    try:
        resource_tracker.ensure_running()  # keeps SIGHUP blocked for good; lets others through to us again
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# --- in each of the processes -------------------------------------------------------------------------------

_to_parent: socket.socket | None = None
_busy = False
_ending = False
_deaf_until = 0.0  # by time.monotonic


def tell(event: Event) -> None:
    """Tell the main process. Nobody waits for it: what finds no room is not heard."""
    if _to_parent is not None:
        with suppress(OSError):
            _to_parent.send(pickle.dumps(event), socket.MSG_DONTWAIT)


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Do what was submitted, so that signals interrupt it and nothing else."""
    global _busy, _deaf_until
    _busy, _deaf_until = True, 0.0
    try:
        return function(*arguments)
    finally:
        _busy = False
        if _ending:
            os._exit(128 + signal.SIGTERM)


def _begin(to_parent: socket.socket) -> None:
    global _to_parent
    _to_parent = to_parent
    interrupt.too_late()
    sys.unraisablehook = _on_unraisable
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _on_signal)
    signal.signal(signal.SIGHUP, lambda *_: None)  # whoever hangs up tells the main process, and that us
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    with suppress(OSError):
        to_parent.send(pickle.dumps(os.getpid()))  # it waits for room: who is not known is not interrupted


def _on_signal(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends the process, SIGINT only what it is doing."""
    global _ending, _deaf_until
    if number == signal.SIGTERM:
        _ending = True
        if not _busy:
            os._exit(128 + number)
    if _busy and time.monotonic() >= _deaf_until:
        try:
            interrupt.on_signal(number, frame)
        except interrupt.Interrupted:
            _deaf_until = time.monotonic() + _TAKING_BACK
            raise


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        while True:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(_AGAIN)


def _on_unraisable(what: sys.UnraisableHookArgs) -> None:
    """An interruption that came while an object was destroyed is lost: the next one is not to be."""
    global _deaf_until
    if issubclass(what.exc_type, interrupt.Interrupted):
        _deaf_until = 0.0
    else:
        sys.__unraisablehook__(what)
