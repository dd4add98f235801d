"""Health checks on a booted host: what they see, what becomes of their results, what a machine cannot do to them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from converter.image.model import this_platform
from converter.machine.health import health_files, health_unit_settings
from converter.machine.launcher import capability_mask, launcher_for
from converter.machine.model import Account, Healthcheck, Machine
from converter.machine.settings import render
from converter.machine.unit import render_drop_in
from tests import lab

pytestmark = pytest.mark.lab

IMAGE = "lab-health/busybox"
DOCKER_DEFAULT = frozenset(
    {
        *(
            "CAP_AUDIT_WRITE",
            "CAP_CHOWN",
            "CAP_DAC_OVERRIDE",
            "CAP_FOWNER",
            "CAP_FSETID",
            "CAP_KILL",
            "CAP_MKNOD",
        ),
        *("CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID"),
        "CAP_SYS_CHROOT",
    }
)
NSPAWN_MORE = (
    *("CAP_AUDIT_CONTROL", "CAP_DAC_READ_SEARCH", "CAP_IPC_OWNER", "CAP_LEASE", "CAP_LINUX_IMMUTABLE"),
    *(
        "CAP_NET_BROADCAST",
        "CAP_SYS_ADMIN",
        "CAP_SYS_BOOT",
        "CAP_SYS_NICE",
        "CAP_SYS_RESOURCE",
        "CAP_SYS_TTY_CONFIG",
    ),
)
ROOT = Account(0, 0, (0,), "/")


@pytest.fixture(scope="module")
def busybox(work: Path) -> Path:
    """A tree with busybox and nothing else."""
    tree = work / "health-tree"
    for name in "bin", "usr/share", "etc":
        (tree / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", tree / "bin/busybox")
    listed = lab.run("/bin/busybox", "--list").stdout.split()
    for name in listed:
        if name != "busybox":
            (tree / "bin" / name).symlink_to("busybox")
    (tree / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\napp:x:1000:7::/:/bin/sh\n")
    (tree / "etc/group").write_text("root:x:0:\napp:x:7:\nextra:x:8:app\n")
    return tree


@dataclass(frozen=True)
class Checked:
    """A machine with a health check on the booted host."""

    host: lab.Host
    name: str

    @property
    def tree(self) -> Path:
        return self.host.root / "var/lib/machines" / self.name

    @property
    def service(self) -> str:
        return f"docker2nspawn-health@{self.name}.service"

    def start(self) -> None:
        self.host.run("systemctl", "daemon-reload")
        self.host.run("machinectl", "start", self.name)

    def stop(self) -> None:
        self.host.run("systemctl", "stop", f"systemd-nspawn@{self.name}.service", check=False)

    def property(self, key: str, unit: str = "") -> str:
        return self.host.run(
            "systemctl", "show", "--value", f"--property={key}", unit or self.service
        ).stdout.strip()

    def shows(self) -> tuple[str, str]:
        """The states of the service, and its line "Status:"."""
        return self.property("ActiveState"), self.property("StatusText")

    def becomes(self, state: str, status: str) -> None:
        lab.wait_until(
            f"{self.name} {state}, {status}: {self.shows()}", lambda: self.shows() == (state, status), 30
        )

    def journal(self, *, of_systemd: bool = False) -> str:
        """What checks and script have said, or what systemd has about the service."""
        self.host.run("journalctl", "--sync")
        whose = "systemd" if of_systemd else "docker2nspawn-health"
        return self.host.run(
            "journalctl",
            "--no-pager",
            "--output=cat",
            "--all",
            f"--unit={self.service}",
            f"--identifier={whose}",
        ).stdout

    def processes(self) -> str:
        """The command lines in the machine's control group."""
        return self.host.run(
            "sh", "-c",
            f"for p in $(cat /sys/fs/cgroup/machine.slice/systemd-nspawn@{self.name}.service/payload/cgroup.procs); do "
            "tr '\\0' ' ' </proc/$p/cmdline; echo; done",
        ).stdout  # fmt: skip


@pytest.fixture
def machines(systemd_host: lab.Host) -> Iterator[list[Checked]]:
    made: list[Checked] = []
    yield made
    for machine in made:
        machine.stop()
        assert machine.property("ActiveState", machine.service.replace(".service", ".timer")) == "inactive"
        shutil.rmtree(machine.tree)


def make(
    machines: list[Checked],
    host: lab.Host,
    busybox: Path,
    check: Healthcheck,
    *,
    name: str,
    account: Account = ROOT,
    environment: tuple[str, ...] = ("PATH=/bin",),
    working_directory: str = "/",
    capabilities: frozenset[str] = DOCKER_DEFAULT,
    no_new_privileges: bool = False,
    private_users: bool = False,
    command: tuple[str, ...] = ("/bin/sleep", "10000"),
    may_trace: bool = False,
) -> Checked:
    """A machine by hand, which runs `command` as root with Docker's capabilities (and CAP_SYS_PTRACE: `may_trace`)."""
    machine = Checked(host, name)
    shutil.copytree(busybox, machine.tree, symlinks=True)
    machines.append(machine)
    settings = Machine(
        name=name,
        parameters=command,
        drop_capability=NSPAWN_MORE if may_trace else (*NSPAWN_MORE, "CAP_SYS_PTRACE"),
        private_users="pick" if private_users else "no",
        private_users_ownership="map" if private_users else None,
        virtual_ethernet=False,
        link_journal="no",
        unit=health_unit_settings(name),
    )
    launcher = launcher_for(this_platform().architecture)
    assert launcher is not None
    files = {
        file.path: (file.content, file.mode)
        for file in health_files(
            name,
            check,
            account=account,
            environment=environment,
            working_directory=working_directory,
            bounding=capabilities,
            no_new_privileges=no_new_privileges,
            heading="by hand",
            launcher=launcher,
            limits={"LimitNOFILE": "1048576", "LimitCORE": "infinity", "LimitNPROC": "infinity"},
            private_users=private_users,
        )
    }
    files[f"etc/systemd/nspawn/{name}.nspawn"] = render(settings, "by hand").encode(), 0o644
    drop_in = f"etc/systemd/system/systemd-nspawn@{name}.service.d/docker2nspawn.conf"
    files[drop_in] = render_drop_in(settings, "by hand").encode(), 0o644
    for path, (content, mode) in files.items():
        at = host.root / path
        at.parent.mkdir(parents=True, exist_ok=True)
        at.write_bytes(content)
        at.chmod(mode)
    return machine


def test_starting_healthy_unhealthy_and_a_new_start(
    machines: list[Checked], systemd_host: lab.Host, busybox: Path
) -> None:
    check = Healthcheck(("/bin/cat", "/ok"), interval=1.5, retries=2)
    machine = make(machines, systemd_host, busybox, check, name="health-life")
    machine.start()
    machine.becomes("inactive", "starting")
    assert machine.property("Result") == "success"
    machine.becomes("inactive", "starting (1 of 2 failed)")
    (machine.tree / "ok").write_text("all is well\n")
    machine.becomes("inactive", "healthy")
    (machine.tree / "ok").unlink()
    machine.becomes("failed", "unhealthy (failures in a row: 2)")
    said = machine.journal()
    for line in "all is well", "cat: can't open '/ok': No such file or directory", "health-life is healthy":
        assert line in said.splitlines()
    assert "health-life is unhealthy" in said and "the check failed with status 1" in said
    # Each run that succeeds leaves nothing but its output.
    assert not re.search("Starting|Finished|Deactivated", machine.journal(of_systemd=True))

    machine.stop()
    assert machine.property("ActiveState", machine.service.replace(".service", ".timer")) == "inactive"
    machine.start()
    machine.becomes("inactive", "starting")

    # Nobody has warned about anything in the units.
    units = ("docker2nspawn-health@health-life.timer", machine.service)
    assert systemd_host.run("systemd-analyze", "verify", *units).stderr == ""


def test_an_unhealthy_machine_is_restarted_when_asked(
    machines: list[Checked], systemd_host: lab.Host, busybox: Path
) -> None:
    check = Healthcheck(("/bin/false",), interval=0.5, retries=1, restart=True)
    machine = make(machines, systemd_host, busybox, check, name="health-restart")
    unit = "systemd-nspawn@health-restart.service"
    machine.start()
    first = machine.property("InvocationID", unit)
    lab.wait_until(
        "the restart",
        lambda: (
            machine.property("InvocationID", unit) not in {first, ""}
            and machine.property("ActiveState", unit) == "active"
        ),
    )
    lab.wait_until("checks again", lambda: machine.journal().count("restarting health-restart") >= 2)


def test_a_check_that_takes_too_long_is_killed(
    machines: list[Checked], systemd_host: lab.Host, busybox: Path
) -> None:
    deaf = ("/bin/sh", "-c", "trap '' TERM; echo deaf; sleep 1234 & wait; wait")
    check = Healthcheck(deaf, interval=0.5, timeout=1, retries=1)
    machine = make(machines, systemd_host, busybox, check, name="health-slow")
    machine.start()
    lab.wait_until("the check", lambda: "sleep 1234" in machine.processes())
    machine.becomes("failed", "unhealthy (failures in a row: 1)")
    assert "deaf\nthe check took longer than 1 s\n" in machine.journal()
    systemd_host.run("systemctl", "stop", "docker2nspawn-health@health-slow.timer", machine.service)
    lab.wait_until("its end", lambda: "1234" not in machine.processes())
    assert "sleep 10000" in machine.processes()


def test_it_stops_with_the_machine_in_the_middle_of_a_check(
    machines: list[Checked], systemd_host: lab.Host, busybox: Path
) -> None:
    check = Healthcheck(("/bin/sleep", "1234"), start_period=100, start_interval=0.2, timeout=100)
    machine = make(machines, systemd_host, busybox, check, name="health-stop")
    machine.start()
    lab.wait_until("the check", lambda: "sleep 1234" in machine.processes())
    assert machine.shows() == ("activating", "starting")
    machine.stop()
    assert machine.property("ActiveState") == "inactive"


# What `docker exec` shows. PWD and SHLVL are the shell's own; the filter is compared by what it forbids.
SHOW = r"""
env | grep -v '^PWD=\|^SHLVL=' | sort
pwd -P; umask
grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp:)' /proc/self/status
grep -E 'open files|processes' /proc/self/limits | sed 's/   */ /g'
unshare -U true 2>/dev/null; echo user $?
mount -t tmpfs none /usr 2>/dev/null; echo mount $?
{ mknod /disk b 7 0 && cat /disk; } >/dev/null 2>&1; echo disk $?
hostname; tr '\0' ' ' </proc/1/cmdline; echo; ls -A /sys/fs/cgroup >/dev/null; echo
"""


@pytest.mark.parametrize(
    ("user", "account", "capabilities", "options"),
    [
        ("root", ROOT, DOCKER_DEFAULT, []),
        ("app", Account(1000, 7, (7, 8), "/"), DOCKER_DEFAULT, ["--security-opt=no-new-privileges"]),
        ("root", ROOT, frozenset({"CAP_CHOWN"}), ["--cap-drop=ALL", "--cap-add=CHOWN"]),
    ],
    ids=["root", "user", "weak"],
)
def test_it_sees_what_docker_exec_sees(
    machines: list[Checked],
    systemd_host: lab.Host,
    docker_host: str,
    busybox: Path,
    user: str,
    account: Account,
    capabilities: frozenset[str],
    options: list[str],
    request: pytest.FixtureRequest,
) -> None:
    name = f"health-see-{request.node.callspec.id}"  # each with a journal of its own
    variables = ("PATH=/bin", "A=two words 'and' \"quotes\" $(id) `id`", "LD_PRELOAD=/x", "N=1\n2", "E=")
    archive = busybox.parent / "health.tar"
    lab.run("tar", "-C", busybox, "-cf", archive, ".")
    lab.run("docker", "import", archive, IMAGE, DOCKER_HOST=docker_host)
    run = [
        "docker",
        "run",
        "--detach",
        "--rm",
        f"--user={user}",
        "--workdir=/usr/share",
        f"--hostname={name}",
    ]
    run += [*options, *(f"--env={variable}" for variable in variables), IMAGE, "/bin/sleep", "10000"]
    container = lab.run(*run, DOCKER_HOST=docker_host).stdout.strip()
    try:
        wanted = lab.run("docker", "exec", container, "/bin/sh", "-c", SHOW, DOCKER_HOST=docker_host).stdout
    finally:
        lab.run("docker", "rm", "--force", container, DOCKER_HOST=docker_host)

    machine = make(
        machines,
        systemd_host,
        busybox,
        Healthcheck(("/bin/sh", "-c", SHOW), interval=0.5),
        name=name,
        account=account,
        environment=(*variables, "HOME=/", f"HOSTNAME={name}"),
        working_directory="/usr/share",
        capabilities=capabilities,
        no_new_privileges="--security-opt=no-new-privileges" in options,
    )
    machine.start()
    machine.becomes("inactive", "healthy")
    machine.stop()
    seen = machine.journal().split(f"{name} is healthy\n")[0]
    assert [line.split() for line in seen.splitlines() if line] == [
        line.split() for line in wanted.splitlines() if line
    ]
    assert f"CapBnd:\t{capability_mask(capabilities):016x}" in wanted


def test_a_machine_with_user_ids_of_its_own(
    machines: list[Checked], systemd_host: lab.Host, busybox: Path
) -> None:
    show = "cat /proc/self/uid_map; id -u; readlink /proc/self/ns/user; grep CapBnd /proc/self/status"
    check = Healthcheck(("/bin/sh", "-c", show), interval=0.5)
    machine = make(machines, systemd_host, busybox, check, name="health-users", private_users=True)
    machine.start()
    machine.becomes("inactive", "healthy")
    said = machine.journal().splitlines()
    inside, outside, count = map(int, said[0].split())
    assert (inside, count, outside > 65_535, said[1]) == (0, 65_536, True, "0")
    leader = systemd_host.run(
        "machinectl", "show", "--value", "--property=Leader", machine.name
    ).stdout.strip()
    assert said[2] == systemd_host.run("readlink", f"/proc/{leader}/ns/user").stdout.strip()
    assert said[3].split() == ["CapBnd:", f"{capability_mask(DOCKER_DEFAULT):016x}"]


# Opens every /proc/PID/exe that it can and that is none of its own, and when nobody runs it any more, writes.
ATTACK = r"""
while :; do
    for process in /proc/[0-9]*; do
        case $(readlink $process/exe) in
            '' | /bin/busybox) ;;
            *) if exec 9<$process/exe; then break 2; fi ;;
        esac
    done 2>/dev/null
done
echo got "$(readlink /proc/self/fd/9)" >/result
while ! { echo evil >/proc/self/fd/9; } 2>/refused; do
    cat /refused >>/result
    grep -q busy /refused || break
done
echo done >>/result
exec sleep 10000
"""


@pytest.mark.parametrize("may_trace", [False, True])
def test_the_machine_gets_hold_of_a_program_of_the_host_and_cannot_write_to_it(
    machines: list[Checked], systemd_host: lab.Host, busybox: Path, may_trace: bool
) -> None:
    """CVE-2019-5736: the command is the program that starts it, over and over, so that the machine can catch it."""
    check = Healthcheck((*("/self", "--") * 1500, "/bin/true"), interval=0.5)
    name = f"health-attack-{may_trace}".lower()
    machine = make(
        machines, systemd_host, busybox, check, name=name, command=("/bin/sh", "/attack"), may_trace=may_trace
    )
    (machine.tree / "self").symlink_to("/proc/self/exe")
    (machine.tree / "attack").write_text(ATTACK)
    launcher = systemd_host.root / f"var/lib/docker2nspawn/machines/{name}.launch"
    before = launcher.read_bytes()
    machine.start()
    result = machine.tree / "result"
    lab.wait_until("the attack", lambda: result.exists() and "done" in result.read_text())
    said = result.read_text()
    assert re.match(rf"got .*({name}\.launch{'|/nsenter' if may_trace else ''})\n", said), said
    assert "Read-only file system" in said
    assert launcher.read_bytes() == before


def test_nothing_but_the_unit_may_run_it(
    machines: list[Checked], systemd_host: lab.Host, busybox: Path
) -> None:
    machine = make(
        machines,
        systemd_host,
        busybox,
        Healthcheck(("/bin/touch", "/touched"), interval=1000),
        name="health-hand",
    )
    machine.start()
    machine.becomes("inactive", "starting")
    done = systemd_host.run("sh", "/var/lib/docker2nspawn/machines/health-hand.health", check=False)
    assert "is for docker2nspawn-health@health-hand.service to run" in done.stdout
    assert not (machine.tree / "touched").exists()
