"""What is mounted into a container: binds, volumes and tmpfs in the words of systemd.nspawn(5).

`Mounts` of docker inspect is the truth about binds and volumes, whichever option asked for them; HostConfig says
more about some of them, and alone knows --tmpfs.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from converter.machine.inspected import field_note, flag, mapping, number, sequence, text, texts
from converter.machine.model import Bind, TemporaryFileSystem, Volume
from converter.machine.settings import path_expressible
from converter.note import Note

Volumes = Literal["copy", "bind", "none"]

_TMPFS_DEFAULT = ("noexec", "nosuid", "nodev")  # moby, daemon/oci_linux.go
_TMPFS_OPTION = re.compile(r"[a-z_]+(=[A-Za-z0-9%:=./,-]*)?")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  # as Docker takes volume names
_ANONYMOUS = re.compile(r"[0-9a-f]{64}")
_NAME_MAX = 255  # bytes
_LOCAL = frozenset({"", "local"})


@dataclass
class Mounts:
    """What became of a container's mounts."""

    binds: list[Bind] = field(default_factory=list)
    temporary_file_systems: list[TemporaryFileSystem] = field(default_factory=list)
    volumes: list[Volume] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)

    @property
    def destinations(self) -> frozenset[str]:
        """Every path of the machine that something is mounted on."""
        return frozenset(destinations(self.binds, self.temporary_file_systems, self.volumes))


def destinations(
    binds: Iterable[Bind], temporary_file_systems: Iterable[TemporaryFileSystem], volumes: Iterable[Volume]
) -> tuple[str, ...]:
    """The paths of the machine that these are mounted on."""
    return (
        *(bind.destination for bind in binds),
        *(tmpfs.path for tmpfs in temporary_file_systems),
        *(volume.destination for volume in volumes),
    )


def mounts(inspected: Mapping[str, Any], *, volumes: Volumes, machine_name: str) -> Mounts:
    """Binds, volumes and tmpfs of a container, each with a note.

    `volumes`: "copy" gives the machine volumes of its own, filled from Docker's; "bind" binds Docker's own
    directories; "none" leaves them out.
    """
    host = mapping(inspected.get("HostConfig"), "HostConfig")
    asked = {
        _clean(text(entry.get("Target"), "HostConfig.Mounts.Target")): entry
        for entry in (
            mapping(entry, "HostConfig.Mounts") for entry in sequence(host.get("Mounts"), "HostConfig.Mounts")
        )
    }
    result = Mounts()
    done: set[str] = set()
    for point in sequence(inspected.get("Mounts"), "Mounts"):
        entry = mapping(point, "Mounts")
        destination = _clean(text(entry.get("Destination"), "Mounts.Destination"))
        if destination in done:
            continue
        done.add(destination)
        more = asked.get(destination, {})
        kind = text(entry.get("Type"), "Mounts.Type")
        if not _target_usable(destination):
            result.notes.append(_note("dropped", destination, "a settings file cannot hold this path"))
        elif kind == "bind":
            _bind(entry, more, destination, result)
        elif kind == "volume":
            _volume(entry, more, destination, volumes, machine_name, result)
        elif kind == "tmpfs":
            _tmpfs(destination, _tmpfs_options(more), result)
        else:
            result.notes.append(
                _note(
                    "dropped",
                    destination,
                    f"nspawn has no mounts of type {kind!r}; set Bind= in the settings",
                )
            )
    for target, options in mapping(host.get("Tmpfs"), "HostConfig.Tmpfs").items():
        path = _clean(target)
        words = text(options, "HostConfig.Tmpfs")
        if path in done:
            continue
        done.add(path)
        if _target_usable(path):
            _tmpfs(path, tuple(filter(None, words.split(","))), result)
        else:
            result.notes.append(_note("dropped", path, "a settings file cannot hold this path"))
    _field_notes(host, asked, done, result)
    return result


def escaped_path(path: str) -> str:
    """`path` as `systemd-escape --path` writes it: "/" as "-", what is not plain as \\xNN."""
    inner = path.strip("/")
    if not inner:
        return "-"
    escaped = "".join(
        "-" if c == 0x2F else chr(c) if (chr(c).isalnum() and c < 128) or chr(c) in ":_." else f"\\x{c:02x}"
        for c in re.sub("/+", "/", inner).encode("utf-8", "surrogateescape")
    )
    return f"\\x2e{escaped[1:]}" if escaped.startswith(".") else escaped


def anonymous_volume(machine_name: str, destination: str) -> str:
    """The name of a volume that has none: NAME+escaped-path, shortened to what a file system takes.

    No volume of Docker's can be called so, for the plus.
    """
    name = f"{machine_name}+{escaped_path(destination)}"
    if len(name.encode()) <= _NAME_MAX:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    return f"{name[: _NAME_MAX - 17]}-{digest}"


def _bind(entry: Mapping[str, Any], more: Mapping[str, Any], destination: str, result: Mounts) -> None:
    source = text(entry.get("Source"), "Mounts.Source")
    if not path_expressible(source):
        result.notes.append(
            _note("dropped", destination, "a settings file cannot hold the path of its source")
        )
        return
    read_only = not _writable(entry)
    options = mapping(more.get("BindOptions"), "HostConfig.Mounts.BindOptions")
    alone = flag(options.get("NonRecursive"), "HostConfig.Mounts.BindOptions.NonRecursive")
    result.binds.append(Bind(source, destination, read_only, "norbind" if alone else ""))
    said, lost = (
        [f"{'BindReadOnly' if read_only else 'Bind'}= of {source}, which must be there on the host"],
        [],
    )
    propagation = text(entry.get("Propagation"), "Mounts.Propagation")
    if propagation in ("shared", "rshared"):
        lost.append("what the machine mounts in it does not show on the host")
    elif propagation not in ("", "private", "rprivate", "slave", "rslave"):
        lost.append(f"its propagation {propagation!r} is nspawn's own")
    if {"z", "Z"} & set(text(entry.get("Mode"), "Mounts.Mode").split(",")):
        lost.append("its SELinux label stays as it is: chcon it on the host")
    if flag(options.get("ReadOnlyNonRecursive"), "HostConfig.Mounts.BindOptions.ReadOnlyNonRecursive"):
        lost.append("mounts below it are read-only too")
    if flag(options.get("CreateMountpoint"), "HostConfig.Mounts.BindOptions.CreateMountpoint"):
        lost.append("nobody makes the source when it is missing")
    result.notes.append(_note("adapted" if lost else "exact", destination, "; ".join(said + lost)))


def _volume(
    entry: Mapping[str, Any],
    more: Mapping[str, Any],
    destination: str,
    volumes: Volumes,
    machine_name: str,
    result: Mounts,
) -> None:
    source = text(entry.get("Source"), "Mounts.Source")
    name = text(entry.get("Name"), "Mounts.Name")
    driver = text(entry.get("Driver"), "Mounts.Driver")
    options = mapping(more.get("VolumeOptions"), "HostConfig.Mounts.VolumeOptions")
    config = mapping(options.get("DriverConfig"), "HostConfig.Mounts.VolumeOptions.DriverConfig")
    driver_options = mapping(config.get("Options"), "HostConfig.Mounts.VolumeOptions.DriverConfig.Options")
    shown = f"volume {name} of Docker's ({source})" if source else f"volume {name} of Docker's"
    usable = path_expressible(source) and (_ANONYMOUS.fullmatch(name) or _named(name))
    # A link that the container left in the volume could lead a subpath anywhere on the host.
    if text(options.get("Subpath"), "HostConfig.Mounts.VolumeOptions.Subpath"):
        said = f"a part of {shown}: only whole volumes are taken; bind the directory by hand"
        result.notes.append(_note("dropped", destination, said))
        return
    if volumes == "none":
        said = f"{shown} stays with Docker, as asked for; convert with volumes, or set Bind= in the settings"
        result.notes.append(_note("dropped", destination, said))
        return
    if not usable:
        how = "start the container, and convert again" if not source else "set Bind= in the settings"
        result.notes.append(
            _note("dropped", destination, f"{shown}: no directory that could be taken; {how}")
        )
        return
    read_only = not _writable(entry)
    lost = []
    if driver not in _LOCAL or driver_options:
        what = (
            f"driver {driver}"
            if driver not in _LOCAL
            else f"options {', '.join(sorted(map(str, driver_options)))}"
        )
        lost.append(
            f"{what}: its file system must be mounted on the host while it is taken, and is no part of it"
        )
    if volumes == "bind":
        result.binds.append(Bind(source, destination, read_only))
        said = f"Bind= of {shown}: Docker must stay, and keep the volume"
        result.notes.append(_note("adapted", destination, "; ".join([said, *lost])))
        return
    own = anonymous_volume(machine_name, destination) if _ANONYMOUS.fullmatch(name) else name
    result.volumes.append(Volume(own, destination, source, read_only))
    said = f"volume {own}, filled with a copy of {shown}"
    result.notes.append(_note("adapted" if lost else "exact", destination, "; ".join([said, *lost])))


def _tmpfs(destination: str, words: tuple[str, ...], result: Mounts) -> None:
    refused = [word for word in words if not _TMPFS_OPTION.fullmatch(word)]
    kept = [word for word in words if word not in refused and word.lstrip("r") not in _PROPAGATION]
    options = ",".join((*_TMPFS_DEFAULT, *kept))
    result.temporary_file_systems.append(TemporaryFileSystem(destination, options))
    said = f"TemporaryFileSystem= with {options}"
    if refused:
        result.notes.append(_note("adapted", destination, f"{said}; without {', '.join(refused)}"))
    else:
        result.notes.append(_note("exact", destination, said))


_PROPAGATION = frozenset({"private", "shared", "slave", "unbindable"})


def _tmpfs_options(more: Mapping[str, Any]) -> tuple[str, ...]:
    """TmpfsOptions of HostConfig.Mounts as mount options (moby, daemon/volume/mounts/linux_parser.go)."""
    what = "HostConfig.Mounts.TmpfsOptions"
    options = mapping(more.get("TmpfsOptions"), what)
    words = ["ro"] if flag(more.get("ReadOnly"), "HostConfig.Mounts.ReadOnly") else []
    if mode := number(options.get("Mode"), f"{what}.Mode"):
        words.append(f"mode={mode:o}" if mode > 0 else "mode=?")
    if size := number(options.get("SizeBytes"), f"{what}.SizeBytes"):
        words.append(f"size={size}")
    for option in sequence(options.get("Options"), f"{what}.Options"):
        words.append("=".join(texts(option, f"{what}.Options")))
    return tuple(words)


def _field_notes(
    host: Mapping[str, Any], asked: Mapping[str, Mapping[str, Any]], done: set[str], result: Mounts
) -> None:
    """The fields themselves: their mounts have notes of their own."""
    for bind in texts(host.get("Binds"), "HostConfig.Binds"):
        parts = bind.split(":")
        target = _clean(parts[min(1, len(parts) - 1)])
        if target in done:
            result.notes.append(field_note("exact", "Binds", bind, f"see what is said of mount {target}"))
        else:
            result.notes.append(
                field_note("dropped", "Binds", bind, "Docker does not list it; set Bind= in the settings")
            )
    if host.get("VolumesFrom"):
        said = "their mounts are the container's own: see what is said of each mount"
        result.notes.append(field_note("exact", "VolumesFrom", host["VolumesFrom"], said))
    if host.get("Tmpfs"):
        result.notes.append(field_note("exact", "Tmpfs", host["Tmpfs"], "see what is said of each mount"))
    for target, entry in asked.items():
        if target in done:
            result.notes.append(field_note("exact", "Mounts", entry, f"see what is said of mount {target}"))
        else:
            result.notes.append(
                field_note("dropped", "Mounts", entry, "Docker does not list it; set Bind= in the settings")
            )
    if driver := text(host.get("VolumeDriver"), "HostConfig.VolumeDriver"):
        said = (
            "its volumes are directories of the host, as `local` ones are"
            if driver == "local"
            else ("volumes are directories here; what the driver holds must be mounted on the host")
        )
        result.notes.append(
            field_note("exact" if driver == "local" else "adapted", "VolumeDriver", driver, said)
        )


def _note(kind: Literal["exact", "adapted", "dropped"], destination: str, said: str) -> Note:
    return Note(kind, f"mount {destination}", said)


def _writable(entry: Mapping[str, Any]) -> bool:
    return flag(entry["RW"], "Mounts.RW") if "RW" in entry else True


def _named(name: str) -> bool:
    return bool(_NAME.fullmatch(name)) and len(name) <= _NAME_MAX


def _clean(path: str) -> str:
    return re.sub("^//", "/", posixpath.normpath(path)) if path.startswith("/") else path


def _target_usable(path: str) -> bool:
    return path != "/" and path_expressible(path)
