"""A batch while it runs, on stderr: a live table on a terminal, a line for each job that ended in a pipe."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Protocol

from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from converter.batch.model import GOOD, Event, Outcome
from converter.batch.wording import STATES, amount, counted, kinds, shown, span

_PAUSE = 0.2  # seconds between two pictures
_WINDOW = 5.0  # seconds; a rate is the mean of so many


class Screen(Protocol):
    """Where a batch's events are shown. Events come from one thread."""

    def event(self, event: Event) -> None:
        """Show it; returns at once."""


@contextmanager
def show(total: int, terminal: bool | None = None) -> Iterator[Screen]:
    """A Screen for a batch of `total` jobs. `terminal`: draw a live table; None: when stderr is a terminal."""
    if terminal is None:
        terminal = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    if not terminal:
        yield _Lines()
        return
    with _Picture(total) as picture:
        yield picture


class _Lines:
    def event(self, event: Event) -> None:
        outcome = event.outcome
        if event.kind != "ended" or event.number < 0 or outcome is None or outcome.state == "left":
            return
        with suppress(OSError):  # nobody reads: no reason to end the batch
            sys.stderr.write(f"{_told(outcome)}\n")
            sys.stderr.flush()


def _told(outcome: Outcome) -> str:
    """As "done web in 1.2 s: 20 exact, 3 adapted, 1 dropped" or "failed db: no such image"."""
    name = shown(outcome.name)
    if outcome.state not in GOOD:
        return f"{outcome.state} {name}" + (f": {shown(outcome.reason)}" if outcome.reason else "")
    if outcome.state == "complete":
        return f"complete {name}: it was there already"
    return f"{outcome.state} {name} in {span(outcome.seconds)}: {kinds(outcome)}"


@dataclass
class _Work:
    """A job, or work that jobs share, that is under way or waits for another attempt."""

    name: str
    label: str = "begun"
    done: int = 0
    total: int | None = None
    unit: str = "bytes"
    until: float | None = None  # waits until then, on the monotonic clock
    most: int = 0  # bytes of the longest step of this attempt
    moved: int = 0  # of `unit`, in all steps of that unit
    samples: deque[tuple[float, int]] = field(default_factory=deque)  # when, and `moved` then

    def step(self, event: Event, now: float) -> None:
        if event.unit != self.unit:
            self.moved = 0
            self.samples.clear()
        same = event.label == self.label and event.unit == self.unit and event.done >= self.done
        self.moved += event.done - self.done if same else event.done
        self.label, self.done, self.total, self.unit = event.label, event.done, event.total, event.unit
        self.until = None
        if self.unit == "bytes":
            self.most = max(self.most, self.done)
        if not self.samples or now - self.samples[-1][0] > 0.1:
            self.samples.append((now, self.moved))

    def rate(self, now: float) -> float | None:
        """In `unit` a second, of the last seconds; None: not known yet."""
        while len(self.samples) > 1 and self.samples[1][0] <= now - _WINDOW:
            self.samples.popleft()
        if self.until is not None or not self.samples or now - self.samples[0][0] < 0.5:
            return None
        then, moved = self.samples[0]
        return (self.moved - moved) / (now - then)


class _Picture:
    """The live table. A thread draws it: events may come thousands a second, and time passes without any."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._console = Console(stderr=True, highlight=False)
        self._lock = threading.Lock()
        self._work: dict[tuple[int, str], _Work] = {}
        self._waiting_to_be_told: list[Outcome] = []
        self._ended: set[int] = set()
        self._good = self._failed = self._timed = self._size = 0
        self._begun = time.monotonic()
        self._live = Live(
            self,  # asked for its lines whenever it is drawn, also below what is printed above it
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,  # it may be a pipe
        )
        self._over = threading.Event()
        self._drawer = threading.Thread(target=self._draw_until_over, name="batch-screen", daemon=True)

    def __enter__(self) -> _Picture:
        self._live.start()
        self._drawer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._drawer.join()
        with suppress(OSError):
            self._draw()
            self._live.stop()

    def event(self, event: Event) -> None:
        key = (event.number, event.name if event.number < 0 else "")
        now = time.monotonic()
        with self._lock:
            if event.kind == "ended":
                self._work.pop(key, None)
                if event.number >= 0 and event.outcome is not None and event.number not in self._ended:
                    self._count(event.outcome)
            elif event.number in self._ended:  # a late word of a process that was slow to say it
                return
            elif event.kind == "begun":
                self._work[key] = _Work(event.name)
            else:
                work = self._work.setdefault(key, _Work(event.name))
                if event.kind == "step":
                    work.step(event, now)
                else:
                    self._work[key] = _Work(event.name, event.label, until=now + event.seconds)

    def _count(self, outcome: Outcome) -> None:
        self._ended.add(outcome.number)
        self._size += outcome.size
        self._good += outcome.state in GOOD
        self._failed += outcome.state == "failed"
        self._timed += outcome.state not in {"complete", "left"}  # these take no time
        if outcome.state != "left":
            self._waiting_to_be_told.append(outcome)

    def _draw_until_over(self) -> None:
        while not self._over.wait(_PAUSE):
            try:
                self._draw()
            except OSError:  # the terminal is gone; the batch goes on
                return

    def _draw(self) -> None:
        with self._lock:
            ended, self._waiting_to_be_told = self._waiting_to_be_told, []
        if ended:
            self._console.print(Group(*map(_ended_line, ended)))  # which draws the table below it, too
        else:
            self._live.refresh()

    def __rich__(self) -> RenderableType:
        """The lines of this instant."""
        now = time.monotonic()
        width, height = self._console.size
        room = max(height - 3, 0)  # the total below, one line for those that do not fit, one for the cursor
        with self._lock:
            work = sorted(self._work.values(), key=lambda work: work.until is not None)
            rows = [_row(one, now, width) for one in work[:room]]
            rates = [rate for one in work if one.unit == "bytes" and (rate := one.rate(now)) is not None]
            size = self._size + sum(one.most for key, one in self._work.items() if key[0] >= 0)
            total = self._total_line(now, size, sum(rates) if rates else None, width)
        more = [_cut(f"… and {len(work) - room} more under way", "dim")] if len(work) > room else []
        return Group(*_lines(rows, width), *more, total)

    def _total_line(self, now: float, size: int, rate: float | None, width: int) -> Text:
        elapsed = now - self._begun
        rest = self._total - len(self._ended)
        done = f"{self._good:,} of {self._total:,} done"
        failed = f"{self._failed:,} failed" if self._failed else ""
        left = f"{_clock(elapsed / self._timed * rest)} left" if self._timed and rest else ""
        speed = f"{amount(rate)}/s" if rate is not None else ""
        spent = f"after {_clock(elapsed)}"
        # What matters less goes first where the line is short.
        for parts in (
            (done, failed, amount(size), speed, spent, left),
            (done, failed, amount(size), spent, left),
            (done, failed, spent, left),
            (done, failed, left),
        ):
            line = "  ".join(filter(None, parts))
            if len(line) < width:
                break
        return _cut(line, "bold red" if self._failed else "bold")


def _row(work: _Work, now: float, width: int) -> tuple[str, ...]:
    """Name, state, amounts, rate and time left; without the last ones where `width` is small."""
    state, amounts, speed, left = shown(work.label), "", "", ""
    if work.until is not None:
        wait = max(work.until - now, 0)
        state = f"again in {wait:.0f} s: {state}" if wait else f"again now: {state}"
    elif work.unit == "bytes" and (work.done or work.total):
        amounts = amount(work.done) + (f" / {amount(work.total)}" if work.total else "")
    elif work.unit == "files":
        amounts = f"{work.done:,}" + (f" / {work.total:,}" if work.total else "") + " files"
    rate = work.rate(now)
    if rate is not None and work.unit == "bytes":
        speed = f"{amount(rate)}/s"
    if rate and work.total is not None:
        left = _clock(max(work.total - work.done, 0) / rate)
    if width >= 76:
        return shown(work.name), state, amounts, speed, left
    if width >= 56:
        return shown(work.name), state, amounts, left
    percent = f"{min(100 * work.done // work.total, 100)} %" if work.total and work.until is None else ""
    return shown(work.name), state, percent


_WIDTHS = {5: (19, 11, 8), 4: (19, 8), 3: (5,)}  # of the columns behind name and state, by how many there are


def _lines(rows: Sequence[tuple[str, ...]], width: int) -> list[Text]:
    """The rows as columns; a state with nothing behind it has the whole line."""
    if not rows:
        return []
    sizes = _WIDTHS[len(rows[0])]
    room = width - 1 - sum(sizes) - len(sizes)
    name_size = min(max(cell_len(row[0]) for row in rows), max(room // 2, 8))
    lines = []
    for name, state, *behind in rows:
        line = Text(_fitted(name, name_size) + " ", style="bold", no_wrap=True, overflow="ellipsis")
        if any(behind):
            line.append(_fitted(state, max(room - name_size - 1, 4)), "not bold")
            for text, size in zip(behind, sizes, strict=True):
                line.append(f" {text:>{size}}", "not bold")
        else:
            line.append(state, "not bold")
        lines.append(line)
    return lines


def _fitted(text: str, size: int) -> str:
    """Of that many cells: some characters take two."""
    return set_cell_size(text, size) if cell_len(text) <= size else set_cell_size(text, size - 1) + "…"


def _ended_line(outcome: Outcome) -> Text:
    """One line, cut to the terminal's width."""
    name = shown(outcome.name)
    if outcome.state == "failed":
        return _cut(f"✗ {name}  {shown(outcome.reason)}", "red")
    if outcome.state not in GOOD:
        return _cut(f"✗ {name}  {STATES[outcome.state]}", "yellow")
    if outcome.state == "complete":
        return _cut(f"✓ {name}  {STATES['complete']}", "dim")
    said = f"✓ {name}  {span(outcome.seconds)}  {kinds(outcome)}"
    if outcome.attempts > 1:
        said += f"  {counted(outcome.attempts, 'attempt')}"
    return _cut(said, "green" if not outcome.count("dropped") else "")


def _cut(text: str, style: str) -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _clock(seconds: float) -> str:
    """As "0:05", "12:05" or "1:02:05"."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
