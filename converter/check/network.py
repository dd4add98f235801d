"""The machine's network: ports and addresses that are taken, tools that are missing, who else must be running."""

from __future__ import annotations

import json
import re
import shlex
import stat
from collections.abc import Iterator

from converter import inside
from converter.check import sockets
from converter.check.finding import Finding, problem, warning
from converter.check.installed import STATE, Installed, address_of, ports_of
from converter.check.parse import is_yes
from converter.commands import has_program, output, systemd_runs, unit_property
from converter.systemd import name_servers, only_loopback

_NAMESPACES = "/run/netns"
_EXPOSED = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/(tcp|udp))?")
_TABLES_WE_OPEN = {"docker2nspawn", "firewalld"}  # machine/network.sh
_RANGE_MAX = 1000  # ports; a longer range is not looked through


def network_findings(machine: Installed) -> Iterator[Finding]:
    """All about the network."""
    yield from _other_machines(machine)
    if machine.live and not machine.running:
        yield from _taken_ports(machine)
    if machine.host_network and machine.live and not machine.running:
        yield from _exposed_ports(machine)
    if machine.namespace is not None:
        yield from _namespace_findings(machine)
    yield from _networkd_findings(machine)
    yield from _resolv_conf_findings(machine)


def _taken_ports(machine: Installed) -> Iterator[Finding]:
    taken = sockets.listeners() if machine.ports else ()
    for port in machine.ports:
        for listener in taken:
            same = listener.protocol == port.protocol and port.first <= listener.port <= port.last
            if same and sockets.overlap(port.address, listener.address):
                where = f"{listener.address} port {listener.port}/{listener.protocol}"
                yield problem(
                    f"port {port}",
                    f"{sockets.owner(listener.inode)} listens on {where} of the host already",
                    f"end that program, or change PORTS in {_script(machine)}",
                )
                break


def _script(machine: Installed) -> str:
    return f"/{STATE}/{machine.name}.network"


def _exposed_ports(machine: Installed) -> Iterator[Finding]:
    exposed = machine.config.get("exposed_ports")
    taken = sockets.listeners() if exposed else ()
    for text in exposed if isinstance(exposed, list) else ():
        match = _EXPOSED.fullmatch(str(text))
        if match is None:
            continue
        first, last = int(match[1]), min(int(match[2] or match[1]), int(match[1]) + _RANGE_MAX)
        for listener in taken:
            if listener.protocol == (match[3] or "tcp") and first <= listener.port <= last:
                yield warning(
                    f"port {listener.port}/{listener.protocol}",
                    f"{sockets.owner(listener.inode)} has it on the host, whose network the machine shares",
                    "end that program, let the machine's listen elsewhere, or make it again with --network private",
                )
                break


def _other_machines(machine: Installed) -> Iterator[Finding]:
    if machine.network_script is None:
        return
    for file in inside.names(machine.root, STATE):
        other = file.removesuffix(".network")
        if other in {file, machine.name}:
            continue
        script = (inside.read(machine.root, f"{STATE}/{file}") or b"").decode("utf-8", "replace")
        if machine.address is not None and address_of(script) == machine.address:
            yield problem(
                f"address {machine.address}",
                f"machine {other} has it too: only one of them can be reached",
                machine.again,
            )
        for port in machine.ports:
            for theirs in ports_of(script):
                same = (
                    theirs.protocol == port.protocol
                    and theirs.first <= port.last
                    and port.first <= theirs.last
                )
                if same and sockets.overlap(port.address, theirs.address):
                    text = f"machine {other} publishes it too ({theirs}): they cannot run at the same time"
                    yield problem(
                        f"port {port}", text, f"change PORTS in {_script(machine)} or in the other's"
                    )


def _namespace_findings(machine: Installed) -> Iterator[Finding]:
    namespace = machine.namespace or ""
    if not has_program(machine.root, "ip"):
        yield problem(
            "network", "the host has no `ip` to make the machine's network with", "apt-get install iproute2"
        )
    if not has_program(machine.root, "nft") and not has_program(machine.root, "iptables"):
        text = "the host has neither nft nor iptables: no way out for the machine, and no published ports"
        yield problem("network", text, "apt-get install nftables")
    if not machine.live:
        return
    if not namespace.startswith(f"{_NAMESPACES}/d2n-") and inside.status(machine.root, namespace) is None:
        yield problem(
            "network", f"{namespace} is missing, so nothing starts", "make it before the machine starts"
        )
    found = inside.status(machine.root, _NAMESPACES)
    if found is not None and not stat.S_ISDIR(found.st_mode):
        yield problem(
            "network", f"{_NAMESPACES} is not a directory, so `ip netns` cannot work", f"rm {_NAMESPACES}"
        )
    if (chain := _dropping(machine)) is not None:
        yield warning(
            "firewall",
            f"{chain} drops what is forwarded and not allowed: the machine may reach nobody, and nobody it",
            f"allow forwarding to and from {machine.address or 'its address'} in that firewall",
        )


def _dropping(machine: Installed) -> str | None:
    """The chain of the host's firewall that drops forwarded packets by its policy, whatever our rules accept."""
    has_iptables = has_program(machine.root, "iptables")
    if "FORWARD" not in (machine.network_script or "") and has_iptables:
        rules = output("iptables", "-S", "FORWARD") or ""
        if rules.startswith("-P FORWARD DROP"):
            return "the chain FORWARD of iptables"
    try:
        entries = json.loads(output("nft", "--json", "list", "chains") or "{}").get("nftables", [])
    except ValueError:
        return None
    for chain in (entry.get("chain", {}) for entry in entries):
        table = (chain.get("family"), chain.get("table"))
        ours = table[1] in _TABLES_WE_OPEN or (table == ("ip", "filter") and has_iptables)
        drops = (
            chain.get("hook") == "forward" and chain.get("policy") == "drop" and table[0] in {"ip", "inet"}
        )
        if drops and not ours:
            return f"the chain {chain.get('name')} of nftables' table {table[0]} {table[1]}"
    return None


def _networkd_findings(machine: Installed) -> Iterator[Finding]:
    keys = ("VirtualEthernet", "Zone", "Bridge")
    wanted = [
        f"{k}={machine.value(k)}"
        for k in keys
        if machine.value(k) and (k != keys[0] or is_yes(machine.value(k)))
    ]
    if not wanted or not machine.trusted:
        return
    if machine.live:
        runs = (
            systemd_runs(machine.root)
            and unit_property("systemd-networkd.service", "ActiveState") == "active"
        )
    else:
        runs = inside.link(
            machine.root, "etc/systemd/system/multi-user.target.wants/systemd-networkd.service"
        ) is not None  # fmt: skip
    if not runs:
        yield problem(
            "network",
            f"{' '.join(wanted)}: nobody configures the host's end of that link, systemd-networkd does not run",
            "systemctl enable --now systemd-networkd, or make the machine again with --network private or host",
        )
    bridge = machine.value("Bridge")
    if (
        bridge
        and machine.live
        and "/" not in bridge
        and inside.status(machine.root, f"sys/class/net/{bridge}") is None
    ):
        text = f"Bridge={bridge}: the host has no such interface, so nothing starts"
        yield problem("network", text, f"ip link add {shlex.quote(bridge)} type bridge")


def _resolv_conf_findings(machine: Installed) -> Iterator[Finding]:
    mode = (machine.value("ResolvConf") or "").removeprefix("replace-").removeprefix("copy-")
    if mode == "uplink" and not _has_resolved(machine):
        yield problem(
            "resolv.conf",
            f"ResolvConf={machine.value('ResolvConf')}, but the host runs no systemd-resolved: no names are found",
            f"set ResolvConf=copy-host in /{machine.settings_path}",
        )
    if mode != "host" or machine.host_network:
        return
    servers = name_servers(machine.root)
    if only_loopback(servers):
        yield problem(
            "resolv.conf",
            f"the host's name server is {', '.join(servers)}, which the machine's own network does not reach",
            "with systemd-resolved set ResolvConf=copy-uplink; else ResolvConf=off, and bind a file that names another "
            f"server over it: BindReadOnly=FILE:/etc/resolv.conf in /{machine.settings_path}",
        )
    elif not servers and machine.live:
        yield warning(
            "resolv.conf", "the host's /etc/resolv.conf names no server", "write one into it (resolv.conf(5))"
        )


def _has_resolved(machine: Installed) -> bool:
    if machine.live:
        return inside.status(machine.root, "run/systemd/resolve/resolv.conf") is not None
    units = ("usr/lib/systemd/system", "lib/systemd/system")
    return any(inside.status(machine.root, f"{unit}/systemd-resolved.service") for unit in units)
