"""Runs the cases: in Docker, and converted, by `machinectl start` on each host. What each sees are its Facts."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests import lab
from tests.parity.cases import CASES, Case

Facts = dict[tuple[str, str], str]

_HERE = Path(__file__).parent
_APPLETS = ("sh", "cat", "echo", "printf", "test", "true", "false")
_COMPLAINT = re.compile(
    r"unknown|ignoring|not trusted|deprecated|failed to|warning|cannot|invalid", re.IGNORECASE
)
# The lab's hosts lack controllers for pids; the launcher says what Docker says when a command cannot be run.
_NO_COMPLAINT = re.compile(r"pids\.max|^docker2nspawn: cannot run")
_OF_THE_HOST = re.compile(r"docker0|veth|d2n")  # interfaces that are there or not by chance
_FACT = re.compile(r"^fact (\S+) (\S+) =(.*)$", re.MULTILINE)
_ESCAPE = re.compile(r"\\x([0-9a-f]{2})")
_THREADS = 3


@dataclass(frozen=True)
class Lab:
    """Where it all happens: the reference engine, this machine's own engine, and the hosts by systemd's version."""

    docker: str
    own_docker: str
    hosts: Mapping[str, lab.Host]

    def engine(self, case: Case) -> str:
        return self.own_docker if case.procedure == "limits" else self.docker


def read_facts(output: str, own_names: Iterable[str]) -> Facts:
    """What was printed; own names (container id, machine name) become {own}, so that the two can be compared."""
    facts: Facts = {}
    for row, key, value in _FACT.findall(output):
        text = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), value.rstrip("\r"))
        for name in own_names:
            if row != "output":
                text = text.replace(name, "{own}")
        facts[row, _ESCAPE.sub(lambda match: chr(int(match[1], 16)), key)] = text
    for row, key in [fact for fact in facts if fact[0] == "interfaces" and _OF_THE_HOST.match(fact[1])]:
        del facts[row, key]
    for (row, key), text in facts.items():
        if key == "container_uuid":
            facts[row, key] = "{uuid}"
        if row == "mounts" and (key == "/" or key.startswith(("/etc/", "/data"))):
            facts[row, key] = text[:2]  # which file system holds it is the host's affair
    return facts


def docker(
    engine: str, *arguments: str, check: bool = True, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    return lab.run(
        "docker", *arguments, check=check, timeout=timeout, DOCKER_HOST=engine, DOCKER_BUILDKIT="0"
    )


def prepare_host(host: lab.Host, stack: contextlib.ExitStack, work: Path) -> None:
    """Give a host an outside world with a name server, and the files that cases and attempts look for."""
    (host.root / "host-marker").write_text("the host's\n")
    (host.root / "etc/resolv.conf").write_text("nameserver 10.98.0.2\n")
    for directory, owner in (("srv/shared", "0:0"), ("srv/writable", "1:1")):
        (host.root / directory).mkdir(parents=True)
        lab.run("chown", owner, host.root / directory)
    (host.root / "srv/shared/file").write_text("shared\n")
    script = """set -e
    ip netns add outside
    ip link add outside0 type veth peer name eth0 netns outside
    ip addr add 10.98.0.1/24 dev outside0
    ip link set outside0 up
    ip -n outside addr add 10.98.0.2/24 dev eth0
    ip -n outside link set eth0 up
    ip -n outside link set lo up
    ip route add default via 10.98.0.2"""
    host.run("sh", "-c", script)
    program: list[str | Path] = [*_in_outside(host), sys.executable, _HERE / "outside.py"]
    stack.enter_context(lab.process(program, work / f"outside-{host.version}.log"))


def _in_outside(host: lab.Host) -> list[str]:
    return ["nsenter", f"--net=/proc/{host.leader}/root/run/netns/outside"]


def build(work: Path, engine: str, cases: Iterable[Case]) -> None:
    """The images parity/NAME."""
    context = work / "parity-images"
    if not context.exists():
        _make_context(context)
    tarball = context / "base.tar"
    if "debian:" in "".join(case.dockerfile for case in cases):
        docker(engine, "import", str(lab.root_tarball("debian")), "debian:bookworm")
    docker(engine, "import", str(tarball), "parity/base")
    (context / "bare").write_text("FROM scratch\nCOPY probe /probe\n")
    docker(engine, "build", "-q", "-t", "parity/bare", "-f", str(context / "bare"), str(context))

    def one(case: Case) -> None:
        (context / f"Dockerfile-{case.name}").write_text(case.dockerfile)
        file = str(context / f"Dockerfile-{case.name}")
        docker(engine, "build", "-q", "-t", f"parity/{case.name}", "-f", file, str(context))

    _each(one, cases)


def _make_context(context: Path) -> None:
    root = context / "root"
    for directory in ("bin", "etc", "tmp", "root", "opt"):
        (root / directory).mkdir(parents=True)
    lab.run("gcc", "-static", "-Os", "-s", "-o", context / "probe", *sorted(_HERE.glob("probe*.c")))
    shutil.copy(context / "probe", root / "bin/probe")
    for name in ("signals", "stubborn", "serve"):
        (root / "bin" / name).symlink_to("probe")
    busybox = shutil.which("busybox")
    assert busybox is not None
    shutil.copy(busybox, root / "bin/busybox")
    for applet in _APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/var:/bin/false\n")
    (root / "etc/group").write_text("root:x:0:\ndaemon:x:1:\nwheel:x:10:root\nmail:x:8:daemon\n")
    (root / "tmp").chmod(0o1777)
    lab.run("tar", "-C", root, "--owner=0", "--group=0", "-cf", context / "base.tar", ".")
    own = context / "own"
    own.mkdir()
    (own / "hosts").write_text("10.9.9.9 from.image\n")
    (own / "hostname").write_text("from-image\n")
    (own / "resolv.conf").write_text("nameserver 10.9.9.9\n")


def _each(action: Callable[[Case], object], cases: Iterable[Case]) -> None:
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(action, cases))


def _container(case: Case) -> str:
    return f"parity-{case.name}"


def create(engine: str, case: Case) -> None:
    arguments = [*(case.create or ()), f"parity/{case.name}", *case.command]
    docker(engine, "create", "--name", _container(case), *arguments)


def run_docker(place: Lab, case: Case) -> Facts:
    """What the container of a case sees; the case's procedure with Docker's commands."""
    engine, name = place.engine(case), _container(case)
    identity = json.loads(docker(engine, "inspect", name).stdout)[0]["Id"]
    own = [identity, identity[:12]]
    extra: Facts = {}
    if case.procedure == "limits":
        return _docker_limits(engine, name)
    _docker_start(engine, name)
    if case.procedure in {"stop", "serve"}:
        lab.wait_until(f"{name} in Docker", lambda: "is up" in _docker_output(engine, name))
        if case.procedure == "serve":
            extra |= _connect(place.hosts["257"], case.port)
        began = time.monotonic()
        docker(engine, "stop", name)
        extra["stop", "duration"] = _duration(time.monotonic() - began, case.timeout)
    _docker_wait(engine, name)
    facts = read_facts(_docker_output(engine, name), own)
    for count in range(2, {"thrice": 4, "written": 3}.get(case.procedure, 2)):
        begun = _docker_output(engine, name)
        _docker_start(engine, name)
        _docker_wait(engine, name)
        later = read_facts(_docker_output(engine, name).removeprefix(begun), own)
        facts = later if case.procedure == "written" else facts | _counted(later, count)
    state = json.loads(docker(engine, "inspect", name).stdout)[0]
    extra["exit", "code"] = str(state["State"]["ExitCode"])
    if case.procedure == "restart":
        extra["exit", "restarts"] = str(state["RestartCount"])
    return facts | extra


def _counted(facts: Facts, count: int) -> Facts:
    return {(row, f"{key} in run {count}"): value for (row, key), value in facts.items() if row == "volume"}


def _docker_start(engine: str, name: str) -> None:
    docker(engine, "start", name, check=False)


def _docker_wait(engine: str, name: str) -> None:
    def ended() -> bool:
        state = json.loads(docker(engine, "inspect", "--format", "{{json .State}}", name).stdout)
        return state["Status"] in {"exited", "created", "dead"}

    lab.wait_until(f"the end of {name} in Docker", ended)


def _docker_output(engine: str, name: str) -> str:
    logs = docker(engine, "logs", name)
    return logs.stdout + "\n" + logs.stderr


def _docker_limits(engine: str, name: str) -> Facts:
    config = json.loads(docker(engine, "inspect", name).stdout)[0]["HostConfig"]
    return {
        ("limits", "MemoryMax"): str(config["Memory"]),
        ("limits", "MemoryLow"): str(config["MemoryReservation"]),
        ("limits", "TasksMax"): str(config["PidsLimit"]),
        ("limits", "CPUQuotaPerSecUSec"): f"{config['NanoCpus'] // 1000000}ms",
        ("limits", "processors"): config["CpusetCpus"],
    }


def _duration(seconds: float, timeout: int) -> str:
    """Too coarse for a busy machine to matter."""
    if seconds < timeout:
        return "before the timeout"
    return "at the timeout" if seconds < timeout + 5 else "long after the timeout"


def _connect(host: lab.Host, port: int) -> Facts:
    """Connections to the published port: from the host itself, and from outside."""
    program = "import socket, sys\ns = socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)\n"
    program += "print(s.makefile().readline())"
    here = ["nsenter", "-t", str(host.leader), "-n"]
    answers: Facts = {}
    for who, enter, address in (
        ("loopback", here, "127.0.0.1"),
        ("host", here, "10.98.0.1"),
        ("outside", _in_outside(host), "10.98.0.1"),
    ):
        seen = lab.run(*enter, sys.executable, "-c", program, address, str(port), check=False)
        answers["ports", f"from {who}"] = seen.stdout.strip() or seen.stderr.strip().rpartition("\n")[2]
    return answers


def supported_options() -> frozenset[str]:
    """The options that `docker2nspawn convert` has."""
    text = lab.run(".venv/bin/docker2nspawn", "convert", "--help", COLUMNS="200").stdout
    return frozenset(re.findall(r"--[a-z-]+", text))


def convert(place: Lab, host: lab.Host, case: Case, *options: str) -> str:
    """Convert a case for a host; what went wrong, or ""."""
    image = case.create is None or case.convert
    source = f"docker-daemon:parity/{case.name}" if image else f"container:{_container(case)}"
    command: list[str | Path] = [".venv/bin/docker2nspawn", "convert", source, "--name", _container(case)]
    command += ["--root", host.root, *case.convert, *options]
    done = lab.run(*command, check=False, DOCKER_HOST=place.engine(case))
    return done.stderr.strip() if done.returncode else ""


def run_machine(host: lab.Host, case: Case, again: Callable[[], str]) -> Facts:
    """What the machine of a case sees; `again` converts it once more, by force."""
    name = _container(case)
    own, extra = [name], Facts()
    if case.procedure == "limits":
        return _machine_limits(host, name)
    started = _start(host, name)
    if started:
        extra["start", "error"] = started
    if case.procedure in {"stop", "serve"} and not started:
        lab.wait_until(f"{name} on {host.version}", lambda: "is up" in host.journal(name), 20)
        if case.procedure == "serve":
            extra |= _connect(host, case.port)
        began = time.monotonic()
        host.run("systemctl", "stop", f"systemd-nspawn@{name}.service", check=False)
        _wait(host, name)
        extra["stop", "duration"] = _duration(time.monotonic() - began, case.timeout)
    _wait(host, name)
    output = host.journal(name)
    facts = read_facts(output, own)
    for count in range(2, 4 if case.procedure == "thrice" else 2):
        if count == 3 and (error := again()):
            extra["conversion", "by force"] = error
        cursor = host.run("journalctl", "--lines=1", "--show-cursor").stdout.rpartition("cursor: ")[2].strip()
        _start(host, name)
        _wait(host, name)
        facts |= _counted(read_facts(host.journal(name, after=cursor), own), count)
    shown = _show(host, name, "ExecMainCode", "ExecMainStatus", "NRestarts")
    status = int(shown["ExecMainStatus"])
    extra["exit", "code"] = str(status + 128 if shown["ExecMainCode"] in {"2", "3"} else status)
    if case.procedure == "restart":
        extra["exit", "restarts"] = shown["NRestarts"]
    rest = _FACT.sub("", output)
    complaints = [x for x in rest.splitlines() if _COMPLAINT.search(x) and not _NO_COMPLAINT.search(x)]
    for number, line in enumerate(complaints):
        extra["complaints", str(number)] = line.strip().replace(name, "{own}")
    return facts | extra


def _start(host: lab.Host, name: str) -> str:
    done = host.run("machinectl", "start", name, check=False)
    return done.stderr.strip().partition("\n")[0].replace(name, "{own}") if done.returncode else ""


def _wait(host: lab.Host, name: str) -> None:
    unit = f"systemd-nspawn@{name}.service"
    host.run("systemctl", "is-active", unit, check=False)
    lab.wait_until(
        f"the end of {name} on {host.version}",
        lambda: _show(host, name, "ActiveState")["ActiveState"] in {"inactive", "failed"},
    )


def _show(host: lab.Host, name: str, *properties: str) -> dict[str, str]:
    wanted = [f"--property={name}" for name in properties]
    output = host.run("systemctl", "show", f"systemd-nspawn@{name}.service", *wanted).stdout
    return {key: value for key, _, value in (line.partition("=") for line in output.splitlines())}


def _machine_limits(host: lab.Host, name: str) -> Facts:
    names = ("MemoryMax", "MemoryLow", "TasksMax", "CPUQuotaPerSecUSec")
    shown = _show(host, name, *names, "AllowedCPUs", "CPUAffinity")
    facts = {("limits", key): shown.get(key, "") for key in names}
    affinity = re.search(r"^CPUAffinity=(.*)$", _settings(host, name), re.MULTILINE)
    return facts | {("limits", "processors"): shown.get("AllowedCPUs") or (affinity[1] if affinity else "")}


def _settings(host: lab.Host, name: str) -> str:
    path = host.root / f"var/lib/machines/{name}.nspawn"
    return path.read_text() if path.exists() else ""


@dataclass(frozen=True)
class Results:
    """Facts of each case: Docker's, and by systemd's version the machine's; what the older Docker shows in one case.

    `seconds` is how long it took.
    """

    docker: Mapping[str, Facts]
    older: Facts
    machines: Mapping[str, Mapping[str, Facts]]
    seconds: float


@contextlib.contextmanager
def ready(work: Path, place: Lab) -> Iterator[None]:
    """Hosts with an outside; containers of this machine's own engine are taken away at the end."""
    own = [case for case in CASES if case.procedure == "limits"]
    with contextlib.ExitStack() as stack:
        for host in place.hosts.values():
            prepare_host(host, stack, work)
        for case in own:
            docker(place.own_docker, "rm", "-f", _container(case), check=False)
        try:
            yield
        finally:
            for case in own:
                docker(place.own_docker, "rm", "-f", _container(case), check=False)


def run_all(work: Path, place: Lab, cases: tuple[Case, ...] = CASES) -> Results:
    """Everything: build, create, convert for each host, run in Docker, run on each host."""
    began = time.monotonic()

    def stage(done: str) -> None:
        print(f"{time.monotonic() - began:.0f} s: {done}")

    own = tuple(case for case in cases if case.procedure == "limits")
    build(work, place.docker, [case for case in cases if case not in own])
    build(work, place.own_docker, (CASES[0], *own))
    options = supported_options()
    errors: dict[tuple[str, str], str] = {}

    def prepared(case: Case) -> None:
        create(place.engine(case), case)
        if case.procedure == "written":
            _docker_start(place.docker, _container(case))
            _docker_wait(place.docker, _container(case))
        for version, host in place.hosts.items():
            errors[case.name, version] = convert(place, host, case, *_options(version, options))

    seen: dict[str, Facts] = {}

    def in_docker(case: Case) -> None:
        seen[case.name] = run_docker(place, case)

    machines: dict[str, dict[str, Facts]] = {version: {} for version in place.hosts}

    def on_hosts(case: Case) -> None:
        for version, host in place.hosts.items():
            if error := errors[case.name, version]:
                machines[version][case.name] = {("conversion", "error"): error}
                continue

            def again(case: Case = case, version: str = version, host: lab.Host = host) -> str:
                error = convert(place, host, case, "--force", *_options(version, options))
                host.run("systemctl", "daemon-reload")
                return error

            try:
                machines[version][case.name] = run_machine(host, case, again)
            except AssertionError as error:  # it never came up, or never ended: a difference like others
                machines[version][case.name] = {("run", "error"): str(error)}
                host.run(
                    "systemctl",
                    "kill",
                    "-s",
                    "KILL",
                    f"systemd-nspawn@{_container(case)}.service",
                    check=False,
                )

    stage("built")
    _each(prepared, cases)
    stage("converted")
    _each(in_docker, cases)
    stage("run in Docker")
    for host in place.hosts.values():
        host.run("systemctl", "daemon-reload")
    _each(on_hosts, cases)
    stage("run on the hosts")
    return Results(seen, _older(place), machines, time.monotonic() - began)


def _older(place: Lab) -> Facts:
    """What this machine's own engine (Debian 12's) shows of the first case."""
    return read_facts(docker(place.own_docker, "run", "--rm", f"parity/{CASES[0].name}").stdout, ())


def _options(version: str, known: frozenset[str]) -> tuple[str, ...]:
    return ("--systemd", version) if "--systemd" in known else ()
