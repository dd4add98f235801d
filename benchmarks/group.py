"""A control group of its own for one measurement, for the CPU time of processes that nobody waits for."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PATIENCE = 10  # seconds


@dataclass(frozen=True)
class Group:
    """Processes enter by writing their pid to `entry`; so do their descendants by being made."""

    path: Path

    @property
    def entry(self) -> Path:
        return self.path / "cgroup.procs"

    def cpu(self) -> float:
        """Seconds of CPU time, user and system, of all that were in it."""
        lines = (line.split() for line in (self.path / "cpu.stat").read_text().splitlines())
        return next(int(value) for key, value in lines if key == "usage_usec") / 1e6


@contextlib.contextmanager
def group() -> Iterator[Group]:
    """A new group below the root of the unified hierarchy; it is removed when its last process has ended."""
    mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    top = next(mount[1] for mount in mounts if mount[2] == "cgroup2")
    path = Path(tempfile.mkdtemp(dir=top, prefix="docker2nspawn-bench-"))
    try:
        yield Group(path)
    finally:
        deadline = time.monotonic() + _PATIENCE
        while "populated 1" in (path / "cgroup.events").read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
        path.rmdir()
