"""Batches against real registries, disks that are full, btrfs and kills: what can be converted is, and once."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from converter.cache.prune import entries
from converter.places import Places
from tests import lab
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
    top,
    world,
    write_list,
)
from tests.layers import file, tar
from tests.test_batch_run import clear, killed_at_random
from tests.test_wrong_input import saved

pytestmark = pytest.mark.lab

KILLS = {"memory": 40, "btrfs": 10}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def expected(sources: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> World:
    """What `convert` makes of them."""
    return made_alone(sources, tmp_path_factory.mktemp("expected"))


@pytest.fixture
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system of its own: "KIND SIZE", in MiB."""
    kind, size = request.param.split()
    root = tmp_path / "root"
    root.mkdir()
    if kind == "tmpfs":
        lab.run("mount", "-t", "tmpfs", "-o", f"size={size}M", "tmpfs", root)
    else:
        image = tmp_path / "disk"
        with image.open("wb") as made:
            made.truncate(int(size) << 20)
        lab.run(f"mkfs.{kind}", "-q", *(["-m", "0"] if kind == "ext4" else []), image)
        lab.run("mount", "-o", "loop", image, root)
    try:
        yield root
    finally:
        lab.run("umount", root)


# --- trees and kills -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("disk", ["ext4 300", "btrfs 400"], indirect=True)
def test_trees_are_what_convert_makes(
    disk: Path, sources: dict[str, Path], expected: World, tmp_path: Path
) -> None:
    batches = Batches(write_list(tmp_path / "list", sources), disk)
    for more, state in (([], "done"), (["--resume"], "complete"), (["--force"], "done")):
        ran = batches.run(*more)
        assert (ran.status, set(ran.states.values()), ran.reasons) == (0, {state}, {})
        check(batches, expected)
    assert len(world(disk).cached) == 3


@pytest.mark.parametrize("disk", ["tmpfs 500", "btrfs 400"], indirect=True)
def test_killed_at_random_instants(
    disk: Path, sources: dict[str, Path], expected: World, tmp_path: Path
) -> None:
    batches = Batches(write_list(tmp_path / "list", sources), disk)
    started = time.monotonic()
    assert batches.run().status == 0
    duration = time.monotonic() - started
    kind = lab.run("stat", "--file-system", "--format=%T", disk).stdout.strip()
    killed_at_random(batches, expected, KILLS["btrfs" if kind == "btrfs" else "memory"], duration)


# --- a registry that goes away ---------------------------------------------------------------------------------------


class Registry:
    """Debian's docker-registry, always at the same address, with the images of some archives."""

    def __init__(self, work: Path, sources: Mapping[str, Path]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        self._config = work / "config.yml"
        self._config.write_text(
            f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {work}/data}}}}\n"
            f"http: {{addr: '{self.address}'}}\n"
        )
        self._log = work / "log"
        self._running = ExitStack()
        self.start()
        self.sources: dict[str, str] = {}
        for name, source in sources.items():
            self.sources[name] = f"docker://{self.address}/batch/{name}"
            target = f"docker://{self.address}/batch/{name}"
            lab.run("skopeo", "copy", "--dest-tls-verify=false", f"docker-archive:{source}", target)

    def start(self) -> None:
        command: list[str | Path] = ["docker-registry", "serve", self._config]
        self._process = self._running.enter_context(lab.process(command, self._log))
        lab.wait_until("the registry", self._answers)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        self._running.close()

    def _answers(self) -> bool:
        host, _, port = self.address.partition(":")
        with socket.socket() as attempt:
            return attempt.connect_ex((host, int(port))) == 0


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    (tmp_path / "registry").mkdir()
    found = {}
    shared = base(count=50)
    for number in range(8):
        name = f"from-registry-{number}"
        found[name] = tmp_path / f"{name}.tar"
        large = tar(file("large", os.urandom(6 << 20)))
        saved(
            found[name], {"architecture": ARCHITECTURE, "config": {"Cmd": ["/x"]}}, [shared, large, top(name)]
        )
    made = Registry(tmp_path / "registry", found)
    try:
        yield made
    finally:
        made.close()


def some_are_made(root: Path) -> bool:
    return bool(marks(root)) if Places(root).machines.is_dir() else False


def test_a_registry_restarted_midway(registry: Registry, tmp_path: Path) -> None:
    whole = made_alone(registry.sources, tmp_path / "expected")
    batches = Batches(write_list(tmp_path / "list", registry.sources), tmp_path / "root")
    with batches.running() as process:
        lab.wait_until("the first machine", lambda: some_are_made(batches.root))
        registry.kill()
        time.sleep(5)
        registry.start()
        ran = ended(process)
    assert (ran.status, set(ran.states.values()), ran.reasons) == (0, {"done"}, {}), ran.stderr
    check(batches, whole)
    assert {outcome["attempts"] for outcome in ran.outcomes.values()} >= {1}


def test_a_registry_gone_for_good(registry: Registry, tmp_path: Path) -> None:
    whole = made_alone(registry.sources, tmp_path / "expected")
    batches = Batches(write_list(tmp_path / "list", registry.sources), tmp_path / "root")
    started = time.monotonic()
    with batches.running("--retries", "1") as process:
        lab.wait_until("the first machine", lambda: some_are_made(batches.root))
        registry.kill()
        ran = ended(process)
    assert time.monotonic() - started < 60
    assert (ran.status, set(ran.states.values())) == (1, {"done", "failed"})
    for name, reason in ran.reasons.items():
        assert registry.address in reason and "Connection refused" in reason, reason
        assert ran.outcomes[name]["remedy"] == "try again later"
        assert ran.outcomes[name]["attempts"] == 2
    done = {name for name, state in ran.states.items() if state == "done"}
    assert world(batches.root).trees.keys() == done
    before = marks(batches.root)
    registry.start()
    ran = batches.run("--resume")
    assert (ran.status, {name for name, state in ran.states.items() if state == "complete"}) == (0, done)
    assert before.items() <= marks(batches.root).items()
    check(batches, whole)


# --- a full disk ----------------------------------------------------------------------------------------------------


def room(root: Path) -> int:
    status = os.statvfs(root)
    return status.f_bavail * status.f_frsize


def leave(root: Path, size: int) -> None:
    """There are so many bytes and no more."""
    with (root.parent / "root/filler").open("wb") as filler:
        os.posix_fallocate(filler.fileno(), 0, room(root) - size)


@pytest.mark.parametrize("disk", ["ext4 150"], indirect=True)
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_disk_with_room_for_some(
    disk: Path, jobs: str, sources: dict[str, Path], expected: World, tmp_path: Path
) -> None:
    batches = Batches(write_list(tmp_path / "list", sources), disk)
    before = room(disk)
    assert batches.run().status == 0
    cached = sum(entry.size for entry in entries(Places(disk).trees))
    machines = before - room(disk) - cached
    clear(disk)
    leave(disk, machines // 2)
    ran = batches.run("--jobs", jobs)
    (disk / "filler").unlink()
    assert (ran.status, set(ran.states.values())) == (1, {"done", "failed"})
    for reason in ran.reasons.values():
        assert "make room" in reason or os.strerror(errno.ENOSPC) in reason, reason
    done = {name for name, state in ran.states.items() if state == "done"}
    assert len(done) >= 2
    made = world(disk)
    assert made.trees == {name: expected.trees[name] for name in done}
    before_marks = marks(disk)
    ran = batches.run("--resume")
    assert (ran.status, {name for name, state in ran.states.items() if state == "complete"}) == (0, done)
    assert before_marks.items() <= marks(disk).items()
    check(batches, expected)


@pytest.mark.parametrize("disk", ["ext4 150"], indirect=True)
def test_the_cache_is_given_up_before_a_machine(
    disk: Path, sources: dict[str, Path], expected: World, tmp_path: Path
) -> None:
    """There is room for all machines, but not for what they share besides."""
    batches = Batches(write_list(tmp_path / "list", sources), disk)
    before = room(disk)
    assert batches.run().status == 0
    cached = sum(entry.size for entry in entries(Places(disk).trees))
    used = before - room(disk)
    clear(disk)
    leave(disk, used - cached + cached // 4)
    ran = batches.run()
    (disk / "filler").unlink()
    assert (ran.status, set(ran.states.values()), ran.reasons) == (0, {"done"}, {})
    assert sum(entry.size for entry in entries(Places(disk).trees)) < cached
    check(batches, expected)


# --- other sources ---------------------------------------------------------------------------------------------------


def test_dockerfiles_and_containers_resumed(docker_host: str, tmp_path: Path) -> None:
    lab.run("docker", "load", "-i", Path("fixtures/hello.tar"), DOCKER_HOST=docker_host)
    lab.run("docker", "rm", "-f", "batch-c", check=False, DOCKER_HOST=docker_host)
    lab.run("docker", "create", "--name", "batch-c", "hello:latest", DOCKER_HOST=docker_host)
    context = tmp_path / "context"
    context.mkdir()
    shutil.copy(shutil.which("busybox") or "", context / "busybox")
    (context / "Dockerfile").write_text('FROM scratch\nCOPY busybox /bin/sh\nCMD ["/bin/sh"]\n')
    sources = {"c": "container:batch-c", "i": "docker-daemon:hello:latest", "d": f"dockerfile:{context}"}
    batches = Batches(write_list(tmp_path / "list", sources), tmp_path / "root")
    try:
        ran = batches.run(DOCKER_HOST=docker_host)
        assert (ran.status, set(ran.states.values()), ran.reasons) == (0, {"done"}, {})
        before = marks(batches.root)
        ran = batches.run("--resume", DOCKER_HOST=docker_host)
        assert (ran.status, set(ran.states.values())) == (0, {"complete"})
        assert marks(batches.root) == before
        lab.run("docker", "start", "--attach", "batch-c", check=False, DOCKER_HOST=docker_host)
        (context / "Dockerfile").write_text('FROM scratch\nCOPY busybox /bin/sh\nCMD ["/bin/sh", "-i"]\n')
        ran = batches.run("--resume", DOCKER_HOST=docker_host)
        assert (ran.status, ran.states) == (1, {"c": "failed", "i": "complete", "d": "failed"})
        assert "the container has changed or has run since" in ran.reasons["c"]
        assert "the Dockerfile or its context has changed" in ran.reasons["d"]
        assert marks(batches.root) == before
        ran = batches.run("--resume", "--force", DOCKER_HOST=docker_host)
        assert (ran.status, ran.states) == (0, {"c": "done", "i": "complete", "d": "done"})
        assert "/bin/sh" in Places(batches.root).settings("d").read_text()
        assert leftovers(batches.root) == []
    finally:
        lab.run("docker", "rm", "-f", "batch-c", DOCKER_HOST=docker_host)
