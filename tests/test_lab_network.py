"""A machine's network of its own on a real host: what reaches what, and from where."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests import lab
from tests.networks import (
    GATEWAY,
    HOST_ADDRESS,
    OUTSIDE_ADDRESS,
    REFUSED,
    NetworkedMachine,
    Place,
    firewall,
    machine,
    on,
    outside,
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
