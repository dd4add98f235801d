"""What is made of a container, on real systems: Docker's own inspect, systemd's own parsers, the kernel's own masks."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from converter.machine.capabilities import ALL, DOCKER_DEFAULT, nspawn_capabilities
from converter.machine.container import ContainerSettings, container_settings
from converter.machine.model import Machine
from converter.machine.settings import render
from converter.machine.unit import render_drop_in
from tests import lab
from tests.test_container import EVERYTHING, PLAIN, unnamed_fields

pytestmark = pytest.mark.lab

BUSYBOX = Path("/bin/busybox")
COMPLAINTS = re.compile(r"unknown|ignoring|invalid|failed to (parse|extract|resolve)", re.IGNORECASE)

# Linux's numbers (include/uapi/linux/capability.h), to read a mask by other means than our own names.
CAPABILITIES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT "
    "SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP "
    "MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
)
MASKS = {
    "default": DOCKER_DEFAULT,
    "none": frozenset[str](),
    "all": ALL,
    "more": DOCKER_DEFAULT | {"CAP_SYS_ADMIN", "CAP_NET_ADMIN"},
    "newest": frozenset({"CAP_BPF", "CAP_PERFMON", "CAP_CHECKPOINT_RESTORE"}),
}

OPTIONS = (
    "--add-host db:10.1.2.3 --add-host up:host-gateway --blkio-weight 300 --cap-add NET_ADMIN --cap-add sys_time "
    "--cap-drop CAP_MKNOD --cgroup-parent lab-container.slice --cpu-period 50000 --cpu-quota 12345 --cpu-shares 512 "
    "--cpuset-cpus 0 --cpuset-mems 0 --device /dev/null:/dev/xnull:r --device-cgroup-rule c_13:*_rmw "
    "--device-read-bps /dev/zero:1mb --device-write-bps /dev/zero:2mb --device-read-iops /dev/zero:100 "
    "--device-write-iops /dev/zero:200 --dns 10.0.0.53 --dns-option ndots:2 --dns-search example.org --gpus all "
    "--group-add 44 --group-add audio --init --ipc shareable --log-opt max-size=1m --memory 64m "
    "--memory-reservation 32m --memory-swap 96m --memory-swappiness 10 "
    "--mount type=bind,src=/usr/share,dst=/host_share,readonly,bind-propagation=rslave "
    "--mount type=tmpfs,dst=/scratch,tmpfs-size=1048576,tmpfs-mode=1770 "
    "--oom-kill-disable --oom-score-adj 100 --pid host --pids-limit 100 --publish 8080:80 "
    "--publish 127.0.0.1:5353:53/udp --publish 9000-9001:9000-9001 --expose 7070 --publish-all --read-only "
    "--restart on-failure:5 --security-opt no-new-privileges --security-opt seccomp=unconfined "
    "--security-opt systempaths=unconfined --shm-size 128m --sysctl net.core.somaxconn=1024 "
    "--sysctl kernel.msgmax=4242 --tmpfs /tmp:size=10m,exec,mode=1777 --ulimit nofile=1024:2048 --ulimit core=0 "
    "--ulimit memlock=-1 --ulimit rttime=5000000 --uts host --userns host --volume /anonymous "
    "--volume /etc/hostname:/from/host:ro,z --runtime io.containerd.runc.v2 --volume-driver local"
)


def as_machine(name: str, settings: ContainerSettings, *command: str) -> Machine:
    """The part of a machine that a container's settings decide."""
    capability, drop = nspawn_capabilities(settings.capabilities)
    return Machine(
        name=name,
        process_two=settings.process_two,
        parameters=command,
        capability=capability,
        drop_capability=drop,
        no_new_privileges=settings.no_new_privileges,
        limits=settings.limits,
        oom_score_adjust=settings.oom_score_adjust,
        cpu_affinity=settings.cpu_affinity,
        read_only=settings.read_only,
        binds=settings.binds,
        temporary_file_systems=settings.temporary_file_systems,
        private_users="no",
        kill_signal="SIGTERM",
        virtual_ethernet=False,
        unit=settings.unit,
        unit_environment=settings.unit_environment,
    )


def tree(path: Path) -> Path:
    """A root with nothing but busybox."""
    for name in (
        "bin",
        "usr",
        "proc",
        "dev",
        "sys",
        "tmp",
        "run",
        "etc",
        "host share",
        "scratch",
        "var/log",
        "root",
    ):
        (path / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(BUSYBOX, path / "bin/busybox")
    (path / "from").mkdir(exist_ok=True)
    (path / "from/host").touch()  # with ReadOnly=yes nspawn cannot make what it mounts on
    return path


class OnHost:
    """Machines on the booted host, taken away at the end."""

    def __init__(self, host: lab.Host) -> None:
        self.host = host
        self._paths: list[Path] = []

    def install(self, machine: Machine) -> None:
        root = self.host.root
        directory = tree(root / "var/lib/machines" / machine.name)
        settings = root / "etc/systemd/nspawn" / f"{machine.name}.nspawn"
        drop_in = root / f"etc/systemd/system/systemd-nspawn@{machine.name}.service.d/docker2nspawn.conf"
        for path, text in ((settings, render(machine, "lab")), (drop_in, render_drop_in(machine, "lab"))):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self._paths += [directory, settings, drop_in.parent]

    def remove(self) -> None:
        for path in self._paths:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.host.run("systemctl", "daemon-reload")


@pytest.fixture
def machines(systemd_host: lab.Host) -> Iterator[OnHost]:
    on_host = OnHost(systemd_host)
    try:
        yield on_host
    finally:
        on_host.remove()


def mask(names: frozenset[str]) -> int:
    """The mask of `names`, without what this machine itself may not give."""
    ours = shown_mask(Path("/proc/self/status").read_text())
    return ours & sum(1 << CAPABILITIES.split().index(name.removeprefix("CAP_")) for name in names)


def shown_mask(output: str) -> int:
    match = re.search(r"CapBnd:\s*([0-9a-f]{16})", output)
    assert match, output
    return int(match[1], 16)


STATUS = ("/bin/busybox", "cat", "/proc/self/status")


def limited(name: str) -> Machine:
    """A machine with the bounding set of that name, that shows it."""
    capability, drop = nspawn_capabilities(MASKS[name])
    return Machine(
        name=f"container-cap-{name}",
        parameters=STATUS,
        capability=capability,
        drop_capability=drop,
        private_users="no",
        virtual_ethernet=False,
    )


@pytest.mark.parametrize("name", MASKS)
def test_the_bounding_set_is_the_one_that_was_meant_on_this_systemd(work: Path, name: str) -> None:
    """By systemd-nspawn of this machine (252 on Debian 12), without a machined."""
    machine = limited(name)
    directory = tree(work / machine.name)
    settings = Path("/run/systemd/nspawn") / f"{machine.name}.nspawn"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text(render(machine, "lab"))
    try:
        done = lab.run(
            *("systemd-nspawn", "--register=no", "--keep-unit", "--settings=override"),
            *(f"--directory={directory}", f"--machine={machine.name}"),
        )
    finally:
        settings.unlink()
    assert shown_mask(done.stdout) == mask(MASKS[name])
    assert not COMPLAINTS.search(done.stderr), done.stderr


@pytest.mark.parametrize("name", MASKS)
def test_the_bounding_set_is_the_one_that_was_meant_under_machinectl(machines: OnHost, name: str) -> None:
    machine = limited(name)
    machines.install(machine)
    output = machines.host.run_machine(machine.name)
    assert shown_mask(output) == mask(MASKS[name])
    assert not COMPLAINTS.search(output), output


def complaints(host: lab.Host, name: str) -> str:
    """What systemd says about the unit of a machine when it reads it."""
    done = host.run("systemd-analyze", "verify", f"systemd-nspawn@{name}.service", check=False)
    return "\n".join(line for line in (done.stdout + done.stderr).splitlines() if COMPLAINTS.search(line))


def test_everything_at_once_is_understood(machines: OnHost) -> None:
    settings = container_settings(EVERYTHING, systemd=257, volumes="copy", machine_name="container-all")
    there = tuple(bind for bind in settings.binds if not bind.source.startswith("/dev/"))
    machine = as_machine("container-all", replace(settings, binds=there), *STATUS)
    machines.install(replace(machine, unit=settings.unit))
    assert complaints(machines.host, "container-all") == ""
    output = machines.host.run_machine("container-all")
    assert shown_mask(output) == mask(settings.capabilities)
    assert re.search(r"NoNewPrivs:\s*1", output)
    assert re.search(r"Cpus_allowed_list:\s*0-1", output)
    assert not COMPLAINTS.search(output), output


def test_the_older_systemd_understands_its_own_settings(work: Path) -> None:
    """By systemd-analyze of this machine (252 on Debian 12), which needs no running systemd."""
    host = {
        **EVERYTHING["HostConfig"],
        "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3},
        "BlkioWeight": 10,
        "BlkioWeightDevice": [{"Path": '/dev/a "b\\%n', "Weight": 1000}],
        "Devices": [{"PathOnHost": '/dev/a "b\\%n', "CgroupPermissions": "rw"}],
        "DeviceCgroupRules": ["a *:* rwm", "c 1:3 r", "b 8:* m"],
        "LogConfig": {"Type": "none", "Config": {}},
    }
    version = int(re.findall(r"systemd (\d+)", lab.run("systemctl", "--version").stdout)[0])
    for privileged in (False, True):
        inspected = {**EVERYTHING, "HostConfig": {**host, "Privileged": privileged}}
        settings = container_settings(inspected, systemd=version, volumes="copy", machine_name="m")
        units = work / f"units-{privileged}"
        (units / "systemd-nspawn@m.service.d").mkdir(parents=True)
        shutil.copy("/lib/systemd/system/systemd-nspawn@.service", units)
        (units / "systemd-nspawn@m.service.d/d.conf").write_text(
            render_drop_in(as_machine("m", settings), "lab")
        )
        done = lab.run(
            *("systemd-analyze", "verify", "--man=no", "systemd-nspawn@m.service"),
            check=False,
            SYSTEMD_UNIT_PATH=f"{units}:",
        )
        assert not COMPLAINTS.search(done.stdout + done.stderr), done.stderr
        (units / "systemd-nspawn@m.service.d/d.conf").write_text("[Service]\nNoSuchKey=1\n")
        done = lab.run(
            *("systemd-analyze", "verify", "--man=no", "systemd-nspawn@m.service"),
            check=False,
            SYSTEMD_UNIT_PATH=f"{units}:",
        )
        assert COMPLAINTS.search(done.stderr), "it would not have said so"


def test_what_is_set_reaches_the_program(machines: OnHost) -> None:
    inspected = {
        "HostConfig": {
            "Sysctls": {"kernel.msgmax": "4242", "kernel.sem": "250 32000 32 77", "fs.mqueue.msg_max": "33"},
            "ShmSize": 1048576,
            "Memory": 64 << 20,
            "MemorySwap": 80 << 20,
            "PidsLimit": 50,
            "CpuQuota": 50000,
            "Ulimits": [{"Name": "nofile", "Soft": 100, "Hard": 200}],
            "Devices": [
                {"PathOnHost": "/dev/null", "PathInContainer": "/dev/x y", "CgroupPermissions": "rwm"}
            ],
            "Tmpfs": {"/scratch": "size=1m,exec"},
            "Privileged": True,
        }
    }
    settings = container_settings(inspected, systemd=257, volumes="copy", machine_name="container-set")
    shell = (
        "/bin/busybox",
        "sh",
        "-c",
        "cd /proc/sys; b=/bin/busybox; $b cat kernel/msgmax kernel/sem fs/mqueue/msg_max; "
        "$b grep -e ' /dev/shm ' -e ' /scratch ' /proc/mounts; ulimit -n; ulimit -Hn; "
        "echo >'/dev/x y' && echo written; echo ready; exec $b sleep 60",
    )
    machines.install(as_machine("container-set", settings, *shell))
    assert complaints(machines.host, "container-set") == ""
    host = machines.host
    host.run("systemctl", "daemon-reload")
    host.run("machinectl", "start", "container-set")
    try:
        lab.wait_until("the program", lambda: "ready" in host.journal("container-set"))
        output = host.journal("container-set")
        unit = "systemd-nspawn@container-set.service"
        shown = host.run("systemctl", "show", unit, *(f"--property={name}" for name in LIMITS)).stdout
        assert dict(line.split("=") for line in shown.splitlines()) == LIMITS
        group = f"/sys/fs/cgroup/machine.slice/{unit}"
        tasks = host.run("find", group, "-name", "cgroup.procs", "-exec", "cat", "{}", "+").stdout
    finally:
        host.run("machinectl", "terminate", "container-set")
    for expected in ("4242", "250\t32000\t32\t77", "33", "100", "200", "written"):
        assert expected in output.splitlines(), output
    assert "size=1024k" in output
    assert re.search(r"/dev/shm tmpfs rw,nosuid,nodev,noexec", output)
    assert "noexec" not in next(line for line in output.splitlines() if " /scratch " in line)
    assert len(tasks.split()) == 2  # the program, and nspawn, which TasksMax= has to allow for


LIMITS = {
    "MemoryMax": str(64 << 20),
    "MemorySwapMax": str(16 << 20),
    "TasksMax": "51",
    "CPUQuotaPerSecUSec": "500ms",
    "DevicePolicy": "auto",
}


def test_device_nodes_can_be_made_and_not_opened(machines: OnHost) -> None:
    """As in Docker: also those of loop devices, which the unit's template would open to the machine."""
    settings = container_settings({}, systemd=257, volumes="copy", machine_name="container-nodes")
    script = (
        "cd /root; b=/bin/busybox; for n in 'b 7 0' 'b 8 0' 'c 10 229' 'c 1 3'; do "
        "$b mknod x $n || echo unmade; $b dd if=x of=/dev/null count=1 2>/dev/null && echo opened $n; $b rm -f x; done"
    )
    machines.install(as_machine("container-nodes", settings, "/bin/busybox", "sh", "-c", script))
    output = machines.host.run_machine("container-nodes")
    assert "unmade" not in output
    assert re.findall("opened .*", output) == ["opened c 1 3"]


def test_on_failure_ends_after_as_many_restarts_as_docker_makes(machines: OnHost) -> None:
    inspected = {"HostConfig": {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2}}}
    settings = container_settings(inspected, systemd=257, volumes="copy", machine_name="container-try")
    machine = as_machine("container-try", settings, "/bin/busybox", "sh", "-c", "echo tried; exit 3")
    machines.install(machine)
    host = machines.host
    host.run("systemctl", "daemon-reload")
    unit = "systemd-nspawn@container-try.service"
    for round_ in (1, 2):  # a start by hand counts from 0 again, as in Docker
        host.run("machinectl", "start", "container-try", check=False)
        lab.wait_until(
            "the last try",
            lambda: (
                host.run("systemctl", "show", "-P", "SubState", unit).stdout.strip() in ("dead", "failed")
            ),
        )
        assert host.journal("container-try").splitlines().count("tried") == 3 * round_


def test_every_option_of_docker_create_is_named(docker_host: str, work: Path) -> None:
    options = [option.replace("c_13:*_rmw", "c 13:* rmw") for option in OPTIONS.split()]
    created = []
    empty = work / "empty.tar"
    lab.run("tar", "-cf", empty, "--files-from=/dev/null")
    lab.run("docker", "import", empty, "lab/container-empty", DOCKER_HOST=docker_host)
    try:
        for arguments in ([], options):
            done = lab.run(
                "docker", "create", *arguments, "lab/container-empty", "true", DOCKER_HOST=docker_host
            )
            created.append(done.stdout.split()[-1])
        shown = lab.run("docker", "inspect", *created, DOCKER_HOST=docker_host).stdout
    finally:
        lab.run("docker", "rm", "--volumes", *created, check=False, DOCKER_HOST=docker_host)
        lab.run("docker", "rmi", "lab/container-empty", check=False, DOCKER_HOST=docker_host)
    plain, everything = (dict(entry) for entry in json.loads(shown))
    differing = different_fields(plain, everything)
    assert len(differing) > 40
    settings = container_settings(everything, systemd=257, volumes="copy", machine_name="machine")
    assert unnamed_fields(differing, settings) == []


def different_fields(plain: Mapping[str, Any], everything: Mapping[str, Any]) -> list[str]:
    return [
        name for name, value in everything["HostConfig"].items() if value != plain["HostConfig"].get(name)
    ]


def test_the_fixture_is_dockers_own() -> None:
    assert set(PLAIN["HostConfig"]) <= set(EVERYTHING["HostConfig"])
