"""A machine's network of its own: a script that makes it, and the unit that runs the script around the machine.

What Docker's default bridge does, without a bridge: a network namespace with eth0 at one end of a virtual cable, the
host as its gateway at the other, NAT for what leaves, and the published ports. network.sh, in this directory, is the
part that all machines share; it needs ip, and nft or iptables. systemd puts the machine into the namespace.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files

from converter.errors import ConversionError
from converter.machine.model import File, Network, Port, UnitSetting
from converter.machine.settings import comment

POOL = ipaddress.IPv4Network("10.213.0.0/16")
"""Machines' addresses. Only the addresses in use are routed: the rest may be in use elsewhere."""

GATEWAY = POOL[1]
"""The host, as every machine sees it."""

SYSCTLS: Mapping[str, str] = {
    "net.ipv4.ip_unprivileged_port_start": "0",
    "net.ipv4.ping_group_range": "0 2147483647",
    "net.ipv6.conf.eth0.disable_ipv6": "1",
}
"""What Docker (26.1) sets in a container's network; the last is what its bridge does without IPv6."""

_GATEWAY_MAC = "02:42:ee:ee:ee:ee"  # each cable has but two ends, so it may be the same on all
_PROTOCOLS = ("tcp", "udp", "sctp")
_SYSCTL = re.compile(r"net(?:[./][A-Za-z0-9_-]+)+")
_NUMBER = re.compile(r"[0-9]{1,5}")
_HIGHEST = 65535


def link_name(name: str) -> str:
    """The host's end of the cable: 14 characters (15 are Linux's limit) that no default .network file matches."""
    return f"d2n-{hashlib.sha256(name.encode()).hexdigest()[:10]}"


def unit_name(name: str) -> str:
    """The unit that makes the network of machine `name`."""
    return f"docker2nspawn-network@{name}.service"


def network_files(
    name: str,
    network: Network,
    heading: str,
    *,
    sysctls: Mapping[str, str] | None = None,
    mac_address: str = "",
) -> tuple[File, ...]:
    """The script NAME.network and its unit. `heading` is a comment line; `name` is a valid machine name.

    `sysctls` are more `net.*` settings for the machine, by the names that sysctl(8) takes, and go before SYSCTLS.
    `mac_address` is the machine's own; "" is one made from its address, as Docker makes it.
    Raises ConversionError for a sysctl, MAC or IP address that cannot be, and for a port of the host that would lead
    to two ports.
    """
    script = f"var/lib/docker2nspawn/machines/{name}.network"
    text = f"#!/bin/sh\n{comment(heading)}\n{_variables(name, network, sysctls or {}, mac_address)}"
    text += files("converter.machine").joinpath("network.sh").read_text()
    unit = _UNIT.format(heading=comment(heading), name=name, script=f"/{script}")
    return (
        File(script, text.encode(), 0o755),
        File(f"etc/systemd/system/{unit_name(name)}", unit.encode()),
    )


_UNIT = """\
{heading}
[Unit]
Description=Network of machine {name}
Before=systemd-nspawn@{name}.service
# These may take all rules away.
After=nftables.service iptables.service netfilter-persistent.service firewalld.service ufw.service
# As often as the machine.
StartLimitIntervalSec=0

[Service]
# It does not stay: the machine's unit takes the network down, so that when that has stopped nothing is under way that
# the next start would have to wait for; `machinectl start` does not wait.
Type=oneshot
ExecStart=/bin/sh {script} up
ExecStopPost=/bin/sh {script} ended
"""


def network_unit_settings(name: str) -> tuple[UnitSetting, ...]:
    """For the drop-in of systemd-nspawn@NAME.service: it has its network made, and takes it down."""
    # Even with the plus (no restrictions), systemd would run it in the machine's network and with mounts of its own.
    script = (
        f"+/usr/bin/nsenter --target 1 --mount --net /bin/sh /var/lib/docker2nspawn/machines/{name}.network"
    )
    return (
        UnitSetting("Unit", "Requires", unit_name(name)),
        UnitSetting("Unit", "After", unit_name(name)),
        # A reload of these takes all rules away.
        UnitSetting("Unit", "ReloadPropagatedFrom", "nftables.service firewalld.service"),
        UnitSetting("Service", "NetworkNamespacePath", f"/run/netns/d2n-{name}"),
        UnitSetting("Service", "ExecReload", f"{script} reload"),
        UnitSetting("Service", "ExecStopPost", f"{script} down"),
    )


def free_address(used: Iterable[str], name: str, pool: ipaddress.IPv4Network = POOL) -> str:
    """An address of `pool` that is not `used`, for machine `name`; the pool's first is the host's.

    Where the search begins depends on the name, so that machines that are made at the same time get different ones.
    Raises ConversionError when there is none.
    """
    taken = {str(pool[1]), *used}
    count = pool.num_addresses - 2  # without the network's own and broadcast
    start = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % count
    for number in range(count):
        address = str(pool[1 + (start + number) % count])
        if address not in taken:
            return address
    raise ConversionError(
        f"all addresses of {pool} belong to machines; remove machines, or use the host's network"
    )


def parse_port(text: str) -> tuple[Port, ...]:
    """What `docker run -p` takes: [[ip:][hostPort[-last]]:]containerPort[-last][/tcp|udp|sctp].

    IPv6 addresses may stand in brackets; so may Docker's other form, published=8080,target=80,protocol=udp.
    Where Docker would pick a free port of the host (none given, or 0) it is the container's number, and of several
    given for one port it is the first. Raises ConversionError for what Docker refuses.
    """
    try:
        return tuple(_ports(_short(text)))
    except ValueError as error:
        raise ConversionError(
            f"'{text}' is no port to publish: {error}; write it like 8080:80 or 127.0.0.1:53:53/udp"
        ) from None


def exposed_port(text: str) -> tuple[Port, ...]:
    """An image's EXPOSE, "80/tcp", "53" or "8000-8010/udp", published on the host's ports of the same number.

    Raises ConversionError for what is no port.
    """
    try:
        if ":" in text:
            raise ValueError("there is a ':' in it")
        return tuple(_ports(text))
    except ValueError as error:
        raise ConversionError(f"'{text}' is no port: {error}; write it like 80/tcp") from None


def format_port(port: Port) -> str:
    """A port as parse_port reads it: 8080:80/tcp, [::1]:8080:80/tcp."""
    return _published(port, 0)


def is_served(port: Port) -> bool:
    """Does anything lead from the host's port to the machine's? Not from an IPv6 address that is not for tcp."""
    return port.protocol == "tcp" or ":" not in port.host_address


def _short(text: str) -> str:
    """The comma separated form turned into the short one, as the docker command does."""
    if "=" not in text:
        return text
    values = {"published": "", "target": "", "protocol": "tcp"}
    for word in text.split(","):
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise ValueError(f"'{word}' is not name=value")
        values[key] = value
    return f"{values['published']}:{values['target']}/{values['protocol']}"


def _ports(text: str) -> Iterator[Port]:
    rest, _, protocol = text.partition("/")
    protocol = protocol.lower() or "tcp"
    if protocol not in _PROTOCOLS:
        raise ValueError(f"the protocol '{protocol}' is none of {', '.join(_PROTOCOLS)}")
    rest, _, container = rest.rpartition(":")
    address, _, host = rest.rpartition(":")
    first, last = _range(container)
    if first == 0:
        raise ValueError("a container has no port 0")
    host_first, host_last = _range(host) if host else (0, 0)
    if host_first == 0:
        host_first, host_last = first, last
    if first != last and last - first != host_last - host_first:
        raise ValueError("its ranges differ in length")
    address = _address(address)
    for offset in range(last - first + 1):
        yield Port(first + offset, host_first + offset, protocol, address)


def _range(text: str) -> tuple[int, int]:
    first, hyphen, last = text.partition("-")
    if not all(_NUMBER.fullmatch(number) for number in (first, last if hyphen else first)):
        raise ValueError(f"'{text}' is no port number" if text else "it has no port of the container")
    low, high = int(first), int(last if hyphen else first)
    if high > _HIGHEST or low > high:
        raise ValueError(f"'{text}' is not within 1 to {_HIGHEST}, from low to high")
    return low, high


def _address(text: str) -> str:
    """The address as Python writes it. A zone index (fe80::1%eth0) is refused, as Docker does."""
    if not text:
        return ""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if "%" in bare:
        raise ValueError(f"'{text}' is no IP address")
    return str(ipaddress.ip_address(bare))  # raises ValueError


def _variables(name: str, network: Network, sysctls: Mapping[str, str], mac_address: str) -> str:
    """The top of the script."""
    try:
        address = ipaddress.IPv4Address(network.address or GATEWAY)
    except ValueError:
        raise ConversionError(f"'{network.address}' is no IPv4 address for a machine") from None
    mac = mac_address or "02:42:" + ":".join(f"{byte:02x}" for byte in address.packed)
    if not re.fullmatch(r"[0-9a-fA-F][02468aceACE](?::[0-9a-fA-F]{2}){5}", mac):
        raise ConversionError(f"'{mac}' is no MAC address for a machine; write it like 02:42:0a:d5:00:02")
    settings = {key.replace("/", "."): value for key, value in {**SYSCTLS, **sysctls}.items()}
    for key, value in settings.items():
        if not _SYSCTL.fullmatch(key) or not value.isprintable():
            raise ConversionError(
                f"'{key}={value}' cannot be set in a machine's network; only names that begin with net. can"
            )
    return f"""# The network of machine {name}: called as /bin/sh {name}.network up|down|reload.

NAME={shlex.quote(name)}
LINK={link_name(name)} # the host's end of the cable
GATEWAY={GATEWAY}     # the host's address there
GATEWAY_MAC={_GATEWAY_MAC}

ADDRESS={network.address} # without one there is nothing but loopback
PREFIX={POOL.prefixlen}
MAC={mac}

# Ports of the host that lead to the machine: [IP:]HOST:MACHINE/tcp|udp|sctp. A range, 8000-8010:8000-8010/udp, has the
# same numbers on both sides; an IPv6 address is in brackets, and is for tcp.
PORTS={_block(_grouped(network.ports))}

# NAME VALUE, set in the machine's network.
SYSCTLS={_block(f"{key} {value}" for key, value in settings.items())}
"""


def _block(lines: Iterable[str]) -> str:
    return shlex.quote("".join(f"\n{line}" for line in lines) + "\n")


def _grouped(ports: tuple[Port, ...]) -> Iterator[str]:
    """The ports as the script reads them, those that follow each other in one line: a range may have thousands."""
    leads_to: dict[tuple[str, str, int], int] = {}
    for port in ports:
        key = (port.protocol, port.host_address, port.host_port)
        if leads_to.setdefault(key, port.port) != port.port:
            raise ConversionError(
                f"port {port.host_port}/{port.protocol} of the host cannot lead to both {leads_to[key]} and {port.port}"
            )
    runs: list[list[Port]] = []
    for (protocol, host_address, host_port), inside in sorted(leads_to.items()):
        port = Port(inside, host_port, protocol, host_address)
        if runs and _follows(runs[-1][-1], port):
            runs[-1].append(port)
        else:
            runs.append([port])
    for run in runs:
        yield _published(run[0], len(run) - 1)


def _follows(before: Port, port: Port) -> bool:
    """Are both ports of one range with the same numbers outside and inside?"""
    return (
        before.port == before.host_port
        and port == Port(before.port + 1, before.host_port + 1, before.protocol, before.host_address)
    )  # fmt: skip


def _published(port: Port, more: int) -> str:
    last, inside_last = (f"-{port.host_port + more}", f"-{port.port + more}") if more else ("", "")
    host = port.host_address and (
        f"[{port.host_address}]:" if ":" in port.host_address else f"{port.host_address}:"
    )
    return f"{host}{port.host_port}{last}:{port.port}{inside_last}/{port.protocol}"
