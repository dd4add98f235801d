"""What long work tells about itself. The terminal's bar is in report.py; this is its plug."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Step(Protocol):
    """One piece of long work, for example one layer being fetched."""

    def advance(self, amount: int) -> None:
        """`amount` more bytes (or files) are done. May be called from any thread."""


class Progress(Protocol):
    """Where long work announces its steps. Thread-safe."""

    def step(self, label: str, total: int | None, unit: str = "bytes") -> AbstractContextManager[Step]:
        """A context manager that yields the Step; `total` and `unit` ("bytes", "files", "seconds") size its bar."""


class _SilentStep:
    def advance(self, amount: int) -> None:
        """Nobody watches."""


class Silent:
    """Progress for pipes, tests and library callers."""

    @contextmanager
    def step(self, label: str, total: int | None, unit: str = "bytes") -> Iterator[Step]:
        """Yields a step that shows nothing."""
        yield _SilentStep()
