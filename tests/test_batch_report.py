"""A batch's summary and its report files: what they say, and that hostile text stays text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import stat
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from converter.batch.model import Outcome, Summary
from converter.batch.report_files import as_json, check_report, write_report
from converter.batch.summary import print_summary
from converter.errors import ConversionError
from converter.note import Note
from tests.batches import batch, outcome
from tests.terminal import run_on_terminal

HOSTILE = "<script>alert(1)</script>|`x`\n\x1b[2J\u202e\udc80 & \"q\" 'q' </style> ](javascript:x) <!-- http://evil.example"


def hostile_batch() -> Summary:
    notes = (Note("dropped", HOSTILE, HOSTILE), Note("adapted", HOSTILE, "y"), Note("exact", HOSTILE, "z"))
    outcomes = (
        Outcome(0, HOSTILE, HOSTILE, "done", digest=HOSTILE, tree_path=HOSTILE, notes=notes, worker=HOSTILE),
        Outcome(1, HOSTILE, HOSTILE, "done", notes=notes),
        Outcome(2, HOSTILE, HOSTILE, "failed", reason=HOSTILE, remedy=HOSTILE),
    )
    return replace(
        batch(0), outcomes=outcomes, host=HOSTILE, root=HOSTILE, version=HOSTILE, messages=(HOSTILE,)
    )


class Page(HTMLParser):
    """The elements of a page, with their attributes, and the text that is to be read."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def written(summary: Summary, path: Path) -> str:
    write_report(summary, path)
    return path.read_text("utf-8")


# --- files


@pytest.mark.parametrize("name", ["report", "report.txt", "report.htm", ".json"])
def test_unknown_endings_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConversionError, match=r"\.json, \.html or \.md"):
        check_report(tmp_path / name)
    with pytest.raises(ConversionError, match=r"\.json, \.html or \.md"):
        write_report(batch(1), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_places_where_no_report_can_be_are_refused_before(tmp_path: Path) -> None:
    (tmp_path / "directory.md").mkdir()
    with pytest.raises(ConversionError, match="is a directory"):
        check_report(tmp_path / "directory.md")
    with pytest.raises(ConversionError, match="there is no directory"):
        check_report(tmp_path / "missing" / "report.md")
    with pytest.raises(ConversionError, match="cannot write into"):
        check_report(Path("/proc/self/report.md"))
    check_report(tmp_path / "REPORT.HTML")
    assert [path.name for path in tmp_path.iterdir()] == ["directory.md"]


@pytest.mark.parametrize("ending", ["json", "html", "md"])
def test_a_report_is_replaced_whole_and_only_its_owner_reads_it(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"report.{ending}"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("another's")
    path.symlink_to(elsewhere)
    write_report(batch(30), path)
    assert stat.S_ISREG(path.lstat().st_mode)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert elsewhere.read_text() == "another's"
    assert {entry.name for entry in tmp_path.iterdir()} == {path.name, "elsewhere"}


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "report.md"
    path.mkdir()
    with pytest.raises(ConversionError, match=r"--report .*: cannot be written: "):
        write_report(batch(1), path)
    assert list(tmp_path.iterdir()) == [path]


# --- JSON


def summary_of(read: Mapping[str, Any]) -> Summary:
    """The Summary that a report was written of."""
    outcomes = [
        Outcome(**{**{k: v for k, v in one.items() if k != "counts"},
                   "notes": tuple(Note(**note) for note in one["notes"])})
        for one in read["outcomes"]
    ]  # fmt: skip
    rest = {k: v for k, v in read.items() if k not in {"format", "counts", "outcomes", "messages"}}
    return Summary(outcomes=tuple(outcomes), messages=tuple(read["messages"]), **rest)


@pytest.mark.parametrize("summary", [batch(0), batch(60), hostile_batch()], ids=["none", "many", "hostile"])
def test_json_holds_everything(summary: Summary) -> None:
    text = as_json(summary)
    assert text.isascii()
    assert summary_of(json.loads(text)) == summary


def test_json_counts(tmp_path: Path) -> None:
    read = json.loads(written(batch(60), tmp_path / "report.json"))
    assert read["format"] == 1
    by_state = {"done": 52, "complete": 2, "planned": 0, "failed": 2, "interrupted": 0, "left": 4}
    assert {key: read["counts"][key] for key in by_state} == by_state
    assert (read["counts"]["machines"], read["counts"]["good"]) == (60, 54)
    assert read["counts"]["adapted"] == 54 * 8 == sum(o["counts"]["adapted"] for o in read["outcomes"])


# --- Markdown


def cells(row: str) -> int:
    return len(re.findall(r"(?<!\\)\|", row)) - 1


def tables(text: str) -> list[list[str]]:
    blocks = re.split(r"\n(?!\|)", text)
    return [
        [line for line in block.splitlines() if line.startswith("|")] for block in blocks if "\n|" in block
    ]


@pytest.mark.parametrize("summary", [batch(60), hostile_batch()], ids=["many", "hostile"])
def test_markdown_tables_have_one_shape(tmp_path: Path, summary: Summary) -> None:
    found = tables(written(summary, tmp_path / "report.md"))
    assert [cells(table[0]) for table in found] == [3, 3, 8, 3]
    for table in found:
        assert set(map(cells, table)) == {cells(table[0])}
    assert len(found[2]) == 2 + len(summary.outcomes)


def test_markdown_quotes_hostile_text(tmp_path: Path) -> None:
    text = written(hostile_batch(), tmp_path / "report.md")
    assert "\x1b" not in text and "\u202e" not in text
    bare = re.sub(r"\\[\\`*_\[\]<>&|~#!$:.]", "", text)
    assert not set("<>`[]&") & set(bare)
    assert "http://" not in text


def test_markdown_says_equal_notes_once(tmp_path: Path) -> None:
    text = written(batch(60), tmp_path / "report.md")
    assert text.count("a service has no terminal") == 1
    assert "| Tty | a service has no terminal; for one run systemd-nspawn -M NAME | 19: web-0000, " in text
    assert "Environment=" not in text


# --- HTML


def test_html_names_every_machine_and_reason(tmp_path: Path) -> None:
    page = Page(written(batch(60), tmp_path / "report.html"))
    for one in batch(60).outcomes:
        assert {"id": f"m{one.number}", "class": one.state} in page.named("tr")
        assert one.name in page.text and one.source in page.text
        assert one.reason in page.text and one.remedy in page.text
    assert (
        page.text.index("Failed") < page.text.index("Did not come along") < page.text.index("Every machine")
    )


def test_html_tells_every_note_of_every_machine(tmp_path: Path) -> None:
    text = written(batch(60), tmp_path / "report.html")
    rows = re.findall(r'<tr id="m(\d+)".*', text)
    lines = [line for line in text.splitlines() if line.startswith('<tr id="m')]
    assert len(rows) == len(lines) == 60
    for one, line in zip(batch(60).outcomes, lines, strict=True):
        assert line.count("<li>") == len(one.notes)
        row = Page(line)
        for note in one.notes:
            assert note.subject in row.text
            if note.text not in row.text:  # then it stands where the link leads
                anchors = re.findall(
                    rf'<a href="#(n\d+)">{re.escape(note.subject)}</a>'.replace('"', '["]'), line
                )
                assert anchors
                assert any(
                    note.text in Page(text.split(f'<tr id="{a}">')[1].split("<tr")[0]).text for a in anchors
                )


def test_html_hostile_text_stays_text(tmp_path: Path) -> None:
    text = written(hostile_batch(), tmp_path / "report.html")
    page = Page(text)
    assert len(page.named("script")) == len(page.named("style")) == 1
    assert "\x1b" not in text and "\u202e" not in text
    shown = "<script>alert(1)</script>|`x`\\n\\x1b[2J\\u202e\\x80 & \"q\" 'q' </style> ](javascript:x) <!-- http://evil.example"
    assert page.text.count(shown) >= 10
    known = {"href", "id", "class", "scope", "data-sort", "aria-hidden", "aria-labelledby", "value"}
    for tag, attributes in page.elements:
        if tag in {"td", "th", "tr", "a", "li", "p", "b", "summary", "details"}:
            assert attributes.keys() <= known, (tag, attributes)


def test_html_reaches_for_nothing(tmp_path: Path) -> None:
    text = written(batch(60), tmp_path / "report.html")
    page = Page(text)
    for _, attributes in page.elements:
        assert not {"src", "srcset", "style", "onclick", "action"} & attributes.keys()
        assert (attributes.get("href") or "#").startswith("#")
    assert "@import" not in text and "url(" not in text
    (policy,) = [m["content"] or "" for m in page.named("meta") if m.get("http-equiv")]
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy
    for tag in ("style", "script"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_html_is_accessible(tmp_path: Path) -> None:
    page = Page(written(batch(60), tmp_path / "report.html"))
    assert page.named("html") == [{"lang": "en"}]
    assert all(heading.get("scope") in {"col", "row"} for heading in page.named("th"))
    assert len(page.named("caption")) == len(page.named("table")) == 5
    identifiers = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    targets = {f"#{identifier}" for identifier in identifiers}
    assert {link["href"] for link in page.named("a")} <= targets


def _luminance(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_html_colours_have_contrast(tmp_path: Path) -> None:
    """4.5 to 1, as WCAG 2 asks of text, in the light, the dark and the printed page."""
    palettes = re.findall(r":root \{(.*?)\}", written(batch(1), tmp_path / "report.html"), re.DOTALL)
    assert len(palettes) == 3
    for palette in palettes:
        colours = dict(re.findall(r"--(\w+): (#\w{6})", palette))
        for ink in colours.keys() - {"paper", "raised", "line", "idle"}:
            for paper in ("paper", "raised"):
                dark, light = sorted((_luminance(colours[ink]), _luminance(colours[paper])))
                assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, paper)


def test_html_of_a_thousand_is_small(tmp_path: Path) -> None:
    summary = batch(1000)
    assert sum(len(one.notes) for one in summary.outcomes) > 36_000
    path = tmp_path / "report.html"
    write_report(summary, path)
    assert path.stat().st_size < 3_000_000


# --- the summary on stdout


def test_summary_in_a_pipe_is_for_grep(capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(batch(60), Path("/tmp/report.md"))
    lines = capsys.readouterr().out.splitlines()
    assert "done        web-0000: 29 exact, 8 adapted, 4 dropped" in lines
    assert "failed      grafana-0007: layer 3 of 7: digest is not what the manifest says" in lines
    assert "left        ldap-0059: not begun" in lines
    (terminal,) = [line for line in lines if line.startswith("dropped     Tty: ")]
    assert terminal.count("-00") == 19 and "(19: web-0000, postgres-0003, " in terminal
    assert "reason      layer 3 of 7: digest is not what the manifest says (1: grafana-0007)" in lines
    assert "remedy      pull or push the image again: its layer is damaged" in lines
    assert lines[-4] == "total       60 machines: 52 made, 2 there already, 2 failed, 4 not begun, in 20:34"
    assert lines[-3:] == [
        "next        Start them with: machinectl start NAME",
        "next        Run it again with --resume: what is complete and unchanged is left out",
        "The report: /tmp/report.md",
    ]
    assert not any("adapted  " in line for line in lines)


@pytest.mark.parametrize(
    ("states", "root", "said"),
    [
        (("done",), "/", ["Start it with: machinectl start web-0000"]),
        (("done",), "/mnt", ["Start it with: machinectl start web-0000 (on the host whose root is /mnt)"]),
        (("planned", "planned"), "/", ["Nothing was written; to make them, run it without --dry-run"]),
        (("complete",), "/", []),
        (("interrupted",), "/", ["Run it again with --resume: what is complete and unchanged is left out"]),
    ],
)
def test_next_steps(capsys: pytest.CaptureFixture[str], states: Any, root: str, said: list[str]) -> None:
    outcomes = tuple(outcome(number, state) for number, state in enumerate(states))
    print_summary(replace(batch(0), outcomes=outcomes, root=root))
    lines = capsys.readouterr().out.splitlines()
    assert [line[12:] for line in lines if line.startswith("next ")] == said


def test_summary_of_hostile_text_is_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(hostile_batch())
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\u202e" not in out
    words = [line.split()[0] for line in out.splitlines()]
    assert words == ["list", "done", "done", "failed", "dropped", "reason", "remedy", "total", "next", "next"]


_PRINT = """
from converter.batch.summary import print_summary
from tests.batches import batch
print_summary(batch(1000))
"""


def test_summary_on_a_terminal_is_not_longer_than_it_must_be() -> None:
    lines = run_on_terminal(_PRINT, columns=80, lines=24)
    assert max(map(len, lines)) <= 80
    rows = [line for line in lines if re.match(r"[a-z-]+-\d{4} ", line)]
    assert len(rows) == 1000
    assert len(lines) < 1050
    assert rows[7].split() == ["grafana-0007", "failed", "4.2", "s"]
    assert rows[0].split() == ["web-0000", "made", "29", "8", "4", "1.5", "s"]
    everything = "\n".join(lines)
    assert "324 machines: web-0000, postgres-0003, " in everything and "and 316 more" in everything
    assert (
        everything.index("Did not come along:") < everything.index("Failed:") < everything.index("1,000 mach")
    )
