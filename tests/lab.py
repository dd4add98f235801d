"""The lab: real Docker daemons, registries and a booted systemd host on this one machine; docs/testing.md.

Everything that takes long is kept in a cache directory (D2N_LAB_CACHE, default /var/cache/docker2nspawn-lab), made
under a temporary name and renamed when it is complete. What is started here is ended here, by pid.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(os.environ.get("D2N_LAB_CACHE", "/var/cache/docker2nspawn-lab"))
_WORK = Path("/var/tmp")
_PREFIX = "docker2nspawn-lab-"

_HOST_PACKAGES = "systemd,systemd-sysv,systemd-container,dbus,iproute2,procps,ca-certificates,nftables"

# mmdebstrap's --include. systemd-host* are the hosts that machines are started on; 257 has its own newer Docker,
# which builds with BuildKit.
_ROOTS: dict[str, tuple[str, str]] = {
    "debian": ("bookworm", ""),
    "debian-systemd": ("bookworm", "systemd,systemd-sysv,dbus"),
    "systemd-host": ("trixie", f"{_HOST_PACKAGES},docker.io,docker-cli,docker-buildx,git,iptables,xz-utils"),
    "systemd-host-252": ("bookworm", _HOST_PACKAGES),
    "systemd-host-262": ("sid", _HOST_PACKAGES),
}
# A mirror's sid may be a snapshot whose time has run out.
_ROOT_OPTIONS = {"sid": ('--aptopt=Acquire::Check-Valid-Until "false"',)}

HOST_ROOTS = {"252": "systemd-host-252", "257": "systemd-host", "262": "systemd-host-262"}
"""systemd's version -> the root of a host that has it (Debian 12, 13 and sid)."""


def switched_on() -> bool:
    """Is the lab asked for, and so required?"""
    return os.environ.get("D2N_LAB") == "1"


def run(
    *command: str | Path, check: bool = True, timeout: float = 120, **more: str
) -> subprocess.CompletedProcess[str]:
    """A command with its output; a failure shows what it said."""
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=timeout,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **more},
    )
    if check and done.returncode != 0:
        raise AssertionError(f"{command} failed with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done


def wait_until(what: str, condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for something to come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.1)


def root_tarball(name: str) -> Path:
    """A Debian root as a tar, from the cache or made now (about 15 s)."""
    suite, include = _ROOTS[name]
    mark = hashlib.sha256(f"{suite} {include}".encode()).hexdigest()[:12]
    path = CACHE / f"{name}-{mark}.tar"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        command = ["mmdebstrap", "--variant=minbase", "--quiet", *_ROOT_OPTIONS.get(suite, ())]
        command += [f"--include={include}"] if include else []
        with tempfile.TemporaryDirectory(dir=CACHE, prefix=".making-") as making:
            made = Path(making) / "root.tar"
            run(*command, suite, made, timeout=900)
            made.replace(path)
    return path


@contextlib.contextmanager
def process(
    command: Sequence[str | Path], log: Path, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A background process, ended at the end."""
    with log.open("wb") as output:
        started = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            start_new_session=True,
        )
    try:
        yield started
    finally:
        started.send_signal(signal.SIGTERM)
        try:
            started.wait(30)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


@contextlib.contextmanager
def workspace() -> Iterator[Path]:
    """A directory for one run of the lab, on a real disk; those of dead runs are cleared away first."""
    for old in _WORK.glob(f"{_PREFIX}*"):
        owner = old.name.removeprefix(_PREFIX).partition("-")[0]
        if not Path("/proc", owner).exists():
            _clear(old)
    path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=_WORK))
    try:
        yield path
    finally:
        _clear(path)


def _clear(path: Path) -> None:
    """Remove a workspace: end what still runs in it, unmount what is still mounted below it."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(path).encode() in entry.read_bytes() and int(entry.parent.name) != os.getpid():
                os.kill(int(entry.parent.name), signal.SIGKILL)
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in reversed(mounts):
        if mount.startswith(f"{path}/"):
            run("umount", "--lazy", mount, check=False)
    shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def docker_engine(work: Path) -> Iterator[str]:
    """This machine's own Docker Engine (Debian 12: 20.10); used when it runs already, else started. Its DOCKER_HOST."""
    host = "unix:///var/run/docker.sock"

    def answers() -> bool:
        return run("docker", "info", check=False, DOCKER_HOST=host).returncode == 0

    if answers():
        yield host
        return
    Path("/var/run/docker.pid").unlink(missing_ok=True)  # of a daemon that was killed
    with process(["dockerd"], work / "dockerd.log"):
        wait_until("dockerd", answers)
        yield host


@dataclass(frozen=True)
class Host:
    """A booted systemd host: its root directory as seen from here, its init's pid, its systemd's version."""

    root: Path
    leader: int
    version: str = "257"

    @property
    def docker(self) -> str:
        """DOCKER_HOST of the Docker Engine that runs there."""
        return f"unix:///proc/{self.leader}/root/run/docker.sock"

    def run(self, *command: str, check: bool = True, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command on the host."""
        return run("nsenter", "-t", str(self.leader), "-a", *command, check=check, timeout=timeout)

    def journal(self, name: str, after: str = "") -> str:
        """What machine `name` and its unit have printed; `after` is a cursor of the journal."""
        self.run("journalctl", "--sync")
        options = [f"--after-cursor={after}"] if after else []
        unit = f"--unit=systemd-nspawn@{name}.service"
        return self.run("journalctl", "--no-pager", "--output=cat", "--all", unit, *options).stdout

    def run_machine(self, name: str) -> str:
        """Start a machine whose program ends by itself, wait for its end, return its output."""
        shown = self.run("journalctl", "--no-pager", "--lines=1", "--show-cursor").stdout
        self.run("systemctl", "daemon-reload")
        self.run("machinectl", "start", name)
        unit = f"systemd-nspawn@{name}.service"
        running = {"active", "activating", "deactivating"}
        wait_until(
            f"the end of {name}",
            lambda: self.run("systemctl", "is-active", unit, check=False).stdout.strip() not in running,
        )
        return self.journal(name, after=shown.rpartition("cursor: ")[2].strip())


def _room_for_inits() -> None:
    """All hosts, and the machines on them, share root's inotify instances, of which the kernel gives 128."""
    setting = Path("/proc/sys/fs/inotify/max_user_instances")
    if int(setting.read_text()) < 1024:
        setting.write_text("1024")


def _unified_cgroups() -> Path:
    """Where this machine's cgroup v2 hierarchy is mounted."""
    mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    return next(Path(mount[1]) for mount in mounts if mount[2] == "cgroup2")


@contextlib.contextmanager
def systemd_host(work: Path, version: str = "257") -> Iterator[Host]:
    """Boot a host with that systemd (252, 257 or 262; 257 has Docker 26), in a network of its own."""
    _room_for_inits()
    name = HOST_ROOTS[version]
    root = work / name
    root.mkdir()
    run("tar", "-C", root, "-xf", root_tarball(name), "--xattrs", "--xattrs-include=*", timeout=300)
    command: list[str | Path] = [
        "systemd-nspawn",
        "--register=no",
        "--keep-unit",
        "--boot",
        "--capability=all",
    ]
    command += ["--private-users=no", "--console=read-only", "--resolv-conf=off", "--private-network"]
    command += [f"--directory={root}", f"--machine=lab{version}-{os.getpid()}"]
    environment = {
        "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
        "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "1",
        "SYSTEMD_SECCOMP": "0",
    }
    # Hosts that share control groups share those of units with the same name.
    group = Path(tempfile.mkdtemp(prefix=f"docker2nspawn-lab-{version}-", dir=_unified_cgroups()))
    join = 'echo $$ >"$0/cgroup.procs" && exec "$@"'
    command = ["/bin/sh", "-c", join, group, *command]
    with process(command, work / f"{name}.log", **environment) as outer:
        wait_until("the host's init", lambda: outer.poll() is not None or _init_below(outer.pid) is not None)
        assert outer.poll() is None, (work / f"{name}.log").read_text()
        leader = _init_below(outer.pid)
        assert leader is not None
        host = Host(root, leader, version)
        # A container's shutdown is slow and nothing here needs saving; nspawn's end does not end its init.
        try:
            _wait_for_boot(host, work / f"{name}.log")
            yield host
        finally:
            os.kill(host.leader, signal.SIGKILL)
            outer.wait()
            _remove_group(group)


def _init_below(nspawn: int) -> int | None:
    """The pid of the child that is PID 1 of a namespace: nspawn's first child only makes that one, and ends."""
    for pid in Path(f"/proc/{nspawn}/task/{nspawn}/children").read_text().split():
        with contextlib.suppress(OSError):
            status = Path("/proc", pid, "status").read_text()
            namespaces = next(line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:"))
            if len(namespaces) > 1 and namespaces[-1] == "1":
                return int(pid)
    return None


def _wait_for_boot(host: Host, log: Path) -> None:
    """Wait until the host has started everything; else say what it waits for."""

    def booted() -> bool:
        shown = host.run("systemctl", "is-system-running", check=False).stdout.strip()
        return shown in {"running", "degraded"}

    try:
        wait_until("the booted host", booted, seconds=120)
    except AssertionError as error:
        jobs = host.run("systemctl", "list-jobs", "--no-pager", check=False)
        state = host.run("systemctl", "is-system-running", check=False)
        journal = host.run("journalctl", "--no-pager", "-b", "-n", "60", check=False)
        raise AssertionError(
            f"systemd {host.version}: {error}\n{state}\n{jobs}\n{log.read_text()}\n{journal.stdout}"
        ) from None


def _remove_group(group: Path) -> None:
    """Remove a control group of every hierarchy and those below it, when the last of their processes has gone."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    groups = [Path(place, group.name) for place, kind in mounts if kind in {"cgroup", "cgroup2"}]

    def removed() -> bool:
        for each in groups:
            for path in [*sorted((path for path in each.rglob("*") if path.is_dir()), reverse=True), each]:
                with contextlib.suppress(OSError):
                    path.rmdir()
        return not any(each.exists() for each in groups)

    wait_until("the end of the host's processes", removed)


@dataclass(frozen=True)
class Registry:
    """A registry on loopback. `login` is user:password where it asks for one."""

    address: str
    login: str | None


@contextlib.contextmanager
def registry(work: Path, *, login: str | None = None) -> Iterator[Registry]:
    """Debian's docker-registry on a free loopback port, with basic auth when `login` is user:password."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    place = Path(tempfile.mkdtemp(dir=work, prefix="registry-"))
    config = f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {place}}}}}\n"
    config += f"http: {{addr: '{address}'}}\n"
    if login is not None:
        user, _, password = login.partition(":")
        (place / "htpasswd").write_text(run("htpasswd", "-nbB", user, password).stdout)
        config += f"auth: {{htpasswd: {{realm: lab, path: {place}/htpasswd}}}}\n"
    (place / "config.yml").write_text(config)

    def answers() -> bool:
        with socket.socket() as attempt:
            host, _, port = address.partition(":")
            return attempt.connect_ex((host, int(port))) == 0

    with process(["docker-registry", "serve", place / "config.yml"], place / "log"):
        wait_until("the registry", answers)
        yield Registry(address, login)
