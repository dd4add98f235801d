"""The memory of a command and all its descendants together, sampled while it runs."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Failed, drop_caches

_INTERVAL = 0.2  # seconds


@dataclass(frozen=True)
class Footprint:
    """Seconds of wall time, and the largest sums over all processes at one time, in bytes.

    PSS counts a page that several processes share once, RSS for each.
    """

    wall: float
    pss: int
    rss: int
    processes: int


def footprint(command: Sequence[str | Path], log: Path) -> Footprint:
    """Run a command to its end with a cold cache; what it prints goes into `log`."""
    drop_caches()
    pss = rss = processes = 0
    begun = time.monotonic()
    with log.open("wb") as output:
        started = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        while (status := _waited(started)) is None:
            sums = [_memory(pid) for pid in _tree_of(started.pid)]
            pss = max(pss, sum(one[0] for one in sums))
            rss = max(rss, sum(one[1] for one in sums))
            processes = max(processes, len(sums))
    except BaseException:
        os.killpg(started.pid, signal.SIGKILL)
        started.wait()
        raise
    wall = time.monotonic() - begun
    if status != 0:
        raise Failed(f"exit status {status} of: {command}\n{log.read_text(errors='replace')[-4000:]}")
    return Footprint(wall, pss, rss, processes)


def _waited(started: subprocess.Popen[bytes]) -> int | None:
    """The exit status, if it ends before the next sample is due."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        return started.wait(_INTERVAL)
    return None


def _tree_of(pid: int) -> Iterator[int]:
    """A process and its descendants; those that end in between are left out."""
    yield pid
    with contextlib.suppress(OSError):
        for task in Path("/proc", str(pid), "task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _tree_of(int(child))


def _memory(pid: int) -> tuple[int, int]:
    """PSS and RSS of one process, in bytes."""
    found = {"Pss:": 0, "Rss:": 0}
    with contextlib.suppress(OSError):
        for line in Path("/proc", str(pid), "smaps_rollup").read_text().splitlines()[1:]:
            key, value, *_ = line.split()
            if key in found:
                found[key] = int(value) * 1024
    return found["Pss:"], found["Rss:"]
