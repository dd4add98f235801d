"""When a signal may still end a conversion, and when it comes too late.

Once an installation is decided, or something is being taken back, what is left is brought to its end: it takes moments,
and halfway there is no state that anybody wants.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_late = False


class Interrupted(BaseException):
    """A signal asked us to stop. Not KeyboardInterrupt, which typer turns into an exit of its own."""


def on_signal(_: int, __: FrameType | None) -> None:
    """A handler for signals: raises Interrupted in the main thread, unless it is too late."""
    if not _late:
        raise Interrupted


def in_time() -> None:
    """From now on signals interrupt."""
    global _late
    _late = False


@contextmanager
def held() -> Iterator[None]:
    """Signals come too late while this lasts."""
    global _late
    before, _late = _late, True
    try:
        yield
    finally:
        _late = before


def too_late() -> None:
    """From now on they do not."""
    global _late
    _late = True
