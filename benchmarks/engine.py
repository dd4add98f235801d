"""A Docker Engine that holds the inputs: this machine's, if it answers, else one of our own on the cache's disk."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.cache import CACHE, Input
from benchmarks.measure import Failed


class Engine:
    """The engine that `environment` selects for docker and for docker2nspawn."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self._containers: list[str] = []

    def load(self, one: Input) -> str:
        """Load an input, if this very image is not there yet; a new container of it, not started."""
        there = self._docker("image", "inspect", "--format={{.Id}}", one.reference)
        if there.stdout.strip() != one.image_id:
            loaded = self._docker("load", "--quiet", "--input", str(one.docker_archive))
            if loaded.returncode != 0:
                raise Failed(f"docker load: {loaded.stderr}")
        created = self._docker("create", one.reference)
        if created.returncode != 0:
            raise Failed(f"docker create: {created.stderr}")
        self._containers.append(created.stdout.strip())
        return self._containers[-1]

    def answers(self) -> bool:
        return self._docker("info").returncode == 0

    def remove_containers(self) -> None:
        """The images stay, for the next run."""
        for container in self._containers:
            self._docker("rm", container)

    def _docker(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **self.environment}
        return subprocess.run(
            ["docker", *arguments], capture_output=True, text=True, check=False, env=environment
        )


@contextlib.contextmanager
def engine() -> Iterator[Engine | str]:
    """An engine, or why there is none."""
    if shutil.which("docker") is None:
        yield "docker is not installed"
        return
    running = Engine({})
    if running.answers():
        try:
            yield running
        finally:
            running.remove_containers()
        return
    if shutil.which("dockerd") is None:
        yield "no Docker Engine answers, and dockerd is not installed"
        return
    with _own() as own:
        yield own


@contextlib.contextmanager
def _own() -> Iterator[Engine | str]:
    # A short path: a socket's name has 107 bytes.
    scratch = Path(tempfile.mkdtemp(prefix="d2n-bench-"))
    socket = f"unix://{scratch}/docker.sock"
    command = ["dockerd", f"--data-root={CACHE / 'docker'}", f"--exec-root={scratch / 'exec'}"]
    command += [f"--pidfile={_free_pidfile()}", f"--host={socket}"]
    # No container is ever started, so the host's network is left as it is.
    command += ["--iptables=false", "--ip-forward=false", "--ip-masq=false"]
    log = scratch / "log"
    with log.open("wb") as output:
        daemon = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    own = Engine({"DOCKER_HOST": socket})
    try:
        deadline = time.monotonic() + 60
        while not (ready := own.answers()) and daemon.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
        if ready:
            yield own
            own.remove_containers()
        else:
            last = log.read_text(errors="replace").strip().splitlines()[-1:]
            yield f"dockerd does not start: {' '.join(last)}"
    finally:
        daemon.terminate()
        try:
            daemon.wait(30)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
        shutil.rmtree(scratch, ignore_errors=True)


def _free_pidfile() -> Path:
    """Beside the data: an engine that a killed run has left keeps the next from starting a second one on them."""
    path = CACHE / "docker.pid"
    with contextlib.suppress(OSError):
        if Path("/proc", path.read_text().strip(), "comm").read_text() == "dockerd\n":
            return path
    path.unlink(missing_ok=True)
    return path
