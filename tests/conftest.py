"""The lab's fixtures. Without the lab its tests are left out; with it (D2N_LAB=1) nothing may be skipped."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import lab

_skipped: list[str] = []


def pytest_configure() -> None:
    """What is run in the background or by nohup ignores these, and so would all that the tests start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if lab.switched_on():
        return
    left_out = [item for item in items if item.get_closest_marker("lab")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        _skipped.append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if lab.switched_on() and _skipped and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if lab.switched_on() and _skipped:
        terminalreporter.write_line(f"FAILED: with the lab on nothing may be skipped: {', '.join(_skipped)}")


@pytest.fixture(scope="session")
def work() -> Iterator[Path]:
    """The lab's directory on a real disk."""
    with lab.workspace() as path:
        yield path


@pytest.fixture(scope="session")
def docker_host(work: Path) -> Iterator[str]:
    """DOCKER_HOST of this machine's engine (20.10 on Debian 12)."""
    with lab.docker_engine(work) as host:
        yield host


@pytest.fixture(scope="session")
def systemd_host(work: Path) -> Iterator[lab.Host]:
    """A booted host with systemd 257 and Docker 26."""
    with lab.systemd_host(work) as host:
        yield host


@pytest.fixture(scope="session")
def systemd_hosts(work: Path, systemd_host: lab.Host) -> Iterator[dict[str, lab.Host]]:
    """Booted hosts by systemd's version: 252, 257 (the same as systemd_host) and 262."""
    with lab.systemd_host(work, "252") as oldest, lab.systemd_host(work, "262") as newest:
        yield {"252": oldest, "257": systemd_host, "262": newest}


@pytest.fixture(scope="session")
def plain_registry(work: Path) -> Iterator[lab.Registry]:
    """A registry that asks for nothing."""
    with lab.registry(work) as running:
        yield running


@pytest.fixture(scope="session")
def private_registry(work: Path) -> Iterator[lab.Registry]:
    """A registry with basic auth."""
    with lab.registry(work, login="lab:secret") as running:
        yield running
