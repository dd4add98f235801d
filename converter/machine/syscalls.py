"""Docker's default seccomp profile, as systemd-nspawn can have it.

Two filters make it. SystemCallFilter= in a settings file adds to and takes from the list of calls that nspawn itself
allows; nspawn needs mount(2), setns(2) and the like, but filters only what it starts. Settings of the unit hold for
nspawn too, so they can forbid only what it never does; they look at arguments, which SystemCallFilter= does not.

The tables are the difference between
- moby/profiles, seccomp/default.json, commit cd3bed8 (June 2026), and
- the list in systemd's src/nspawn/nspawn-seccomp.c with the sets it names (systemd-analyze syscall-filter), of 252.39,
  257.13 and 262.1.

One table does for all of them: what a version allows or forbids anyway changes nothing, and a name that its libseccomp
does not know is passed over with a debug message. Calls that neither the profile nor nspawn knows give ENOSYS in both.
"""

from __future__ import annotations

from dataclasses import dataclass

from converter.machine.model import UnitSetting

# Docker always allows them; nspawn does not, or not in every version. @memlock: locking memory, which RLIMIT_MEMLOCK
# bounds; @pkey: memory protection keys.
_ALLOWED = (
    "@memlock",
    "@pkey",
    "adjtimex",
    "cachestat",
    "clock_adjtime",
    "clock_adjtime64",
    "fanotify_mark",
    "futex_requeue",
    "futex_wait",
    "futex_wake",
    "getxattrat",
    "landlock_add_rule",
    "landlock_create_ruleset",
    "landlock_restrict_self",
    "listmount",
    "listxattrat",
    "map_shadow_stack",
    "memfd_secret",
    "modify_ldt",
    "mseal",
    "process_mrelease",
    "ptrace",
    "removexattrat",
    "setxattrat",
    "statmount",
    # Of other processors.
    "arm_sync_file_range",
    "breakpoint",
    "s390_pci_mmio_read",
    "s390_pci_mmio_write",
    "s390_runtime_instr",
)

# What Docker allows with a capability and nspawn even then does not.
_ALLOWED_WITH = {
    "CAP_BPF": ("bpf",),
    "CAP_DAC_READ_SEARCH": ("open_by_handle_at",),
    "CAP_PERFMON": ("perf_event_open",),
    "CAP_SYS_ADMIN": (
        "bpf",
        "fanotify_init",
        "lookup_dcookie",
        "lsm_get_self_attr",
        "lsm_list_modules",
        "lsm_set_self_attr",
        "perf_event_open",
        "quotactl",
        "quotactl_fd",
        "syslog",
    ),
    "CAP_SYS_CHROOT": ("chroot",),  # of @mount, which goes without CAP_SYS_ADMIN
    "CAP_SYS_PTRACE": ("pidfd_getfd",),
    "CAP_SYS_TIME": ("stime",),
}

# nspawn allows them, Docker never. The kernel's keyrings are not of a namespace; nspawn allows them since 262.
_FORBIDDEN = (
    "@keyring",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "migrate_pages",
    "move_pages",
    "pivot_root",
    "userfaultfd",
)

# nspawn always allows them, Docker only with the capability. clone3 is not here: it has to be ENOSYS, or no thread
# starts; see _NAMESPACES.
_FORBIDDEN_WITHOUT = {
    "CAP_SYS_ADMIN": (
        "@mount",
        "lsm_get_self_attr",
        "lsm_list_modules",
        "open_tree",  # since 262 also in @file-system
        "setdomainname",
        "sethostname",
        "setns",
        "unshare",
    ),
    "CAP_SYS_CHROOT": ("chroot",),
    "CAP_SYS_NICE": ("get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"),
    "CAP_SYS_PTRACE": ("kcmp", "process_madvise"),
}

# All but user namespaces: those nspawn makes itself, and the kernel refuses them to who lacks CAP_SYS_ADMIN. It also
# makes clone3 ENOSYS, which glibc and others answer with clone, as in Docker.
_NAMESPACES = UnitSetting("Service", "RestrictNamespaces", "cgroup ipc net mnt pid uts")

_FAMILIES = "~AF_ALG AF_VSOCK"
_FAMILIES_OF_NSPAWN = 261  # systemd's version with RestrictAddressFamilies= in settings files

_NOTES = (
    "a socket of a family that Docker forbids (AF_ALG, AF_VSOCK) fails with EAFNOSUPPORT, in Docker with EPERM",
    "an audit socket (AF_NETLINK, NETLINK_AUDIT) fails with EAFNOSUPPORT; Docker allows it",
    "personality(2) takes every value; Docker allows only PER_LINUX and PER_LINUX32, with or without UNAME26",
    "a few old calls of 32-bit programs that Docker's list lacks (nice, signal, oldstat and their like) work",
)


@dataclass(frozen=True)
class Policy:
    """A machine's system call policy.

    `system_call_filter` are the values of SystemCallFilter= lines, and `restrict_address_families` that of
    RestrictAddressFamilies= (None: do not write it), in [Exec] of a trusted settings file. `unit` is for
    the unit's drop-in. `notes` are the differences from Docker that remain, in plain words.
    """

    system_call_filter: tuple[str, ...]
    restrict_address_families: str | None
    unit: tuple[UnitSetting, ...]
    notes: tuple[str, ...]


def system_call_policy(
    capabilities: frozenset[str], *, version: int, privileged_seccomp: bool = False
) -> Policy:
    """Docker's default profile for a container with that bounding set ("CAP_..."), on systemd `version` (252).

    `privileged_seccomp` is Docker's seccomp=unconfined: no filter at all, of nspawn's either. Not for a machine that
    boots an init: nspawn's own list is made for those.
    """
    of_nspawn = version >= _FAMILIES_OF_NSPAWN
    if privileged_seccomp:
        # @known is for who starts nspawn without the unit.
        off = UnitSetting("Service", "Environment", "SYSTEMD_SECCOMP=0")
        return Policy(("@known",), "~" if of_nspawn else None, (off,), ())  # "~": none is forbidden

    allowed = set(_ALLOWED)
    for capability, calls in _ALLOWED_WITH.items():
        if capability in capabilities:
            allowed.update(calls)
    forbidden = set(_FORBIDDEN)
    for capability, calls in _FORBIDDEN_WITHOUT.items():
        if capability not in capabilities:
            forbidden.update(calls)
    allowed -= forbidden  # in nspawn too, what is forbidden wins

    unit: list[UnitSetting] = []
    if "CAP_SYS_ADMIN" not in capabilities:
        unit.append(_NAMESPACES)
    if not of_nspawn:
        unit.append(UnitSetting("Service", "RestrictAddressFamilies", _FAMILIES))
    return Policy(
        (" ".join(sorted(allowed)), "~" + " ".join(sorted(forbidden))),
        _FAMILIES if of_nspawn else None,
        tuple(unit),
        _NOTES,
    )
