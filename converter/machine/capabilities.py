"""Docker's capabilities in nspawn's words: Capability= and DropCapability= of systemd.nspawn(5)."""

from __future__ import annotations

from collections.abc import Iterable

DOCKER_DEFAULT = frozenset(
    f"CAP_{name}"
    for name in [
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "NET_RAW",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    ]
)
"""What Docker gives to a container that was asked for nothing (moby, daemon/pkg/oci/caps/defaults.go)."""

_NSPAWN_DEFAULT = DOCKER_DEFAULT | frozenset(
    f"CAP_{name}"
    for name in [
        "AUDIT_CONTROL",
        "DAC_READ_SEARCH",
        "IPC_OWNER",
        "LEASE",
        "LINUX_IMMUTABLE",
        "NET_BROADCAST",
        "SYS_ADMIN",
        "SYS_BOOT",
        "SYS_NICE",
        "SYS_PTRACE",
        "SYS_RESOURCE",
        "SYS_TTY_CONFIG",
    ]
)  # systemd, src/nspawn/nspawn.c: arg_caps_retain, the same in 252 and 257

ALL = _NSPAWN_DEFAULT | frozenset(
    f"CAP_{name}"
    for name in [
        "AUDIT_READ",
        "BLOCK_SUSPEND",
        "BPF",
        "CHECKPOINT_RESTORE",
        "IPC_LOCK",
        "MAC_ADMIN",
        "MAC_OVERRIDE",
        "NET_ADMIN",
        "PERFMON",
        "SYSLOG",
        "SYS_MODULE",
        "SYS_PACCT",
        "SYS_RAWIO",
        "SYS_TIME",
        "WAKE_ALARM",
    ]
)
"""Every capability of Linux 5.9 to 6.18; systemd 252 knows them all."""


def bounding_set(
    add: Iterable[str], drop: Iterable[str], *, privileged: bool
) -> tuple[frozenset[str], tuple[str, ...]]:
    """What Docker gives for CapAdd and CapDrop, and the names in them that are no capability of Linux.

    Names count in any case, with or without CAP_; ALL stands for all (moby, daemon/pkg/oci/caps/utils.go).
    """
    added, dropped = ([_normal(name) for name in names] for names in (add, drop))
    unknown = tuple(name for name in (*added, *dropped) if name not in ALL | {"ALL"})
    if privileged:
        return ALL, unknown
    if "ALL" in added:
        return ALL - set(dropped), unknown
    kept = frozenset() if "ALL" in dropped else DOCKER_DEFAULT - set(dropped)
    return (kept | set(added)) & ALL, unknown


def nspawn_capabilities(bounding: frozenset[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The words of Capability= and of DropCapability= with which the machine's bounding set is exactly `bounding`.

    For a machine in the network of its unit.
    """
    if bounding == ALL:
        return ("all",), ()
    # The unit's --network-veth gives CAP_NET_ADMIN until a [Network] setting takes it away: never rely on that.
    dropped = (_NSPAWN_DEFAULT | {"CAP_NET_ADMIN"}) - bounding
    return tuple(sorted(bounding - _NSPAWN_DEFAULT)), tuple(sorted(dropped))


def _normal(name: str) -> str:
    upper = name.upper()
    return upper if upper == "ALL" or upper.startswith("CAP_") else f"CAP_{upper}"
