"""A Dask cluster on loopback, of real processes: a scheduler and workers with one thread each; batches given to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_REPOSITORY = Path(__file__).parent.parent
_PATIENCE = 60  # seconds


@dataclass
class Cluster:
    """What each of its processes says is in `place`/NAME.log; the scheduler's name is that."""

    place: Path
    address: str = ""
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(
        self, name: str, module: str, *arguments: str, python: str = sys.executable, **environment: str
    ) -> None:
        """Start one of its processes."""
        with (self.place / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                [python, "-m", f"distributed.cli.{module}", "--no-dashboard", *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.place,
                env=_environment(**environment),
            )

    def add(self, *names: str, threads: int = 1, python: str = sys.executable, **environment: str) -> None:
        """Start workers; returns when the scheduler knows them."""
        for name in names:
            self.start(
                name, "dask_worker", self.address, "--name", name, "--no-nanny", "--nthreads", str(threads),
                "--host", "127.0.0.1", "--local-directory", str(self.place / name), "--memory-limit", "0",
                python=python, **environment,
            )  # fmt: skip
        logs = [self.place / f"{name}.log" for name in names]
        until(lambda: all(b"Registered to" in log.read_bytes() for log in logs))

    def kill(self, name: str) -> None:
        """End one of its processes at once."""
        self.processes[name].kill()
        self.processes[name].wait(_PATIENCE)


@contextmanager
def cluster(place: Path, *workers: str, **environment: str) -> Iterator[Cluster]:
    """A scheduler with this in its environment and these workers, meanwhile. `place` is a new directory for all."""
    place.mkdir()
    running = Cluster(place)
    told = place / "scheduler.json"
    try:
        running.start(
            "scheduler", "dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(told),
            **environment,
        )  # fmt: skip
        until(lambda: told.exists() and told.read_text().endswith("}"))
        running.address = json.loads(told.read_text())["address"]
        running.add(*workers)
        yield running
    finally:
        for process in running.processes.values():
            process.kill()
        for process in running.processes.values():
            process.wait(_PATIENCE)


@dataclass(frozen=True)
class Ended:
    """How a batch ended. `report` is the JSON; {} when there is none."""

    status: int
    stderr: str
    report: dict[str, Any]

    def states(self) -> dict[str, str]:
        """The state of each machine, by its name."""
        return {outcome["name"]: outcome["state"] for outcome in self.report["outcomes"]}

    def outcome(self, name: str) -> dict[str, Any]:
        """What became of this machine."""
        [found] = [outcome for outcome in self.report["outcomes"] if outcome["name"] == name]
        return dict(found)


class Batch:
    """`docker2nspawn batch` of these lines, under way."""

    def __init__(self, place: Path, lines: Sequence[str], root: Path, *more: str, **environment: str) -> None:
        mark = time.monotonic_ns()
        self._report = place / f"report-{mark}.json"
        self._errors = place / f"stderr-{mark}"
        listed = place / f"list-{mark}.txt"
        listed.write_text("".join(f"{line}\n" for line in lines))
        with self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [
                    sys.executable, "-m", "converter.cli", "batch", str(listed), "--root", str(root),
                    "--report", str(self._report), *more,
                ],
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=_environment(**environment),
            )  # fmt: skip

    def stderr(self) -> str:
        """What it has said until now."""
        return self._errors.read_text()

    def end(self, patience: float = _PATIENCE) -> Ended:
        """Its end, within so many seconds."""
        try:
            status = self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the batch does not end: {self.stderr()}") from None
        report = json.loads(self._report.read_bytes()) if self._report.exists() else {}
        return Ended(status, self.stderr(), report)


def until(true: Callable[[], bool], patience: float = _PATIENCE) -> None:
    """Wait for something."""
    deadline = time.monotonic() + patience
    while not true():
        assert time.monotonic() < deadline, "it does not come true"
        time.sleep(0.05)


def _environment(**more: str) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(_REPOSITORY),
        "DOCKER_HOST": "unix:///nowhere/docker.sock",
        **more,
    }
