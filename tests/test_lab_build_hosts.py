"""The container of a RUN on hosts with every systemd that we know: 252, 257, 262, each as PID 1.

A build needs Python, which those hosts do not have. So what it mounts is mounted by a script, and what it starts is
started: the same command line.
"""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest

from converter.dockerfile.running import Program, nspawn_command, write_launcher
from converter.machine.model import Account
from tests import lab
from tests.building import BUSYBOX, take_image
from tests.layers import files_of

pytestmark = pytest.mark.lab

_SCRIPT = """
set -e
cd /d2n-build
mkdir upper work shell
mount -t tmpfs tmpfs /run/systemd/nspawn
mount -t tmpfs tmpfs shell
mkdir shell/tree shell/usr
cp launch shell/launch
mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work shell/tree
export SYSTEMD_NSPAWN_TMPFS_TMP=0
status=0
{command} </dev/null || status=$?
echo "status $status"
find upper -mindepth 1 | sort
"""


def in_container(host: lab.Host, command: str, *, signal_after: float | None = None) -> str:
    """What `command` prints in a build's container on that host, its status, and what it has changed."""
    place = host.root / "d2n-build"
    place.mkdir()
    try:
        for name in ("lower", "lower/proc", "lower/dev", "lower/sys"):
            (place / name).mkdir()
        layer = files_of(take_image(BUSYBOX, place))[0]
        lab.run("tar", "-C", place / "lower", "-xf", layer.path)
        write_launcher(place / "launch")
        program = Program(
            ("/bin/sh", "-c", command),
            ("PATH=/bin", "HOME=/x"),
            Account(1000, 1001, (1001, 2000), "/x"),
            "/tmp",
        )
        words = nspawn_command(program, Path("/d2n-build/shell"), (), terminal=False)
        words = [word for word in words if word != "--keep-unit"]  # that is for hosts without systemd
        started = shlex.join(words)
        if signal_after is not None:
            started = f"timeout --preserve-status --signal=TERM {signal_after} {started}"
        host.run("mkdir", "-p", "/run/systemd/nspawn")
        script = _SCRIPT.format(command=started)
        return host.run("unshare", "--mount", "--propagation=private", "sh", "-c", script).stdout
    finally:
        shutil.rmtree(place)


@pytest.mark.parametrize("version", sorted(lab.HOST_ROOTS))
def test_a_container_on_a_systemd_host(systemd_hosts: dict[str, lab.Host], version: str) -> None:
    command = "id; pwd; env | sort; ls -A /run /tmp 2>&1; grep CapBnd /proc/self/status; echo kept >/tmp/kept; exit 3"
    assert in_container(systemd_hosts[version], command).splitlines() == [
        "uid=1000(app) gid=1001(app) groups=1001(app),2000(extra)",
        "/tmp",
        *("HOME=/x", "PATH=/bin", "PWD=/tmp", "SHLVL=1"),
        *("ls: /run: No such file or directory", "/tmp:"),
        "CapBnd:\t00000000a80425fb",
        "status 3",
        *("upper/tmp", "upper/tmp/kept"),
    ]


@pytest.mark.parametrize("version", sorted(lab.HOST_ROOTS))
def test_a_container_ends_when_it_is_to(systemd_hosts: dict[str, lab.Host], version: str) -> None:
    host = systemd_hosts[version]
    in_container(host, "trap '' TERM INT; sleep 4711; sleep 4711", signal_after=2)
    assert host.run("pgrep", "-f", "sleep 4711", check=False).stdout == ""
    assert "docker2nspawn-" not in host.run("systemctl", "list-units", "--type=scope", "--no-legend").stdout
