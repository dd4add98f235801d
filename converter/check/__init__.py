"""What would go wrong with an installed machine on its host: files and host are read, nothing is changed or started.

What only the running host can tell (processes, kernel, firewall, units in memory, Docker) is asked when `root` is the
running host's own; below another root a warning says that it was not.
"""

from __future__ import annotations

from pathlib import Path

from converter.check.files import settings_findings, unit_findings
from converter.check.finding import Finding
from converter.check.finding import warning as _warning
from converter.check.host import docker_findings, host_findings
from converter.check.installed import Installed, installed
from converter.check.mounts import file_system_findings, mount_findings
from converter.check.network import network_findings
from converter.check.tree import tree_findings
from converter.image.reference import check_machine_name

__all__ = ["Finding", "check"]

_PARTS = (
    tree_findings,
    settings_findings,
    unit_findings,
    mount_findings,
    file_system_findings,
    network_findings,
    host_findings,
    docker_findings,
)


def check(name: str, root: Path) -> tuple[Finding, ...]:
    """What is wrong with machine `name` of the host below `root`: problems first, each once.

    Raises ConversionError for a name that cannot be one, and when there is no such machine.
    """
    check_machine_name(name)
    with installed(name, root) as machine:
        found = [finding for part in _PARTS for finding in part(machine)]
        if not machine.live:
            found.append(_not_looked_at(machine))
    return tuple(sorted(dict.fromkeys(found), key=lambda finding: finding.severity != "problem"))


def _not_looked_at(machine: Installed) -> Finding:
    return _warning(
        "host",
        f"{machine.root} is not this running host's root, so ports in use, firewall, kernel, mounts, SELinux, units in "
        "systemd's memory and Docker were not looked at",
        f"on the host itself: docker2nspawn check {machine.name}",
    )
