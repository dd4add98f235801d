"""Docker's seccomp profile in systemd's words."""

from __future__ import annotations

import pytest

from converter.machine.model import Machine, UnitSetting
from converter.machine.settings import ignored_untrusted, render
from converter.machine.syscalls import Policy, system_call_policy

DOCKER = frozenset({"CAP_CHOWN", "CAP_MKNOD", "CAP_SYS_CHROOT"})


def allowed(policy: Policy) -> set[str]:
    return {call for line in policy.system_call_filter if line[0] != "~" for call in line.split()}


def forbidden(policy: Policy) -> set[str]:
    return {call for line in policy.system_call_filter if line[0] == "~" for call in line[1:].split()}


def test_docker_s_own_capabilities() -> None:
    policy = system_call_policy(DOCKER, version=257)
    assert {"ptrace", "@memlock", "@pkey", "chroot", "fanotify_mark"} <= allowed(policy)
    assert {"@mount", "unshare", "setns", "io_uring_setup", "userfaultfd", "kcmp", "@keyring"} <= forbidden(
        policy
    )
    assert UnitSetting("Service", "RestrictNamespaces", "cgroup ipc net mnt pid uts") in policy.unit
    assert UnitSetting("Service", "RestrictAddressFamilies", "~AF_ALG AF_VSOCK") in policy.unit
    assert policy.restrict_address_families is None
    assert policy.notes


def test_clone3_is_never_refused_with_eperm() -> None:
    for capabilities in (DOCKER, DOCKER | {"CAP_SYS_ADMIN"}, frozenset[str]()):
        assert not {"clone3", "clone", "@process"} & forbidden(system_call_policy(capabilities, version=252))


def test_the_unit_forbids_nothing_that_nspawn_needs() -> None:
    # nspawn makes every kind of namespace but user's, and mounts: SystemCallFilter= would hold for itself.
    for version in (252, 257, 262):
        keys = {setting.key for setting in system_call_policy(frozenset(), version=version).unit}
        assert keys <= {"RestrictNamespaces", "RestrictAddressFamilies"}


@pytest.mark.parametrize(
    ("capability", "more", "no_longer_forbidden"),
    [
        (
            "CAP_SYS_ADMIN",
            {"bpf", "perf_event_open", "syslog"},
            {"@mount", "setns", "unshare", "sethostname"},
        ),
        ("CAP_SYS_PTRACE", {"pidfd_getfd"}, {"kcmp", "process_madvise"}),
        ("CAP_SYS_NICE", set[str](), {"mbind", "set_mempolicy"}),
        ("CAP_DAC_READ_SEARCH", {"open_by_handle_at"}, set[str]()),
        ("CAP_BPF", {"bpf"}, set[str]()),
        ("CAP_PERFMON", {"perf_event_open"}, set[str]()),
    ],
)
def test_capabilities_allow_more(capability: str, more: set[str], no_longer_forbidden: set[str]) -> None:
    before, after = (system_call_policy(DOCKER | added, version=257) for added in (set[str](), {capability}))
    assert more <= allowed(after) - allowed(before)
    assert no_longer_forbidden <= forbidden(before) - forbidden(after)


def test_namespaces_are_for_who_may_make_them() -> None:
    policy = system_call_policy(DOCKER | {"CAP_SYS_ADMIN"}, version=257)
    assert "RestrictNamespaces" not in {setting.key for setting in policy.unit}
    assert "pivot_root" in forbidden(policy)  # in Docker too


def test_chroot_goes_with_its_capability() -> None:
    without = system_call_policy(DOCKER - {"CAP_SYS_CHROOT"}, version=257)
    assert "chroot" in forbidden(without) - allowed(without)
    assert "chroot" in allowed(system_call_policy(DOCKER, version=257))


def test_nspawn_filters_the_families_itself_since_261() -> None:
    for version, in_settings in (
        (252, None),
        (260, None),
        (261, "~AF_ALG AF_VSOCK"),
        (262, "~AF_ALG AF_VSOCK"),
    ):
        policy = system_call_policy(DOCKER, version=version)
        assert policy.restrict_address_families == in_settings
        in_unit = "RestrictAddressFamilies" in {setting.key for setting in policy.unit}
        assert in_unit == (in_settings is None)


def test_unconfined_is_no_filter() -> None:
    for version in (252, 262):
        policy = system_call_policy(DOCKER, version=version, privileged_seccomp=True)
        assert policy.system_call_filter == ("@known",)
        assert policy.unit == (UnitSetting("Service", "Environment", "SYSTEMD_SECCOMP=0"),)
        assert policy.notes == ()
    assert policy.restrict_address_families == "~"


def test_no_call_is_on_both_lists() -> None:
    for capabilities in (DOCKER, frozenset[str](), DOCKER | {"CAP_SYS_ADMIN", "CAP_SYS_PTRACE"}):
        policy = system_call_policy(capabilities, version=257)
        assert not allowed(policy) & forbidden(policy)


def test_in_the_settings_file() -> None:
    policy = system_call_policy(DOCKER, version=262)
    machine = Machine(
        name="m",
        system_call_filter=policy.system_call_filter,
        restrict_address_families=policy.restrict_address_families,
    )
    text = render(machine, "h").splitlines()
    assert [line for line in text if line.startswith("SystemCallFilter=")] == [
        f"SystemCallFilter={line}" for line in policy.system_call_filter
    ]
    assert "RestrictAddressFamilies=~AF_ALG AF_VSOCK" in text
    assert {"SystemCallFilter", "RestrictAddressFamilies"} <= set(ignored_untrusted(machine))
