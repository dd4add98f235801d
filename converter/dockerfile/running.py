"""One RUN, in a container that is as BuildKit's: systemd-nspawn's, or a chroot with namespaces of its own.

nspawn makes directories and files in the tree that it starts, and hides /run. So it is given another one, of which
nothing stays, and the launcher moves from there into the image's (launch.c, --root).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter.dockerfile.namespace import NODEV, NOEXEC, NOSUID, bind, mount, unmount
from converter.dockerfile.points import make_directories
from converter.dockerfile.run_mounts import HOSTNAME, Bind, applied
from converter.errors import ConversionError
from converter.image.model import this_platform
from converter.machine.capabilities import ALL, DOCKER_DEFAULT, nspawn_capabilities
from converter.machine.launcher import capability_mask, launcher_arguments, launcher_for
from converter.machine.model import Account
from converter.machine.syscalls import system_call_policy

_PR_SET_PDEATHSIG = 1
_PATIENCE = 10  # seconds that a program has to end
_TREE = "tree"  # the image's root, in the one that nspawn starts
_LAUNCHER = "launch"
_DEVICES = (("full", 7), ("null", 3), ("random", 8), ("tty", None), ("urandom", 9), ("zero", 5))
_OPEN_FILES = (1024, 524288)
# The launcher has to move into the tree; without CAP_SYS_ADMIN, which it gives up, nobody can use these calls.
_OF_LAUNCHER = frozenset({"mount", "pivot_root", "umount2"})
_OTHER_MOUNT_CALLS = frozenset(
    {"fsconfig", "fsmount", "fsopen", "fspick", "mount_setattr", "move_mount", "open_tree", "umount"}
)
# Run by the host's shell in the new namespaces. The launcher takes /proc, /sys and /dev along when it moves into the
# tree: a root that was only changed (chroot) could be left again.
_IN_NAMESPACES = """set -e
hostname "$1"
tree=$2
shift 2
mount -t proc -o nosuid,nodev,noexec proc /proc
"""
# What Docker lets nobody write to or see.
_PROTECTED = """mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$tree/sys"
mount --rbind "$tree/sys" /sys
for path in /proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger; do
    [ -e "$path" ] || continue
    mount --bind "$path" "$path"
    mount -o remount,bind,ro,nosuid,nodev,noexec "$path"
done
for path in /proc/kcore /proc/keys /proc/latency_stats /proc/sched_debug /proc/timer_list /proc/timer_stats; do
    [ ! -e "$path" ] || mount --bind /dev/null "$path"
done
for path in /proc/acpi /proc/asound /proc/scsi /sys/firmware; do
    [ ! -d "$path" ] || mount -t tmpfs -o ro tmpfs "$path"
done
"""
_LOOPBACK = "ip link set lo up\n"
_START = """mount --rbind "$tree/dev" /dev
exec /dev/.launch "$@"
"""
_libc = ctypes.CDLL(None)


@dataclass(frozen=True)
class Program:
    """What is run, and as whom. `network` False: a loopback interface and nothing else."""

    argv: tuple[str, ...]
    environment: tuple[str, ...]
    account: Account
    working_directory: str
    network: bool = True
    insecure: bool = False


class Running:
    """The programs that are under way, to end all of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: dict[subprocess.Popen[bytes], int] = {}
        self._ended = False

    def end(self) -> None:
        """End all, now, and whatever is started from now on."""
        with self._lock:
            self._ended = True
            for process, ending in self._under_way.items():
                process.send_signal(ending)

    @contextlib.contextmanager
    def started(
        self, command: Sequence[str], *, ending: int, **options: Any
    ) -> Iterator[subprocess.Popen[bytes]]:
        """A process that is over when this is; it gets the signal `ending` to end, also when we end."""
        parent = os.getpid()

        def end_with_parent() -> None:
            _libc.prctl(_PR_SET_PDEATHSIG, ending)
            if os.getppid() != parent:
                os._exit(1)

        with self._lock:
            process = subprocess.Popen(command, preexec_fn=end_with_parent, **options)
            self._under_way[process] = ending
            if self._ended:
                process.send_signal(ending)
        try:
            yield process
        finally:
            with self._lock:
                del self._under_way[process]
            process.send_signal(ending)
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def has_nspawn() -> bool:
    """Is systemd-nspawn installed?"""
    return shutil.which("systemd-nspawn") is not None


def run(
    program: Program,
    tree: Path,
    scratch: Path,
    binds: Sequence[Bind],
    *,
    running: Running,
    chroot: bool,
    output: Callable[[bytes], None] | None,
) -> int:
    """Run `program` in `tree`, a mount point; its exit status, as a shell has it. Needs a mount namespace.

    `binds` are for it alone. What it prints goes to `output`; None: it has the terminal. `scratch` is a new directory.
    Raises ConversionError when it cannot be started.
    """
    scratch.mkdir(mode=0o700)
    _make_own_directories(tree, program)
    with contextlib.ExitStack() as stack:
        if chroot:
            command = _chroot_command(program, tree, stack)
            stack.enter_context(applied(binds, tree))
        else:
            # These first: they are seen below the shell too, and go after it.
            stack.enter_context(applied([each for each in binds if not each.in_own], tree))
            shell = scratch / "shell"
            shell.mkdir(mode=0o755)
            mount("tmpfs", shell, "mode=0755")
            stack.callback(unmount, shell)
            write_launcher(shell / _LAUNCHER)
            (shell / _TREE).mkdir()
            (shell / "usr").mkdir()
            bind(tree, shell / _TREE)
            command = nspawn_command(program, shell, binds, terminal=output is None)
            _hide_nspawns_directory()
            stack.callback(unmount, "/run/systemd/nspawn")
        # nspawn's container outlives an nspawn that is killed, and ends with one that is asked to end; unshare takes no
        # SIGTERM, and ends its child.
        return _wait(command, running, output, ending=signal.SIGKILL if chroot else signal.SIGTERM)


def _wait(
    command: Sequence[str], running: Running, output: Callable[[bytes], None] | None, *, ending: int
) -> int:
    environment = {"PATH": os.environ.get("PATH", os.defpath)}
    if output is None:
        with running.started(command, ending=ending, env=environment) as process:
            return _status(process.wait())
    options: dict[str, Any] = {
        "stdin": subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
    }
    with running.started(
        command, ending=ending, env=environment, start_new_session=True, **options
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()  # there is nothing to read, and it is a pipe in Docker too
        while data := os.read(process.stdout.fileno(), 1 << 16):
            output(data)
        return _status(process.wait())


def _status(code: int) -> int:
    return code if code >= 0 else 128 - code


def _make_own_directories(tree: Path, program: Program) -> None:
    """As runc makes them, and they stay: where its own mounts are, and the working directory."""
    root_fd = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in ("proc", "dev", "sys"):
            if os.path.lexists(tree / name):
                if (tree / name).is_symlink() or not (tree / name).is_dir():
                    raise ConversionError(f"the image's /{name} is no directory, so nothing can run in it")
            else:
                make_directories(root_fd, name)
        make_directories(root_fd, program.working_directory, owner=(program.account.uid, program.account.gid))
    finally:
        os.close(root_fd)


def write_launcher(path: Path) -> None:
    """The launcher for this host as a new file."""
    launcher = launcher_for(this_platform().architecture)
    if launcher is None:
        raise ConversionError(f"nothing can be built on {this_platform()}: there is no launcher for it")
    path.write_bytes(launcher)
    path.chmod(0o755)


def _capabilities(program: Program) -> frozenset[str]:
    return ALL if program.insecure else DOCKER_DEFAULT


def _launch(program: Program, root: str | None) -> list[str]:
    """The launcher's options and the program."""
    kept = _capabilities(program)
    arguments = launcher_arguments(
        uid=program.account.uid,
        gid=program.account.gid,
        groups=program.account.groups,
        setenv=program.environment,
        unsetenv=("HOME", "PATH", "OLDPWD", "PWD", "SHLVL"),
        clean=True,
        bounding=None if program.insecure else capability_mask(kept),
        chdir=program.working_directory,
        root=root,
        argv=program.argv,
    )
    return list(arguments[1:])


def nspawn_command(program: Program, shell: Path, binds: Sequence[Bind], *, terminal: bool) -> list[str]:
    """The command line that starts `program` in the tree below `shell`, where the launcher lies."""
    # The launcher needs CAP_SYS_ADMIN for its move; it leaves the program the capabilities that it is to have.
    more, fewer = nspawn_capabilities(_capabilities(program) | {"CAP_SYS_ADMIN"})
    command = [
        *(["env", "SYSTEMD_SECCOMP=0", "SYSTEMD_NSPAWN_API_VFS_WRITABLE=1"] if program.insecure else []),
        "systemd-nspawn",
        "--quiet",
        "--settings=no",
        f"--directory={shell}",
        f"--machine=docker2nspawn-{os.getpid()}-{threading.get_native_id()}",
        f"--hostname={HOSTNAME}",
        "--register=no",
        "--private-users=no",
        "--resolv-conf=off",
        "--timezone=off",
        "--link-journal=no",
        f"--console={'interactive' if terminal else 'pipe'}",
        f"--rlimit=NOFILE={_open_files()}",
    ]
    if not Path("/run/systemd/system").is_dir():
        command.append("--keep-unit")  # there is no systemd that would make a scope
    if not program.network:
        command.append("--private-network")
    command += [f"--capability={','.join(more)}"] if more else []
    command += [f"--drop-capability={','.join(fewer)}"] if fewer else []
    if not program.insecure:
        allowed, forbidden = system_call_policy(DOCKER_DEFAULT, version=0).system_call_filter
        calls = {*forbidden.removeprefix("~").split(), *_OTHER_MOUNT_CALLS} - {"@mount"} - _OF_LAUNCHER
        command += [f"--system-call-filter={allowed}", f"--system-call-filter=~{' '.join(sorted(calls))}"]
    for each in binds:
        if each.in_own:
            source, target = (_escaped(str(path)) for path in (each.source, each.target))
            command.append(f"--bind{'-ro' if each.read_only else ''}={source}:{target}")
    return [*command, "--", f"/{_LAUNCHER}", *_launch(program, f"/{_TREE}")]


def _open_files() -> str:
    """The limits of a build's container: those that dockerd has from systemd, as far as we may give them."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY or hard > _OPEN_FILES[1]:
        hard = _OPEN_FILES[1]
    return f"{min(_OPEN_FILES[0], hard)}:{hard}"


def _escaped(path: str) -> str:
    """As nspawn's --bind reads it back."""
    return path.replace("\\", "\\\\").replace(":", "\\:")


def _hide_nspawns_directory() -> None:
    """nspawn propagates mounts through a directory of the host's, of which this one needs nothing."""
    path = Path("/run/systemd/nspawn")
    path.mkdir(parents=True, exist_ok=True)
    mount("tmpfs", path, "mode=0755", NOSUID | NODEV | NOEXEC)


def _chroot_command(program: Program, tree: Path, stack: contextlib.ExitStack) -> list[str]:
    dev = tree / "dev"
    mount("tmpfs", dev, "mode=0755,size=4m", NOSUID)
    stack.callback(unmount, dev)
    for name, minor in _DEVICES:
        major = 5 if minor is None else 1
        os.mknod(dev / name, 0o20666, os.makedev(major, minor or 0))
        (dev / name).chmod(0o666)
    for name, target in (("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        (dev / name).symlink_to(f"/proc/self/{target}")
    (dev / "ptmx").symlink_to("pts/ptmx")
    for name, kind, options in (
        ("pts", "devpts", "newinstance,ptmxmode=0666,mode=0620,gid=5"),
        ("shm", "tmpfs", "mode=1777,size=64m"),
        ("mqueue", "mqueue", ""),
    ):
        (dev / name).mkdir()
        mount(kind, dev / name, options, NOSUID | NOEXEC)
    write_launcher(dev / ".launch")
    return [
        "prlimit",
        f"--nofile={_open_files()}",
        "unshare",
        "--fork",
        "--pid",
        "--kill-child",
        "--mount",
        "--ipc",
        "--uts",
        *([] if program.network else ["--net"]),
        "sh",
        "-c",
        "".join(
            (
                _IN_NAMESPACES,
                "" if program.network else _LOOPBACK,
                "" if program.insecure else _PROTECTED,
                _START,
            )
        ),
        "sh",
        HOSTNAME,
        str(tree),
        *_launch(program, str(tree)),
    ]
