"""A container's network: which kind it is, its published ports and names, in the words of a machine's own network."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from converter.machine.inspected import field_note, flag, mapping, sequence, text, texts
from converter.machine.model import Port
from converter.note import Note

NetworkKind = Literal["host", "none", "private"]

HOST_GATEWAY = "10.213.0.1"
"""The host, as a machine with a network of its own sees it."""

_EVERY_ADDRESS = frozenset({"", "0.0.0.0"})
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_RESOLVER_WORD = re.compile(r"[!-~]+")


@dataclass(frozen=True)
class Names:
    """How a container looks names up. `servers` () means the host's; `resolv_conf` is the file, where that is all."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    @property
    def resolv_conf(self) -> str | None:
        """The text of /etc/resolv.conf; None when the name servers are the host's."""
        if not self.servers:
            return None
        lines = [f"nameserver {server}" for server in self.servers]
        if self.search and self.search != (".",):  # "." is Docker's word for none
            lines.append(f"search {' '.join(self.search)}")
        if self.options:
            lines.append(f"options {' '.join(self.options)}")
        return "\n".join(lines) + "\n"


def network_kind(inspected: Mapping[str, Any]) -> tuple[NetworkKind, list[Note]]:
    """The kind of network that the machine gets, and what its networks in Docker had beyond that."""
    host = mapping(inspected.get("HostConfig"), "HostConfig")
    mode = text(host.get("NetworkMode"), "HostConfig.NetworkMode")
    settings = mapping(inspected.get("NetworkSettings"), "NetworkSettings")
    networks = mapping(settings.get("Networks"), "NetworkSettings.Networks")
    config = mapping(inspected.get("Config"), "Config")
    identifier = text(inspected.get("Id"), "Id")
    notes: list[Note] = []
    kind: NetworkKind = "private"
    if mode in ("host", "none"):
        kind = "host" if mode == "host" else "none"
        notes.append(field_note("exact", "NetworkMode", mode, "the machine has the same"))
    elif mode.startswith("container:"):
        said = "the machine gets a network of its own; publish ports, or convert both with --network host"
        notes.append(field_note("adapted", "NetworkMode", mode, said))
    elif mode not in ("", "default", "bridge"):
        said = "the machine is in one network with all machines; it knows others by address, or by --add-host"
        notes.append(field_note("adapted", "NetworkMode", mode, said))
    main = {"": "bridge", "default": "bridge"}.get(mode, mode)
    for name, entry in networks.items():
        endpoint = mapping(entry, f"NetworkSettings.Networks.{name}")
        lost = list(_endpoint(endpoint, config, identifier))
        if name != main:
            lost.insert(0, "a further network; the machine has one")
        if lost:
            notes.append(Note("dropped", f"network {name}", "; ".join(lost)))
    if links := texts(host.get("Links"), "HostConfig.Links"):
        said = "machines have no links: give the other one's address in --add-host, or use published ports"
        notes.append(field_note("dropped", "Links", list(links), said))
    return kind, notes


def published_ports(inspected: Mapping[str, Any], kind: NetworkKind) -> tuple[tuple[Port, ...], list[Note]]:
    """PortBindings and PublishAllPorts as ports of the machine; each one that cannot be is a note."""
    host = mapping(inspected.get("HostConfig"), "HostConfig")
    bindings = mapping(host.get("PortBindings"), "HostConfig.PortBindings")
    everything = flag(host.get("PublishAllPorts"), "HostConfig.PublishAllPorts")
    if kind != "private":
        fields = (("PortBindings", bindings), ("PublishAllPorts", everything))
        said = f"means nothing with network {kind}, in Docker too"
        return (), [field_note("exact", name, value, said) for name, value in fields if value]
    settings = mapping(inspected.get("NetworkSettings"), "NetworkSettings")
    actual = mapping(settings.get("Ports"), "NetworkSettings.Ports")
    wanted = {port: sequence(entries, "HostConfig.PortBindings") for port, entries in bindings.items()}
    config = mapping(inspected.get("Config"), "Config")
    notes: list[Note] = []
    if everything:
        exposed = [*mapping(config.get("ExposedPorts"), "Config.ExposedPorts"), *actual]
        wanted = {**{port: [{}] for port in exposed}, **wanted}
        notes.append(field_note("exact", "PublishAllPorts", True, "see what is said of each port"))
    ports: dict[Port, None] = {}
    for name, entries in wanted.items():
        for entry in entries or [{}]:
            binding = mapping(entry, f"HostConfig.PortBindings {name}")
            for decided in _published(name, binding, sequence(actual.get(name), "NetworkSettings.Ports")):
                if isinstance(decided, Port):
                    ports[decided] = None
                else:
                    notes.append(decided)
    if bindings:
        notes.append(field_note("exact", "PortBindings", bindings, "see what is said of each port"))
    return tuple(ports), list(dict.fromkeys(notes))


def names(host: Mapping[str, Any]) -> tuple[Names, list[Note]]:
    """Dns, DnsSearch and DnsOptions of HostConfig."""
    kept: dict[str, tuple[str, ...]] = {}
    notes: list[Note] = []
    servers = any(map(_address, texts(host.get("Dns"), "HostConfig.Dns")))
    for field in ("Dns", "DnsSearch", "DnsOptions"):
        words = texts(host.get(field), f"HostConfig.{field}")
        fine = tuple(
            word for word in words if _RESOLVER_WORD.fullmatch(word) and (field != "Dns" or _address(word))
        )
        kept[field] = fine
        if fine and not servers:
            said = "the machine's resolv.conf is a copy of the host's; set it there, or give the container a --dns too"
            notes.append(field_note("dropped", field, list(words), said))
        elif fine:
            notes.append(field_note("exact", field, list(words), "the machine's own /etc/resolv.conf"))
        if lost := [word for word in words if word not in fine]:
            notes.append(field_note("dropped", field, lost, "nothing that resolv.conf(5) could hold"))
    return Names(kept["Dns"], kept["DnsSearch"], kept["DnsOptions"]), notes


def host_lines(host: Mapping[str, Any], kind: NetworkKind) -> tuple[tuple[str, ...], list[Note]]:
    """ExtraHosts of HostConfig as lines of /etc/hosts: address, tab, name."""
    lines: list[str] = []
    notes: list[Note] = []
    for entry in texts(host.get("ExtraHosts"), "HostConfig.ExtraHosts"):
        name, _, address = re.sub("[=:]", "\0", entry, count=1).partition("\0")
        gateway = address == "host-gateway"
        if gateway:
            address = HOST_GATEWAY if kind == "private" else "127.0.0.1"
        address = address.removeprefix("[").removesuffix("]")
        if _HOST.fullmatch(name) and _address(address):
            lines.append(f"{address}\t{name}")
            said = f"/etc/hosts, as {address}" if gateway else "/etc/hosts"
            notes.append(field_note("exact", "ExtraHosts", entry, said))
        else:
            notes.append(field_note("dropped", "ExtraHosts", entry, "nothing that /etc/hosts could hold"))
    return tuple(lines), notes


def _endpoint(endpoint: Mapping[str, Any], config: Mapping[str, Any], identifier: str) -> Iterator[str]:
    """What a container has in one network and a machine does not."""
    own = {identifier[:12], text(config.get("Hostname"), "Config.Hostname")}
    aliases = [a for a in texts(endpoint.get("Aliases"), "Networks.Aliases") if a not in own]
    if aliases:
        yield f"others do not find it as {', '.join(aliases)}: give them --add-host"
    fixed = mapping(endpoint.get("IPAMConfig"), "Networks.IPAMConfig")
    for key in ("IPv4Address", "IPv6Address"):
        if address := text(fixed.get(key), f"Networks.IPAMConfig.{key}"):
            yield f"its address {address} is chosen anew"
    if text(endpoint.get("GlobalIPv6Address"), "Networks.GlobalIPv6Address"):
        yield "it has no IPv6 address"
    if links := texts(endpoint.get("Links"), "Networks.Links"):
        yield f"machines have no links: {', '.join(links)}"
    if options := mapping(endpoint.get("DriverOpts"), "Networks.DriverOpts"):
        yield f"the driver's options {', '.join(sorted(options))}"


def _published(name: str, binding: Mapping[str, Any], actual: list[Any]) -> Iterator[Port | Note]:
    """One port of the container ("80/tcp") at one place of the host, as Docker would publish it."""
    address = text(binding.get("HostIp"), "HostConfig.PortBindings.HostIp")
    chosen = text(binding.get("HostPort"), "HostConfig.PortBindings.HostPort")
    subject = f"port {f'{address}:' if address else ''}{chosen}->{name}"
    number, _, protocol = name.partition("/")
    protocol = protocol.lower() or "tcp"
    if protocol not in ("tcp", "udp"):
        yield Note(
            "dropped", subject, f"machines publish tcp and udp only, not {protocol}; use --network host"
        )
        return
    if ":" in address:
        yield Note("dropped", subject, "a machine has no IPv6 address; publish it on an IPv4 address")
        return
    if address not in _EVERY_ADDRESS and not _address(address):
        yield Note("dropped", subject, "not an address of a host")
        return
    guessed = False
    if chosen in ("", "0"):
        chosen = _port_in_use(address, actual)
        guessed = not chosen
        chosen = chosen or number
    inner, outer = _range(number), _range(chosen)
    # A range of the host's ports for one port lets Docker choose: the first is as good as any.
    if inner is None or outer is None or len(inner) not in (1, len(outer)):
        yield Note("dropped", subject, "no such port; set it with --publish")
        return
    for offset, port in enumerate(inner):
        yield Port(port, outer[offset], protocol, "" if address in _EVERY_ADDRESS else address)
    if guessed:
        yield Note(
            "adapted", subject, f"Docker would choose a free port of the host; the machine gets {chosen}"
        )
    else:
        yield Note("exact", subject, f"the host's port {chosen} leads to the machine")


def _port_in_use(address: str, actual: list[Any]) -> str:
    """The port of the host that Docker chose, from NetworkSettings.Ports; "" when the container does not run."""
    for entry in actual:
        binding = mapping(entry, "NetworkSettings.Ports")
        where = text(binding.get("HostIp"), "NetworkSettings.Ports.HostIp")
        if where == address or (address in _EVERY_ADDRESS and where in _EVERY_ADDRESS):
            return text(binding.get("HostPort"), "NetworkSettings.Ports.HostPort")
    return ""


def _range(ports: str) -> range | None:
    """ "80" or "8000-8010" as a range of ports 1 to 65535; None when it is neither."""
    match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", ports)
    if match is None:
        return None
    first, last = int(match[1]), int(match[2] or match[1])
    return range(first, last + 1) if 1 <= first <= last <= 65535 else None


def _address(word: str) -> bool:
    try:
        ipaddress.ip_address(word)
    except ValueError:
        return False
    return "%" not in word
