"""What `docker run` was told beyond the image: `docker inspect`'s account of a container as settings of a machine.

The image's own fields (Config) come through mapping.py. Here every field of HostConfig that is not Docker's
default ends in ContainerSettings and in a Note named after it, or in a Note alone that says what to do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from converter.machine.devices import devices
from converter.machine.inspected import field_note, flag, mapping, number, text, texts
from converter.machine.limits import cpu_list, resources, restart, rlimits
from converter.machine.model import Bind, Port, TemporaryFileSystem, UnitSetting, Volume
from converter.machine.mounts import Volumes, destinations, mounts
from converter.machine.namespaces import SHM_SIZE, namespaces
from converter.machine.ports import Names, NetworkKind, host_lines, names, network_kind, published_ports
from converter.machine.security import security
from converter.note import Note

# Field -> the value Docker gives when nobody asked for anything (besides null, "", 0, false and empty ones).
_DEFAULTS: Mapping[str, tuple[object, ...]] = {
    "ConsoleSize": ([0, 0],),
    "IpcMode": ("private", "shareable"),
    "Isolation": ("default",),
    "LogConfig": tuple({"Type": kind, "Config": {}} for kind in ("json-file", "journald", "local", "")),
    "MemorySwappiness": (-1,),
    "NetworkMode": ("default", "bridge"),
    "RestartPolicy": tuple({"Name": name, "MaximumRetryCount": 0} for name in ("no", "")),
    "Runtime": ("runc",),
    "ShmSize": (SHM_SIZE,),
}

# Fields that no setting could carry, with what to do instead.
_DROPPED: Mapping[str, str] = {
    "AutoRemove": "the machine stays when its program ends; take it away with `machinectl remove`",
    "Cgroup": "a container's cgroup cannot be another's; set Slice= in a drop-in of the unit",
    "CpuCount": "means something on Windows only",
    "CpuPercent": "means something on Windows only",
    "IOMaximumBandwidth": "means something on Windows only",
    "IOMaximumIOps": "means something on Windows only",
    "Isolation": "means something on Windows only",
    "PidMode": "a machine has its own processes always; run what must see others on the host",
    "Runtime": "nspawn is the runtime; what this one adds must be set up on the host",
    "StorageOpt": "the tree is a directory of the host's; limit it with `machinectl set-limit` on btrfs",
    "UTSMode": "a machine has its own host name always; set Hostname= in the settings",
}
_RUNC = "io.containerd.runc.v2"

_QUIET = frozenset({"MaskedPaths", "ReadonlyPaths"})  # security.py has a word where they are not Docker's own

_NO_REMEDY = "nspawn has nothing like it"


@dataclass(frozen=True)
class ContainerSettings:
    """A container's run-time settings in the machine's words, and a note for each that was not Docker's default.

    `capabilities` is the bounding set. `private` networks have `ports`; `sysctls` are those of the network's
    namespace. `hosts` are lines of /etc/hosts, `group_add` names or numbers, `unit_environment` nspawn's own
    switches. `system_paths_writable`: nothing in /proc and /sys is masked or read-only.
    """

    capabilities: frozenset[str]
    privileged: bool = False
    seccomp_unconfined: bool = False
    no_new_privileges: bool | None = None
    system_paths_writable: bool = False
    read_only: bool | None = None
    process_two: bool = False
    binds: tuple[Bind, ...] = ()
    temporary_file_systems: tuple[TemporaryFileSystem, ...] = ()
    volumes: tuple[Volume, ...] = ()
    limits: Mapping[str, str] = field(default_factory=dict)
    oom_score_adjust: int | None = None
    cpu_affinity: str | None = None
    group_add: tuple[str, ...] = ()
    network: NetworkKind = "private"
    ports: tuple[Port, ...] = ()
    sysctls: Mapping[str, str] = field(default_factory=dict)
    names: Names = field(default_factory=Names)
    hosts: tuple[str, ...] = ()
    unit: tuple[UnitSetting, ...] = ()
    unit_environment: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()

    @property
    def resolv_conf(self) -> str | None:
        """The text of the machine's /etc/resolv.conf; None when it is to be the host's."""
        return self.names.resolv_conf

    def covers(self, path: str) -> bool:
        """Is `path` of the machine, or a directory it lies in, a mount of the container's?

        What nspawn writes to such a path would reach the source: /etc/resolv.conf then needs ResolvConf=off.
        """
        targets = self.mounted
        return any(path == target or path.startswith(f"{target}/") for target in targets)

    @property
    def mounted(self) -> tuple[str, ...]:
        """Where the container's own mounts are."""
        return destinations(self.binds, self.temporary_file_systems, self.volumes)


def container_settings(
    inspected: Mapping[str, Any], *, systemd: int, volumes: Volumes, machine_name: str
) -> ContainerSettings:
    """Everything that `docker inspect` says about how a container runs; `{}` is what Docker gives to any image.

    `systemd` is the version on the host that the machine is for; `volumes` what is done with Docker's volumes (see
    mounts.mounts). Raises ConversionError where a value is not of the type that Docker gives it.
    """
    host = mapping(inspected.get("HostConfig"), "HostConfig")
    mounted = mounts(inspected, volumes=volumes, machine_name=machine_name)
    allowed = security(inspected, host)
    kind, network_notes = network_kind(inspected)
    ports, port_notes = published_ports(inspected, kind)
    resolver, name_notes = names(host)
    hosts, host_notes = host_lines(host, kind)
    limits, limit_notes = rlimits(host)
    own = namespaces(host, kind, mounted.destinations)
    notes = [
        *mounted.notes,
        *allowed.notes,
        *network_notes,
        *port_notes,
        *name_notes,
        *host_notes,
        *limit_notes,
    ]
    notes += own.notes
    binds: list[Bind] = []
    unit: list[UnitSetting] = []
    for decided in (
        *resources(host),
        *restart(host.get("RestartPolicy"), systemd=systemd),
        *devices(host, privileged=allowed.privileged),
        *_log(host),
        *_plain_fields(host),
    ):
        if isinstance(decided, Note):
            notes.append(decided)
        elif isinstance(decided, Bind):
            binds.append(decided)
        else:
            unit.append(decided)
    notes += _without_a_word(host, notes)
    cpus = text(host.get("CpusetCpus"), "HostConfig.CpusetCpus")
    score = number(host.get("OomScoreAdj"), "HostConfig.OomScoreAdj")
    return ContainerSettings(
        capabilities=allowed.capabilities,
        privileged=allowed.privileged,
        seccomp_unconfined=allowed.seccomp_unconfined,
        no_new_privileges=allowed.no_new_privileges,
        system_paths_writable=allowed.paths_writable,
        read_only=True if flag(host.get("ReadonlyRootfs"), "HostConfig.ReadonlyRootfs") else None,
        process_two=flag(host.get("Init"), "HostConfig.Init"),
        binds=(*mounted.binds, *own.binds, *binds),
        temporary_file_systems=(*own.temporary_file_systems, *mounted.temporary_file_systems),
        volumes=tuple(mounted.volumes),
        limits=limits,
        oom_score_adjust=score if score and -1000 <= score <= 1000 else None,
        cpu_affinity=cpus if cpu_list(cpus) else None,
        group_add=texts(host.get("GroupAdd"), "HostConfig.GroupAdd"),
        network=kind,
        ports=ports,
        sysctls=own.sysctls,
        names=resolver,
        hosts=hosts,
        unit=(*unit, *own.unit),
        unit_environment=own.unit_environment,
        notes=tuple(dict.fromkeys(notes)),
    )


def _log(host: Mapping[str, Any]) -> Iterator[UnitSetting | Note]:
    """LogConfig: a machine's output goes to the journal."""
    config = mapping(host.get("LogConfig"), "HostConfig.LogConfig")
    driver = text(config.get("Type"), "HostConfig.LogConfig.Type")
    if config in _DEFAULTS["LogConfig"] or not config:
        return
    if driver == "none":
        yield UnitSetting("Service", "StandardOutput", "null")
        yield UnitSetting("Service", "StandardError", "journal")
        yield field_note("exact", "LogConfig", config, "StandardOutput=null")
    elif driver in ("json-file", "journald", "local", ""):
        said = "the output is in the journal, with its limits and fields: see journald.conf(5)"
        yield field_note("adapted", "LogConfig", config, said)
    else:
        said = (
            "the output is in the journal; send it on from there, as with systemd-journal-upload or rsyslog"
        )
        yield field_note("dropped", "LogConfig", config, said)


def _plain_fields(host: Mapping[str, Any]) -> Iterator[Note]:
    """Fields with one word to say."""
    if flag(host.get("ReadonlyRootfs"), "HostConfig.ReadonlyRootfs"):
        yield field_note(
            "adapted", "ReadonlyRootfs", True, "ReadOnly=yes; /run stays a tmpfs that can be written"
        )
    if (init := host.get("Init")) is not None:
        said = "ProcessTwo=yes" if flag(init, "HostConfig.Init") else "the program is PID 1"
        yield field_note("exact", "Init", init, said)
    if score := number(host.get("OomScoreAdj"), "HostConfig.OomScoreAdj"):
        fits = -1000 <= score <= 1000
        said = "OOMScoreAdjust=" if fits else "Linux takes -1000 to 1000"
        yield field_note("exact" if fits else "dropped", "OomScoreAdj", score, said)
    if groups := texts(host.get("GroupAdd"), "HostConfig.GroupAdd"):
        yield field_note("exact", "GroupAdd", list(groups), "the program's supplementary groups")
    for name in ("Annotations", "ConsoleSize", "ContainerIDFile"):
        if (value := host.get(name)) and value not in _DEFAULTS.get(name, ()):
            yield field_note(
                "exact", name, value, "the client's own, or the runtime's; changes nothing that runs"
            )
    if (runtime := text(host.get("Runtime"), "HostConfig.Runtime")) == _RUNC:
        yield field_note("exact", "Runtime", runtime, "Docker's usual one, by its newer name")
    for name, said in _DROPPED.items():
        if (value := host.get(name)) and value not in (*_DEFAULTS.get(name, ()), _RUNC):
            yield field_note("dropped", name, value, said)


def _without_a_word(host: Mapping[str, Any], notes: list[Note]) -> list[Note]:
    """A note for every field that is not Docker's default and that nobody has named yet."""
    named = {note.subject.split(" ")[0] for note in notes}
    return [
        field_note("dropped", name, value, _NO_REMEDY)
        for name, value in sorted(host.items())
        if value and value not in _DEFAULTS.get(name, ()) and f"HostConfig.{name}" not in named
        if name not in _QUIET
    ]
