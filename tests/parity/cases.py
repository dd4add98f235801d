"""The images and containers that are compared: each exercises something, all print the whole probe."""

# ruff: noqa: E501 -- each case is one line of a table

from __future__ import annotations

import json
from dataclasses import dataclass

from tests.images import TRICKY

BASE = "FROM parity/base\n"
BARE = "FROM parity/bare\n"


@dataclass(frozen=True)
class Case:
    """An image, and with `create` (options of `docker create`) a container of it that is converted instead.

    `procedure` is what is done with it: "run" to its end, "stop" once it says "is up", "serve" connections on
    8090 and stop, run it "thrice" with a conversion by --force before the last, or convert what was "written" in
    a first run. "limits" is a container of this machine's own engine, whose host has cgroup controllers: its
    HostConfig is compared with the unit.

    With `convert` the image is converted, with these options, to be like the container.
    """

    name: str
    what: str
    dockerfile: str
    create: tuple[str, ...] | None = None
    command: tuple[str, ...] = ()
    procedure: str = "run"
    timeout: int = 10
    convert: tuple[str, ...] = ()
    port: int = 8090


def _shell(script: str) -> str:
    return f"CMD {json.dumps(['sh', '-c', script])}\n"


def _tricky_environment() -> str:
    lines = []
    for number, value in enumerate(TRICKY):
        quoted = value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
        lines.append(f'ENV TRICKY_{number}="{quoted}"\n')
    return "".join(lines)


_PROBE = 'CMD ["probe"]\n'
_SIGNALS = 'CMD ["signals"]\n'
# What a program does with a volume: adds a line, shows all, and who owns what.
_USE_VOLUME = _shell(
    "echo x >>/data/log; echo fact volume lines =$(cat /data/log | busybox wc -l); "
    "echo fact volume seeded =$(cat /data/seed); busybox stat -c 'fact volume %n =%a\\x20%u:%g' /data /data/seed; "
    "exec probe"
)
_SEED = "RUN busybox mkdir /data && echo seeded >/data/seed && busybox chown -R 1:8 /data && busybox chmod 2750 /data\n"

IMAGES = (
    Case("plain", "a command from PATH", BASE + _PROBE),
    Case("arguments", "arguments with every kind of character", f'{BASE}ENTRYPOINT ["/bin/probe"]\nCMD {json.dumps(TRICKY)}\n'),
    Case("entrypoint", "ENTRYPOINT and CMD together", BASE + 'ENTRYPOINT ["probe", "first"]\nCMD ["second"]\n'),
    Case("shell-form", "CMD in shell form", BASE + "ENV A=1\nCMD exec probe \"$A\" 'b c' \"d\"\n"),
    Case("shell-entrypoint", "ENTRYPOINT in shell form", BASE + 'ENTRYPOINT exec probe fixed\nCMD ["ignored"]\n'),
    Case("environment", "variables with every kind of character", BASE + _tricky_environment() + _PROBE),
    Case("path-home", "PATH and HOME of the image's own", BASE + "ENV PATH=/opt:/bin HOME=/tmp\n" + _PROBE),
    Case("env-nspawn", "variables that nspawn sets too", BASE + "ENV LANG=de_DE.UTF-8 TERM=vt100 USER=u LOGNAME=l\n" + _PROBE),
    Case("env-container", "a variable named container", BASE + "ENV container=docker NOTIFY_SOCKET=mine\n" + _PROBE),
    Case("user-name", "USER by name", BASE + "USER daemon\n" + _PROBE),
    Case("user-uid", "USER by number, unknown", BASE + "USER 4000\n" + _PROBE),
    Case("user-known-uid", "USER by number, known", BASE + "USER 1\n" + _PROBE),
    Case("user-uid-gid", "USER uid:gid", BASE + "USER 4000:5000\n" + _PROBE),
    Case("user-group", "USER name:group", BASE + "USER daemon:wheel\n" + _PROBE),
    Case("user-root-groups", "USER root with supplementary groups", BASE + "USER root\n" + _PROBE),
    Case("set-user-id", "a set-user-ID program as a user", BASE + "RUN busybox cp /bin/probe /bin/raised && busybox chmod 4755 /bin/raised\nUSER 4000\n" + 'CMD ["raised"]\n'),
    Case("scratch", "nothing but the program", BARE + 'CMD ["/probe"]\n'),
    Case("scratch-user", "nothing but the program, as a user", BARE + 'USER 65532\nENTRYPOINT ["/probe"]\n'),
    Case("scratch-workdir", "WORKDIR that does not exist, without /etc/passwd", BARE + 'USER 4000\nWORKDIR /made/here\nCMD ["/probe"]\n'),
    Case("workdir", "WORKDIR with a space", BASE + 'WORKDIR "/srv/my app"\nUSER daemon\n' + _PROBE),
    Case("run-content", "content below /run", BASE + "RUN busybox mkdir -p /run/app/deep && echo hi >/run/app/file && busybox chmod 2750 /run/app && busybox chown -R 1:8 /run/app\nUSER daemon\n" + _PROBE),
    Case("var-run-link", "/var/run as a link, with content", BASE + "RUN busybox mkdir -p /var /run && busybox ln -s ../run /var/run && busybox mkdir /var/run/mysqld && busybox chown 1:1 /var/run/mysqld\n" + _PROBE),
    Case("var-run-directory", "/var/run as a directory", BASE + "RUN busybox mkdir -p /var/run/app && echo 1 >/var/run/app/pid\n" + _PROBE),
    Case("tmp-content", "content of /tmp", BASE + "RUN busybox mkdir -p /tmp/kept && echo kept >/tmp/kept/file && busybox chmod 1777 /tmp && busybox chown 4000 /tmp/kept\nUSER 4000\n" + _PROBE),
    Case("tmp-mode", "/tmp with another mode", BASE + "RUN busybox chmod 0750 /tmp && busybox chown 1:8 /tmp\n" + _PROBE),
    Case("etc-files", "/etc/hosts, hostname and resolv.conf in the image", BASE + "COPY own /etc/\n" + _PROBE),
    Case("machine-id", "a machine id in the image", BASE + "RUN echo 0123456789abcdef0123456789abcdef >/etc/machine-id\n" + _PROBE),
    Case("machine-id-none", "a machine id that is not one yet", BASE + "RUN echo uninitialized >/etc/machine-id\n" + _PROBE),
    Case("machine-id-bad", "/etc/machine-id with something else in it", BASE + "RUN echo image >/etc/machine-id\n" + _PROBE),
    Case("volume", "VOLUME with content, as a user", BASE + _SEED + "VOLUME /data\nUSER daemon:mail\n" + _USE_VOLUME, procedure="thrice"),
    Case("volume-new", "VOLUME that the image does not have", BASE + "VOLUME /data\n" + _USE_VOLUME.replace("cat /data/seed", "echo none").replace("/data /data/seed", "/data"), procedure="thrice"),
    Case("volume-in-run", "VOLUME below /run", BASE + "RUN busybox mkdir -p /run/kept && echo a >/run/kept/a && busybox chown -R 1:8 /run/kept\nVOLUME /run/kept\nUSER daemon\n" + _PROBE),
    Case("stop-default", "no STOPSIGNAL", BASE + _SIGNALS, procedure="stop"),
    Case("stop-usr1", "STOPSIGNAL SIGUSR1", BASE + "STOPSIGNAL SIGUSR1\n" + _SIGNALS, procedure="stop"),
    Case("stop-quit", "STOPSIGNAL SIGQUIT", BASE + "STOPSIGNAL QUIT\n" + _SIGNALS, procedure="stop"),
    Case("stop-real-time", "STOPSIGNAL 37", BASE + "STOPSIGNAL 37\n" + _SIGNALS, procedure="stop"),
    Case("stop-user", "STOPSIGNAL to a program of a user", BASE + "USER daemon\nSTOPSIGNAL SIGINT\n" + _SIGNALS, procedure="stop"),
    Case("stop-shell", "a shell as PID 1 without a handler", BASE + _shell("echo is up; while :; do busybox sleep 0.1; done"), procedure="stop"),
    Case("exit-3", "exit code 3", BASE + "ENV PROBE_EXIT=3\n" + _PROBE),
    Case("exit-133", "exit code 133, nspawn's own word for a reboot", BASE + _shell("echo fact ran once =yes; exit 133")),
    Case("exit-255", "exit code 255, as a user", BASE + "ENV PROBE_EXIT=255\nUSER daemon\n" + _PROBE),
    Case("command-missing", "a command that does not exist", BASE + 'CMD ["/no/such/program"]\n'),
    Case("command-not-found", "a command that is not in PATH", BASE + 'CMD ["no-such-program"]\n'),
    Case("command-not-executable", "a command that is not executable", BASE + 'CMD ["/etc/passwd"]\n'),
    Case("output", "stdout, stderr, long lines, UTF-8, no newline at the end", BASE + _shell(
        "echo 'fact output stdout =grüße, 世界'; echo 'fact output stderr =100% \\\\ \"q\"' >&2; "
        "echo fact output long =$(busybox seq 1 800 | busybox tr '\\n' ,); printf 'fact output open =end'")),
    Case("zombies", "orphans of a shell are reaped", BASE + _shell(
        "(busybox sleep 0.1 &) ; busybox sleep 0.5; "
        "echo fact zombies count =$(busybox ps -o stat | busybox grep -c Z); exec probe")),
    Case("background", "processes that the program leaves behind", BASE + _shell("busybox sleep 1000 & exec probe")),
    Case("s6-like", "/init of an image that is no systemd", BASE + 'RUN busybox cp /bin/probe /init\nENTRYPOINT ["/init"]\n'),
    Case("exposed", "EXPOSE without publishing", BASE + "EXPOSE 8080/tcp 53/udp\n" + _PROBE),
    Case("labels", "LABEL, MAINTAINER, SHELL, ONBUILD", BASE + 'LABEL a.b="c d"\nMAINTAINER me\nSHELL ["/bin/sh", "-c"]\nONBUILD RUN true\n' + _PROBE),
    Case("debian", "a whole distribution with a user of its own", "FROM debian:bookworm\nCOPY probe /usr/bin/probe\nRUN useradd --uid 1234 --create-home --groups audio,users app\nUSER app\nWORKDIR /home/app\n" + _PROBE),
    Case("debian-root", "a whole distribution as root", "FROM debian:bookworm\nCOPY probe /usr/bin/probe\n" + _PROBE),
)  # fmt: skip

CONTAINERS = (
    Case("c-plain", "a container without options", BASE + _PROBE, create=()),
    Case("c-newlines", "variables and arguments with newlines", BASE + _PROBE, create=("-e", "LINES=a\nb\n", "-e", "X="), command=("probe", "c\nd", "\x01\t\\")),
    Case("c-overrides", "entrypoint, workdir, env overridden", BASE + 'ENV A=1 B=2\nENTRYPOINT ["false"]\nCMD ["x"]\n', create=("--entrypoint", "probe", "--workdir", "/opt/new", "-e", "A=3", "-e", "C=4")),
    Case("c-cap-drop-all", "--cap-drop ALL", BASE + _PROBE, create=("--cap-drop", "ALL")),
    Case("c-cap-drop", "--cap-drop NET_RAW, MKNOD", BASE + _PROBE, create=("--cap-drop", "NET_RAW", "--cap-drop", "MKNOD")),
    Case("c-cap-add", "--cap-add NET_ADMIN, SYS_PTRACE", BASE + _PROBE, create=("--cap-add", "NET_ADMIN", "--cap-add", "SYS_PTRACE")),
    Case("c-cap-some", "--cap-drop ALL --cap-add NET_BIND_SERVICE as a user", BASE + "USER daemon\n" + _PROBE, create=("--cap-drop", "ALL", "--cap-add", "NET_BIND_SERVICE")),
    Case("c-cap-nice", "--cap-add SYS_NICE, IPC_LOCK", BASE + _PROBE, create=("--cap-add", "SYS_NICE", "--cap-add", "IPC_LOCK")),
    Case("c-user", "--user and --group-add", BASE + _PROBE, create=("--user", "1:8", "--group-add", "wheel", "--group-add", "4711")),
    Case("c-hostname", "--hostname and --domainname", BASE + _PROBE, create=("--hostname", "own-name", "--domainname", "example.test")),
    Case("c-read-only", "--read-only with a tmpfs", BASE + _PROBE, create=("--read-only", "--tmpfs", "/tmp:size=1m,mode=1770,uid=1")),
    Case("c-tmpfs", "--tmpfs on /run and /data", BASE + _SEED + _PROBE, create=("--tmpfs", "/run", "--tmpfs", "/data:exec,size=2m")),
    Case("c-ulimits", "--ulimit", BASE + _PROBE, create=("--ulimit", "nofile=1000:2000", "--ulimit", "core=0", "--ulimit", "memlock=65536", "--ulimit", "nproc=5000:6000")),
    Case("c-sysctls", "--sysctl", BASE + _PROBE, create=("--sysctl", "net.core.somaxconn=100", "--sysctl", "kernel.msgmax=4096", "--sysctl", "net.ipv4.ip_unprivileged_port_start=1024")),
    Case("c-names", "--dns, --dns-search and --add-host", BASE + _shell("busybox grep -h . /etc/resolv.conf | busybox grep -v '^#' | while read -r a b; do echo \"fact resolv $a =$b\"; done; exec probe"), create=("--dns", "10.98.0.2", "--dns-search", "example.test", "--dns-option", "ndots:3", "--add-host", "extra.test:10.1.2.3")),
    Case("c-init", "--init", BASE + _PROBE, create=("--init",)),
    Case("c-init-stop", "--init, stopped", BASE + _SIGNALS, create=("--init",), procedure="stop"),
    Case("c-no-new-privileges", "--security-opt no-new-privileges", BASE + "RUN busybox chmod 4755 /bin/probe\nUSER daemon\n" + _PROBE, create=("--security-opt", "no-new-privileges")),
    Case("c-seccomp-off", "--security-opt seccomp=unconfined", BASE + _PROBE, create=("--security-opt", "seccomp=unconfined")),
    Case("c-shm", "--shm-size", BASE + _PROBE, create=("--shm-size", "16m")),
    Case("c-network-none", "--network none", BASE + _PROBE, create=("--network", "none")),
    Case("c-network-host", "--network host", BASE + _PROBE, create=("--network", "host")),
    Case("c-publish", "--publish", BASE + 'CMD ["serve"]\n', create=("-p", "8090:8080"), procedure="serve"),
    Case("c-bind", "a bind mount, read-only", BASE + _PROBE, create=("-v", "/srv/shared:/data:ro")),
    Case("c-bind-write", "a bind mount, written by a user", BASE + "USER daemon\n" + _shell("echo fact bound write =$(echo x >/data/new-$HOSTNAME && echo done); exec probe").replace("new-$HOSTNAME", "new"), create=("-v", "/srv/writable:/data")),
    Case("c-volume", "a named volume", BASE + _SEED + "USER daemon:mail\n" + _USE_VOLUME, create=("-v", "parity-named:/data"), procedure="thrice"),
    Case("c-oom-score", "--oom-score-adj", BASE + _PROBE, create=("--oom-score-adj", "500")),
    Case("c-terminal", "--tty", BASE + _PROBE, create=("--tty",)),
    Case("c-stdin", "--interactive", BASE + _shell("busybox timeout 2 cat; echo fact stdin end =$?; exec probe"), create=("--interactive",)),
    Case("c-stop", "--stop-signal and --stop-timeout", BASE + _SIGNALS, create=("--stop-signal", "SIGINT", "--stop-timeout", "3"), procedure="stop", timeout=3),
    Case("c-stubborn", "SIGKILL after --stop-timeout", BASE + 'CMD ["stubborn"]\n', create=("--stop-timeout", "2"), procedure="stop", timeout=2),
    Case("c-restart", "--restart on-failure:2", BASE + _shell("echo fact ran once =yes; exit 3"), create=("--restart", "on-failure:2"), procedure="restart"),
    Case("c-device", "--device", BASE + _PROBE, create=("--device", "/dev/tty:/dev/my-tty", "--device", "/dev/full:/dev/my-full:r")),
    Case("c-written", "what the container wrote before it was converted", BASE + _shell("busybox test -e /kept && echo fact written before =yes; echo x >/kept; busybox rm -f /etc/group; exec probe"), create=(), procedure="written"),
    Case("c-limits", "--memory, --pids-limit, --cpus and others", BASE + 'CMD ["signals"]\n', create=("--memory", "64m", "--memory-reservation", "32m", "--pids-limit", "20", "--cpus", "0.5", "--cpuset-cpus", "0"), procedure="limits"),
)  # fmt: skip

OPTIONS = (
    Case("o-network-host", "convert --network host", BASE + _PROBE, create=("--network", "host"), convert=("--network", "host")),
    Case("o-network-none", "convert --network none", BASE + _PROBE, create=("--network", "none"), convert=("--network", "none")),
    Case("o-publish", "convert --publish", BASE + 'CMD ["serve"]\n', create=("-p", "8091:8080"), procedure="serve", convert=("--publish", "8091:8080"), port=8091),
    Case("o-publish-user", "convert --publish, as a user, on a low port", BASE + 'USER daemon\nCMD ["serve"]\n', create=("-p", "92:8080"), procedure="serve", convert=("--publish", "92:8080"), port=92),
)  # fmt: skip

CASES = IMAGES + CONTAINERS + OPTIONS
