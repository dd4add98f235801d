"""Batches run to their end, and cut short: every machine is there once, and is what `convert` alone makes of it."""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from converter.places import Places
from tests.batch_runs import (
    ARCHITECTURE,
    Batches,
    World,
    base,
    check,
    ended,
    images,
    leftovers,
    made_alone,
    marks,
    members,
    workers,
    world,
    write_list,
)
from tests.lab import wait_until
from tests.layers import file, tar
from tests.test_wrong_input import saved
from tests.trees import ROOT

KILLS = 8


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("images")


@pytest.fixture(scope="module")
def sources(place: Path) -> dict[str, Path]:
    return images(place)


@pytest.fixture(scope="module")
def alone(sources: dict[str, Path], place: Path) -> World:
    """What `convert` makes of them."""
    return made_alone(sources, place / "root")


@pytest.fixture
def batches(sources: dict[str, Path], tmp_path: Path) -> Iterator[Batches]:
    """A root in memory: there an instant is rarely one at which all wait for the disk."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else tmp_path) as root:
        yield Batches(write_list(tmp_path / "list", sources), Path(root) / "root")


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """Where temporary files go."""
    path = tmp_path / "tmp"
    path.mkdir()
    return path


def test_each_machine_is_what_convert_makes(
    sources: dict[str, Path], alone: World, tmp_path: Path, temporary: Path
) -> None:
    batches = Batches(write_list(tmp_path / "list", sources), tmp_path / "root")
    ran = batches.run(TMPDIR=str(temporary))
    assert (ran.status, set(ran.states.values()), ran.reasons) == (0, {"done"}, {})
    check(batches, alone)
    assert list(temporary.iterdir()) == []
    # Two trees that images share, and a layer that is on different ones.
    assert len(world(batches.root).cached) == (3 if ROOT else 0)
    for name, outcome in ran.outcomes.items():
        assert outcome["tree_path"] == str(Places(batches.root).tree(name))
        assert outcome["attempts"] == 1
        assert outcome["notes"] == json.loads(Places(batches.root).record(name).read_text())["notes"]


# --- killed ----------------------------------------------------------------------------------------------------


def test_killed_with_all_processes(batches: Batches, alone: World) -> None:
    started = time.monotonic()
    assert batches.run().status == 0
    duration = time.monotonic() - started
    killed_at_random(batches, alone, KILLS, duration)


def killed_at_random(batches: Batches, expected: World, kills: int, duration: float) -> None:
    """Killed as often, every other time it is the run with --resume that is killed again."""
    dice = random.Random(5)
    partly = 0
    clear(batches.root)
    for number in range(kills):
        before = marks(batches.root) if batches.root.exists() else {}
        with batches.running("--resume"):
            time.sleep(dice.uniform(0.15, 1.0) * duration)
        partly += 0 < len(marks(batches.root) if batches.root.exists() else {}) < len(expected.trees)
        assert before.items() <= (marks(batches.root) if before else {}).items()
        if number % 2 == 0 and number + 1 < kills:
            continue
        before = marks(batches.root) if batches.root.exists() else {}
        ran = batches.run("--resume")
        assert (ran.status, ran.reasons) == (0, {}), ran.stderr
        assert set(ran.states.values()) <= {"done", "complete"}
        assert {name for name, state in ran.states.items() if state == "complete"} >= before.keys()
        assert before.items() <= marks(batches.root).items()
        check(batches, expected)
        clear(batches.root)
    assert partly, "all kills came before or after everything"


def clear(root: Path) -> None:
    for path in root.iterdir() if root.exists() else ():
        if path.name != "lost+found":
            shutil.rmtree(path)


def held(batches: Batches) -> int:
    """A descriptor with the lock that each conversion takes for moments, at its beginning and its end."""
    machines = Places(batches.root).machines
    machines.mkdir(parents=True, exist_ok=True)
    fd = os.open(machines, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    return fd


def two_alike(tmp_path: Path, names: tuple[str, str] = ("one", "two")) -> dict[str, Path]:
    """Images that share nothing."""
    found = {}
    for name in names:
        found[name] = tmp_path / f"{name}.tar"
        saved(found[name], {"architecture": ARCHITECTURE, "config": {"Cmd": ["/x"]}}, [base(name, 10)])
    return found


def test_a_worker_is_killed(tmp_path: Path) -> None:
    batches = Batches(write_list(tmp_path / "list", two_alike(tmp_path)), tmp_path / "root")
    lock = held(batches)
    with batches.running("--jobs", "2") as process:
        wait_until("two workers that wait", lambda: len(waiting_for_lock(process.pid)) == 2)
        os.kill(waiting_for_lock(process.pid)[0], signal.SIGKILL)
        os.close(lock)
        ran = ended(process)
    assert (ran.status, ran.states) == (0, {"one": "done", "two": "done"}), ran.stderr
    assert 2 in {outcome["attempts"] for outcome in ran.outcomes.values()}
    assert sorted(world(batches.root).trees) == ["one", "two"]


def waiting_for_lock(main: int) -> list[int]:
    """The workers that wait for a lock of a file."""
    waiting = {
        int(line.split()[5])
        for line in Path("/proc/locks").read_text().splitlines()
        if "->" in line and "FLOCK" in line
    }
    return [pid for pid in workers(main) if pid in waiting]


def test_one_that_dies_each_time(tmp_path: Path) -> None:
    """One image's fault is not the others'."""
    sources = two_alike(tmp_path)
    large = file("large", bytes(60 << 20))
    saved(sources["one"], {"architecture": ARCHITECTURE, "config": {"Cmd": ["/x"]}}, [tar(large)])
    batches = Batches(write_list(tmp_path / "list", sources), tmp_path / "root")
    with batches.running("--jobs", "2") as process:
        while process.poll() is None:
            for pid in workers(process.pid):
                if str(sources["one"]) in open_files(pid):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.005)
        ran = ended(process)
    assert (ran.status, ran.states) == (1, {"one": "failed", "two": "done"}), ran.stderr
    assert "the process that converted it died" in ran.reasons["one"]
    assert ran.outcomes["one"]["attempts"] == 2
    assert batches.run("--resume").states == {"one": "done", "two": "complete"}
    assert sorted(world(batches.root).trees) == ["one", "two"]


def open_files(pid: int) -> set[str]:
    found = set()
    for fd in Path(f"/proc/{pid}/fd").glob("*"):
        with suppress(OSError):
            found.add(str(fd.readlink()))
    return found


def test_workers_are_killed_at_random(batches: Batches, alone: World) -> None:
    dice = random.Random(3)
    for _ in range(3):
        clear(batches.root)
        with batches.running() as process:
            time.sleep(dice.uniform(0.4, 1.2))
            for pid in workers(process.pid)[:1]:
                os.kill(pid, signal.SIGKILL)
            ran = ended(process)
        assert (ran.status, set(ran.states.values())) == (0, {"done"}), ran.stderr
        check(batches, alone)


def test_only_the_main_process_is_killed(batches: Batches, alone: World, temporary: Path) -> None:
    dice = random.Random(9)
    for _ in range(4):
        with batches.running(TMPDIR=str(temporary)) as process:
            time.sleep(dice.uniform(0.4, 1.5))
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            wait_until("the end of its processes", lambda: not members(process.pid), seconds=10)
        assert leftovers(batches.root) == []
        assert not list(temporary.glob("docker2nspawn-*"))
        ran = batches.run("--resume")
        assert (ran.status, ran.reasons) == (0, {}), ran.stderr
        check(batches, alone)
        clear(batches.root)


# --- told to stop -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("group", [False, True])
def test_told_to_stop(batches: Batches, alone: World, temporary: Path, number: int, group: bool) -> None:
    dice = random.Random(number)
    report = temporary.parent / "report.json"
    stopped = 0
    for rounds in range(8):
        if rounds >= 2 and stopped:
            break
        report.unlink(missing_ok=True)
        with batches.running("--report", str(report), TMPDIR=str(temporary)) as process:
            wait_until("its workers", lambda: bool(workers(process.pid)))
            time.sleep(dice.uniform(0, 0.9))
            told = time.monotonic()
            (os.killpg if group else os.kill)(process.pid, number)
            ran = ended(process, 60)
            took = time.monotonic() - told
            wait_until("the end of its processes", lambda: not members(process.pid), 5)
        assert list(temporary.iterdir()) == []
        assert leftovers(batches.root) == [] if batches.root.exists() else True
        if ran.status == 130 and report.exists():
            stopped += 1
            assert took < 10
            assert json.loads(report.read_text()) == ran.summary
            assert "Traceback" not in ran.stderr, ran.stderr
            assert set(ran.states.values()) <= {"done", "interrupted", "left"}
            done = {name for name, state in ran.states.items() if state == "done"}
            assert {
                path.name for path in Places(batches.root).machines.glob("[!.]*") if path.is_dir()
            } == done
            for name, reason in ran.reasons.items():
                wanted = {"interrupted": "interrupted; nothing was installed", "left": "not begun: a signal"}
                assert reason.startswith(wanted[ran.states[name]]), reason
        before = marks(batches.root) if batches.root.exists() else {}
        ran = batches.run("--resume")
        assert (ran.status, ran.reasons) == (0, {}), ran.stderr
        assert before.items() <= marks(batches.root).items()
        check(batches, alone)
        clear(batches.root)
    assert stopped
