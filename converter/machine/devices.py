"""Devices of a container: Bind= of the settings file and DeviceAllow= of the unit (systemd.resource-control(5))."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import Any

from converter.machine.inspected import field_note, mapping, sequence, text, texts
from converter.machine.limits import unit_word
from converter.machine.model import Bind, UnitSetting
from converter.machine.settings import path_expressible
from converter.note import Note

# DeviceAllow= takes no directories; these hold devices of one kind, by the kind's name in /proc/devices.
_DIRECTORIES = {
    "/dev/bus/usb": "char-usb_device",
    "/dev/dri": "char-drm",
    "/dev/input": "char-input",
    "/dev/snd": "char-alsa",
    "/dev/vfio": "char-vfio",
}

# In place of the template's own list, which lets a machine read every loop and mapper device: what Docker lets
# everyone do, beyond DevicePolicy=closed, is to make device nodes, but not to open them (opencontainers/cgroups,
# devices/config). /dev/net/tun is runc's.
_DEFAULT = ("", "char-pts rw", "char-* m", "block-* m")
_RULE = re.compile(r"([abc])\s+(\d{1,7}|\*):(\d{1,7}|\*)\s+([rwm]{1,3})")


def devices(host: Mapping[str, Any], *, privileged: bool) -> Iterator[Bind | UnitSetting | Note]:
    """Devices, DeviceCgroupRules and DeviceRequests of HostConfig. A privileged container may use every device."""
    if privileged:
        yield UnitSetting("Service", "DeviceAllow", "")  # takes the template's own list away
        yield UnitSetting("Service", "DevicePolicy", "auto")
    else:
        for value in _DEFAULT:
            yield UnitSetting("Service", "DeviceAllow", value)
    for entry in sequence(host.get("Devices"), "HostConfig.Devices"):
        yield from _device(entry, privileged=privileged)
    for rule in texts(host.get("DeviceCgroupRules"), "HostConfig.DeviceCgroupRules"):
        allowed = _cgroup_rule(rule)
        if not privileged:
            for value in allowed:
                yield UnitSetting("Service", "DeviceAllow", value)
        if allowed:
            yield field_note("exact", "DeviceCgroupRules", rule, "DeviceAllow=")
        else:
            yield field_note(
                "dropped", "DeviceCgroupRules", rule, "DeviceAllow= has no such rule; name the devices in it"
            )
    for request in sequence(host.get("DeviceRequests"), "HostConfig.DeviceRequests"):
        yield field_note(
            "dropped",
            "DeviceRequests",
            request,
            "a hook of Docker's adds such devices and their libraries; for NVIDIA, set Bind=/dev/nvidia0, "
            "/dev/nvidiactl, /dev/nvidia-uvm and BindReadOnly= of the driver's libraries in the settings, and "
            "DeviceAllow=char-nvidia-frontend rw, char-nvidia rw, char-nvidia-uvm rw in a drop-in",
        )


def _device(entry: object, *, privileged: bool) -> Iterator[Bind | UnitSetting | Note]:
    device = mapping(entry, "HostConfig.Devices")
    source = text(device.get("PathOnHost"), "HostConfig.Devices.PathOnHost")
    target = text(device.get("PathInContainer"), "HostConfig.Devices.PathInContainer") or source
    rights = text(device.get("CgroupPermissions"), "HostConfig.Devices.CgroupPermissions") or "rwm"
    if not source or not (path_expressible(source) and path_expressible(target)):
        yield field_note(
            "dropped", "Devices", entry, "a settings file cannot hold this path; bind it by another"
        )
        return
    source, target = (re.sub("/+", "/", posixpath.normpath(path)) for path in (source, target))
    yield Bind(source, target)
    if privileged:
        yield field_note("exact", "Devices", entry, "Bind=")
        return
    node = _DIRECTORIES.get(source) or unit_word(source)
    if not re.fullmatch("[rwm]{1,3}", rights) or node is None or not source.startswith("/dev/"):
        yield field_note(
            "dropped",
            "Devices",
            entry,
            "bound, but DeviceAllow= takes devices below /dev only: set DeviceAllow=char-NAME or block-NAME",
        )
        return
    yield UnitSetting("Service", "DeviceAllow", f"{node} {rights}")
    yield field_note(
        "exact", "Devices", entry, "Bind= and DeviceAllow=; the device must be there on the host"
    )


def _cgroup_rule(rule: str) -> tuple[str, ...]:
    """A --device-cgroup-rule ("c 13:* rwm") as values of DeviceAllow=; none when it has no such rule."""
    match = _RULE.fullmatch(rule.strip())
    if match is None:
        return ()
    kind, major, minor, rights = match.groups()
    kinds = {"a": ("char", "block"), "b": ("block",), "c": ("char",)}[kind]
    if kind == "a":
        major, minor, rights = "*", "*", "rwm"  # as Linux takes it, whatever follows
    if minor == "*":
        return tuple(f"{name}-{major} {rights}" for name in kinds)
    if major == "*":
        return ()
    return tuple(f"/dev/{name}/{major}:{minor} {rights}" for name in kinds)
