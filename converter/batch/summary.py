"""What is said on stdout at a batch's end: every machine, what was dropped, what failed and what to do next."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from converter.batch.grouping import failures_of, notes_of
from converter.batch.model import GOOD, Outcome, Summary
from converter.batch.wording import STATES, counted, kinds, listed, shown, span, totals
from converter.dockerfile.quoting import printable

_NAMES = 8  # of machines with the same note, on a terminal; in a pipe and in the report are all


def print_summary(summary: Summary, report: Path | None = None) -> None:
    """Machines, then what was dropped, then failures, each said once; at the end what to do next.

    `report` is where the report was written. In a pipe each line begins with a word to look for: a state, "dropped",
    "reason", "remedy", "list", "total", "next".
    """
    console = Console(highlight=False, soft_wrap=True)
    (_print_for_people if console.is_terminal else _print_for_programs)(console, summary)
    if report is not None:
        _say(console, f"The report: {report}")


def _print_for_people(console: Console, summary: Summary) -> None:
    for message in summary.messages:
        _say(console, f"The list: {message}", "yellow")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("machine", no_wrap=True, overflow="ellipsis")
    table.add_column("state", no_wrap=True)
    for heading in ("exact", "adapted", "dropped", "time"):
        table.add_column(heading, no_wrap=True, justify="right")
    for outcome in summary.outcomes:
        table.add_row(*_cells(outcome))
    console.print(table, soft_wrap=False)

    if dropped := notes_of(summary, "dropped"):
        console.print()
        _say(console, "Did not come along:", "bold")
        for shared in dropped:
            _say(console, f"  {shown(shared.note.subject)}: {shown(shared.note.text)}", "red")
            _say(console, f"      {_who(shared.names)}", "dim")
    if failures := failures_of(summary):
        console.print()
        _say(console, "Failed:", "bold")
        for failure in failures:
            _say(console, f"  {_who(failure.names)}")
            _say(console, f"      {shown(failure.reason)}", "red")
            if failure.remedy:
                _say(console, f"      {shown(failure.remedy)}")
    console.print()
    _say(console, totals(summary), "bold" if summary.good else "bold red")
    for line in next_steps(summary):
        _say(console, line, "bold")


def _cells(outcome: Outcome) -> list[Text]:
    good = outcome.state in GOOD
    counts = [outcome.count("exact"), outcome.count("adapted"), outcome.count("dropped")]
    styles = ["", "", "red" if counts[2] else ""]
    return [
        Text(shown(outcome.name)),
        Text(STATES[outcome.state], style="" if good else "red"),
        *(
            Text(str(count) if good or count else "", style)
            for count, style in zip(counts, styles, strict=True)
        ),
        Text(span(outcome.seconds) if outcome.seconds else ""),
    ]


def _print_for_programs(console: Console, summary: Summary) -> None:
    for message in summary.messages:
        _say(console, f"{'list':<12}{message}")
    for outcome in summary.outcomes:
        said = kinds(outcome) if outcome.state in GOOD else shown(outcome.reason) or STATES[outcome.state]
        _say(console, f"{outcome.state:<12}{shown(outcome.name)}: {said}")
    for shared in notes_of(summary, "dropped"):
        said = f"{shown(shared.note.subject)}: {shown(shared.note.text)}"
        _say(console, f"{'dropped':<12}{said} ({_all(shared.names)})")
    for failure in failures_of(summary):
        _say(console, f"{'reason':<12}{shown(failure.reason)} ({_all(failure.names)})")
        if failure.remedy:
            _say(console, f"{'remedy':<12}{shown(failure.remedy)}")
    _say(console, f"{'total':<12}{totals(summary)}")
    for line in next_steps(summary):
        _say(console, f"{'next':<12}{line}")


def next_steps(summary: Summary) -> tuple[str, ...]:
    """What to do now, a line each."""
    lines = []
    if made := summary.ended_in("done"):
        name = made[0].name if len(made) == 1 else "NAME"
        where = "" if summary.root == "/" else f" (on the host whose root is {summary.root})"
        lines.append(f"Start {'it' if len(made) == 1 else 'them'} with: machinectl start {name}{where}")
    if planned := summary.ended_in("planned"):
        what = "it" if len(planned) == 1 else "them"
        lines.append(f"Nothing was written; to make {what}, run it without --dry-run")
    if not summary.good and not planned:
        lines.append("Run it again with --resume: what is complete and unchanged is left out")
    return tuple(lines)


def _who(names: tuple[str, ...]) -> str:
    return f"{counted(len(names), 'machine')}: {listed(tuple(map(shown, names)), _NAMES)}"


def _all(names: tuple[str, ...]) -> str:
    return f"{len(names)}: {', '.join(map(shown, names))}"


def _say(console: Console, line: str, style: str = "") -> None:
    """One line, whatever is in it."""
    console.print(Text(printable(line), style))
