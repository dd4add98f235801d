"""What the user sees: the report for people and for programs, and progress on a terminal."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.table import Table
from rich.text import Text

from converter.note import Note
from converter.progress import Progress, Silent, Step
from converter.result import Result

if TYPE_CHECKING:
    from converter.dockerfile.translate import Translated

_COLOURS = {"exact": "green", "adapted": "yellow", "dropped": "red"}
_ORDER = {"dropped": 0, "adapted": 1, "exact": 2}  # what needs attention stands nearest to the command


def print_json(result: Result | Translated) -> None:
    """The result as one JSON object on stdout, and nothing else there."""
    json.dump(asdict(result), sys.stdout, indent=2, ensure_ascii=True)
    sys.stdout.write("\n")


def print_plan(result: Result) -> None:
    """The files that `convert` would write, and the notes."""
    console = Console(highlight=False, soft_wrap=True)
    for path, text in ((result.settings_path, result.settings), (result.drop_in_path, result.drop_in)):
        console.print(Text(f"==> {path}", style="bold"))
        console.print(Text(_printable(text)))
    _print_notes(console, result.notes)


def print_result(result: Result) -> None:
    """Where the machine is, what did not come along, and how to start it."""
    console = Console(highlight=False, soft_wrap=True)
    digest = f" ({result.digest})" if result.digest else ""
    console.print(Text(f"{result.name} is made from {_printable(result.source)}{digest}", style="bold"))
    console.print(Text(f"  tree      {result.tree_path}"))
    trust = f", trusted through {result.trusted_path}" if result.trusted_path else ""
    console.print(Text(f"  settings  {result.settings_path}{trust}"))
    console.print(Text(f"  drop-in   {result.drop_in_path}"))
    console.print(Text(f"  record    {result.record_path}"))
    _print_notes(console, result.notes)
    dropped = sum(note.kind == "dropped" for note in result.notes)
    if dropped:
        console.print(Text(f"{dropped} did not come along: see the lines marked dropped.", style="red"))
    console.print(Text(f"Start it with: {result.start_command}", style="bold"))


def print_translated(translated: Translated) -> None:
    """What was written, what to know of it, and what to do with it."""
    console = Console(highlight=False, soft_wrap=True)
    heading = f"{_printable(translated.source)} is translated into {_printable(translated.output)}"
    console.print(Text(heading, style="bold"))
    console.print(Text("  " + _printable("  ".join(translated.files))))
    _print_notes(console, translated.notes)
    command = f"{_printable(translated.output)}/build.sh --install"
    console.print(Text(f"Build and install the machine {translated.name} with: {command}", style="bold"))


def _print_notes(console: Console, notes: tuple[Note, ...]) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for column in ("kind", "subject", "text"):
        table.add_column(column, overflow="fold", no_wrap=False)
    for note in sorted(notes, key=lambda note: _ORDER[note.kind]):
        kind = Text(note.kind, style=_COLOURS[note.kind])
        table.add_row(kind, Text(_printable(note.subject)), Text(_printable(note.text)))
    if console.is_terminal:
        console.print(table)
        return
    # In a pipe: one note, one line, for grep and awk.
    for note in sorted(notes, key=lambda note: _ORDER[note.kind]):
        console.print(Text(f"{note.kind:<8}{_printable(note.subject)}: {_printable(note.text)}"))


def _printable(text: str) -> str:
    """Untrusted text without what would drive the terminal; newlines of our own files stay."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


class _Bar:
    def __init__(self, bars: RichProgress, task: TaskID) -> None:
        self._bars = bars
        self._task = task

    def advance(self, amount: int) -> None:
        self._bars.advance(self._task, amount)


class Terminal:
    """Progress as bars on stderr, one for each step that is under way."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bars: RichProgress | None = None
        self._open = 0
        self._begun: dict[str, bytes] = {}  # lines that are not complete, by who prints them

    @contextmanager
    def step(self, label: str, total: int | None, unit: str = "bytes") -> Iterator[Step]:
        """A bar that lives as long as the step."""
        amounts: ProgressColumn = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
        if total is None and unit == "seconds":
            amounts = TimeElapsedColumn()
        bars = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            amounts,
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        with self._lock:
            # rich draws one live display at a time; steps that run side by side share the first one's.
            shared = self._bars or bars
            if self._bars is None:
                self._bars = bars
                bars.start()
            self._open += 1
        task = shared.add_task(_printable(label), total=total)
        try:
            yield _Bar(shared, task)
        finally:
            with self._lock:
                shared.remove_task(task)
                self._open -= 1
                if self._open == 0 and self._bars is not None:
                    self._bars.stop()
                    self._bars = None

    def show(self, label: str, data: bytes) -> None:
        """Print whole lines of what a program says, above the bars."""
        *lines, rest = (self._begun.get(label, b"") + data).split(b"\n")
        with self._lock:
            self._begun[label] = rest
            console = self._bars.console if self._bars is not None else Console(stderr=True)
            for line in lines:
                shown = _printable(line.decode(errors="replace").rstrip("\r").rpartition("\r")[2])
                console.print(Text(f"{_printable(label)}: {shown}", style="dim"), soft_wrap=True)


def output_for_terminal(progress: Progress) -> Callable[[str, bytes], None] | None:
    """Where a program's lines go; None in a pipe."""
    return progress.show if isinstance(progress, Terminal) else None


def progress_for_terminal() -> Progress:
    """Bars when somebody watches, silence in a pipe."""
    return Terminal() if sys.stderr.isatty() else Silent()
