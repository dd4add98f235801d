"""Which ports of this host are taken: /proc/net/{tcp,tcp6,udp,udp6} (proc(5))."""

from __future__ import annotations

import ipaddress
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
_WAITING = {"tcp": "0A", "udp": "07"}  # TCP_LISTEN; an unconnected udp socket
_WORD = 8  # characters; addresses are 32-bit words in the processor's byte order


@dataclass(frozen=True)
class Listener:
    """A socket that takes what comes to `address` (in ipaddress's spelling) and `port`."""

    protocol: str
    address: str
    port: int
    inode: str


def listeners() -> tuple[Listener, ...]:
    """All listening sockets of this network namespace."""
    found = []
    for protocol, waiting in _WAITING.items():
        for table in (protocol, f"{protocol}6"):
            try:
                lines = (PROC / "net" / table).read_text().splitlines()[1:]
            except OSError:
                continue
            for line in lines:
                fields = line.split()
                if len(fields) > 9 and fields[3] == waiting:
                    address, _, port = fields[1].partition(":")
                    found.append(Listener(protocol, _address(address), int(port, 16), fields[9]))
    return tuple(found)


def _address(text: str) -> str:
    words = [text[at : at + _WORD] for at in range(0, len(text), _WORD)]
    raw = b"".join(int(word, 16).to_bytes(4, sys.byteorder) for word in words)
    address = ipaddress.ip_address(raw)
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def overlap(one: str, other: str) -> bool:
    """Can two sockets not have the same port, by their addresses? "" and 0.0.0.0 are all of IPv4, :: is all."""
    everywhere = {"", "::", "0.0.0.0"}
    if one == other or "::" in {one, other} or "" in {one, other}:
        return True
    if one in everywhere or other in everywhere:
        return (":" in one) == (":" in other)
    return False


def owner(inode: str) -> str:
    """The program that holds the socket, as "nginx (process 123)"; "a process" when that cannot be seen."""
    wanted = f"socket:[{inode}]"
    for process in PROC.glob("[0-9]*"):
        with suppress(OSError):
            for fd in (process / "fd").iterdir():
                with suppress(OSError):
                    if str(fd.readlink()) == wanted:
                        return f"{(process / 'comm').read_text().strip()} (process {process.name})"
    return "a process"
