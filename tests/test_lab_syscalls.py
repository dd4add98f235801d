"""Every system call in `docker run` and in a machine with converter.machine.syscalls' policy: refused or not, alike.

Refused is EPERM or ENOSYS. What a call says that gets past the filters is the kernel's affair; where the kernel refuses
it too, by a capability, both are the same to a program.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
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
DOCKER = frozenset(
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
MORE_OF_NSPAWN = frozenset(
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
)
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
    settings.write_text(render(machine(name, case, version)[0], HEADING))
    try:
        options = ["--register=no", "--keep-unit", "--quiet", "--settings=override", f"--directory={tree}"]
        done = lab.run("systemd-nspawn", *options, f"--machine={name}")
    finally:
        settings.unlink()
    assert done.stderr == ""
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
    assert not re.search(r"ignoring|not known|Failed", output), output[-2000:]
    return read(output)


def read(output: str) -> dict[str, str]:
    """Call or rule, by name: EPERM, ENOSYS or "done"; of rules also EAFNOSUPPORT, of numbers the number."""
    assert "probe end" in output, output[-2000:]
    names = {"call": call_names("64"), "call32": call_names("32")}
    found: dict[str, str] = {}
    for kind, what, came in re.findall(r"^(call|call32|rule) (.+) (\w+)\s*$", output, re.MULTILINE):
        name = what if kind == "rule" else names[kind].get(int(what), what)
        found[name if kind != "call32" else f"{name}/32"] = outcome(came)
    return found


def outcome(came: str) -> str:
    return next((name for name, number in NAMES.items() if number == came), "done")


def call_names(bits: str) -> dict[int, str]:
    """The names of system calls by number: the kernel's header, and the newer ones, whose numbers are everywhere alike."""
    text = Path(f"/usr/include/x86_64-linux-gnu/asm/unistd_{bits}.h").read_text()
    names = {int(number): name for name, number in re.findall(r"#define __NR_(\w+) (\d+)", text)}
    return {**dict(enumerate(NEWER, FIRST_NEWER)), **names}


FIRST_NEWER = 451
NEWER = [
    "cachestat",
    "fchmodat2",
    "map_shadow_stack",
    "futex_wake",
    "futex_wait",
    "futex_requeue",
    "statmount",
    "listmount",
    "lsm_get_self_attr",
    "lsm_set_self_attr",
    "lsm_list_modules",
    "mseal",
    "setxattrat",
    "getxattrat",
    "listxattrat",
    "removexattrat",
    "open_tree_attr",
    "file_getattr",
    "file_setattr",
]


def differences(docker: Mapping[str, str], here: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    assert docker.keys() == here.keys()
    return {name: (docker[name], here[name]) for name in docker if docker[name] != here[name]}


@pytest.mark.parametrize("case", CASES)
def test_docker_26_and_systemd_257(tree: Path, systemd_host: lab.Host, case: str) -> None:
    docker = in_docker(tree, systemd_host.docker, case)
    assert differences(docker, started(tree, systemd_host, case)) == {}


@pytest.mark.parametrize("case", CASES)
def test_docker_20_and_systemd_252(tree: Path, docker_host: str, case: str) -> None:
    docker = in_docker(tree, docker_host, case)
    assert differences(docker, directly(tree, case)) == {}
