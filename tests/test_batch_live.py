"""A batch's live table, as it is seen on terminals of several sizes, and its lines in a pipe."""

from __future__ import annotations

import sys
import time
from dataclasses import replace

import pytest

from converter.batch.live import show
from converter.batch.model import Event, Outcome
from converter.note import Note
from tests.batches import outcome
from tests.terminal import Terminal, batch_on_terminal


def step(number: int, label: str, done: int, total: int | None, name: str = "") -> Event:
    return Event("step", number, name or f"machine-{number}", label, done, total)


def ended(result: Outcome) -> Event:
    return Event("ended", result.number, result.name, outcome=result)


def begun(number: int) -> Event:
    return Event("begun", number, f"machine-{number}")


def row(lines: list[str], name: str) -> str:
    return next((line for line in lines if line.startswith(name)), "")


def test_one_line_for_each_that_is_under_way() -> None:
    with batch_on_terminal(80, 24, 100) as terminal:
        terminal.send(begun(0), begun(1), step(0, "fetching", 25_000_000, 100_000_000))
        lines = terminal.until(lambda seen: "25.0 MB / 100.0 MB" in row(seen, "machine-0"))
        assert row(lines, "machine-0").split()[:2] == ["machine-0", "fetching"]
        assert row(lines, "machine-1").split() == ["machine-1", "begun"]
        assert "machine-2" not in "".join(lines)
        assert lines[-1].startswith("0 of 100 done  25.0 MB")
        assert max(map(len, lines)) <= 80


def test_rate_and_time_left() -> None:
    with batch_on_terminal(80, 24, 2) as terminal:
        for second in range(8):  # 4 MB/s
            terminal.send(step(0, "fetching", second * 1_000_000, 1_000_000_000))
            time.sleep(0.25)
        lines = terminal.until(lambda seen: "/s" in row(seen, "machine-0"))
        *_, rate, unit, left = row(lines, "machine-0").split()
        assert unit == "MB/s"
        assert 2 < float(rate) < 5
        minutes, seconds = left.split(":")
        assert 190 < int(minutes) * 60 + int(seconds) < 500
        assert "MB/s" in lines[-1]


def test_the_whole_has_an_estimate_from_those_that_ended() -> None:
    with batch_on_terminal(80, 24, 4) as terminal:
        time.sleep(1.5)
        terminal.send(ended(outcome(0, "done")), ended(outcome(7, "failed")))
        line = terminal.until(lambda seen: "left" in "".join(seen[-1:]))[-1]
        assert line.startswith("1 of 4 done  1 failed  10.0 MB  after 0:0")
        left = line.rpartition("after")[2].split()[1]
        assert left.startswith("0:0")


def test_what_ended_stands_above_and_scrolls() -> None:
    with batch_on_terminal(80, 24, 1000) as terminal:
        terminal.send(begun(999))
        for number in range(990):
            terminal.send(begun(number), ended(outcome(number, "failed" if number % 40 == 7 else "done")))
        lines = terminal.until(lambda seen: bool(seen) and seen[-1].startswith("965 of 1,000 done"))
        assert row(lines, "machine-999")
        everything = terminal.end()
        told = [line for line in everything if line[0] in "✓✗"]
        assert everything == told, "the live area is gone at the end"
        assert len(told) == 990
        assert told[0] == "✓ web-0000  1.5 s  29 exact, 8 adapted, 4 dropped"
        assert told[7] == "✗ grafana-0007  layer 3 of 7: digest is not what the manifest says"[:80]
        assert [line.split()[1] for line in told] == [outcome(n, "done").name for n in range(990)]


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (40, 24), (40, 8), (60, 10), (200, 50), (20, 5)])
def test_no_more_lines_than_fit(columns: int, lines: int) -> None:
    with batch_on_terminal(columns, lines, 500) as terminal:
        terminal.send(*map(begun, range(60)))
        terminal.send(*(step(n, "unpacking layers", 5 * n, 1000) for n in range(60)))
        shown = min(60, lines - 3)

        def full(seen: list[str]) -> bool:
            return bool(seen) and seen[-1].startswith("0 of 500") and row(seen, "machi") != ""

        for _ in range(10):  # pictures follow each other in place
            terminal.read(0.2)
        seen = terminal.until(full)
        assert sum(line.startswith("machi") for line in seen) == shown
        if shown < 60:
            assert seen[-2].startswith(f"… and {60 - shown} more")
        assert len(seen) <= lines
        assert max(map(len, seen)) <= columns
        assert terminal.scrolled() == []


def test_narrow_terminals_show_percents() -> None:
    with batch_on_terminal(40, 12, 3) as terminal:
        terminal.send(step(0, "fetching registry.example/a/very/long/name:1.2.3", 5, 20))
        terminal.send(ended(replace(outcome(1, "failed"), reason="x" * 300)))
        lines = terminal.until(lambda seen: "25 %" in row(seen, "machine-0") and bool(row(seen, "✗")))
        assert row(lines, "machine-0").startswith("machine-0 fetching")
        assert "…" in row(lines, "machine-0")
        assert row(lines, "✗").endswith("x…")
        assert sum("xxx" in line for line in lines) == 1, "cut, not folded"


def test_another_attempt_and_shared_work_have_lines() -> None:
    with batch_on_terminal(80, 24, 3) as terminal:
        terminal.send(begun(0), Event("waiting", 0, "machine-0", "connection reset", seconds=30))
        terminal.send(step(-1, "making the base", 1, 4, name="debian:12"))
        lines = terminal.until(lambda seen: "debian:12" in "".join(seen))
        assert "again in " in row(lines, "machine-0")
        assert "connection reset" in row(lines, "machine-0")
        terminal.send(begun(0), Event("ended", -1, "debian:12"))
        lines = terminal.until(lambda seen: "debian:12" not in "".join(seen))
        assert row(lines, "machine-0").split() == ["machine-0", "begun"]
        terminal.send(ended(replace(outcome(0, "done"), name="machine-0", attempts=2)))
        terminal.send(step(0, "late", 1, 2))
        lines = terminal.until(lambda seen: bool(row(seen, "✓ machine-0")))
        assert row(lines, "✓ machine-0").endswith("2 attempts")
        assert not row(lines, "machine-0")


def test_untrusted_text_drives_no_terminal() -> None:
    hostile = "\x1b[2J\x1b]0;owned\x07a\nb\r\u202ec"
    with batch_on_terminal(80, 24, 5) as terminal:
        terminal.send(step(0, hostile, 1, 2, name=hostile))
        terminal.send(ended(Outcome(1, hostile, "source", "failed", reason=hostile)))
        terminal.send(step(-1, "[bold]x[/bold]", 1, 2, name="[red]"))
        terminal.until(lambda seen: bool(row(seen, "✗")) and bool(row(seen, "[red]")))
        everything = "\n".join(terminal.end())
        assert "\\x1b[2J\\x1b]0;owned\\x07a\\nb\\r\\u202ec" in everything
        for bad in (b"\x1b[2J", b"\x1b]0;", b"\x07", "\u202e".encode()):
            assert bad not in terminal.written


def pictures(terminal: Terminal) -> int:
    return terminal.written.count(b" of 1,000 done")


def test_few_pictures_whatever_happens() -> None:
    with batch_on_terminal(80, 24, 1000) as terminal:
        terminal.send(begun(999))
        terminal.until(lambda seen: bool(seen))
        before, start = pictures(terminal), time.monotonic()
        for number in range(300):
            terminal.send(begun(number), ended(outcome(number, "done")))
            terminal.send(step(999, "fetching", number, 300))
            terminal.read(0.01)
        taken = time.monotonic() - start
        assert pictures(terminal) - before <= 8 * taken + 1


def test_in_a_pipe_only_what_ended(capsys: pytest.CaptureFixture[str]) -> None:
    assert not sys.stderr.isatty()
    notes = (*(Note("exact", str(n), "") for n in range(20)), Note("dropped", "x", ""))
    with show(total=4) as screen:
        screen.event(begun(0))
        screen.event(step(0, "fetching", 1, 2))
        screen.event(ended(Outcome(0, "web", "web", "done", notes=notes, seconds=1.23)))
        screen.event(ended(Outcome(1, "db", "db", "failed", reason="no\x1b such\nimage")))
        screen.event(ended(Outcome(2, "mq", "mq", "complete")))
        screen.event(ended(Outcome(3, "left", "left", "left")))
        screen.event(Event("ended", -1, "debian:12"))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "done web in 1.2 s: 20 exact, 0 adapted, 1 dropped",
        "failed db: no\\x1b such\\nimage",
        "complete mq: it was there already",
    ]
