"""How a batch's numbers and texts are written, wherever they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.filesize import decimal

from converter.batch.model import Outcome, State, Summary
from converter.dockerfile.quoting import printable

_LONGEST = 2000  # characters; a name from an image may have a million

STATES: dict[State, str] = {
    "done": "made",
    "complete": "there already",
    "planned": "would be made",
    "failed": "failed",
    "interrupted": "interrupted",
    "left": "not begun",
}
"""What is said of machines that ended so, in the order in which they are told."""


def shown(text: str) -> str:
    """Untrusted text on one line of at most 2,000 characters, without what would drive a terminal."""
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]}…{text[-_LONGEST // 2 :]}"
    return printable(text)


def amount(size: float) -> str:
    """Bytes, as "30.0 kB"."""
    return decimal(int(size))


def span(seconds: float) -> str:
    """Seconds, as "1.2 s", "2:05" or "1:02:05"."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def counted(number: int, noun: str) -> str:
    """As "1 machine" or "1,000 machines"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def listed(names: Sequence[str], most: int) -> str:
    """As "a, b, c and 997 more"."""
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most:,} more"


def kinds(outcome: Outcome) -> str:
    """As "20 exact, 3 adapted, 1 dropped"."""
    return ", ".join(f"{outcome.count(kind)} {kind}" for kind in ("exact", "adapted", "dropped"))


def totals(summary: Summary) -> str:
    """As "1,000 machines: 990 made, 10 failed, in 12:05"."""
    parts = [f"{len(ended):,} {said}" for state, said in STATES.items() if (ended := summary.ended_in(state))]
    whole = counted(len(summary.outcomes), "machine")
    return f"{whole}: {', '.join([*parts, f'in {span(summary.ended - summary.started)}'])}"


def moment(seconds: float) -> str:
    """Seconds since the epoch in local time, as "2025-03-01 12:05:09 +0100"."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S %z")
