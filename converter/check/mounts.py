"""What is mounted into the machine, and what the file system below its tree can do."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from converter import inside, linux
from converter.check.finding import Finding, problem, warning
from converter.check.installed import VOLUMES, Installed, Mount
from converter.check.parse import is_no

_UNLABELLED = ("unlabeled_t", "default_t")


def mount_findings(machine: Installed) -> Iterator[Finding]:
    """The sources of bind mounts and volumes."""
    for mount in machine.mounts:
        for source in mount.sources:
            yield from _source_findings(machine, mount, source)
    named = {source for mount in machine.mounts for source in mount.sources}
    volumes = machine.record.get("volumes")
    for volume in volumes if isinstance(volumes, list) else ():
        path = f"{VOLUMES}{volume}"
        if path not in named and inside.status(machine.root, path) is None:
            text = f"{path} is missing, and no Bind= names it: the machine's data is not there"
            yield warning(f"volume {volume}", text, f"restore {path} from a backup, or {machine.again}")


def _source_findings(machine: Installed, mount: Mount, source: str) -> Iterator[Finding]:
    if source == "" or source.startswith("-"):
        return  # nspawn makes a directory of its own; or the mount is left out when there is no source
    line = f"{mount.key}= in /{machine.settings_path}"
    if source.startswith("+"):
        inner = source[1:]
        if machine.tree is not None and inside.status(machine.tree, inner) is None:
            text = f"{inner} is missing in the tree, and {line} needs it: nothing starts"
            yield problem(mount.destination, text, machine.again)
    elif inside.status(machine.root, source) is None:
        text = f"{source} is missing, and {line} needs it: nothing starts"
        if source.startswith(VOLUMES):
            remedy = f"restore {source} from a backup, or {machine.again}"
            yield problem(f"volume {source.removeprefix(VOLUMES)}", text, remedy)
        else:
            yield problem(
                source, text, f"mkdir -p {shlex.quote(source)}, or mount or copy what shall be there"
            )


def file_system_findings(machine: Installed) -> Iterator[Finding]:
    """What the file system that the tree lies on must be able to do. Only where it is mounted as the host has it."""
    if machine.tree is None or not machine.live:
        return
    flags = os.statvfs(machine.tree).f_flag
    place = f"/{machine.tree_path}"
    remount = "mount -o remount,{} /var/lib/machines, and in /etc/fstab"
    if flags & os.ST_NOEXEC:
        yield problem(
            "mount", f"{place} is mounted noexec: nothing in it can be started", remount.format("exec")
        )
    if flags & os.ST_NOSUID:
        text = f"{place} is mounted nosuid: setuid programs and file capabilities have no effect"
        yield warning("mount", text, remount.format("suid"))
    if flags & os.ST_NODEV:
        text = f"{place} is mounted nodev: devices in the tree cannot be opened"
        yield warning("mount", text, remount.format("dev"))
    yield from _mapping_findings(machine, machine.tree)
    yield from _label_findings(machine, machine.tree)


def _mapping_findings(machine: Installed, tree: Path) -> Iterator[Finding]:
    users = (machine.value("PrivateUsers") if machine.trusted else None) or "pick"  # the unit's own -U
    ownership = machine.value("PrivateUsersOwnership") if machine.trusted else "auto"
    if is_no(users) or users.startswith("identity") or ownership in {"off", "chown"}:
        return
    mapped = any(
        "idmap" in word and word != "noidmap" for m in machine.mounts for word in m.options.split(",")
    )
    if ownership != "map" and not mapped and users != "pick":
        return
    supported = linux.has_mapped_mounts(tree)
    if supported is None:
        text = f"PrivateUsers={users} wants mounts with mapped ids, and whether this host has them cannot be tried"
        yield warning("PrivateUsers=", text, "run this check as root")
    elif not supported and ownership == "map":
        text = (
            f"kernel or file system of /{machine.tree_path} cannot map ids of a mount (tried): nothing starts"
        )
        yield problem(
            "PrivateUsers=",
            text,
            "set PrivateUsers=no, or move it to ext4, xfs or btrfs on Linux 5.12 or newer",
        )
    elif not supported:
        text = "kernel or file system cannot map ids of a mount (tried): nspawn changes the owner of every file instead"
        yield warning(
            "PrivateUsers=",
            text,
            "set PrivateUsers=no, or move it to ext4, xfs or btrfs on Linux 5.12 or newer",
        )


def _label_findings(machine: Installed, tree: Path) -> Iterator[Finding]:
    enforcing = inside.read(machine.root, "sys/fs/selinux/enforce")
    if enforcing is None or enforcing.strip() != b"1":
        return
    try:
        label = os.getxattr(tree, "security.selinux").rstrip(b"\0").decode("utf-8", "replace")
    except OSError:
        label = "none"
    if label == "none" or any(name in label for name in _UNLABELLED):
        yield warning(
            "SELinux",
            f"SELinux is enforcing and the tree's label is {label}: it may forbid the program its own files",
            f"chcon -hR -t container_file_t /{machine.tree_path}",
        )
