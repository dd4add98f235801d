"""What a container may do: capabilities, security options and the protected paths of /proc and /sys."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from converter.machine.capabilities import bounding_set
from converter.machine.inspected import field_note, flag, text, texts
from converter.note import Note

# What Docker has masked and made read-only from 20.10 on, and what was added since.
_MASKED = frozenset(
    f"/proc/{name}"
    for name in [
        "acpi",
        "asound",
        "kcore",
        "keys",
        "latency_stats",
        "sched_debug",
        "scsi",
        "timer_list",
        "timer_stats",
    ]
) | {"/sys/firmware"}
_MASKED_SINCE = re.compile(
    r"/proc/interrupts|/sys/devices/virtual/powercap|/sys/devices/system/cpu/cpu\d+/thermal_throttle"
)
_READ_ONLY = frozenset(f"/proc/{name}" for name in ("bus", "fs", "irq", "sys", "sysrq-trigger"))
_TRUE, _FALSE = frozenset({"1", "t", "true"}), frozenset({"0", "f", "false"})


@dataclass
class Security:
    """`capabilities` is the bounding set; `paths_writable`: nothing in /proc and /sys is protected."""

    capabilities: frozenset[str]
    privileged: bool
    seccomp_unconfined: bool = False
    no_new_privileges: bool | None = None
    paths_writable: bool = False
    notes: list[Note] = field(default_factory=list)


def security(inspected: Mapping[str, Any], host: Mapping[str, Any]) -> Security:
    """Privileged, CapAdd, CapDrop, SecurityOpt and the protected paths, each with a note. `host` is HostConfig."""
    privileged = flag(host.get("Privileged"), "HostConfig.Privileged")
    added, dropped = (texts(host.get(key), f"HostConfig.{key}") for key in ("CapAdd", "CapDrop"))
    capabilities, unknown = bounding_set(added, dropped, privileged=privileged)
    result = Security(capabilities, privileged, seccomp_unconfined=privileged, paths_writable=privileged)
    for name, words in (("CapAdd", added), ("CapDrop", dropped)):
        if words:
            said = "Capability= and DropCapability= leave what Docker leaves"
            result.notes.append(field_note("exact", name, list(words), said))
        if lost := [word for word in words if f"CAP_{word.upper().removeprefix('CAP_')}" in unknown]:
            result.notes.append(field_note("dropped", name, lost, "Linux has no such capability"))
    if privileged:
        said = (
            "all capabilities, every device allowed, no filter of system calls; the host's device nodes are not "
            "there by themselves: set Bind=/dev/NAME in the settings for each"
        )
        result.notes.append(field_note("adapted", "Privileged", True, said))
    for option in texts(host.get("SecurityOpt"), "HostConfig.SecurityOpt"):
        result.notes.append(_option(option, result))
    _protected_paths(host, result)
    result.notes += _profiles(inspected)
    return result


def _option(option: str, result: Security) -> Note:
    """One --security-opt, split as moby's parseSecurityOpt does: at "=", or at ":" of old."""
    key, value = (*re.split("[=:]" if "=" not in option else "=", option, maxsplit=1), "")[:2]
    if key == "no-new-privileges":
        if value.lower() in _FALSE:
            return field_note("exact", "SecurityOpt", option, "as without it")
        if value.lower() in _TRUE or option == key:
            result.no_new_privileges = True
            return field_note("exact", "SecurityOpt", option, "NoNewPrivileges=yes")
    if key == "seccomp":
        if value == "unconfined":
            result.seccomp_unconfined = True
            return field_note("exact", "SecurityOpt", option, "no filter of system calls")
        if value == "builtin":
            return field_note("exact", "SecurityOpt", option, "Docker's default filter")
        said = "the machine has Docker's default filter; change SystemCallFilter= in the settings"
        return field_note("dropped", "SecurityOpt", option, said)
    if (key, value) in (("apparmor", "unconfined"), ("label", "disable"), ("disable", "")):
        return field_note("exact", "SecurityOpt", option, "nspawn confines no machine so")
    if key == "apparmor":
        return field_note("dropped", "SecurityOpt", option, "nspawn has no AppArmor profiles for machines")
    if key == "label":
        said = "no SELinux label in a settings file; use --selinux-context= of systemd-nspawn(1)"
        return field_note("dropped", "SecurityOpt", option, said)
    if key == "writable-cgroups":
        if value.lower() in _FALSE:
            said = "a machine may write its own part of the cgroup tree"
            return field_note("adapted", "SecurityOpt", option, said)
        return field_note(
            "exact", "SecurityOpt", option, "a machine may write its own part of the cgroup tree"
        )
    return field_note("dropped", "SecurityOpt", option, "see systemd.nspawn(5) for what is like it")


def _protected_paths(host: Mapping[str, Any], result: Security) -> None:
    """MaskedPaths and ReadonlyPaths, where they are not Docker's own; systempaths=unconfined empties both."""
    states = {}
    for name, usual in (("MaskedPaths", _MASKED), ("ReadonlyPaths", _READ_ONLY)):
        if host.get(name) is None:
            continue
        paths = frozenset(texts(host[name], f"HostConfig.{name}"))
        more = {path for path in paths - usual if not _MASKED_SINCE.fullmatch(path)}
        states[name] = "open" if not paths else "usual" if usual <= paths and not more else "other"
    everything = list(states.values()) == ["open", "open"]
    if everything:
        result.paths_writable = True
    for name, state in states.items():
        if state == "usual" or result.privileged:
            continue
        if everything:
            said = "nothing in /proc and /sys is protected, as with systempaths=unconfined"
            result.notes.append(field_note("exact", name, host[name], said))
        else:
            said = "the machine's own /proc and /sys are protected as Docker does by itself"
            result.notes.append(field_note("dropped", name, host[name], said))


def _profiles(inspected: Mapping[str, Any]) -> Iterator[Note]:
    """What the source host's own security modules laid on the container."""
    for name, what in (("AppArmorProfile", "AppArmor profile"), ("ProcessLabel", "SELinux label")):
        profile = text(inspected.get(name), name)
        if profile not in ("", "unconfined"):
            yield Note("adapted", f"{name} {profile}", f"the machine has no {what}")
