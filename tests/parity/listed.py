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
    sometimes: bool = False
    """It depends on which of two comes first; so it may also not occur."""


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
        "host's abstract sockets are others (network host)",
        r"network foreign-abstract-sockets",
        "with the host's network the host's services are seen, and these hosts run others than the one with Docker",
        versions=("252",),
        cases="[co]-network-host",
    ),
    Difference(
        "abstract sockets of nspawn are seen",
        r"network foreign-abstract-sockets",
        "nspawn runs in the machine's network; its connections to systemd have such names, and nothing listens there",
        docker="no",
        machine="yes",
        versions=("257", "262"),
    ),
    Difference(
        "a device node for /dev/net/tun made by the program does not open",
        r"escape open-made-device-tun",
        "the unit's DeviceAllow= does not list it",
        docker="done",
        machine="refused",
    ),
    Difference(
        "/proc/keys and /proc/timer_list can be read on 252",
        r"masked /proc/(keys|timer_list)",
        "that nspawn does not mask them; keys shows only those that the reader may see, timer_list is root's",
        docker="empty",
        versions=("252",),
    ),
    Difference(
        "personality(2) takes every value",
        r"syscalls personality-.*",
        "a filter by name cannot look at arguments; an option of a process's own",
        docker="EPERM",
        machine="done",
    ),
    Difference(
        "--init: another init",
        r"mounts /sbin/docker-init|process session-leader|escape (trace-parent|write:/proc/1/mem)",
        "nspawn's own stub is PID 1 instead of docker-init, and is in its program's way less",
        cases="c-init",
    ),
    Difference(
        "--init: a hang-up comes first",
        r"stop signal",
        "nspawn's stub closes its terminal when it ends the program",
        cases="c-init-stop",
        docker="15",
        machine="1",
        sometimes=True,
    ),
    Difference(
        "few capabilities: the launcher is a mount",
        r"mounts /usr/lib/docker2nspawn/launch",
        "it is the host's own, read-only, since it is given more than the program",
        cases="c-cap-(drop-all|some|drop)",
        docker=_NOTHING,
    ),
    Difference(
        "--hostname: no NIS domain",
        r"hostname domainname",
        "nspawn sets none; the domain is in /etc/hosts",
        cases="c-hostname",
    ),
    Difference(
        "--network host: a name of its own",
        r"hostname hostname|env HOSTNAME",
        "a machine has a UTS namespace always",
        cases="[co]-network-host",
    ),
    Difference(
        "--network host: the own name resolves",
        r"names own-name",
        "Docker copies the host's /etc/hosts, where the name of its container is not",
        cases="[co]-network-host",
        docker="unknown",
        machine="resolves",
    ),
    Difference(
        "--pids-limit: one task more",
        r"limits TasksMax",
        "nspawn itself is one of the unit's",
        cases="c-limits",
    ),
    Difference(
        "--restart on-failure:N: exit code and count of a unit that gave up",
        r"exit (code|restarts)",
        "the last attempt is not made, so the unit is inactive, not failed; systemd then forgets it",
        cases="c-restart",
        sometimes=True,
    ),
    Difference(
        "--device: devices are mounts",
        r"mounts /dev/my-.*",
        "a device is bound from the host's /dev",
        cases="c-device",
        docker=_NOTHING,
    ),
    Difference(
        "--tmpfs: mode of the directory",
        r"(data /data|run /run)",
        "a tmpfs has mode 1777 where none is given, Docker's has that of the directory below it; /run is nspawn's own",
        cases="c-tmpfs",
    ),
    Difference(
        "--read-only: mode of /etc/resolv.conf",
        r"(etc|mounted-files) /etc/resolv\.conf",
        "the host's own file is mounted there",
        cases="c-read-only",
    ),
    Difference(
        "groups of a container that has lost its /etc/group",
        r"ids group-.*",
        "they are looked up when it is converted, Docker's when it was started the first time",
        cases="c-written",
    ),
    Difference(
        "--tty: /dev/console is no mount",
        r"mounts /dev/console",
        "it is a device node of nspawn's own",
        cases="c-terminal",
    ),
    Difference(
        "--interactive: nobody waits at the other end",
        r"process other-processes",
        "a service has no input, so the program that reads it has ended",
        cases="c-stdin",
        sometimes=True,
    ),
    Difference(
        "the machine's own part of the cgroup tree is writable",
        r"(mounts|writable-directories) /sys/fs/cgroup|writable-api-files /sys/fs"
        r"|escape (make-cgroup|write:/sys/fs/cgroup/.*)",
        "nspawn delegates it: the program may divide what it has; its limits are set one level above and cannot be "
        "raised from inside",
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
