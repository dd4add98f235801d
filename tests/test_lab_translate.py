"""Translations, carried out: bootstrap.sh, provision.sh, build.sh, and the machines that come of it, started."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from converter.conversion import translate
from converter.options import Options
from converter.progress import Silent
from tests import lab

pytestmark = pytest.mark.lab

FIXTURES = Path(__file__).parent.parent / "fixtures"

_STAGES = """\
FROM debian:bookworm-slim AS build
WORKDIR /src
COPY part .
RUN --mount=type=cache,target=/root/.cache \\
    --mount=type=secret,id=token,required=true \\
    cat part /run/secrets/token >made && touch /root/.cache/kept && echo "$HOME" >>made

FROM debian:bookworm-slim
ENV GREETING="it's"
RUN <<EOT
useradd --system --uid 321 app
groupadd --gid 654 extra
usermod --append --groups extra app
mkdir /run/app
EOT
COPY --from=build --chown=app /src/made /srv/app/
WORKDIR /srv/app
USER app
RUN id >who
CMD ["/bin/sh", "-c", "id -u; id -G; pwd; cat made who; echo \\"$GREETING $HOME\\"; ls -d /run/app"]
"""

_SCRATCH = """\
FROM scratch
COPY busybox /bin/
COPY passwd /etc/
RUN ["/bin/busybox", "mkdir", "/made"]
RUN ["/bin/busybox", "--install", "-s", "/bin"]
WORKDIR /made
USER app
RUN --network=none id -u >/tmp-file 2>&1 || id -u >/dev/null
USER root
RUN env >env
CMD ["/bin/busybox", "cat", "env"]
"""


def _options(host: lab.Host, name: str) -> Options:
    return Options(name=name, root=host.root)


def _mounts_below(path: Path) -> list[str]:
    return [line for line in Path("/proc/mounts").read_text().splitlines() if str(path) in line]


def _context(directory: Path, text: str) -> Path:
    directory.mkdir()
    (directory / "Dockerfile").write_text(text)
    return directory


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines()]


def test_the_article_through_debootstrap_and_provision(work: Path, systemd_host: lab.Host) -> None:
    output = work / "translated-article"
    translate(FIXTURES / "article", output, _options(systemd_host, "script-article"), Silent())
    lab.run(output / "build.sh", "--install", "--destination", systemd_host.root, timeout=550)
    assert _mounts_below(output) == []
    said = _lines(systemd_host.run_machine("script-article"))
    assert "user noroot 1000:1000" in said
    assert "directory /usr/local/bin/tor-browser" in said
    assert "display :0" in said
    assert "CapEff:\t0000000000000000" in said
    assert "text/plain" in said
    assert "its own files are writable" in said and "the system is not" in said


def test_stages_in_a_chroot_and_in_nspawn(work: Path, systemd_host: lab.Host) -> None:
    context = _context(work / "stages-context", _STAGES)
    (context / "part").write_text("part\n")
    output = work / "translated-stages"
    translate(context, output, _options(systemd_host, "script-stages"), Silent())
    failed = lab.run(output / "build.sh", check=False, timeout=300)
    assert failed.returncode == 1
    assert "needs a secret: put it into" in failed.stderr
    assert "Dockerfile:4: step 3 failed" in failed.stderr
    (output / "secrets").mkdir()
    (output / "secrets/token").write_text("hush\n")
    lab.run(output / "build.sh", "--from", "3", "--install", "--destination", systemd_host.root, timeout=300)
    assert _mounts_below(output) == []
    assert [path.name for path in (output / "cache").glob("*/*")] == ["kept"]
    said = _lines(systemd_host.run_machine("script-stages"))
    who = "uid=321(app) gid=321(app) groups=321(app),654(extra)"
    expected = ["321", "321 654", "/srv/app", "part", "hush", "/root", who, "it's /home/app"]
    assert [line for line in said if line in expected] == expected
    # The same in nspawn, on the tree of the stage that is there; what a RUN leaves in /run is lost.
    built = lab.run("find", output / "root", "-printf", "%P %y %m %U %G\n").stdout
    lab.run("mv", output / "root", output / "root.chroot")
    lab.run(output / "build.sh", "--nspawn", timeout=300)
    again = lab.run("find", output / "root", "-printf", "%P %y %m %U %G\n").stdout
    different = set(built.splitlines()) ^ set(again.splitlines())
    assert {line.split()[0] for line in different} <= {"run/app", "run"}, different
    assert _mounts_below(output) == []


def test_scratch_is_made_from_outside(work: Path, systemd_host: lab.Host) -> None:
    context = _context(work / "scratch-context", _SCRATCH)
    busybox = shutil.which("busybox")
    assert busybox is not None
    shutil.copy(busybox, context / "busybox")
    (context / "passwd").write_text("root:x:0:0::/root:\napp:x:7:8::/app:\n")
    output = work / "translated-scratch"
    translate(context, output, _options(systemd_host, "script-scratch"), Silent())
    lab.run(output / "build.sh", "--nspawn", "--install", "--destination", systemd_host.root)
    assert (output / "root/made").is_dir()
    said = _lines(systemd_host.run_machine("script-scratch"))
    assert "HOME=/root" in said
    assert subprocess.run([output / "build.sh", "--from", "x"], check=False).returncode == 1
