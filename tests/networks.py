"""Machines with a network of their own on a booted host, and an outside host that is a namespace; for the lab."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from converter.machine.model import Machine, Network, UnitSetting
from converter.machine.network import link_name, network_files, network_unit_settings, parse_port
from converter.machine.settings import render
from converter.machine.unit import render_drop_in
from tests import lab

HOST_ADDRESS, OUTSIDE_ADDRESS, GATEWAY = "192.0.2.1", "192.0.2.2", "10.213.0.1"
REFUSED = "refused"

_ASK = r"""
import socket, sys
kind, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
with socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as asking:
    asking.settimeout(float(sys.argv[4]))
    try:
        asking.connect((address, port))
        asking.sendall(b"GET /cgi-bin/who HTTP/1.0\r\n\r\n")
        answer = b""
        while part := asking.recv(4096):
            answer += part
            if kind == "udp":
                break
        print(answer.decode().split("\r\n\r\n")[-1].split("\n\n")[-1].strip())
    except OSError:
        print("refused")
"""

_ANSWER = r"""
import socket, sys
kind, port, name = sys.argv[1], int(sys.argv[2]), sys.argv[3]
with socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as answering:
    answering.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    answering.bind(("", port))
    if kind == "tcp":
        answering.listen()
    print("ready", flush=True)
    while True:
        if kind == "tcp":
            connection, peer = answering.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(f"{name} {peer[0]}".encode())
        else:
            _, peer = answering.recvfrom(4096)
            answering.sendto(f"{name} {peer[0]}".encode(), peer)
"""


@dataclass(frozen=True)
class Place:
    """A network namespace in the lab, by a path that is seen from here."""

    path: Path

    def ask(self, address: str, port: int, kind: str = "tcp", seconds: float = 2) -> str:
        """What a server answers who asks from here: "NAME ADDRESS-OF-WHO-ASKS", or REFUSED."""
        return self.run(sys.executable, "-c", _ASK, kind, address, str(port), str(seconds)).stdout.strip()

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command of this machine in that network."""
        return lab.run("nsenter", f"--net={self.path}", *command)

    @contextlib.contextmanager
    def answering(self, kind: str, port: int, name: str) -> Iterator[None]:
        """A server here for as long as the context lasts."""
        command = ["nsenter", f"--net={self.path}", sys.executable, "-c", _ANSWER, kind, str(port), name]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
            try:
                assert server.stdout is not None
                assert server.stdout.readline() == b"ready\n"
                yield
            finally:
                server.kill()


@dataclass(frozen=True)
class NetworkedMachine:
    """A machine that answers on port 80 with its name and the address of who asks."""

    host: lab.Host
    name: str
    address: str

    @property
    def unit(self) -> str:
        return f"systemd-nspawn@{self.name}.service"

    @property
    def link(self) -> str:
        return link_name(self.name)

    @property
    def leader(self) -> int:
        """Its first process, by its number on the host."""
        return int(self.host.run("machinectl", "show", self.name, "--property=Leader", "--value").stdout)

    @property
    def place(self) -> Place:
        return Place(Path(f"/proc/{self.host.leader}/root/proc/{self.leader}/ns/net"))

    def start(self) -> None:
        done = self.host.run("machinectl", "start", self.name, check=False)
        assert done.returncode == 0, self.journal()
        self.wait()

    def journal(self) -> str:
        """What its network's script has said."""
        self.host.run("journalctl", "--sync")
        unit = f"--unit=docker2nspawn-network@{self.name}.service"
        return self.host.run("journalctl", "--output=cat", "--lines=40", unit).stdout.strip()

    def stop(self) -> None:
        """Stop it, also when it is stopped already, and wait until its network is gone."""
        self.host.run("systemctl", "stop", self.unit)
        self.wait_gone()
        network = f"docker2nspawn-network@{self.name}.service"
        assert self.host.run("systemctl", "is-failed", network, check=False).stdout.strip() != "failed", (
            self.journal()
        )

    def wait(self) -> None:
        lab.wait_until(f"{self.name} answers", lambda: on(self.host).ask(self.address, 80) != REFUSED)

    def wait_gone(self) -> None:
        lab.wait_until(
            f"the end of {self.name}",
            lambda: (
                self.host.run("systemctl", "is-active", self.unit, check=False).stdout.strip()
                in ("inactive", "failed")
            ),
        )


def on(host: lab.Host) -> Place:
    """The host's own network."""
    return Place(Path(f"/proc/{host.leader}/ns/net"))


@contextlib.contextmanager
def machine(host: lab.Host, name: str, address: str, *ports: str, **unit: str) -> Iterator[NetworkedMachine]:
    """Install a machine, not started; `unit` are more settings of its service. Taken away at the end."""
    network = Network(address, tuple(port for text in ports for port in parse_port(text)))
    tree = host.root / "var/lib/machines" / name
    for directory in ("usr", "bin", "www/cgi-bin"):
        (tree / directory).mkdir(parents=True)
    lab.run("cp", "/usr/bin/busybox", tree / "bin/busybox")
    answer = tree / "www/cgi-bin/who"
    answer.write_text(f"#!/bin/busybox sh\nprintf '\\r\\n{name} %s\\n' \"$REMOTE_ADDR\"\n")
    answer.chmod(0o755)
    made = Machine(
        name,
        process_two=True,
        parameters=("/bin/busybox", "httpd", "-f", "-p", "0.0.0.0:80", "-h", "/www"),
        kill_signal="SIGKILL",
        private_users="no",
        virtual_ethernet=False,
        network=network,
        timeout_stop=2,
        unit=(
            *network_unit_settings(name),
            *(UnitSetting("Service", key, value) for key, value in unit.items()),
        ),
    )
    written = {
        f"etc/systemd/nspawn/{name}.nspawn": render(made, "lab").encode(),
        f"etc/systemd/system/systemd-nspawn@{name}.service.d/lab.conf": render_drop_in(made, "lab").encode(),
        **{file.path: file.content for file in network_files(name, network, "lab")},
    }
    for path, content in written.items():
        (host.root / path).parent.mkdir(parents=True, exist_ok=True)
        (host.root / path).write_bytes(content)
    host.run("systemctl", "daemon-reload")
    running = NetworkedMachine(host, name, address)
    try:
        yield running
    finally:
        running.stop()
        host.run("systemctl", "reset-failed", running.unit, check=False)
        for path in written:
            (host.root / path).unlink()
        lab.run("rm", "-rf", tree)
        host.run("systemctl", "daemon-reload")


@contextlib.contextmanager
def firewall(host: lab.Host, tool: str) -> Iterator[None]:
    """A host with Docker's policy for what is forwarded, and only one of the two programs for rules."""
    nft = host.root / "usr/sbin/nft"
    if tool == "iptables":
        nft.rename(nft.with_name("nft.away"))
    policy = host.run("iptables", "-S", "FORWARD").stdout.split()[2]
    host.run("iptables", "-P", "FORWARD", "DROP")
    try:
        yield
    finally:
        host.run("iptables", "-P", "FORWARD", policy)
        if tool == "iptables":
            nft.with_name("nft.away").rename(nft)


@contextlib.contextmanager
def outside(host: lab.Host, name: str = "network-outside") -> Iterator[Place]:
    """Another host, at the end of a cable to this one."""
    host.run("ip", "netns", "add", name)
    try:
        host.run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
        host.run("ip", "address", "add", f"{HOST_ADDRESS}/24", "dev", name)
        host.run("ip", "link", "set", name, "up")
        host.run("ip", "-n", name, "link", "set", "lo", "up")
        host.run("ip", "-n", name, "address", "add", f"{OUTSIDE_ADDRESS}/24", "dev", "eth0")
        host.run("ip", "-n", name, "link", "set", "eth0", "up")
        yield Place(Path(f"/proc/{host.leader}/root/run/netns/{name}"))
    finally:
        host.run("ip", "link", "delete", name, check=False)
        host.run("ip", "netns", "delete", name)


def traces(host: lab.Host) -> dict[str, str]:
    """All that a network may leave on a host."""
    commands = (
        "ip netns list",
        "ip -oneline -brief link",
        "ip route show table all",
        "nft -s list ruleset",
        "iptables-save | grep -v '^#' | sed 's/\\[.*//'",
        "ls /run/docker2nspawn/network",
        "systemctl list-units --state=active --plain --no-legend 'd2n-*' 'docker2nspawn-network@*'",
    )
    return {
        command: host.run("sh", "-c", f"{command} 2>/dev/null", check=False).stdout for command in commands
    }
