"""What `docker2nspawn check` asks the running host: played by a directory, real sockets and programs that answer."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from converter import commands, linux
from converter.check import Finding, command, programs, sockets
from tests.checked import NAME, BrokenHost, convert, elf, health, make_host


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("converted")
    convert(root)
    return root


@pytest.fixture
def host(converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BrokenHost:
    """A directory that counts as the root of the running host, with programs of its own."""
    host = make_host(converted, tmp_path)
    monkeypatch.setattr(commands, "is_this_host", lambda root: root == host.root)
    monkeypatch.setenv("PATH", str(host.bin))
    monkeypatch.setattr(os, "statvfs", lambda _: Mounted(0))  # /tmp may be mounted as it likes
    return host


@dataclass(frozen=True)
class Mounted:
    """As much of os.statvfs_result as is asked for."""

    f_flag: int


def only(host: BrokenHost) -> Finding:
    (finding,) = host.findings()
    return finding


def test_nothing_is_wrong(host: BrokenHost, capsys: pytest.CaptureFixture[str]) -> None:
    host.network(ports="127.0.0.1:1:1/tcp")
    assert host.findings() == ()
    assert command.run(NAME, host.root, as_json=False) == 0
    assert capsys.readouterr().out == f"{NAME}: nothing found that would go wrong\n"


@contextlib.contextmanager
def listening(family: int, kind: int, address: str) -> Iterator[int]:
    with socket.socket(family, kind) as taken:
        taken.bind((address, 0))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        yield taken.getsockname()[1]


@pytest.mark.parametrize(
    ("family", "kind", "address", "published"),
    [
        (socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1", "{0}:80/tcp"),
        (socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1", "127.0.0.1:{0}-{0}:80-80/tcp"),
        (socket.AF_INET, socket.SOCK_STREAM, "0.0.0.0", "127.0.0.1:{0}:80/tcp"),
        (socket.AF_INET6, socket.SOCK_STREAM, "::", "127.0.0.1:{0}:80/tcp"),
        (socket.AF_INET6, socket.SOCK_STREAM, "::1", "[::1]:{0}:80/tcp"),
        (socket.AF_INET, socket.SOCK_DGRAM, "127.0.0.1", "{0}:53/udp"),
    ],
)
def test_a_published_port_is_taken(
    host: BrokenHost, family: int, kind: int, address: str, published: str
) -> None:
    with listening(family, kind, address) as port:
        host.network(ports=published.format(port))
        finding = only(host)
        assert finding.severity == "problem"
        assert f":{port}" in finding.subject
        assert f"(process {os.getpid()}) listens on {address} port {port}/" in finding.text
        host.write(f"run/systemd/machines/{NAME}")  # the machine runs: it may be the machine's own
        assert host.findings() == ()


def test_a_published_port_is_taken_elsewhere(host: BrokenHost) -> None:
    with listening(socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1") as port:
        host.network(ports=f"127.0.0.2:{port}:80/tcp\n127.0.0.1:{port}:80/udp\n[::1]:{port}:80/tcp")
        assert host.findings() == ()


def test_an_exposed_port_of_the_shared_network_is_taken(host: BrokenHost) -> None:
    with listening(socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1") as port:
        host.config(exposed_ports=[f"{port}/tcp", "1/udp", "no port"])
        finding = only(host)
        assert (finding.severity, finding.subject) == ("warning", f"port {port}/tcp")
        host.config(exposed_ports=[f"{port}/udp"])
        assert host.findings() == ()
        host.config(exposed_ports=[f"{port - 1}-{port + 1}"])
        assert only(host).subject == f"port {port}/tcp"
        host.network()
        assert host.findings() == ()


def test_addresses_that_cannot_share_a_port() -> None:
    assert sockets.overlap("", "127.0.0.1")
    assert sockets.overlap("0.0.0.0", "192.0.2.1")
    assert sockets.overlap("192.0.2.1", "::")
    assert sockets.overlap("::1", "::1")
    assert not sockets.overlap("0.0.0.0", "::1")
    assert not sockets.overlap("192.0.2.1", "192.0.2.2")


def no_daemon_reload(host: BrokenHost) -> None:
    host.program("systemctl", '[ "$3" = NeedDaemonReload ] && echo yes')


def not_systemd(host: BrokenHost) -> None:
    shutil.rmtree(host.root / "run/systemd/system")


def legacy_cgroups(host: BrokenHost) -> None:
    (host.root / "sys/fs/cgroup/cgroup.controllers").unlink()
    host.write("usr/lib/x86_64-linux-gnu/systemd/libsystemd-shared-258.so")


def no_group_for_the_check(host: BrokenHost) -> None:
    (host.root / "sys/fs/cgroup/cgroup.controllers").unlink()
    health(host)


def foreign(host: BrokenHost) -> None:
    (host.root / "usr/bin/systemd-nspawn").write_bytes(elf(62))
    (host.tree / "usr/lib/docker2nspawn/launch").write_bytes(elf(22))


def nft_firewall(host: BrokenHost) -> None:
    host.network()
    chain = {"family": "inet", "table": "mine", "name": "fwd", "hook": "forward", "policy": "drop"}
    ours = {**chain, "table": "docker2nspawn"}
    answer = json.dumps({"nftables": [{"metainfo": {}}, {"chain": ours}, {"chain": chain}]})
    host.program("nft", f"echo '{answer}'")


def iptables_firewall(host: BrokenHost) -> None:
    host.network()
    script = host.state / f"{NAME}.network"
    script.write_text(script.read_text().replace("FORWARD", "INPUT"))
    host.program("iptables", 'echo "-P $2 DROP"')


def netns_is_a_file(host: BrokenHost) -> None:
    host.network()
    host.write("run/netns")


def no_bridge(host: BrokenHost) -> None:
    host.program("systemctl", "echo active")
    host.replace("VirtualEthernet=no", "Bridge=br7")


def no_servers(host: BrokenHost) -> None:
    host.network()
    host.write("etc/resolv.conf", "search example.com\n")


def selinux(host: BrokenHost) -> None:
    host.write("sys/fs/selinux/enforce", "1")


BROKEN: dict[str, tuple[Callable[[BrokenHost], object], str, str, str]] = {
    "daemon-reload": (no_daemon_reload, "problem", "units", "have changed since systemd read them"),
    "no systemd": (not_systemd, "warning", "systemd", "not this host's init"),
    "no bus": (lambda h: (h.root / "run/dbus/system_bus_socket").unlink(), "warning", "D-Bus", "machinectl"),
    "cgroup v1": (legacy_cgroups, "problem", "cgroups", "systemd 258 starts no machine"),
    "cgroup v1, a health check": (
        no_group_for_the_check,
        "warning",
        "health check",
        "cannot enter the machine",
    ),
    "foreign": (foreign, "problem", "processor", "is for s390x, the host is amd64 and has no emulator"),
    "nft drops": (nft_firewall, "warning", "firewall", "the chain fwd of nftables' table inet mine"),
    "iptables drops": (iptables_firewall, "warning", "firewall", "the chain FORWARD of iptables"),
    "netns": (netns_is_a_file, "problem", "network", "/run/netns is not a directory"),
    "no namespace": (
        lambda h: h.unit_line("Service", "NetworkNamespacePath=/run/netns/mine"),
        "problem",
        "network",
        "/run/netns/mine is missing",
    ),
    "no bridge": (no_bridge, "problem", "network", "no such interface"),
    "no name servers": (no_servers, "warning", "resolv.conf", "names no server"),
    "SELinux": (selinux, "warning", "SELinux", "the tree's label is none"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_finds_what_the_host_lacks(what: str, host: BrokenHost, monkeypatch: pytest.MonkeyPatch) -> None:
    change, severity, subject, text = BROKEN[what]
    monkeypatch.setattr(programs, "BINFMT", host.root / "binfmt")
    change(host)
    finding = only(host)
    assert (finding.severity, finding.subject) == (severity, subject)
    assert text in finding.text


def test_our_own_rules_precede_the_policy_of_iptables(host: BrokenHost) -> None:
    host.network()
    chain = {"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "drop"}
    host.program("nft", f"echo '{json.dumps({'nftables': [{'chain': chain}]})}'")
    host.program("iptables", 'echo "-P $2 DROP"')
    assert host.findings() == ()


def test_an_emulator_runs_the_foreign_program(host: BrokenHost, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign(host)
    (host.tree / "usr/bin/hello").write_bytes(elf(22))
    entries = host.root / "binfmt"
    monkeypatch.setattr(programs, "BINFMT", entries)
    magic, mask = elf(22)[:20], b"\xff" * 16 + b"\xfe\xff\xff\xff"
    text = f"interpreter /usr/bin/qemu-s390x\nflags: F\noffset 0\nmagic {magic.hex()}\nmask {mask.hex()}\n"
    host.write("binfmt/status", "enabled\n")
    host.write("binfmt/qemu-s390x", f"enabled\n{text}")
    assert host.findings() == ()
    host.write("binfmt/qemu-s390x", f"disabled\n{text}")
    assert {finding.subject for finding in host.findings()} == {"processor"}


@pytest.mark.parametrize(
    ("flag", "severity"), [("ST_NOEXEC", "problem"), ("ST_NOSUID", "warning"), ("ST_NODEV", "warning")]
)
def test_the_mount_takes_something_away(
    host: BrokenHost, monkeypatch: pytest.MonkeyPatch, flag: str, severity: str
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: Mounted(getattr(os, flag)))
    finding = only(host)
    assert (finding.severity, finding.subject) == (severity, "mount")
    assert flag.removeprefix("ST_").lower() in finding.text


@pytest.mark.parametrize(
    ("setting", "supported", "severity", "text"),
    [
        ("pick", True, None, ""),
        ("pick", False, "warning", "changes the owner of every file"),
        ("pick", None, "warning", "cannot be tried"),
        ("pick\n[Files]\nPrivateUsersOwnership=map", False, "problem", "nothing starts"),
        ("pick\n[Files]\nPrivateUsersOwnership=chown", False, None, ""),
        ("identity", False, None, ""),
    ],
)
def test_user_ids_that_the_file_system_must_map(
    host: BrokenHost,
    monkeypatch: pytest.MonkeyPatch,
    setting: str,
    supported: bool | None,
    severity: str | None,
    text: str,
) -> None:
    monkeypatch.setattr(linux, "has_mapped_mounts", lambda _: supported)
    host.replace("PrivateUsers=no", "ProcessTwo=no")
    host.setting("Exec", f"PrivateUsers={setting}")
    found = host.findings()
    assert [finding.severity for finding in found] == ([severity] if severity else [])
    assert all(text in finding.text for finding in found)


@contextlib.contextmanager
def docker_engine(host: BrokenHost, answers: dict[str, object]) -> Iterator[None]:
    """Something that speaks as much of Docker's API as is asked for, at the host's socket."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = answers.get(self.path)
            body = json.dumps(answer).encode()
            self.send_response(404 if answer is None else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

        def address_string(self) -> str:
            return ""

    with tempfile.TemporaryDirectory() as short:  # a socket's name is 107 bytes at most
        path = Path(short) / "socket"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            (host.root / "run/docker.sock").symlink_to(path)
            server = HTTPServer(("", 0), Handler, bind_and_activate=False)
            server.socket.close()
            server.socket = listener
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
            thread.start()
            try:
                yield
            finally:
                server.shutdown()
                thread.join()


def inspected(*, running: bool, restart: str) -> dict[str, object]:
    policy = {"RestartPolicy": {"Name": restart}}
    return {"Name": "/web", "State": {"Running": running}, "HostConfig": policy}


def test_the_container_is_still_with_docker(host: BrokenHost) -> None:
    host.record(container={"Id": "abc", "Name": "/web"})
    with docker_engine(host, {"/containers/abc/json": inspected(running=True, restart="always")}):
        finding = only(host)
    assert (finding.severity, finding.subject) == ("warning", "Docker")
    assert "runs the container web" in finding.text
    assert "docker stop web" in finding.remedy


def test_docker_would_start_the_container_again(host: BrokenHost) -> None:
    with docker_engine(host, {f"/containers/{NAME}/json": inspected(running=False, restart="always")}):
        assert "restart policy always" in only(host).text


def test_docker_is_done_with_the_container(host: BrokenHost) -> None:
    with docker_engine(host, {f"/containers/{NAME}/json": inspected(running=False, restart="no")}):
        assert host.findings() == ()
    (host.root / "run/docker.sock").unlink()
    with docker_engine(host, {}):
        assert host.findings() == ()


def test_what_cannot_be_tried_is_not_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert linux.has_mapped_mounts(tmp_path) is None
