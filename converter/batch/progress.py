"""Progress of a job, told as events, no more often than anybody can read."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from converter.batch.model import Event
from converter.progress import Step

_PAUSE = 0.2  # seconds between events of one job


class Told:
    """Progress that is told as events of job `number`; `bytes` is how many were read or fetched in all."""

    def __init__(self, tell: Callable[[Event], None], number: int, name: str, worker: str) -> None:
        self.bytes = 0
        self._tell = tell
        self._number = number
        self._name = name
        self._worker = worker
        self._lock = threading.Lock()
        self._last = 0.0

    @contextmanager
    def step(self, label: str, total: int | None, unit: str = "bytes") -> Iterator[Step]:
        """Steps within each other are told one after the other."""
        step = _ToldStep(self, label, total, unit)
        step.tell(now=True)
        yield step

    def said(self, label: str, done: int, total: int | None, unit: str, *, now: bool) -> None:
        """Tell of a step, unless it was told of another moments ago."""
        time_now = time.monotonic()
        with self._lock:
            if not now and time_now - self._last < _PAUSE:
                return
            self._last = time_now
        self._tell(Event("step", self._number, self._name, label, done, total, unit, worker=self._worker))

    def count(self, amount: int) -> None:
        """So many bytes more."""
        with self._lock:
            self.bytes += amount


class _ToldStep:
    def __init__(self, told: Told, label: str, total: int | None, unit: str) -> None:
        self._told = told
        self._label = label
        self._total = total
        self._unit = unit
        self._done = 0

    def advance(self, amount: int) -> None:
        self._done += amount
        if self._unit == "bytes":
            self._told.count(amount)
        self.tell(now=False)

    def tell(self, *, now: bool) -> None:
        self._told.said(self._label, self._done, self._total, self._unit, now=now)
