"""A machine's network comes and goes with the machine, whatever ends it, and nothing of it remains."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import lab
from tests.networks import GATEWAY, REFUSED, NetworkedMachine, firewall, machine, on, traces

pytestmark = pytest.mark.lab


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
        for command in ("ip netns list", "ip -oneline -brief link", "iptables-save"):
            (shown,) = (text for key, text in during.items() if key.startswith(command))
            assert "d2n-" in shown
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
        assert "port 8080/tcp of the host is taken" in two.journal()
        two.wait_gone()
        assert traces(systemd_host) == before
        systemd_host.run("machinectl", "start", one.name)
        assert systemd_host.run("machinectl", "start", two.name, check=False).returncode != 0
        assert "port 8080/tcp of the host" in two.journal().splitlines()[-1]
        one.stop()
        two.start()


def test_with_networkd(systemd_host: lab.Host) -> None:
    with machine(systemd_host, "network-1", "10.213.0.2", "8080:80") as one:
        one.start()
        # In a container networkd does not wait for udev, which this host has not; it sees a container by its /sys.
        systemd_host.run("mount", "-o", "remount,bind,ro", "/sys")
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
            systemd_host.run("mount", "-o", "remount,bind,rw", "/sys")


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
