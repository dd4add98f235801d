"""What a container shares with its host or has of its own: IPC, users, cgroups, and the sysctls of each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from converter.machine.inspected import field_note, mapping, number, text
from converter.machine.model import Bind, TemporaryFileSystem, UnitSetting
from converter.machine.ports import NetworkKind
from converter.note import Note

SHM_SIZE = 64 * 1024 * 1024
"""Bytes of /dev/shm that Docker gives when nobody asks for another size."""

_SHM_OPTIONS = "mode=1777,nosuid,nodev,noexec"  # moby, daemon/pkg/oci/defaults.go
_IPC_SYSCTL = re.compile(
    r"kernel\.(msgmax|msgmnb|msgmni|sem|shmall|shmmax|shmmni|shm_rmid_forced)|fs\.mqueue\.[a-z_]+"
)
_NETWORK_SYSCTL = re.compile(r"net\.[A-Za-z0-9_./@:-]+")
_NUMBERS = re.compile(r"-?\d+([ \t]+-?\d+)*")
_SHARE_IPC = {"SYSTEMD_NSPAWN_SHARE_NS_IPC": "1"}


@dataclass
class Namespaces:
    """`sysctls` are those of the network, for whoever makes it; those of IPC are in `unit`."""

    sysctls: dict[str, str] = field(default_factory=dict)
    binds: list[Bind] = field(default_factory=list)
    temporary_file_systems: list[TemporaryFileSystem] = field(default_factory=list)
    unit: list[UnitSetting] = field(default_factory=list)
    unit_environment: dict[str, str] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)


def namespaces(host: Mapping[str, Any], network: NetworkKind, mounted: frozenset[str]) -> Namespaces:
    """IpcMode, ShmSize, Sysctls, UsernsMode and CgroupnsMode of HostConfig. `mounted` is where mounts are anyway."""
    result = Namespaces()
    _ipc(host, mounted, result)
    shared = host.get("IpcMode") == "host"
    for name, value in mapping(host.get("Sysctls"), "HostConfig.Sysctls").items():
        _sysctl(name, text(value, "HostConfig.Sysctls"), network, shared, result)
    if users := text(host.get("UsernsMode"), "HostConfig.UsernsMode"):
        said = "PrivateUsers=no"
        result.notes.append(field_note("exact" if users == "host" else "adapted", "UsernsMode", users, said))
    if groups := text(host.get("CgroupnsMode"), "HostConfig.CgroupnsMode"):
        said = "a machine has a cgroup namespace of its own"
        result.notes.append(
            field_note("exact" if groups == "private" else "adapted", "CgroupnsMode", groups, said)
        )
    return result


def _ipc(host: Mapping[str, Any], mounted: frozenset[str], result: Namespaces) -> None:
    mode = text(host.get("IpcMode"), "HostConfig.IpcMode")
    size = number(host.get("ShmSize"), "HostConfig.ShmSize")
    if mode == "host":
        result.unit_environment.update(_SHARE_IPC)
        result.notes.append(field_note("exact", "IpcMode", mode, "the host's IPC namespace and /dev/shm"))
        if "/dev/shm" not in mounted:
            result.binds.append(Bind("/dev/shm", "/dev/shm"))
    elif "/dev/shm" not in mounted:
        options = f"size={size if size > 0 else SHM_SIZE},{_SHM_OPTIONS}"
        result.temporary_file_systems.append(TemporaryFileSystem("/dev/shm", options))
    if mode == "none":
        result.notes.append(
            field_note("adapted", "IpcMode", mode, "an IPC namespace and /dev/shm of its own")
        )
    elif mode == "shareable":
        result.notes.append(
            field_note("adapted", "IpcMode", mode, "its own, which other machines cannot join")
        )
    elif mode not in ("", "private", "host"):
        said = "a machine cannot join another's; share files through a Bind= directory"
        result.notes.append(field_note("dropped", "IpcMode", mode, said))
    if size not in (0, SHM_SIZE):
        said = (
            "means nothing with another /dev/shm"
            if mode == "host" or "/dev/shm" in mounted
            else ("TemporaryFileSystem=/dev/shm")
        )
        result.notes.append(field_note("exact" if size > 0 else "dropped", "ShmSize", size, said))


def _sysctl(name: str, value: str, network: NetworkKind, shared: bool, result: Namespaces) -> None:
    shown = {name: value}
    if _NETWORK_SYSCTL.fullmatch(name) and ".." not in name:
        if network == "private" and value.isprintable():
            result.sysctls[name] = value
            result.notes.append(field_note("exact", "Sysctls", shown, "set in the machine's network"))
        else:
            said = f"nobody sets it with network {network}; set it on the host, or use --network private"
            result.notes.append(field_note("dropped", "Sysctls", shown, said))
    elif _IPC_SYSCTL.fullmatch(name) and _NUMBERS.fullmatch(value) and not shared:
        if not result.unit:
            # The unit has the IPC namespace and nspawn none of its own, so that it can be set before the start.
            result.unit.append(UnitSetting("Service", "PrivateIPC", "yes"))
            result.unit_environment.update(_SHARE_IPC)
        file = f"/proc/sys/{name.replace('.', '/')}"
        command = f"""/bin/sh -c 'echo "$$1" > "$$0"' {file} "{value}\""""
        result.unit.append(UnitSetting("Service", "ExecStartPre", command))
        result.notes.append(
            field_note("exact", "Sysctls", shown, "ExecStartPre= in an IPC namespace of the unit")
        )
    else:
        said = "nspawn sets none; set it on the host, or write sysctl.d(5) in a machine that boots"
        result.notes.append(field_note("dropped", "Sysctls", shown, said))
