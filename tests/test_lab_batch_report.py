"""The HTML report of 1,000 machines in a real browser: read, filtered, sorted, opened, printed."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from converter.batch.report_files import write_report
from tests.batches import batch
from tests.browser import Browser, browser
from tests.test_batch_report import hostile_batch

pytestmark = pytest.mark.lab

SUMMARY = batch(1000)
SHOWN = "[...document.querySelectorAll('#list tbody tr')].filter((row) => row.checkVisibility())"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("batch") / "report.html"
    write_report(SUMMARY, path)
    return path


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Browser]:
    """A browser that must have had nothing to complain of, and asked for nothing but files, when the test is over."""
    (tmp_path / "profile").mkdir()
    with browser(tmp_path / "profile") as running:
        yield running
        assert running.complaints == []
        assert all(url.startswith(("file:", "about:")) for url in running.requests)


def names(page: Browser) -> list[str]:
    """The machines that are shown, in their order."""
    found: list[str] = page.run(f"{SHOWN}.map((row) => row.cells[0].textContent)")
    return found


def test_a_thousand_rows_are_there_at_once(page: Browser, report: Path) -> None:
    assert page.open(report) < 5  # seconds, on a machine that does other things, too
    assert names(page) == [outcome.name for outcome in SUMMARY.outcomes]
    assert page.run("performance.getEntriesByType('navigation')[0].domComplete") < 2000
    assert page.run("document.documentElement.scrollWidth <= innerWidth")
    assert page.run("document.querySelector('h1').textContent").startswith("1,000 machines: 951 made")


def test_it_can_be_read_without_scripts(page: Browser, report: Path) -> None:
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    page.open(report)
    assert page.run("document.getElementById('filter').hidden")
    assert len(names(page)) == 1000
    page.click("#m0 summary")
    assert page.run("document.querySelector('#m0 details').open")
    assert "a service has no terminal" in page.run("document.querySelector('#m0 details').innerText")


def test_the_filter(page: Browser, report: Path) -> None:
    page.open(report)
    page.click("#find")
    page.write("LDAP 99")
    expected = [o.name for o in SUMMARY.outcomes if o.name.startswith("ldap") and "99" in o.name]
    assert set(expected) <= set(names(page)) and len(names(page)) < 100
    assert page.run("document.getElementById('found').textContent") == f"{len(names(page))} of 1,000"
    assert page.run("location.hash") == "#find=LDAP+99"


def test_what_is_shown_has_an_address(page: Browser, report: Path) -> None:
    page.open(report, "#find=grafana&state=failed")
    assert names(page) == [o.name for o in SUMMARY.ended_in("failed")]
    page.run("location.hash = '#m0'")  # a link to a machine that is not shown
    page.run("new Promise((done) => setTimeout(done, 100))")
    assert len(names(page)) == 1000


def test_sorting(page: Browser, report: Path) -> None:
    page.open(report)
    page.click("#list thead th:nth-child(6) button")
    longest = sorted(SUMMARY.outcomes, key=lambda outcome: -outcome.seconds)
    assert names(page)[:11] == [outcome.name for outcome in longest[:11]]
    assert page.run("document.querySelector('#list thead th:nth-child(6)').ariaSort") == "descending"
    page.click("#list thead th:nth-child(1) button")
    assert names(page) == sorted(outcome.name for outcome in SUMMARY.outcomes)
    page.click("#list thead th:nth-child(1) button")
    assert names(page) == sorted((outcome.name for outcome in SUMMARY.outcomes), reverse=True)


def test_a_machine_opens_to_all_its_notes(page: Browser, report: Path) -> None:
    page.open(report)
    page.click("#m30 summary")
    page.run("new Promise((done) => setTimeout(done, 100))")
    told = page.run("document.querySelector('#m30 details').innerText")
    for note in SUMMARY.outcomes[30].notes:
        assert note.subject in told and note.text in told, note


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark(page: Browser, report: Path, tmp_path: Path, scheme: str) -> None:
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    page.open(report)
    expected = {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}
    assert page.run("getComputedStyle(document.body).backgroundColor") == expected[scheme]
    page.picture(tmp_path / f"{scheme}.png")
    assert (tmp_path / f"{scheme}.png").stat().st_size > 20_000


def test_on_paper(page: Browser, tmp_path: Path) -> None:
    path, paper = tmp_path / "report.html", tmp_path / "report.pdf"
    summary = batch(60)
    write_report(summary, path)
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    page.open(path)
    page.print(paper)
    text = subprocess.run(
        ["pdftotext", "-layout", paper, "-"], capture_output=True, text=True, check=True
    ).stdout
    pages = text.rstrip("\f").split("\f")
    assert len(pages) > 3
    for outcome in summary.outcomes:
        assert outcome.name in text and outcome.source in text
    assert text.count("volumes/m") == sum(bool(outcome.notes) for outcome in summary.outcomes), "all are open"
    listing = [page for page in pages if "registry.example/team/" in page]
    assert all("Machine" in page.split("\n")[0] or "Machines\n" in page for page in listing), (
        "headings repeat"
    )
    info = subprocess.run(["pdfinfo", paper], capture_output=True, text=True, check=True).stdout
    assert "A4" in info
    assert not page.run("document.querySelector('#m0 details').open"), "and are closed again"


def test_hostile_text_in_a_real_browser(page: Browser, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(hostile_batch(), path)
    page.open(path)
    assert page.run("document.scripts.length") == 1
    assert len(names(page)) == 3
    assert all(name.startswith("<script>alert(1)</script>|`x`\\n\\x1b[2J") for name in names(page))
    assert page.run("document.querySelectorAll('a:not([href^=\"#\"])').length") == 0


def test_the_policy_stops_what_does_not_belong_there(report: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed.html"
    added = "<script>document.title = 'run'</script><img src='http://127.0.0.1:9/x.png'></body>"
    changed.write_text(report.read_text().replace("</body>", added))
    (tmp_path / "profile").mkdir()
    with browser(tmp_path / "profile") as page:
        page.open(changed)
        assert page.run("document.title") != "run"
        assert len([said for said in page.complaints if "Content Security Policy" in said]) == 2
