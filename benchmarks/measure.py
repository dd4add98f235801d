"""One measurement with a cold cache, and the medians of several."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_TIMED = Path(__file__).with_name("timed.py")


class Failed(Exception):
    """A measured command failed, or its result is wrong; the message has what it printed."""


@dataclass(frozen=True)
class Cost:
    """Seconds of wall time, seconds of CPU (user and system), and the peak of the largest process in bytes."""

    wall: float
    cpu: float
    peak: float


def measure(script: str, *, environment: Mapping[str, str], cold: bool = True) -> Cost:
    """Run a bash script; CPU and memory are those of it and its descendants. `cold`: nothing is in the page cache."""
    if cold:
        drop_caches()
    with tempfile.TemporaryDirectory(prefix="d2n-bench-") as scratch:
        result, log = Path(scratch, "result"), Path(scratch, "log")
        command = [sys.executable, "-I", "-S", str(_TIMED), str(result)]
        command += ["/bin/bash", "-euo", "pipefail", "-c", script]
        with log.open("wb") as output:
            _run(command, output, {**os.environ, **environment})
        code, wall, cpu, kilobytes = result.read_text().split()
        if code != "0":
            raise Failed(f"exit status {code} of: {script}\n{log.read_text(errors='replace')}")
    return Cost(float(wall), float(cpu), float(kilobytes) * 1024)


def _run(command: Sequence[str], output: BinaryIO, environment: Mapping[str, str]) -> None:
    """Run to the end; if we are ended before, so is all that was started."""
    started = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
    )
    try:
        started.wait()
    except BaseException:
        os.killpg(started.pid, signal.SIGKILL)
        started.wait()
        raise


def floor_of_peak() -> float:
    """What a command seems to need that needs nothing: the memory of timed.py."""
    return measure("exec true", environment={}).peak


def drop_caches() -> None:
    """Write out what is dirty, then forget all file contents, names and inodes."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n")


def median(costs: Sequence[Cost]) -> Cost:
    """The median of each column by itself."""
    return Cost(
        statistics.median(cost.wall for cost in costs),
        statistics.median(cost.cpu for cost in costs),
        statistics.median(cost.peak for cost in costs),
    )


def remove(path: Path) -> None:
    """Remove a tree; rm(1) is several times as fast as shutil.rmtree."""
    subprocess.run(["rm", "-rf", "--one-file-system", "--", path], check=True)


def count_entries(tree: Path) -> int:
    """How many entries there are below a directory."""
    return sum(len(directories) + len(files) for _, directories, files in os.walk(tree))
