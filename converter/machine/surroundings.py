"""What Docker puts around a program at run time and a tree does not have: /etc/hosts, /run, volumes."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from converter.image.model import ImageConfig
from converter.machine.facts import MOUNT_POINTS, Facts
from converter.machine.model import Bind, TreeChange, Volume
from converter.machine.mounts import anonymous_volume
from converter.machine.settings import path_expressible
from converter.note import Note

VOLUMES = "/var/lib/docker2nspawn/volumes"
"""Where the data of volumes lies on the host."""

_RUN_COPY = "/usr/lib/docker2nspawn/run"
_RUN_OF_NSPAWN = frozenset({"host", "systemd"})  # nspawn's own mounts and sockets live there

# As Docker's own (moby libnetwork/etchosts).
_HOSTS = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


def hosts_changes(hostname: str, domainname: str, address: str, extra: Iterable[str]) -> list[TreeChange]:
    """/etc/hosts and /etc/hostname, which Docker makes for each container, whatever its image has there.

    `extra` are more lines of the former. Without an `address`, the machine's name has none.
    """
    names = f"{hostname}.{domainname} {hostname}" if domainname else hostname
    lines = [_HOSTS, *(f"{line}\n" for line in extra)]
    if address:
        lines.append(f"{address}\t{names}\n")
    return [
        TreeChange("/etc/hosts", "file", mode=0o644, content="".join(lines).encode()),
        TreeChange("/etc/hostname", "file", mode=0o644, content=f"{hostname}\n".encode()),
    ]


def host_proof_changes(facts: Facts, *, read_only: bool, notes: list[Note]) -> list[TreeChange]:
    """What nspawn needs in a tree not to write to the host, and to start. To be made after /run was copied."""
    changes = [TreeChange("/etc/mtab", "link", content=b"/proc/mounts")]  # as Docker
    for path, led_to in facts.links.items():
        changes.append(TreeChange(path, "mount point"))
        if path == "/run" and led_to == "/var/run":
            changes.append(TreeChange(led_to, "link", content=b"/run"))
        notes.append(
            Note("adapted", path, "a directory instead of a link: through one nspawn would write to the host")
        )
    if read_only:  # then nothing can be made in it when it starts
        missing = (path for path in (*MOUNT_POINTS, "/tmp") if path not in facts.links)
        changes += [TreeChange(path, "mount point") for path in missing]
    machine_id = (facts.machine_id or b"").strip()
    if machine_id not in {b"", b"uninitialized"} and not re.fullmatch(rb"[0-9a-f]{32}", machine_id):
        changes.append(TreeChange("/etc/machine-id", "file", mode=0o644, content=b"uninitialized\n"))
        notes.append(
            Note("adapted", "/etc/machine-id", "uninitialized: nspawn starts no machine whose id is none")
        )
    return changes


def image_volumes(
    config: ImageConfig,
    machine: str,
    *,
    taken: Collection[str],
    kept: bool,
    facts: Facts,
    changes: list[TreeChange],
    notes: list[Note],
) -> tuple[Volume, ...]:
    """The image's VOLUMEs but for the paths in `taken`, where something is mounted already; unless `kept`, none."""
    volumes = []
    for path in config.volumes:
        if path in taken:
            continue
        destination = "/" + path.lstrip("/")
        if path not in facts.directories:
            changes.append(TreeChange(destination, "dir"))
        if kept and path_expressible(destination):
            volume = Volume(anonymous_volume(machine, destination), destination)
            volumes.append(volume)
            text = f"{VOLUMES}/{volume.name}, filled with the image's content; kept when the machine is made again"
        else:
            text = "lies in the machine's own tree, with the image's content: kept over restarts, gone with the machine"
        notes.append(Note("adapted", f"VOLUME {path}", text))
    return tuple(volumes)


def volume_bind(volume: Volume) -> Bind:
    """How nspawn mounts it."""
    return Bind(f"{VOLUMES}/{volume.name}", volume.destination, read_only=volume.read_only)


def run_content(
    facts: Facts, taken: Collection[str], changes: list[TreeChange], notes: list[Note]
) -> tuple[Bind, ...]:
    """nspawn mounts an empty tmpfs on /run: what the image has there is kept elsewhere and bound over it."""
    if "/run" in taken or "/var/run" in taken:
        return ()
    binds = []
    for entry in facts.run:
        if f"/run/{entry}" in taken:
            continue
        if entry in _RUN_OF_NSPAWN or not path_expressible(f"{_RUN_COPY}/{entry}"):
            notes.append(Note("dropped", f"/run/{entry}", "nspawn's own /run hides it"))
            continue
        changes.append(TreeChange(f"{_RUN_COPY}/{entry}", "copy", content=f"/run/{entry}".encode()))
        binds.append(Bind(f"+{_RUN_COPY}/{entry}", f"/run/{entry}"))
    if binds:
        names = ", ".join(bind.destination for bind in binds)
        notes.append(Note("adapted", "/run", f"nspawn empties it: {names} come from a copy in {_RUN_COPY}"))
    return tuple(binds)
