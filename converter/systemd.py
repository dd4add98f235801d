"""What systemd a host has: its version, and who resolves names there. Nothing below another root is executed."""

from __future__ import annotations

import ipaddress
import os
import re
from functools import cache
from pathlib import Path

from converter import inside
from converter.commands import is_this_host, output

_LIBRARY = re.compile(r"libsystemd-shared-([0-9]{1,5})(?:[.~_+-].*)?\.so")
_PROGRAMS = ("systemd-nspawn", "systemctl")
_RESOLVED_STUB = "run/systemd/resolve/stub-resolv.conf"


def installed_version(root: Path) -> int | None:
    """The major version of systemd (257) on the host whose root is `root`; None when it has none.

    On another root it is read from the name of systemd's private library, which every systemd since 231 has.
    """
    return _running_version(os.environ.get("PATH")) if is_this_host(root) else _version_by_library(root)


@cache
def _running_version(_: str | None) -> int | None:
    """What the programs in that PATH say; each is asked once, since one conversion may be followed by thousands."""
    for program in _PROGRAMS:
        if match := re.match(r"systemd ([0-9]{1,5})", output(program, "--version") or ""):
            return int(match[1])
    return _version_by_library(Path("/"))


def _version_by_library(root: Path) -> int | None:
    # Debian has it in the processor's own directory (usr/lib/x86_64-linux-gnu/systemd), Fedora in usr/lib/systemd.
    found = {
        int(match[1])
        for library in ("usr/lib", "usr/lib64", "lib")
        for directory in ("", *inside.names(root, library))
        for name in inside.names(root, f"{library}/{directory}/systemd")
        if (match := _LIBRARY.fullmatch(name))
    }
    return max(found, default=None)


def resolv_conf_mode(root: Path) -> str:
    """The ResolvConf= that gives a machine of the host below `root` name servers it can reach.

    "copy-uplink" where the host asks systemd-resolved's stub on a loopback address, which a network of the machine's
    own does not reach, else "copy-host" (systemd.nspawn(5), systemd-resolved.service(8)).
    """
    target = inside.link(root, "etc/resolv.conf") or ""
    if "/run/systemd/resolve/" in target or target.startswith("run/systemd/resolve/"):
        # A host that does not run has nothing in /run.
        if inside.read(root, "etc/resolv.conf") is None:
            return "copy-uplink" if target.endswith(_RESOLVED_STUB) else "copy-host"
        return "copy-uplink" if only_loopback(name_servers(root)) else "copy-host"
    servers = name_servers(root)
    stub = {"127.0.0.53", "127.0.0.54"} & {*servers}
    return "copy-uplink" if stub and only_loopback(servers) else "copy-host"


def name_servers(root: Path) -> tuple[str, ...]:
    """The name servers in /etc/resolv.conf below `root`, in its order (resolv.conf(5))."""
    text = (inside.read(root, "etc/resolv.conf") or b"").decode("utf-8", "replace")
    words = (line.split() for line in text.splitlines())
    return tuple(line[1] for line in words if len(line) > 1 and line[0] == "nameserver")


def only_loopback(servers: tuple[str, ...]) -> bool:
    """Are there name servers, and all of them on loopback addresses?"""
    return bool(servers) and all(map(_is_loopback, servers))


def _is_loopback(server: str) -> bool:
    try:
        return ipaddress.ip_address(server.partition("%")[0]).is_loopback
    except ValueError:
        return False
