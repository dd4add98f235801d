"""A batch's report as one HTML page: no network, readable without scripts, printable.

What most of 1,000 machines have in common would make it large. So each distinct note that is not unique stands once,
in the page's last section or among what was dropped, and a machine names it by its subject, with a link. Where scripts
run, page.js puts the text beside the subject when a machine's notes are opened.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files
from string import Template

from converter.batch.grouping import SharedNote, failures_of, notes_of
from converter.batch.model import GOOD, Outcome, State, Summary
from converter.batch.wording import STATES, amount, counted, moment, shown, span, totals
from converter.note import Kind, Note

_MARKS: dict[State, str] = {
    "done": "✓", "complete": "✓", "planned": "✓", "failed": "✗", "interrupted": "!", "left": "–",
}  # fmt: skip
_SAID: dict[Kind, str] = {"dropped": "Did not come along", "adapted": "Adapted", "exact": "Exact"}
_FEW = 12  # names that are shown without being asked for


def page(summary: Summary) -> str:
    """The page's text. All that comes from images is escaped; the page's own policy lets nothing else run."""
    style, script = (files(__package__).joinpath(name).read_text("utf-8") for name in ("page.css", "page.js"))
    dropped = notes_of(summary, "dropped")
    others = tuple(s for s in notes_of(summary, "adapted", "exact") if len(s.names) > 1)
    anchors = {shared.note: f"n{number}" for number, shared in enumerate((*dropped, *others))}
    template = Template(files(__package__).joinpath("page.html").read_text("utf-8"))
    return template.substitute(
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
        totals=_text(totals(summary)),
        facts="".join(_facts(summary)),
        bar=_bar(summary),
        legend="".join(_legend(summary)),
        messages="".join(_messages(summary)),
        failed="".join(_failed(summary)),
        dropped="".join(_dropped(summary, dropped, anchors)),
        states="".join(f'<option value="{state}">{said}' for state, said in _there(summary)),
        rows="".join(_row(outcome, anchors) for outcome in summary.outcomes),
        notes="".join(_notes(summary, others, anchors)),
    )


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _text(text: str) -> str:
    return html.escape(shown(text))


def _there(summary: Summary) -> Iterator[tuple[State, str]]:
    return ((state, said) for state, said in STATES.items() if summary.ended_in(state))


def _facts(summary: Summary) -> Iterator[str]:
    for name, value in (
        ("Host", summary.host),
        ("Root", summary.root),
        ("Begun", moment(summary.started)),
        ("Ended", moment(summary.ended)),
        ("At a time", str(summary.jobs)),
        ("Notes", ", ".join(f"{_all(summary, kind):,} {kind}" for kind in ("exact", "adapted", "dropped"))),
        ("Layers read", amount(sum(outcome.size for outcome in summary.outcomes))),
        ("Made by", f"docker2nspawn {summary.version}"),
    ):
        yield f"<div><dt>{name}<dd>{_text(value)}</div>"


def _all(summary: Summary, kind: str) -> int:
    return sum(outcome.count(kind) for outcome in summary.outcomes)


def _bar(summary: Summary) -> str:
    """How many ended in which state, as widths."""
    parts, x = [], 0
    for state, _ in _there(summary):
        width = len(summary.ended_in(state))
        parts.append(f'<rect class="{state}" x="{x}" width="{width}" height="1"/>')
        x += width
    return (
        f'<svg class="bar" viewBox="0 0 {max(x, 1)} 1" preserveAspectRatio="none" role="img" '
        f'aria-label="{_text(totals(summary))}">{"".join(parts)}</svg>'
    )


def _legend(summary: Summary) -> Iterator[str]:
    for state, said in _there(summary):
        yield f'<li class="{state}"><span class="mark" aria-hidden="true">{_MARKS[state]}</span> '
        yield f"<b>{len(summary.ended_in(state)):,}</b> {said}</li>"


def _messages(summary: Summary) -> Iterator[str]:
    said = [*summary.messages, *(["The batch was interrupted."] if summary.interrupted else [])]
    if not summary.good and not summary.ended_in("planned"):
        said.append("Run it again with --resume: what is complete and unchanged is left out.")
    if said:
        yield f'<ul class="messages">{"".join(f"<li>{_text(one)}" for one in said)}</ul>'


def _failed(summary: Summary) -> Iterator[str]:
    failures = failures_of(summary)
    if not failures:
        return
    caption = f"{counted(len(summary.ended_in('failed')), 'machine')} failed"
    yield '<section aria-labelledby="failed"><h2 id="failed">Failed</h2><table class="said">'
    yield f'<caption>{caption}</caption><thead><tr><th scope="col">Reason<th scope="col">What to do'
    yield '<th scope="col" class="number">Machines<th scope="col">Names</thead><tbody>'
    for failure in failures:
        yield f'<tr><th scope="row" class="reason">{_text(failure.reason)}<td>{_text(failure.remedy)}'
        yield f'<td class="number">{len(failure.names):,}<td>{_linked(failure.outcomes)}'
    yield "</table></section>"


def _dropped(summary: Summary, dropped: Iterable[SharedNote], anchors: Mapping[Note, str]) -> Iterator[str]:
    rows = [
        f'<tr id="{anchors[shared.note]}"><th scope="row">{_text(shared.note.subject)}'
        f'<td class="text">{_text(shared.note.text)}<td class="number">{len(shared.names):,}'
        f"<td>{_linked(shared.outcomes)}"
        for shared in dropped
    ]
    if not rows:
        return
    yield '<section aria-labelledby="dropped"><h2 id="dropped">Did not come along</h2><table class="said">'
    yield f"<caption>{counted(_all(summary, 'dropped'), 'fact')} of all machines, equal ones said once</caption>"
    yield '<thead><tr><th scope="col">What<th scope="col">Why, and what to do instead'
    yield '<th scope="col" class="number">Machines<th scope="col">Names</thead><tbody>'
    yield from rows
    yield "</table></section>"


def _linked(outcomes: tuple[Outcome, ...]) -> str:
    links = [f'<a href="#m{outcome.number}">{_text(outcome.name)}</a>' for outcome in outcomes]
    if len(links) <= _FEW:
        return ", ".join(links)
    first, rest = ", ".join(links[:3]), ", ".join(links[3:])
    return f"{first}<details><summary>and {len(links) - 3:,} more</summary>{rest}</details>"


def _row(outcome: Outcome, anchors: Mapping[Note, str]) -> str:
    good = outcome.state in GOOD
    cells = []
    for kind in ("exact", "adapted", "dropped"):
        count = outcome.count(kind)
        css = f"number {kind}" if count else "number"
        cells.append(f'<td class="{css}">{count if good or count else ""}')
    seconds, size = outcome.seconds, outcome.size
    return (
        f'<tr id="m{outcome.number}" class="{outcome.state}"><th scope="row">{_text(outcome.name)}'
        f'<td class="state"><span class="mark" aria-hidden="true">{_MARKS[outcome.state]}</span> '
        f"{STATES[outcome.state]}{''.join(cells)}"
        f'<td class="number" data-sort="{seconds:.3f}">{span(seconds) if seconds else ""}'
        f'<td class="number" data-sort="{size}">{amount(size) if size else ""}'
        f"<td><details><summary>{_text(outcome.source)}</summary>{''.join(_told(outcome, anchors))}</details>\n"
    )


def _told(outcome: Outcome, anchors: Mapping[Note, str]) -> Iterator[str]:
    """All that is known of one machine."""
    if outcome.reason:
        yield f'<p class="reason">{_text(outcome.reason)}'
    if outcome.remedy:
        yield f"<p>{_text(outcome.remedy)}"
    for kind, said in _SAID.items():
        notes = [note for note in dict.fromkeys(outcome.notes) if note.kind == kind]
        if notes:
            yield f'<h3 class="{kind}">{said}</h3><ul class="{kind}">'
            yield from (_note(note, anchors.get(note)) for note in notes)
            yield "</ul>"
    facts = [
        ("in", outcome.tree_path),
        ("digest", outcome.digest or ""),
        ("attempts", str(outcome.attempts) if outcome.attempts > 1 else ""),
        ("by", outcome.worker),
    ]
    if told := ", ".join(f"{name} {_text(value)}" for name, value in facts if value):
        yield f'<p class="facts">{told}'


def _note(note: Note, anchor: str | None) -> str:
    subject, text = _text(note.subject), _text(note.text)
    if anchor is None or note.kind == "dropped":  # what is lost is told in full wherever it is
        return f"<li><b>{subject}</b> {text}"
    return f'<li><a href="#{anchor}">{subject}</a>'


def _notes(summary: Summary, notes: tuple[SharedNote, ...], anchors: Mapping[Note, str]) -> Iterator[str]:
    if not notes:
        return
    yield '<section aria-labelledby="notes"><h2 id="notes">What several machines have in common</h2>'
    for kind in ("adapted", "exact"):
        rows = [shared for shared in notes if shared.note.kind == kind]
        if not rows:
            continue
        yield f'<table class="said"><caption>{_SAID[kind]}</caption><thead><tr><th scope="col">What'
        yield '<th scope="col">What became of it<th scope="col" class="number">Machines</thead><tbody>'
        for shared in rows:
            yield f'<tr id="{anchors[shared.note]}"><th scope="row">{_text(shared.note.subject)}'
            yield f'<td class="text">{_text(shared.note.text)}<td class="number">{_how_many(summary, shared)}'
        yield "</table>"
    yield "</section>"


def _how_many(summary: Summary, shared: SharedNote) -> str:
    """The number; with the names where that says more than "nearly all"."""
    number = f"{len(shared.names):,}"
    if shared.note.kind == "exact" or len(shared.names) == len(summary.outcomes):
        return number
    names = ", ".join(map(_text, shared.names))
    return f'<details class="names"><summary>{number}</summary>{names}</details>'
