"""A machine's network of its own on a real host: what reaches what, from where, and that nothing of it remains."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import lab
from tests.networks import (
    GATEWAY,
    HOST_ADDRESS,
    OUTSIDE_ADDRESS,
    REFUSED,
    NetworkedMachine,
    Place,
    machine,
    on,
    outside,
    traces,
)

pytestmark = pytest.mark.lab


@dataclass(frozen=True)
class Lab:
    """Two running machines, their host, which drops what it is to forward, and a host outside."""

    host: lab.Host
    web: NetworkedMachine
    other: NetworkedMachine
    outside: Place


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
def two_machines(host: lab.Host, tool: str) -> Iterator[Lab]:
    with (
        firewall(host, tool),
        outside(host) as other_host,
        machine(host, "network-web.1", "10.213.0.2", "8080:80", "127.0.0.1:8081:80", "8082:53/udp") as web,
        machine(
            host, "network-other", "10.213.0.3", "7000-7002:7000-7002/udp", f"{HOST_ADDRESS}:8083:80"
        ) as other,
    ):
        web.start()
        other.start()
        yield Lab(host, web, other, other_host)


@pytest.fixture(scope="module", params=["nft", "iptables"])
def running(systemd_host: lab.Host, request: pytest.FixtureRequest) -> Iterator[Lab]:
    with two_machines(systemd_host, request.param) as made:
        yield made


def test_the_machine_sees_what_a_container_sees(running: Lab) -> None:
    place = running.web.place
    address = place.run("ip", "-4", "-oneline", "address", "show", "dev", "eth0").stdout
    assert "inet 10.213.0.2/16 brd 10.213.255.255" in address
    assert f"default via {GATEWAY} dev eth0" in place.run("ip", "route").stdout
    assert "02:42:0a:d5:00:02" in place.run("ip", "link", "show", "eth0").stdout
    assert "inet6" not in place.run("ip", "address", "show", "dev", "eth0").stdout
    seen = running.host.run(
        "nsenter", "-t", str(running.web.leader), "-a", "/bin/busybox", "ip", "-o", "addr"
    )
    assert "10.213.0.2/16" in seen.stdout
    sysctls = place.run(
        "cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start", "/proc/sys/net/ipv4/ping_group_range"
    )
    assert sysctls.stdout.split() == ["0", "0", "2147483647"]


def test_what_leaves_has_the_hosts_address(running: Lab) -> None:
    for kind in ("tcp", "udp"):
        with running.outside.answering(kind, 9000, "outside"):
            assert running.web.place.ask(OUTSIDE_ADDRESS, 9000, kind) == f"outside {HOST_ADDRESS}"
            assert running.other.place.ask(OUTSIDE_ADDRESS, 9000, kind) == f"outside {HOST_ADDRESS}"


@pytest.mark.parametrize("kind, port, inside", [("tcp", 8080, 80), ("udp", 8082, 53)])
def test_a_published_port_is_reached_from_everywhere(running: Lab, kind: str, port: int, inside: int) -> None:
    host, web = on(running.host), running.web
    with contextlib.nullcontext() if kind == "tcp" else web.place.answering(kind, inside, web.name):
        assert running.outside.ask(HOST_ADDRESS, port, kind) == f"{web.name} {OUTSIDE_ADDRESS}"
        assert host.ask("127.0.0.1", port, kind) == f"{web.name} {GATEWAY}"
        assert host.ask(HOST_ADDRESS, port, kind).startswith(f"{web.name} ")
        assert host.ask(GATEWAY, port, kind).startswith(f"{web.name} ")
        assert running.other.place.ask(HOST_ADDRESS, port, kind) == f"{web.name} 10.213.0.3"
        assert web.place.ask(HOST_ADDRESS, port, kind) == f"{web.name} {GATEWAY}"
        assert web.place.ask(GATEWAY, port, kind) == f"{web.name} {GATEWAY}"


def test_a_published_port_is_reached_by_ipv6(running: Lab) -> None:
    assert on(running.host).ask("::1", 8080) == f"{running.web.name} {GATEWAY}"


def test_a_range_keeps_its_numbers(running: Lab) -> None:
    for port in (7000, 7001, 7002):
        with running.other.place.answering("udp", port, "range"):
            assert running.outside.ask(HOST_ADDRESS, port, "udp") == f"range {OUTSIDE_ADDRESS}"


def test_a_port_may_be_one_address_only(running: Lab) -> None:
    host = on(running.host)
    assert host.ask("127.0.0.1", 8081) == f"{running.web.name} {GATEWAY}"
    assert running.outside.ask(HOST_ADDRESS, 8081) == REFUSED
    assert running.outside.ask(HOST_ADDRESS, 8083) == f"{running.other.name} {OUTSIDE_ADDRESS}"
    assert host.ask("127.0.0.1", 8083) == REFUSED


def test_what_is_not_published_is_not_reached_from_outside(running: Lab) -> None:
    running.outside.run("ip", "route", "replace", "10.213.0.0/16", "via", HOST_ADDRESS)
    assert running.outside.ask(running.web.address, 80, seconds=1) == REFUSED
    with running.web.place.answering("udp", 9001, "web"):
        assert running.outside.ask(running.web.address, 9001, "udp", seconds=1) == REFUSED
        assert on(running.host).ask(running.web.address, 9001, "udp") == f"web {GATEWAY}"
    assert running.outside.ask(HOST_ADDRESS, 80) == REFUSED


def test_machines_reach_each_other_by_address(running: Lab) -> None:
    web, other = running.web, running.other
    assert web.place.ask(other.address, 80) == f"{other.name} {web.address}"
    assert other.place.ask(web.address, 80) == f"{web.name} {other.address}"


def test_a_client_that_goes_on_sending_while_the_machine_is_down_is_not_lost(running: Lab) -> None:
    source = "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('', 4000)); "
    source += f"s.settimeout(3); s.sendto(b'x', ('{HOST_ADDRESS}', 8082)); "
    running.web.stop()
    running.outside.run("python3", "-c", source)
    running.web.start()
    with running.web.place.answering("udp", 53, "web"):
        assert (
            running.outside.run("python3", "-c", f"{source}print(s.recv(99))").stdout
            == f"b'web {OUTSIDE_ADDRESS}'\n"
        )


def test_a_machine_cannot_reach_the_hosts_loopback_or_take_another_address(running: Lab) -> None:
    with machine(running.host, "network-evil", "10.213.0.66") as evil:
        evil.start()
        place, host = evil.place, on(running.host)
        with host.answering("tcp", 9002, "host"):
            assert place.ask(GATEWAY, 9002) == f"host {evil.address}"
            place.run("ip", "address", "add", "10.213.0.3/32", "dev", "eth0")
            place.run("ip", "route", "replace", f"{GATEWAY}/32", "dev", "eth0", "src", "10.213.0.3")
            assert place.ask(GATEWAY, 9002, seconds=1) == REFUSED
            place.run("ip", "route", "replace", f"{GATEWAY}/32", "dev", "eth0", "src", evil.address)
            place.run("sysctl", "-q", "-w", "net.ipv4.conf.all.route_localnet=1")
            place.run("ip", "address", "flush", "dev", "lo")
            place.run("ip", "route", "flush", "table", "local", "dev", "lo")
            place.run(
                "ip", "route", "add", "127.0.0.1/32", "via", GATEWAY, "dev", "eth0", "src", evil.address
            )
            assert place.ask("127.0.0.1", 9002, seconds=1) == REFUSED


@pytest.mark.parametrize("tool", ["nft", "iptables"])
def test_a_stop_leaves_nothing(systemd_host: lab.Host, tool: str) -> None:
    with (
        firewall(systemd_host, tool),
        machine(systemd_host, "network-1", "10.213.0.2", "8080:80", "8080:53/udp") as one,
        machine(systemd_host, "network-2", "10.213.0.3", "8081:80") as two,
    ):
        one.start()
        one.stop()
        before = traces(systemd_host)
        one.start()
        two.start()
        during = traces(systemd_host)
        assert all("d2n-" in text for command, text in during.items() if "table all" not in command)
        two.stop()
        assert on(systemd_host).ask("127.0.0.1", 8080) == f"network-1 {GATEWAY}"
        systemd_host.run("machinectl", "stop", "network-1")
        one.wait_gone()
        assert traces(systemd_host) == before


def test_restarts_and_kills(systemd_host: lab.Host) -> None:
    with machine(systemd_host, "network-1", "10.213.0.2", "8080:80") as one:
        one.start()
        host = on(systemd_host)
        before = traces(systemd_host)
        systemd_host.run("systemctl", "restart", one.unit)
        one.wait()
        assert host.ask("127.0.0.1", 8080) == f"network-1 {GATEWAY}"
        main = systemd_host.run("systemctl", "show", one.unit, "--property=MainPID", "--value").stdout.strip()
        systemd_host.run("kill", "-9", main)
        one.wait_gone()
        assert "d2n-network-1" not in systemd_host.run("ip", "netns", "list").stdout
        one.start()
        assert host.ask("127.0.0.1", 8080) == f"network-1 {GATEWAY}"
        assert traces(systemd_host) == before


def test_a_machine_that_systemd_restarts(systemd_host: lab.Host) -> None:
    with machine(systemd_host, "network-1", "10.213.0.2", "8080:80", Restart="always", RestartSec="0") as one:
        one.start()
        leader = one.leader
        systemd_host.run("kill", "-9", str(leader))
        lab.wait_until("the second start", lambda: (found := leader_of(one)) is not None and found != leader)
        one.wait()
        assert on(systemd_host).ask("127.0.0.1", 8080) == f"network-1 {GATEWAY}"


def leader_of(one: NetworkedMachine) -> int | None:
    shown = one.host.run("machinectl", "show", one.name, "--property=Leader", "--value", check=False).stdout
    return int(shown) if shown.strip() else None


def test_what_was_left_behind_is_cleared(systemd_host: lab.Host) -> None:
    with machine(systemd_host, "network-1", "10.213.0.2", "8080:80") as one:
        script = "/var/lib/docker2nspawn/machines/network-1.network"
        before = traces(systemd_host)
        systemd_host.run("/bin/sh", script, "up")
        one.start()
        assert on(systemd_host).ask("127.0.0.1", 8080) == f"network-1 {GATEWAY}"
        one.stop()
        systemd_host.run("/bin/sh", script, "down")
        systemd_host.run("/bin/sh", script, "down")
        assert traces(systemd_host) == before


def test_rules_come_back_with_a_reload(systemd_host: lab.Host) -> None:
    with machine(systemd_host, "network-1", "10.213.0.2", "8080:80") as one:
        one.start()
        systemd_host.run("nft", "delete", "table", "ip", "d2n-network-1")
        assert on(systemd_host).ask("127.0.0.1", 8080) == REFUSED
        systemd_host.run("systemctl", "reload", "docker2nspawn-network@network-1.service")
        assert on(systemd_host).ask("127.0.0.1", 8080) == f"network-1 {GATEWAY}"


@pytest.mark.parametrize("port", ["8080:80", "127.0.0.1:8080:80", "8000-8100:8000-8100"])
def test_a_port_that_is_taken_is_an_error(systemd_host: lab.Host, port: str) -> None:
    with (
        machine(systemd_host, "network-1", "10.213.0.2", port) as one,
        machine(systemd_host, "network-2", "10.213.0.3", "8080:80", "8080:80/udp") as two,
    ):
        before = traces(systemd_host)
        with on(systemd_host).answering("tcp", 8080, "host"):
            assert systemd_host.run("machinectl", "start", two.name, check=False).returncode != 0
        assert "port 8080/tcp of the host is taken" in journal(two)
        two.wait_gone()
        assert traces(systemd_host) == before
        systemd_host.run("machinectl", "start", one.name)
        assert systemd_host.run("machinectl", "start", two.name, check=False).returncode != 0
        assert "port 8080/tcp of the host" in journal(two).splitlines()[-1]
        one.stop()
        two.start()


def journal(one: NetworkedMachine) -> str:
    one.host.run("journalctl", "--sync")
    unit = f"--unit=docker2nspawn-network@{one.name}.service"
    lines = one.host.run("journalctl", "--output=cat", unit).stdout.splitlines()
    return "\n".join(line for line in lines if line.startswith(f"{one.name}: "))


def test_with_networkd(systemd_host: lab.Host) -> None:
    with machine(systemd_host, "network-1", "10.213.0.2", "8080:80") as one:
        one.start()
        systemd_host.run("systemctl", "start", "systemd-networkd")
        try:
            check_beside_networkd(one)
            systemd_host.run("networkctl", "reload")
            systemd_host.run("systemctl", "restart", "systemd-networkd")
            check_beside_networkd(one)
            one.stop()
            one.start()
            check_beside_networkd(one)
        finally:
            systemd_host.run("systemctl", "stop", "systemd-networkd.socket", "systemd-networkd")


def check_beside_networkd(one: NetworkedMachine) -> None:
    def state() -> list[str]:
        lines = one.host.run("networkctl", "list", "--no-legend", "--no-pager").stdout.splitlines()
        return next((line.split()[-2:] for line in lines if one.link in line), [])

    lab.wait_until("networkd to look at the link", lambda: state()[-1:] == ["unmanaged"])
    assert on(one.host).ask("127.0.0.1", 8080) == f"{one.name} {GATEWAY}"
    assert f"{GATEWAY}/32" in one.host.run("ip", "address", "show", "dev", one.link).stdout


def test_ip_forwarding_is_switched_on_as_docker_does(systemd_host: lab.Host) -> None:
    forward = Path("/proc/sys/net/ipv4/ip_forward")
    policy = systemd_host.run("iptables", "-S", "FORWARD").stdout.split()[2]
    with machine(systemd_host, "network-1", "10.213.0.2", "8080:80") as one:
        systemd_host.run("sh", "-c", f"echo 0 >{forward}")
        try:
            one.start()
            assert systemd_host.run("cat", str(forward)).stdout == "1\n"
            assert systemd_host.run("iptables", "-S", "FORWARD").stdout.startswith("-P FORWARD DROP")
        finally:
            systemd_host.run("sh", "-c", f"echo 1 >{forward}")
            systemd_host.run("iptables", "-P", "FORWARD", policy)
