"""What `docker run` was told beyond the image: each setting of a container's HostConfig, named with what to do.

The image's own fields come through mapping.py; this is `docker inspect`'s HostConfig and Mounts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from converter.note import Note

# Field -> the value Docker gives when nobody asked for anything (besides null, "", 0, false and empty ones).
_DEFAULTS: Mapping[str, tuple[object, ...]] = {
    "NetworkMode": ("default", "bridge"),
    "IpcMode": ("private", "shareable"),
    "CgroupnsMode": ("host", "private"),
    "Runtime": ("runc",),
    "Isolation": ("default",),
    "ShmSize": (64 * 1024 * 1024,),
    "MemorySwappiness": (-1,),
    "LogConfig": ({"Type": "json-file", "Config": {}}, {"Type": "journald", "Config": {}}),
    "RestartPolicy": ({"Name": "no", "MaximumRetryCount": 0}, {"Name": "", "MaximumRetryCount": 0}),
    "ConsoleSize": ([0, 0],),
    "MaskedPaths": (),
    "ReadonlyPaths": (),
}

# Docker's own protections or bookkeeping: a value there says nothing that the user chose.
_NOT_A_CHOICE = frozenset({"ContainerIDFile", "ConsoleSize", "MaskedPaths", "ReadonlyPaths", "AutoRemove"})

# Field -> where systemd has the like; systemd.nspawn(5), systemd.resource-control(5), systemd.service(5).
_REMEDIES: Mapping[str, str] = {
    "Binds": "add Bind=SOURCE:TARGET to [Files] of the settings",
    "Mounts": "add Bind=SOURCE:TARGET to [Files] of the settings",
    "VolumesFrom": "add Bind= lines to [Files] of the settings",
    "Tmpfs": "add TemporaryFileSystem= to [Files] of the settings",
    "PortBindings": "the machine shares the host's network: the program's own port is the host's port",
    "PublishAllPorts": "the machine shares the host's network: the program's own ports are the host's",
    "NetworkMode": "the machine shares the host's network; see [Network] in systemd.nspawn(5)",
    "RestartPolicy": "set Restart= in a drop-in of the unit",
    "Memory": "set MemoryMax= in a drop-in of the unit",
    "MemoryReservation": "set MemoryLow= in a drop-in of the unit",
    "MemorySwap": "set MemorySwapMax= in a drop-in of the unit",
    "NanoCpus": "set CPUQuota= in a drop-in of the unit",
    "CpuShares": "set CPUWeight= in a drop-in of the unit",
    "CpuQuota": "set CPUQuota= in a drop-in of the unit",
    "CpuPeriod": "set CPUQuotaPeriodSec= in a drop-in of the unit",
    "CpusetCpus": "set CPUAffinity= in [Exec] of the settings",
    "PidsLimit": "set TasksMax= in a drop-in of the unit",
    "BlkioWeight": "set IOWeight= in a drop-in of the unit",
    "OomScoreAdj": "set OOMScoreAdjust= in [Exec] of the settings",
    "Ulimits": "set LimitNOFILE= and the like in [Exec] of the settings",
    "ShmSize": "nspawn's /dev/shm has its own size",
    "CapAdd": "take it out of DropCapability=, or add Capability=, in [Exec] of the settings",
    "CapDrop": "add it to DropCapability= in [Exec] of the settings",
    "Privileged": "set Capability=all and the unit's DeviceAllow= by hand, if it must be",
    "ReadonlyRootfs": "set ReadOnly=yes in [Files] of the settings",
    "Devices": "set Bind= in the settings and DeviceAllow= in a drop-in of the unit",
    "DeviceRequests": "set Bind= in the settings and DeviceAllow= in a drop-in of the unit",
    "Dns": "write the machine's /etc/resolv.conf and set ResolvConf=off",
    "ExtraHosts": "write them into the machine's /etc/hosts",
    "Sysctls": "set them on the host, or write sysctl.d(5) in a machine that boots",
    "SecurityOpt": "see SystemCallFilter= and NoNewPrivileges= in systemd.nspawn(5)",
    "Init": "set ProcessTwo=yes in [Exec] of the settings",
    "LogConfig": "the unit's output is in the journal: journalctl -u systemd-nspawn@NAME",
    "GroupAdd": "add the numbers to --groups= of the launcher in Parameters=",
    "PidMode": "nspawn has its own PID namespace always",
    "IpcMode": "nspawn has its own IPC namespace always",
    "UTSMode": "set Hostname= in [Exec] of the settings",
}
_NO_REMEDY = "nspawn has nothing like it"


def container_notes(inspected: Mapping[str, Any]) -> Iterator[Note]:
    """One Note for each setting of a container that is not Docker's default."""
    host_config = inspected.get("HostConfig")
    for field, value in sorted((host_config if isinstance(host_config, Mapping) else {}).items()):
        if field in _NOT_A_CHOICE or not value or value in _DEFAULTS.get(field, ()):
            continue
        text = json.dumps(value, sort_keys=True)
        shown = text if len(text) <= 80 else f"{text[:77]}..."
        yield Note("dropped", f"HostConfig.{field} {shown}", _REMEDIES.get(field, _NO_REMEDY))
    mounts = inspected.get("Mounts")
    for mount in mounts if isinstance(mounts, list) else ():
        if mount.get("Type") == "volume":
            yield Note(
                "dropped",
                f"volume {mount.get('Name')} on {mount.get('Destination')}",
                f"its data stays with Docker in {mount.get('Source')}; add Bind={mount.get('Source')}:"
                f"{mount.get('Destination')} to [Files] of the settings, or copy it",
            )
