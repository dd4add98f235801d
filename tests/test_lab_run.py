"""The main job against the real things: what a program sees in `docker run` it sees in the machine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from converter.places import Places
from tests import images, lab

pytestmark = pytest.mark.lab

# docs/mapping.md, "What a program can still notice".
ADDITIONS = {"container", "container_uuid", "container_host_id", "container_host_version_id", "NOTIFY_SOCKET"}
ADDITIONS |= {"container_host_variant_id", "container_host_build_id", "container_host_boot_id"}
WITHOUT_LAUNCHER = {"USER", "LOGNAME", "LANG", "TERM"}


@dataclass(frozen=True)
class Seen:
    """What the probe printed."""

    argv: list[str]
    env: dict[str, str]
    cwd: str
    ids: tuple[str, ...]
    groups: frozenset[str]
    capabilities: tuple[str, ...]


def read_probe(output: str) -> Seen:
    # The journal strips white space from the end of a line, so an empty value has no separator.
    facts = re.findall(r"^probe (\w+):?[ \t]?(.*)$", output, re.MULTILINE)
    assert ("end", "") in facts, output

    def text(hexadecimal: str) -> str:
        return bytes.fromhex(hexadecimal).decode("utf-8", "surrogateescape")

    def all_of(wanted: str) -> list[str]:
        return [value.strip() for fact, value in facts if fact == wanted]

    (gid,) = all_of("gid")
    return Seen(
        argv=[text(value) for value in all_of("argv")],
        env=dict(text(value).partition("=")[::2] for value in all_of("env")),
        cwd=text(all_of("cwd")[0]),
        ids=tuple(all_of("uid") + all_of("euid") + [gid] + all_of("pid")),
        groups=frozenset([*all_of("group"), gid]),  # as id -G lists them
        capabilities=tuple(all_of("CapBnd") + all_of("CapEff")),
    )


@pytest.fixture(scope="session")
def built(work: Path, docker_host: str) -> str:
    images.build(work, docker_host)
    return docker_host


@pytest.fixture
def machines() -> Iterator[list[str]]:
    """Names of machines on this host, taken away afterwards."""
    names: list[str] = []
    yield names
    places = Places(Path("/"))
    for name in names:
        lab.run("rm", "-rf", places.tree(name), places.drop_in(name).parent)
        for path in (places.settings(name), places.trusted_settings(name), places.record(name)):
            path.unlink(missing_ok=True)


def convert(*arguments: str | Path, docker_host: str) -> None:
    lab.run(".venv/bin/docker2nspawn", "convert", *arguments, DOCKER_HOST=docker_host)


def compare(docker: Seen, machine: Seen, name: str) -> None:
    assert machine.argv == docker.argv
    assert machine.cwd == docker.cwd
    assert machine.ids == docker.ids
    assert machine.groups == docker.groups
    assert machine.capabilities == docker.capabilities
    assert docker.env.pop("HOSTNAME")
    assert machine.env.pop("HOSTNAME") == name
    assert {k: machine.env.get(k) for k in docker.env} == docker.env
    added = machine.env.keys() - docker.env.keys()
    assert added <= ADDITIONS | WITHOUT_LAUNCHER


PROGRAMS = [name for name in images.DOCKERFILES if name not in {"systemd", "stopping", "run-and-tmp"}]


@pytest.mark.parametrize("name", PROGRAMS)
def test_on_systemd_257(name: str, built: str, systemd_host: lab.Host) -> None:
    docker = read_probe(lab.run("docker", "run", "--rm", f"lab/{name}", DOCKER_HOST=built).stdout)
    convert(f"docker-daemon:lab/{name}", "--root", systemd_host.root, docker_host=built)
    output = systemd_host.run_machine(name)
    compare(docker, read_probe(output), name)
    for complaint in ("Ignoring", "Unknown", "Failed", "not trusted", "assignment"):
        assert complaint not in output


@pytest.mark.parametrize("name", PROGRAMS)
def test_on_systemd_252(name: str, built: str, machines: list[str]) -> None:
    docker = read_probe(lab.run("docker", "run", "--rm", f"lab/{name}", DOCKER_HOST=built).stdout)
    machine = f"lab252-{name}"
    machines.append(machine)
    convert(f"docker-daemon:lab/{name}", "--name", machine, docker_host=built)
    command = ("systemd-nspawn", "--register=no", "--keep-unit", "-M", machine)
    output = lab.run(*command, SYSTEMD_NSPAWN_TMPFS_TMP="0").stdout
    compare(docker, read_probe(output), machine)


def test_a_systemd_image_boots(built: str, systemd_host: lab.Host) -> None:
    convert("docker-daemon:lab/systemd", "--name", "booting", "--root", systemd_host.root, docker_host=built)
    assert "\nBoot=yes\n" in (systemd_host.root / "var/lib/machines/booting.nspawn").read_text()
    systemd_host.run_machine("booting")
    booted = read_probe((systemd_host.root / "var/lib/machines/booting/booted").read_text())
    assert booted.argv == ["/usr/bin/probe", "booted"]


def test_newlines_in_arguments_and_environment(built: str, systemd_host: lab.Host) -> None:
    """A Dockerfile cannot write them into ENV, but the engine takes them."""
    script = "import docker; c = docker.from_env().api; i = c.create_container('lab/scratch')['Id']\n"
    script += "c.commit(i, 'lab/newlines', conf={'Entrypoint': ['/server'], 'Cmd': ['a\\nb', 'c\\x1b\\\\n'],"
    script += " 'Env': ['X=1\\n2', 'dotted.name=3', 'Y=\\x01\\t']}); c.remove_container(i)"
    lab.run(".venv/bin/python", "-c", script, DOCKER_HOST=built)
    docker = read_probe(lab.run("docker", "run", "--rm", "lab/newlines", DOCKER_HOST=built).stdout)
    assert docker.env["X"] == "1\n2"
    convert("docker-daemon:lab/newlines", "--root", systemd_host.root, docker_host=built)
    compare(docker, read_probe(systemd_host.run_machine("newlines")), "newlines")


def test_the_stop_signal_arrives(built: str, systemd_host: lab.Host) -> None:
    convert("docker-daemon:lab/stopping", "--root", systemd_host.root, docker_host=built)
    systemd_host.run("machinectl", "start", "stopping")
    lab.wait_until("the program", lambda: "is up" in systemd_host.journal("stopping"))
    systemd_host.run("systemctl", "stop", "systemd-nspawn@stopping.service")
    output = systemd_host.journal("stopping")
    assert "got USR1" in output
    assert "Deactivated successfully" in output


def test_run_and_tmp_are_the_images(built: str, systemd_host: lab.Host, machines: list[str]) -> None:
    docker = lab.run("docker", "run", "--rm", "lab/run-and-tmp", DOCKER_HOST=built).stdout
    assert docker.splitlines()[0] == "/run/app 2750 1 8"
    assert docker.splitlines()[-1] == "writable"
    convert("docker-daemon:lab/run-and-tmp", "--root", systemd_host.root, docker_host=built)
    assert docker.strip() in systemd_host.run_machine("run-and-tmp")
    machines.append("lab252-run-and-tmp")
    convert("docker-daemon:lab/run-and-tmp", "--name", machines[0], docker_host=built)
    command = ("systemd-nspawn", "--register=no", "--keep-unit", "-M", machines[0])
    assert docker.strip() in lab.run(*command, SYSTEMD_NSPAWN_TMPFS_TMP="0").stdout


def test_strict_hardening_is_the_same_to_the_program(built: str, systemd_host: lab.Host) -> None:
    """User ids of its own, by id-mapped mounts: files have the owners that they had, also on what is bound."""
    docker = lab.run("docker", "run", "--rm", "lab/run-and-tmp", DOCKER_HOST=built).stdout
    options = ("--name", "strict", "--root", systemd_host.root, "--hardening", "strict")
    convert("docker-daemon:lab/run-and-tmp", *options, docker_host=built)
    assert docker.strip() in systemd_host.run_machine("strict")
    owner = (systemd_host.root / "var/lib/machines/strict/usr/lib/docker2nspawn/run/app").stat()
    assert (owner.st_uid, owner.st_gid) == (1, 8)
