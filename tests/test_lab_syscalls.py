"""Every system call in `docker run` and in a machine with converter.machine.syscalls' policy: refused or not, alike.

Refused is EPERM or ENOSYS. What a call says that gets past the filters is the kernel's affair; where the kernel refuses
it too, by a capability, both are the same to a program.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from converter.machine.model import Machine
from converter.machine.settings import render
from converter.machine.syscalls import Policy, system_call_policy
from converter.machine.unit import render_drop_in
from tests import lab

pytestmark = pytest.mark.lab

IMAGE = "lab-syscalls/probe"
HEADING = "made by a test"

# moby: oci/caps/defaults.go
DOCKER_DEFAULT = """AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE NET_RAW SETFCAP SETGID
SETPCAP SETUID SYS_CHROOT"""
NSPAWN_MORE = """AUDIT_CONTROL DAC_READ_SEARCH IPC_OWNER LEASE LINUX_IMMUTABLE NET_BROADCAST SYS_ADMIN SYS_BOOT SYS_NICE
SYS_PTRACE SYS_RESOURCE SYS_TTY_CONFIG"""
DOCKER = frozenset(f"CAP_{name}" for name in DOCKER_DEFAULT.split())
MORE_OF_NSPAWN = frozenset(f"CAP_{name}" for name in NSPAWN_MORE.split())
COMPLAINT = re.compile(r"[Ii]gnoring|not known|Failed|Unknown")
NAMES = {"EPERM": "1", "ENOSYS": "38", "EAFNOSUPPORT": "97"}

# What is added to Docker's capabilities, and whether there is a filter at all.
CASES = {
    "default": (frozenset[str](), False),
    "capable": (
        frozenset({"CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_SYS_NICE", "CAP_SYSLOG", "CAP_SYS_TIME"}),
        False,
    ),
    "unconfined": (frozenset[str](), True),
}


@pytest.fixture(scope="module")
def tree(work: Path) -> Path:
    """A root directory with nothing but the probe."""
    root = work / "syscalls"
    (root / "usr").mkdir(parents=True)
    lab.run("gcc", "-static", "-O1", "-s", "-o", root / "probe", Path(__file__).with_name("syscalls.c"))
    return root


def in_docker(tree: Path, docker: str, case: str) -> dict[str, str]:
    more, unconfined = CASES[case]
    archive = tree.with_suffix(".tar")
    lab.run("tar", "-C", tree, "-cf", archive, ".")
    lab.run("docker", "import", "--change", 'CMD ["/probe"]', archive, IMAGE, DOCKER_HOST=docker)
    options = [f"--cap-add={name.removeprefix('CAP_')}" for name in sorted(more)]
    options += ["--security-opt=seccomp=unconfined"] if unconfined else []
    try:
        return read(lab.run("docker", "run", "--rm", *options, IMAGE, DOCKER_HOST=docker).stdout)
    finally:
        lab.run("docker", "rmi", IMAGE, DOCKER_HOST=docker)


def machine(name: str, case: str, version: int) -> tuple[Machine, Policy]:
    more, unconfined = CASES[case]
    policy = system_call_policy(DOCKER | more, version=version, privileged_seccomp=unconfined)
    made = Machine(
        name=name,
        parameters=("/probe",),
        capability=tuple(sorted(more)),
        drop_capability=tuple(sorted(MORE_OF_NSPAWN - more)),
        private_users="no",
        virtual_ethernet=False,
        resolv_conf="off",
        timezone="off",
        link_journal="no",
        system_call_filter=policy.system_call_filter,
        restrict_address_families=policy.restrict_address_families,
        unit=policy.unit,
    )
    return made, policy


def version_of(said: str) -> int:
    found = re.match(r"systemd (\d+)", said)
    assert found, said
    return int(found[1])


def directly(tree: Path, case: str) -> dict[str, str]:
    """In this machine's own systemd-nspawn, where no unit is."""
    name = f"syscalls-{case}"
    version = version_of(lab.run("systemd-nspawn", "--version").stdout)
    settings = Path(f"/run/systemd/nspawn/{name}.nspawn")  # trusted
    settings.parent.mkdir(parents=True, exist_ok=True)
    made, policy = machine(name, case, version)
    settings.write_text(render(made, HEADING))
    switches = [setting.value for setting in policy.unit if setting.key == "Environment"]
    try:
        options = ["--register=no", "--keep-unit", "--quiet", "--settings=override", f"--directory={tree}"]
        done = lab.run("env", *switches, "systemd-nspawn", *options, f"--machine={name}")
    finally:
        settings.unlink()
    assert not COMPLAINT.search(done.stderr), done.stderr
    return read(done.stdout)


def started(tree: Path, host: lab.Host, case: str) -> dict[str, str]:
    """By machinectl, with the unit's part."""
    name = f"syscalls-{case}"
    made, _ = machine(name, case, version_of(host.run("systemctl", "--version").stdout))
    lab.run("cp", "-a", tree, host.root / "var/lib/machines" / name)
    settings = host.root / f"etc/systemd/nspawn/{name}.nspawn"
    drop_in = host.root / f"etc/systemd/system/systemd-nspawn@{name}.service.d/docker2nspawn.conf"
    for path, text in ((settings, render(made, HEADING)), (drop_in, render_drop_in(made, HEADING))):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    output = host.run_machine(name)
    assert not COMPLAINT.search(output), output[-2000:]
    return read(output)


def read(output: str) -> dict[str, str]:
    """Call or rule, by name: EPERM, ENOSYS or "done"; of rules also EAFNOSUPPORT, of numbers the number."""
    assert "probe end" in output, output[-2000:]
    names = {"call": call_names("64"), "call32": call_names("32")}
    found: dict[str, str] = {}
    for kind, what, came in re.findall(r"^(call|call32|rule) (.+) (\w+)\s*$", output, re.MULTILINE):
        name = what if kind == "rule" else names[kind].get(int(what))
        if name is not None:  # there are numbers without a call
            found[name if kind != "call32" else f"{name}/32"] = outcome(came)
    return found


def outcome(came: str) -> str:
    return next((name for name, number in NAMES.items() if number == came), "done")


FIRST_NEWER = 451
NEWER = """cachestat fchmodat2 map_shadow_stack futex_wake futex_wait futex_requeue statmount listmount
lsm_get_self_attr lsm_set_self_attr lsm_list_modules mseal setxattrat getxattrat listxattrat removexattrat
open_tree_attr file_getattr file_setattr"""


def call_names(bits: str) -> dict[int, str]:
    """The names of system calls by number: the kernel's header, and newer ones, whose numbers are alike everywhere."""
    text = Path(f"/usr/include/x86_64-linux-gnu/asm/unistd_{bits}.h").read_text()
    names = {int(number): name for name, number in re.findall(r"#define __NR_(\w+) (\d+)", text)}
    return {**dict(enumerate(NEWER.split(), FIRST_NEWER)), **names}


@dataclass(frozen=True)
class Known:
    """Calls and rules that are not alike, and why: what Docker says, what the machine says."""

    reason: str
    docker: str
    here: str
    names: str


REMAINING = (
    Known(
        "RestrictAddressFamilies= has its own errno",
        "EPERM",
        "EAFNOSUPPORT",
        "socket(AF_ALG) socket(AF_VSOCK)",
    ),
    Known("nspawn's own rule against audit", "done", "EAFNOSUPPORT", "socket(NETLINK_AUDIT)"),
    Known(
        "nothing here looks at the argument", "EPERM", "done", "personality personality(ADDR_NO_RANDOMIZE)"
    ),
    Known("Linux has no such call any more", "EPERM", "ENOSYS", "nfsservctl nfsservctl/32"),
    Known(
        "old calls of 32-bit programs, harmless, not in Docker's list",
        "EPERM",
        "done",
        "nice/32 oldfstat/32 oldlstat/32 oldolduname/32 oldstat/32 olduname/32 readdir/32 sigaction/32 signal/32 "
        "sigpending/32 sigsuspend/32",
    ),
)
NEWER_THAN_26 = (
    "cachestat fchmodat2 futex_requeue futex_wait futex_wake getxattrat listmount listxattrat mseal "
)
NEWER_THAN_26 += "lsm_get_self_attr lsm_list_modules lsm_set_self_attr removexattrat setxattrat statmount"
OLDER_PROFILE = (
    Known("newer than this Docker's profile", "ENOSYS", "done", NEWER_THAN_26 + " set_mempolicy_home_node"),
    Known(
        "the same, and the newest profile forbids it, or the kernel does",
        "ENOSYS",
        "EPERM",
        "lsm_get_self_attr lsm_list_modules lsm_set_self_attr set_mempolicy_home_node",
    ),
)
PROFILE_OF_20 = (
    *OLDER_PROFILE,
    Known("Docker forbids it since 25", "done", "EPERM", "io_uring_enter io_uring_register io_uring_setup"),
    Known(
        "Docker allows it since then",
        "EPERM",
        "done",
        "name_to_handle_at pkey_alloc pkey_free pkey_mprotect process_vm_readv process_vm_writev clock_settime64",
    ),
)
WITHOUT_UNIT = (
    Known("RestrictNamespaces= is the unit's", "ENOSYS", "done", "clone3 clone3() clone3(CLONE_NEWUSER)"),
    Known(
        "RestrictNamespaces= is the unit's",
        "EPERM",
        "done",
        "clone clone(CLONE_NEWUSER) clone(CLONE_NEWUSER|CLONE_NEWNS)",
    ),
)


def unexplained(
    docker: Mapping[str, str], here: Mapping[str, str], *known: Known
) -> dict[str, tuple[str, str]]:
    """The calls that are not alike for no reason that is known: what Docker says, what the machine says."""
    assert docker.keys() == here.keys()
    assert len(here) > 750  # nothing was lost on the way
    reasons = {(name, one.docker, one.here) for one in known for name in one.names.split()}
    return {
        name: (docker[name], here[name])
        for name in docker
        if docker[name] != here[name]
        and (name, docker[name], here[name]) not in reasons
        and (name.removesuffix("/32"), docker[name], here[name]) not in reasons
    }


@pytest.mark.parametrize("case", CASES)
def test_docker_26_and_systemd_257(tree: Path, systemd_host: lab.Host, case: str) -> None:
    docker = in_docker(tree, systemd_host.docker, case)
    here = started(tree, systemd_host, case)
    known = () if CASES[case][1] else (*REMAINING, *OLDER_PROFILE)
    assert unexplained(docker, here, *known) == {}
    assert here["pthread_create"] == here["clone()"] == "done"
    assert here["no_new_privs"] == "done"  # 0: programs with set-uid work
    if case == "default":
        assert here["clone3()"] == "ENOSYS"
        assert here["clone(CLONE_NEWUSER)"] == here["unshare(CLONE_NEWUSER)"] == here["mount"] == "EPERM"
        assert here["socket(AF_VSOCK)"] == "EAFNOSUPPORT"


@pytest.mark.parametrize("case", CASES)
def test_docker_20_and_systemd_252(tree: Path, docker_host: str, case: str) -> None:
    docker = in_docker(tree, docker_host, case)
    here = directly(tree, case)
    known = () if CASES[case][1] else (*REMAINING, *PROFILE_OF_20, *WITHOUT_UNIT)
    assert unexplained(docker, here, *known) == {}
    assert here["pthread_create"] == "done"
    if case == "default":
        assert here["unshare(CLONE_NEWUSER)"] == here["mount"] == here["io_uring_setup"] == "EPERM"
