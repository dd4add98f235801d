"""The differences that are meant, each with its reason; and what the rows are."""

from __future__ import annotations

from dataclasses import dataclass

_ALL = ("252", "257", "262")


@dataclass(frozen=True)
class Difference:
    """Facts ("ROW KEY") that may differ, as regular expressions over the whole; `what` is for people."""

    what: str
    fact: str
    reason: str
    versions: tuple[str, ...] = _ALL
    cases: str = ".*"
    docker: str = ".*"
    machine: str = ".*"
    harmless: bool = False
    """The machine may do what Docker refuses; the reason says why that gains nothing."""


ROWS: dict[str, str] = {
    "argv": "arguments, byte for byte",
    "env": "environment variables, byte for byte",
    "cwd": "working directory",
    "ids": "real, effective and saved uid and gid; supplementary groups",
    "capabilities": "the five capability sets",
    "privileges": "NoNewPrivs, seccomp mode",
    "signals": "blocked, ignored and caught signals",
    "rlimits": "all 16 resource limits, soft and hard",
    "umask": "file creation mask",
    "process": "PID, parent, session, priority, processors, who else is there, who reaps orphans",
    "process-files": "oom_score_adj, cgroup path, id maps below /proc/self",
    "open-files": "open files beyond the three",
    "terminal": "is stdin, stdout, stderr a terminal",
    "standard-streams": "opening /dev/stdin, /dev/stdout, /dev/stderr",
    "stderr": "what is written to stderr arrives",
    "output": "text arrives exactly in the log",
    "hostname": "host name and NIS domain",
    "names": "own name, localhost, extra hosts, name server, a DNS answer",
    "resolv": "lines of /etc/resolv.conf",
    "interfaces": "network interfaces",
    "network": "default route, a connection out and how it is seen there, low ports",
    "ports": "published ports, from the host and from outside",
    "sockets": "which kinds of sockets can be made",
    "syscalls": "95 system calls with harmless arguments: which error",
    "sysctls": "values in /proc/sys",
    "run": "content, owner, mode below /run and /var/run",
    "tmp": "content, owner, mode below /tmp",
    "data": "content, owner, mode below /data (volumes, mounts)",
    "volume": "a volume's content, kept over restarts and conversion by force",
    "bound": "writing to a bind mount",
    "shm": "size, owner, mode of /dev/shm",
    "dev": "entries of /dev: kind, numbers, owner, mode",
    "etc": "files that Docker or nspawn make",
    "mounted-files": "owner and mode of mounted files in /etc",
    "mounts": "mount points, their file system, writable or not",
    "masked": "what can be read of sensitive files in /proc and /sys",
    "writable-api-files": "files below /proc and /sys that can be opened for writing",
    "writable-directories": "in which directories a file can be made",
    "escape": "attempts to get out of the container or at what is the host's: done or refused",
    "limits": "memory, tasks, CPU; how many processes can be made",
    "zombies": "orphans that are left",
    "stop": "the signal that arrives, and when the end comes",
    "exit": "exit code, restarts",
    "written": "what a container wrote before its conversion",
    "stdin": "reading an open stdin",
    "start": "errors of `machinectl start`",
    "conversion": "errors of the conversion",
    "complaints": "warnings of nspawn or systemd",
    "ran": "did it run",
    "end": "the probe got to its end",
}

_NOTHING = r"\(none\)"
_MISSING = "ENOENT"

LISTED: tuple[Difference, ...] = (
    Difference(
        "stdin, stdout and stderr are a terminal",
        r"terminal std(in|out|err)",
        "nspawn gives every program one, and copies what is written there to the journal; /dev/stdout can be opened",
        docker="no terminal",
        machine="terminal",
    ),
    Difference(
        "/dev/console, /dev/char, /dev/net",
        r"dev /dev/(console|char|net)",
        "nspawn makes them; a console is always there, and is the program's own terminal",
    ),
    Difference(
        "/dev/console can be written",
        r"escape write:/dev/console",
        "it is the program's own terminal: what is written there goes to the journal",
        docker="refused",
        machine="done",
        harmless=True,
    ),
    Difference(
        "a device node 5:1 made by the program does not open",
        r"escape open-made-device-console",
        "the unit's DevicePolicy= does not list it",
        docker="done",
        machine="refused",
    ),
    Difference(
        "/.dockerenv",
        r"etc /\.dockerenv",
        "it says that a program runs in Docker, which it does not",
        machine=_MISSING,
    ),
    Difference(
        "/usr, /var, /root and the like in images that lack them",
        r"(etc|writable-directories) /(usr|usr/lib|var|var/log|var/tmp|root|run)",
        "nspawn asks for the first, makes the others, and mounts /run",
        docker=_MISSING,
    ),
    Difference(
        "/run, /run/host",
        r"run /run(/host(/.*)?)?",
        "nspawn has a /run always, and its own files in /run/host",
        docker=rf"{_NOTHING}|{_MISSING}",
    ),
    Difference(
        "/run/host/notify can be reached",
        r"escape reach:/run/host/notify",
        "nspawn's own socket: of what arrives there it takes the program's state and status text, nothing else",
        docker=_NOTHING,
        harmless=True,
    ),
    Difference(
        "mounts on /run and below",
        r"mounts /run(/.*)?",
        "nspawn's own; what the image has below /run is bound from the machine's tree",
        docker=_NOTHING,
    ),
    Difference(
        "/etc/hosts, /etc/hostname, /etc/resolv.conf are not mounts",
        r"(mounts|mounted-files) /etc/(hosts|hostname|resolv\.conf)",
        "they are files of the machine's tree",
        machine=_NOTHING,
    ),
    Difference(
        "mounts below /proc and on /sys/firmware",
        r"mounts (/proc/.*|/sys/firmware)",
        "nspawn masks by other means; row masked compares the effect",
    ),
    Difference(
        "/proc/kallsyms cannot be read",
        r"masked /proc/kallsyms",
        "nspawn masks it too",
        docker="has content",
        versions=("257", "262"),
    ),
    Difference(
        "/proc/kmsg is empty",
        r"masked /proc/kmsg",
        "nspawn puts an empty pipe over it, where Docker has the kernel refuse",
        docker="EPERM|EACCES",
        machine="EAGAIN|EACCES",
    ),
    Difference(
        "masked files refuse users",
        r"masked /proc/(keys|timer_list|kallsyms)",
        "nspawn's empty files have mode 000, Docker's are /dev/null",
        docker="empty",
        machine="EACCES",
    ),
    Difference(
        "no netlink socket for audit",
        r"sockets netlink-audit",
        "nspawn's seccomp filter refuses it always",
        docker="done",
        machine="EAFNOSUPPORT",
    ),
    Difference(
        "host's abstract sockets are others (c-network-host)",
        r"network foreign-abstract-sockets",
        "with the host's network the host's services are seen, and these hosts run others than the one with Docker",
        versions=("252",),
        cases="c-network-host",
    ),
    Difference(
        "the machine's own part of the cgroup tree is writable",
        r"(mounts|writable-directories) /sys/fs/cgroup|writable-api-files /sys/fs"
        r"|escape (make-cgroup|write:/sys/fs/cgroup/.*)",
        "nspawn delegates it: the program may divide what it has; its limits are set one level above and cannot be "
        "raised from inside",
        versions=("257", "262"),
        harmless=True,
    ),
    Difference(
        "AF_VSOCK sockets are refused with another error",
        r"sockets vsock",
        "the unit's RestrictAddressFamilies= refuses them with EAFNOSUPPORT, Docker's profile with EPERM",
        docker="EPERM",
        machine="EAFNOSUPPORT",
    ),
    Difference(
        "nfsservctl(2) is refused with another error",
        r"syscalls nfsservctl",
        "no kernel has it any more: ENOSYS is the kernel's own answer, EPERM that of Docker's profile",
        docker="EPERM",
        machine="ENOSYS",
    ),
    Difference(
        "exit code 133",
        r"exit code",
        "nspawn's own word for a reboot: it makes 1 of a program's 133",
        cases="exit-133",
        docker="133",
        machine="1",
    ),
)
