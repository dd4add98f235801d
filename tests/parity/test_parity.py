"""What a program sees and may do in `docker run` it sees and may do in the machine; docs/parity.md."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests import lab
from tests.parity import differences, document, harness
from tests.parity.cases import CASES
from tests.parity.differences import Row

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1500)]

_DOCUMENT = Path(__file__).parents[2] / "docs/parity.md"


@pytest.fixture(scope="session")
def results(work: Path, docker_host: str, systemd_hosts: dict[str, lab.Host]) -> harness.Results:
    place = harness.Lab(systemd_hosts["257"].docker, docker_host, systemd_hosts)
    lab.wait_until("Docker", lambda: harness.docker(place.docker, "info", check=False).returncode == 0)
    with harness.ready(work, place):
        return harness.run_all(work, place)


@pytest.fixture(scope="session")
def rows(results: harness.Results) -> list[Row]:
    return differences.compare(results)


@pytest.mark.parametrize("name", [case.name for case in CASES])
def test_machine_is_like_the_container(name: str, rows: list[Row]) -> None:
    mine = [row for row in rows if row.case == name]
    assert mine
    failed = [str(row) for row in mine if row.failed]
    assert not failed, "\n".join(failed)


def test_listed_differences_still_occur(rows: list[Row]) -> None:
    stale = [f"{listed.what} on {version}" for listed, version in differences.stale(rows)]
    assert not stale, "take them out of tests/parity/listed.py:\n" + "\n".join(stale)


def test_the_machine_gets_nowhere_that_docker_refuses(rows: list[Row]) -> None:
    """A listed difference may allow it only where it says why nothing is gained."""
    gained = [str(row) for row in rows if _gains(row) and not (row.reason and row.reason.harmless)]
    assert not gained, "\n".join(gained)


def _gains(row: Row) -> bool:
    return row.row == "escape" and row.machine == "done" and row.docker != "done"


def test_the_document_says_so(results: harness.Results, rows: list[Row]) -> None:
    text = document.render(rows, results.docker[CASES[0].name], results.older)
    if os.environ.get("D2N_WRITE_PARITY") == "1":
        _DOCUMENT.write_text(text)
    assert _DOCUMENT.read_text() == text, "write it anew: D2N_WRITE_PARITY=1"
