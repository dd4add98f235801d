"""The images of the lab, as Dockerfiles: each differs in what it asks of the conversion."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests import lab

TRICKY = (
    "plain",
    "two words",
    "  spaces around  ",
    "tab\there",
    "it's",
    'say "hi"',
    """both ' and " of them""",
    "back\\slash \\n \\\\",
    "trailing\\",
    "100% %n %%i",
    "# no comment ; none",
    "grüße, 世界 🐳",
    "$HOME ${PATH}",
    "",
    "-",
    "=",
    "*?[a]{b}~",
)


def _env(number: int, value: str) -> str:
    quoted = value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    return f'ENV TRICKY_{number}="{quoted}"'


DOCKERFILES: dict[str, str] = {
    "debian-user": "\n".join(
        [
            "FROM debian:bookworm",
            "RUN useradd --uid 1234 --create-home --groups www-data,audio app \\",
            " && mkdir /run/app && chown app /run/app && chmod 4755 /bin/mount \\",
            " && mkdir /data && echo seeded >/data/file && chown -R app /data",
            "COPY probe /usr/local/bin/probe",
            *[_env(n, value) for n, value in enumerate(TRICKY)],
            "USER app",
            'WORKDIR "/srv/my app"',
            "VOLUME /data",
            "EXPOSE 8080/tcp",
            "STOPSIGNAL SIGINT",
            'ENTRYPOINT ["probe"]',
            f"CMD {json.dumps(TRICKY)}",
        ]
    ),
    "layers": "\n".join(
        [
            "FROM debian:bookworm",
            "RUN rm -rf /usr/share/doc /usr/share/man",
            "RUN mkdir /etc/issue.d2 && rm /etc/issue && mkdir /etc/issue",
            "RUN rm -r /etc/issue && ln -s os-release /etc/issue",
            "COPY probe /probe",
            'CMD ["/probe", "layers"]',
        ]
    ),
    "shell-form": "FROM debian:bookworm\nCOPY probe /probe\nENV A=1\nCMD exec /probe \"$A\" 'b c'",
    "busybox": 'FROM lab/busybox\nCOPY probe /bin/probe\nCMD ["probe", "from", "path"]',
    "busybox-group": 'FROM lab/busybox\nCOPY probe /bin/probe\nUSER daemon:wheel\nCMD ["/bin/probe"]',
    "busybox-root-groups": 'FROM lab/busybox\nCOPY probe /bin/probe\nUSER root\nCMD ["/bin/probe"]',
    "path": 'FROM lab/busybox\nCOPY probe /opt/bin/probe\nENV PATH=/opt/bin:/bin HOME=/tmp\nCMD ["probe"]',
    "scratch": 'FROM scratch\nCOPY probe /server\nENTRYPOINT ["/server"]\nCMD ["--listen", ":8080"]',
    "nobody-there": 'FROM scratch\nCOPY probe /server\nUSER 65532\nENTRYPOINT ["/server"]',
    "uid-gid": 'FROM scratch\nCOPY probe /server\nUSER 4000:5000\nWORKDIR /made/here\nENTRYPOINT ["/server"]',
    "s6-like": 'FROM lab/busybox\nCOPY probe /init\nENTRYPOINT ["/init"]',
    "run-and-tmp": "\n".join(
        [
            "FROM lab/busybox",
            "RUN cd / && busybox mkdir -p /run/app && echo hi >/run/app/file && echo kept >/tmp/kept \\",
            " && busybox chmod 2750 /run/app && busybox chown -R 1:8 /run/app && busybox chmod 1777 /tmp",
            "USER daemon:mail",
            """CMD ["/bin/sh", "-c", "busybox stat -c '%n %a %u %g' /run/app /run/app/file /tmp /tmp/kept; \\""",
            """ cat /run/app/file /tmp/kept; echo new >/run/app/new && echo writable"]""",
        ]
    ),
    "stopping": "\n".join(
        [
            "FROM lab/busybox",
            "STOPSIGNAL SIGUSR1",
            """CMD ["sh", "-c", "trap 'echo got USR1; exit 0' USR1; echo is up; while :; do sleep 0.2; done"]""",
        ]
    ),
    "systemd": "\n".join(
        [
            "FROM lab/debian-systemd",
            "COPY probe /usr/bin/probe",
            "COPY probe.service /etc/systemd/system/probe.service",
            "RUN ln -s ../probe.service /etc/systemd/system/multi-user.target.wants/probe.service",
            "STOPSIGNAL SIGRTMIN+3",
            'CMD ["/sbin/init"]',
        ]
    ),
}

_PROBE_SERVICE = """[Unit]
Description=Shows that the machine has booted
[Service]
Type=oneshot
ExecStart=/bin/sh -c '/usr/bin/probe booted >/booted.new && mv /booted.new /booted'
ExecStartPost=/bin/systemctl --no-block poweroff
[Install]
WantedBy=multi-user.target
"""


def build(work: Path, docker_host: str) -> None:
    """Build every image as lab/NAME, from bases that are made here."""
    context = work / "images"
    context.mkdir()
    source = Path(__file__).with_name("probe.c")
    lab.run("gcc", "-static", "-Os", "-s", "-o", context / "probe", source)
    (context / "probe.service").write_text(_PROBE_SERVICE)
    for base, name in (("debian", "debian:bookworm"), ("debian-systemd", "lab/debian-systemd")):
        if lab.run("docker", "image", "inspect", name, check=False, DOCKER_HOST=docker_host).returncode != 0:
            lab.run("docker", "import", lab.root_tarball(base), name, DOCKER_HOST=docker_host, timeout=300)
    _busybox(work, docker_host)
    for name, text in DOCKERFILES.items():
        (context / "Dockerfile").write_text(text + "\n")
        lab.run("docker", "build", "-t", f"lab/{name}", context, DOCKER_HOST=docker_host, DOCKER_BUILDKIT="0")


def _busybox(work: Path, docker_host: str) -> None:
    root = work / "busybox"
    for directory in ("bin", "etc", "tmp", "root"):
        (root / directory).mkdir(parents=True)
    found = shutil.which("busybox")
    assert found is not None
    shutil.copy(found, root / "bin/busybox")
    for applet in ("sh", "cat", "id", "env", "ls", "sleep"):
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/var:/bin/false\n")
    (root / "etc/group").write_text("root:x:0:\ndaemon:x:1:\nwheel:x:10:root\nmail:x:8:daemon\n")
    lab.run("tar", "-C", root, "--owner=0", "--group=0", "-cf", work / "busybox.tar", ".")
    lab.run("docker", "import", work / "busybox.tar", "lab/busybox", DOCKER_HOST=docker_host)
