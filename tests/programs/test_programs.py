"""Real programs move from Docker to machines on the same host: their data, ports, stop signals and health checks.

    D2N_LAB=1 .venv/bin/python -m pytest tests/programs

The images (tests/programs/images) are Debian's packages in Dockerfiles like those of the official images: an entry
point script that root begins and another user goes on with, VOLUME, EXPOSE, STOPSIGNAL, HEALTHCHECK, ENV. They are
built once, with the network of this machine's engine, and kept in the lab's cache; the host's engine loads them from
there. What each program is asked, by its own client, is in clients.py.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests import lab
from tests.programs import build
from tests.programs.clients import PROGRAMS, Program, http

pytestmark = pytest.mark.lab

STOP_TIMEOUT = 10  # seconds, Docker's and the unit's
COMPLAINTS = (
    "gnoring",
    "Unknown key",
    "not trusted",
    "Failed to",
    "Permission denied",
    "SIGKILL",
    "timed out",
)


@pytest.fixture(scope="session")
def host(work: Path, docker_host: str, systemd_host: lab.Host) -> lab.Host:
    """The host with all images loaded."""
    images = build.tarball(work, docker_host)
    lab.run("docker", "load", "--quiet", "--input", images, DOCKER_HOST=systemd_host.docker, timeout=300)
    return systemd_host


def docker(host: lab.Host, *command: str) -> str:
    return lab.run("docker", *command, DOCKER_HOST=host.docker).stdout


@contextlib.contextmanager
def container(host: lab.Host, program: Program, verb: str = "run") -> Iterator[None]:
    """A container of the program and its volume, taken away at the end."""
    lab.run(*program.docker_command(verb), DOCKER_HOST=host.docker)
    try:
        if verb == "run":
            lab.wait_until(f"{program.container} in Docker", lambda: program.answers(host))
        yield
    except BaseException:
        print(docker(host, "logs", program.container))
        raise
    finally:
        docker(host, "rm", "--force", "--volumes", program.container)
        if program.volume_name:
            docker(host, "volume", "rm", program.volume_name)


def stop_container(host: lab.Host, program: Program) -> None:
    docker(host, "stop", program.container)
    assert docker(host, "inspect", "--format={{.State.ExitCode}}", program.container) == "0\n"


def convert(host: lab.Host, program: Program, *options: str, source: str | None = None) -> None:
    """Make the machine `program.container`, of the container of that name unless there is another source."""
    command = (".venv/bin/docker2nspawn", "convert", source or f"container:{program.container}")
    lab.run(*command, "--root", host.root, *options, DOCKER_HOST=host.docker)
    host.run("systemctl", "daemon-reload")


@contextlib.contextmanager
def machine(host: lab.Host, program: Program) -> Iterator[None]:
    """The machine, started, serving; then stopped by its stop signal, in time."""
    unit = f"systemd-nspawn@{program.container}.service"
    shown = host.run("journalctl", "--no-pager", "--lines=1", "--show-cursor").stdout
    cursor = shown.rpartition("cursor: ")[2].strip()
    try:
        host.run("machinectl", "start", program.container)
        lab.wait_until(f"{program.container} serves", lambda: program.answers(host))
        yield
    except BaseException:
        print(host.journal(program.container, after=cursor))
        host.run("systemctl", "stop", unit)
        raise
    begin = time.monotonic()
    host.run("systemctl", "stop", unit)
    took = time.monotonic() - begin
    output = host.journal(program.container, after=cursor)
    assert program.ends_cleanly(output), output
    assert took < STOP_TIMEOUT - 2, f"{took:.1f} s: by SIGKILL?"
    state = ("systemctl", "show", "--property=ActiveState,Result,ExecMainStatus", unit)
    assert set(host.run(*state).stdout.split()) == {
        "ActiveState=inactive",
        "Result=success",
        "ExecMainStatus=0",
    }
    assert not [complaint for complaint in COMPLAINTS if complaint in output], output


def has(host: lab.Host, program: Program, key: str) -> bool:
    """Does the program, which serves, have that value?"""
    with contextlib.suppress(AssertionError):
        return bool(program.get(host, program.published, key))
    return False


def wait_for_health(host: lab.Host, program: Program, state: str) -> None:
    unit = f"docker2nspawn-health@{program.container}.service"
    show = ("systemctl", "show", "--value", "--property=StatusText", unit)
    lab.wait_until(
        f"{program.container} is {state}", lambda: host.run(*show).stdout.strip().startswith(state)
    )


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_container_moves_with_its_data(name: str, host: lab.Host) -> None:
    program = PROGRAMS[name]
    with container(host, program):
        program.put(host, program.published, "one", "written in Docker")
        stop_container(host, program)
        convert(host, program)
        with machine(host, program):
            assert program.get(host, program.published, "one") == "written in Docker"
            program.put(host, program.published, "two", "written in the machine")
            if program.checked:
                wait_for_health(host, program, "healthy")
        with machine(host, program):
            assert program.get(host, program.published, "one") == "written in Docker"
            assert program.get(host, program.published, "two") == "written in the machine"
        docker(host, "start", program.container)
        lab.wait_until(f"{name} in Docker again", lambda: program.answers(host))
        assert program.get(host, program.published, "one") == "written in Docker"
        assert not has(host, program, "two"), "the machine has written to Docker's data"


@pytest.mark.parametrize("name", ["postgres", "mariadb"])
def test_the_first_start_makes_the_database(name: str, host: lab.Host) -> None:
    """The entry point's whole way, from root with an empty volume on, in the machine."""
    program = replace(PROGRAMS[name], label="first")
    with container(host, program, "create"):
        convert(host, program)
        with machine(host, program):
            program.put(host, program.published, "one", "written in the machine")
        with machine(host, program):
            assert program.get(host, program.published, "one") == "written in the machine"


def test_a_bound_volume_is_dockers_own(host: lab.Host) -> None:
    program = replace(PROGRAMS["redis"], label="bound")
    with container(host, program):
        stop_container(host, program)
        convert(host, program, "--volumes", "bind")
        with machine(host, program):
            program.put(host, program.published, "one", "written in the machine")
        docker(host, "start", program.container)
        lab.wait_until("redis in Docker again", lambda: program.answers(host))
        assert program.get(host, program.published, "one") == "written in the machine"


def test_the_hosts_network_stays_the_hosts(host: lab.Host) -> None:
    program = replace(PROGRAMS["static"], label="host", run=("--network=host",), published=8080)
    with container(host, program):
        program.put(host, program.published, "one", "written in Docker")
        stop_container(host, program)
        convert(host, program)
        with machine(host, program):
            assert program.get(host, program.published, "one") == "written in Docker"
            wait_for_health(host, program, "healthy")


def test_an_image_serves_and_keeps_its_volume_when_made_again(host: lab.Host) -> None:
    program = replace(PROGRAMS["static"], label="image", published=18082)
    options = ("--name", program.container, "--publish", f"{program.published}:{program.port}")
    convert(host, program, *options, source=f"docker-daemon:{program.image}")
    with machine(host, program):
        assert program.get(host, program.published, "welcome") == "served from the image\n"
        assert program.get(host, program.published, "") == "uid 65532 gid 0 pid 1\n"
        program.put(host, program.published, "one", "written in the machine")
    convert(host, program, *options, "--force", source=f"docker-daemon:{program.image}")
    with machine(host, program):
        assert program.get(host, program.published, "one") == "written in the machine"


@pytest.mark.parametrize(("name", "path"), [("nginx", "greeting"), ("gunicorn", "self")])
def test_a_program_sees_what_it_saw_in_docker(name: str, path: str, host: lab.Host) -> None:
    program = replace(PROGRAMS[name], label="sees")
    with container(host, program):
        seen = http(host, program.published, path)
        stop_container(host, program)
        convert(host, program)
        with machine(host, program):
            assert http(host, program.published, path) == seen


def test_an_ill_program_is_seen_to_be_ill(host: lab.Host) -> None:
    program = replace(PROGRAMS["gunicorn"], label="ill")
    unit = f"docker2nspawn-health@{program.container}.service"
    with container(host, program, "create"):
        convert(host, program)
        assert program.volume_name is not None
        ill = host.root / "var/lib/docker2nspawn/volumes" / program.volume_name / "broken"
        with machine(host, program):
            wait_for_health(host, program, "healthy")
            ill.touch()
            wait_for_health(host, program, "unhealthy")
            failed = ("systemctl", "is-failed", unit)
            lab.wait_until("a failed unit", lambda: host.run(*failed, check=False).stdout == "failed\n")
            assert program.answers(host), "only the state shows it, as in Docker"
            ill.unlink()
            wait_for_health(host, program, "healthy")
