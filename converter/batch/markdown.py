"""A batch's report in GitHub's Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from converter.batch.grouping import SharedNote, failures_of, notes_of
from converter.batch.model import GOOD, Outcome, Summary
from converter.batch.wording import STATES, amount, counted, moment, shown, span, totals

_SPECIAL = re.compile(r"[\\`*_\[\]<>&|~#!$]")
_LINK = re.compile(
    r"(?<=[a-zA-Z]):(?=//)|(?<=www)\.", re.IGNORECASE
)  # GitHub makes links of what looks like one


def markdown(summary: Summary) -> str:
    """The report, for people; notes of the kind "exact" are only counted."""
    return "\n".join(_lines(summary)) + "\n"


def escaped(text: str) -> str:
    """Untrusted text for any place in Markdown, a table's cell too: it is shown as it is."""
    return _LINK.sub(lambda match: "\\" + match[0], _SPECIAL.sub(r"\\\g<0>", shown(text)))


def _lines(summary: Summary) -> Iterator[str]:
    yield from ("# docker2nspawn batch", "", f"**{totals(summary)}.**", "")
    machines = counted(summary.jobs, "machine")
    yield f"On {escaped(summary.host)}, {moment(summary.started)} to {moment(summary.ended)},"
    yield f"into {escaped(summary.root)}, {machines} at a time, by docker2nspawn {escaped(summary.version)}."
    if summary.interrupted:
        yield from ("", "The batch was interrupted.")
    if summary.messages:
        yield from ("", "## The list", "")
        yield from (f"- {escaped(message)}" for message in summary.messages)
    if failures := failures_of(summary):
        yield from ("", "## Failed", "")
        yield from _table(
            ("Reason", "Remedy", "Machines"),
            ((escaped(f.reason), escaped(f.remedy), _names(f.names)) for f in failures),
        )
    if dropped := notes_of(summary, "dropped"):
        yield from ("", "## Did not come along", "")
        yield from _note_table(dropped)
    yield from ("", "## Machines", "")
    yield from _table(
        ("Machine", "State", "Exact", "Adapted", "Dropped", "Time", "Layers", "Source"),
        map(_row, summary.outcomes),
        numbers=range(2, 7),
    )
    if adapted := notes_of(summary, "adapted"):
        yield from ("", "## Adapted", "")
        yield from _note_table(adapted)


def _row(outcome: Outcome) -> tuple[str, ...]:
    counts = [outcome.count(kind) for kind in ("exact", "adapted", "dropped")]
    return (
        escaped(outcome.name),
        STATES[outcome.state],
        *(str(count) if outcome.state in GOOD or count else "" for count in counts),
        span(outcome.seconds) if outcome.seconds else "",
        amount(outcome.size) if outcome.size else "",
        escaped(outcome.source),
    )


def _note_table(notes: Iterable[SharedNote]) -> Iterator[str]:
    rows = ((escaped(s.note.subject), escaped(s.note.text), _names(s.names)) for s in notes)
    return _table(("What", "What became of it", "Machines"), rows)


def _names(names: tuple[str, ...]) -> str:
    return f"{len(names)}: {', '.join(map(escaped, names))}"


def _table(
    headings: tuple[str, ...], rows: Iterable[tuple[str, ...]], numbers: range = range(0)
) -> Iterator[str]:
    yield f"| {' | '.join(headings)} |"
    yield "|" + "|".join("---:" if column in numbers else "---" for column in range(len(headings))) + "|"
    for row in rows:
        yield f"| {' | '.join(row)} |"
