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

LISTED: tuple[Difference, ...] = (
    Difference(
        "`container`, `container_uuid`, `container_host_*`",
        r"env container(_uuid|_host_.*)?",
        "nspawn sets them for every program",
        docker=r"\(none\)",
    ),
)
