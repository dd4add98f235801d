"""Ended at any instant: the old machine or the new one is whole, and the next run tidies up."""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interruption import (
    OTHER,
    STOPPING,
    Ended,
    Machine,
    Runner,
    look,
    make_image,
    make_small_image,
    runner,
)

# On a disk, syncing takes most of the time, in memory all the rest: so the instants are different ones.
KILLS = {"disk": 15, "memory": 130}
FRESH_KILLS = {"disk": 5, "memory": 50}
STOPS = {"disk": 5, "memory": 30}
# How often each outcome must be seen; which instant a kill meets is chance, so it goes on until it was.
SEEN = {"disk": 3, "memory": 6}
AT_MOST = 400
LATE = 0.8  # of a conversion; then it installs


@pytest.fixture(scope="module")
def run() -> Iterator[Runner]:
    with runner() as running:
        yield running


@pytest.fixture(params=["disk", "memory"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def place(kind: str, tmp_path: Path) -> Iterator[Path]:
    if kind == "disk":
        yield tmp_path
        return
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("/dev/shm cannot be written here")
    with tempfile.TemporaryDirectory(prefix="docker2nspawn-test-", dir="/dev/shm") as directory:
        yield Path(directory)


class Scene:
    """Two images, what each of them becomes in `root`, and conversions of them that are cut short."""

    def __init__(self, run: Runner, place: Path, *more: str) -> None:
        self.root = place / "root"
        self.small = make_small_image(place / "small.tar")
        self.images = tuple(make_image(place / f"{mark}.tar", mark) for mark in ("old", "new"))
        self._run = run
        self._more = more
        self._dice = random.Random(7)
        self._durations: deque[float] = deque(maxlen=5)
        self.whole: dict[Path, Machine] = {}
        for image in self.images * 2:
            if not more:
                self.clear()
            self.convert(image)
            self.whole[image] = look(self.root)
            assert not self.whole[image].leftovers
        old, new = self.whole.values()
        assert old.tree and new.tree and old.tree != new.tree and old.files.keys() != new.files.keys()

    def clear(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)

    def options(self, image: Path) -> tuple[str, ...]:
        """One has a link of trust, the other has none."""
        return self._more if image == self.images[0] else (*self._more, "--no-trust")

    def convert(self, image: Path) -> None:
        ended = self._run.convert(image, self.root, *self.options(image))
        assert (ended.status, ended.stderr) == (0, "")
        self._durations.append(ended.seconds)

    def again(self, image: Path) -> Ended:
        return self._run.convert(image, self.root, *self.options(image))

    def convert_other(self) -> None:
        ended = self._run.convert(self.small, self.root, "--force", name=OTHER)
        assert (ended.status, ended.stderr) == (0, "")

    def cut_short(self, image: Path, number: int = signal.SIGKILL) -> Ended:
        """Sent a signal: half of them at any instant, half of them where the installation is."""
        share = self._dice.uniform(self._dice.choice([0, LATE]), 1.02)
        after = max(0.005, share * sorted(self._durations)[len(self._durations) // 2])
        return self._run.convert(image, self.root, *self.options(image), after=after, number=number)


def test_killed_over_an_old_machine(run: Runner, kind: str, place: Path) -> None:
    scene = Scene(run, place, "--force")
    outcomes: Counter[str] = Counter()
    while outcomes.total() < KILLS[kind] or min(outcomes["not replaced"], outcomes["replaced"]) < SEEN[kind]:
        assert outcomes.total() < AT_MOST, outcomes
        before = look(scene.root)
        (image,) = (image for image, machine in scene.whole.items() if machine.tree != before.tree)
        if scene.cut_short(image).status != -signal.SIGKILL:
            continue
        found = look(scene.root)
        assert found.is_part_of(*scene.whole.values())
        replaced = "replaced" if found.tree == scene.whole[image].tree else "not replaced"
        outcomes[replaced if found.leftovers else "nothing begun"] += 1
        match outcomes.total() % 4:
            case 0:  # another machine's conversion finishes or removes what is left
                scene.convert_other()
                assert look(scene.root) in scene.whole.values()
            case 2:
                scene.convert(image)
                assert look(scene.root) == scene.whole[image]
            case _:  # the next one is killed as well, and finds what two have left
                pass
    scene.convert(scene.images[0])
    assert look(scene.root) == scene.whole[scene.images[0]]


def test_killed_where_there_was_no_machine(run: Runner, kind: str, place: Path) -> None:
    scene = Scene(run, place)
    image = scene.images[0]
    outcomes: Counter[str] = Counter()
    while outcomes.total() < FRESH_KILLS[kind] or not outcomes["not complete"]:
        assert outcomes.total() < AT_MOST, outcomes
        scene.clear()
        if scene.cut_short(image).status != -signal.SIGKILL:
            continue
        found = look(scene.root)
        assert found.tree in {"", scene.whole[image].tree}
        outcomes["complete" if found.tree else "not complete"] += 1
        ended = scene.again(image)
        if ended.status != 0:  # it is there: this run may just have finished what the dead one had decided
            assert "use --force to replace" in ended.stderr
        assert look(scene.root) == scene.whole[image], (found, ended)


@pytest.mark.parametrize("fresh", [False, True])
def test_told_to_stop(run: Runner, kind: str, place: Path, fresh: bool) -> None:
    scene = Scene(run, place, *([] if fresh else ["--force"]))
    dice = random.Random(11)
    outcomes: Counter[int] = Counter()
    while outcomes[130] < STOPS[kind]:
        if fresh:
            scene.clear()
        before = look(scene.root)
        image = next(image for image, machine in scene.whole.items() if machine.tree != before.tree)
        ended = scene.cut_short(image, dice.choice(STOPPING))
        outcomes[ended.status] += 1
        if ended.status == 0:
            assert look(scene.root) == scene.whole[image]
        else:
            assert (ended.status, ended.stderr) == (
                130,
                "docker2nspawn: interrupted; nothing was installed\n",
            )
            assert look(scene.root) == before
