"""The host itself: systemd-nspawn, its version, control groups; and what Docker still has."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import quote

from converter import inside
from converter.check.files import has_healthcheck
from converter.check.finding import Finding, problem, warning
from converter.check.installed import Installed
from converter.commands import has_program, systemd_runs

_NO_LEGACY_CGROUPS = 258  # NEWS of systemd 258: cgroup v1 is gone
_UNIFIED = "boot the host without systemd.unified_cgroup_hierarchy=0"
DOCKER_SOCKET = "run/docker.sock"
_DOCKER_SECONDS = 2.0


def host_findings(machine: Installed) -> Iterator[Finding]:
    """Can this host start machines at all, and is it the one that this machine was made for?"""
    if not has_program(machine.root, "systemd-nspawn"):
        debian = inside.status(machine.root, "etc/debian_version") is not None
        package = (
            "apt-get install systemd-container" if debian else "install systemd-container, or whatever has it"
        )
        yield problem("systemd-nspawn", "it is not installed: machines cannot be started", package)
    made_for = machine.option("systemd") or str(machine.record.get("systemd") or "")
    if machine.systemd is not None and made_for.isdecimal() and int(made_for) > machine.systemd:
        yield problem(
            "systemd",
            f"the machine was made for systemd {made_for}, the host has {machine.systemd}",
            f"{machine.again} --systemd {machine.systemd}",
        )
    if not machine.live:
        return
    if not systemd_runs(machine.root):
        yield warning(
            "systemd",
            "it is not this host's init, so `machinectl start` does not work here",
            f"without the drop-in it starts by systemd-nspawn --register=no --keep-unit -M {machine.name}",
        )
    elif inside.status(machine.root, "run/dbus/system_bus_socket") is None:
        yield warning("D-Bus", "no system bus: machinectl cannot reach systemd", "apt-get install dbus")
    legacy = inside.status(machine.root, "sys/fs/cgroup/cgroup.controllers") is None
    if legacy and machine.systemd is not None and machine.systemd >= _NO_LEGACY_CGROUPS:
        yield problem(
            "cgroups",
            f"the host uses control groups v1, with which systemd {machine.systemd} starts no machine",
            _UNIFIED,
        )
    elif legacy and has_healthcheck(machine):
        text = "the host uses control groups v1, with which the health check cannot enter the machine"
        yield warning("health check", text, _UNIFIED)


def docker_findings(machine: Installed) -> Iterator[Finding]:
    """Would the container and the machine run side by side? Only when Docker answers quickly."""
    container = machine.record.get("container")
    if not machine.live or (machine.record and not isinstance(container, dict)):
        names = [machine.name] if machine.live else []
    else:
        known = container if isinstance(container, dict) else {}
        names = [str(known.get(key)).lstrip("/") for key in ("Id", "Name") if known.get(key)] or [
            machine.name
        ]
    found = next((answer for name in names if (answer := _container(machine, name)) is not None), None)
    if found is None:
        return
    name = str(found.get("Name", names[0])).lstrip("/")
    state, host = found.get("State") or {}, found.get("HostConfig") or {}
    policy = (host.get("RestartPolicy") or {}).get("Name") or "no"
    if state.get("Running"):
        text = f"Docker runs the container {name} at this moment: both would use the same ports and data"
        yield warning("Docker", text, f"docker stop {name} && docker update --restart=no {name}")
    elif policy != "no":
        text = f"Docker starts the container {name} again by itself (restart policy {policy})"
        yield warning("Docker", text, f"docker update --restart=no {name}")


class _Connection(http.client.HTTPConnection):
    """HTTP over Docker's socket."""

    def __init__(self, path: str) -> None:
        super().__init__("docker", timeout=_DOCKER_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_DOCKER_SECONDS)
        self.sock.connect(self._path)


def _container(machine: Installed, name: str) -> dict[str, Any] | None:
    """`docker inspect`; None without such a container, or an answer."""
    try:
        with closing(_Connection(str(machine.root / DOCKER_SOCKET))) as connection:
            connection.request("GET", f"/containers/{quote(name, safe='')}/json")
            response = connection.getresponse()
            answer = json.loads(response.read()) if response.status == http.client.OK else None
    except (OSError, ValueError, http.client.HTTPException):
        return None
    return answer if isinstance(answer, dict) else None
