"""Images that lay traps for the conversion and for nspawn: links to the host where Docker or we write as root.

What a running program may do is in test_parity.py (row escape); here it is what its files may do.
"""

from __future__ import annotations

import io
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests import lab
from tests.parity import harness

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

# Where Docker, nspawn, the conversion or the launcher make, write or mount something.
_PLACES = (
    "etc/hosts",
    "etc/hostname",
    "etc/resolv.conf",
    "etc/localtime",
    "etc/machine-id",
    "etc/mtab",
    "etc/passwd",
)
_PLACES += (
    "etc",
    "usr",
    "usr/lib",
    "usr/lib/docker2nspawn",
    "usr/lib/docker2nspawn/launch",
    "run",
    "tmp",
    "var",
    "var/log",
)
_PLACES += ("dev", "proc", "sys", "root", "volume", "work", "bin/probe")
_TRAP = "host-trap"
_CHANGES = (
    "VOLUME /volume/data",
    "VOLUME /volume",
    "WORKDIR /work/made/here",
    'CMD ["/bin/probe"]',
    "USER 4000",
)


def _image(path: Path, place: str, target: str, probe: Path) -> None:
    """A root file system with the probe, content in /run, and a link to `target` at `place`."""
    with tarfile.open(path, "w") as tar:
        for name in ("run/app", "bin", "usr", "etc", "var/run"):
            if name == place or place in {parent.as_posix() for parent in Path(name).parents}:
                continue
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        if place != "bin/probe":
            entry = tarfile.TarInfo("bin/probe")
            entry.mode, entry.size = 0o755, probe.stat().st_size
            tar.addfile(entry, io.BytesIO(probe.read_bytes()))
        link = tarfile.TarInfo(place)
        link.type, link.linkname = tarfile.SYMTYPE, target
        tar.addfile(link)


def _snapshot(directory: Path) -> dict[str, tuple[object, ...]]:
    """Everything in a directory of the host that a write, a change of owner or a new entry would show."""
    seen: dict[str, tuple[object, ...]] = {}
    for path in (directory, *sorted(directory.rglob("*"))):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        seen[str(path)] = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, content)
    return seen


def _lay_trap(root: Path) -> Path:
    trap = root / _TRAP
    for name in ("directory/data", "directory/made", "directory/docker2nspawn"):
        (trap / name).mkdir(parents=True, exist_ok=True)
    (trap / "file").write_text("the host's\n")
    return trap


@pytest.mark.parametrize("way", ["/", "../../../../../../../../../../../../"])
def test_no_link_of_an_image_leads_to_the_host(
    way: str, work: Path, systemd_hosts: dict[str, lab.Host]
) -> None:
    engine = systemd_hosts["257"].docker
    lab.wait_until("Docker", lambda: harness.docker(engine, "info", check=False).returncode == 0)
    form = "absolute" if way == "/" else "relative"
    probe = work / "trap-probe"
    lab.run("gcc", "-static", "-Os", "-s", "-o", probe, *sorted(Path(__file__).parent.glob("probe*.c")))
    before = {version: _snapshot(_lay_trap(host.root)) for version, host in systemd_hosts.items()}

    def spring(place: str) -> None:
        name = f"trap-{form}-{place.replace('/', '-')}"
        for target in ("file", "directory"):
            path = work / f"{name}-{target}.tar"
            _image(path, place, f"{way}{_TRAP}/{target}", probe)
            changes = [word for change in _CHANGES for word in ("--change", change)]
            harness.docker(engine, "import", *changes, str(path), f"parity/{name}-{target}")
            for host in systemd_hosts.values():
                command = [".venv/bin/docker2nspawn", "convert", f"docker-daemon:parity/{name}-{target}"]
                done = lab.run(
                    *command,
                    "--name",
                    f"{name}-{target}",
                    "--root",
                    host.root,
                    check=False,
                    DOCKER_HOST=engine,
                )
                assert done.returncode in {0, 1}, done.stderr
                if done.returncode == 0:
                    host.run("systemctl", "daemon-reload")
                    host.run("machinectl", "start", f"{name}-{target}", check=False)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(spring, _PLACES))
    for version, host in systemd_hosts.items():
        host.run("sh", "-c", "systemctl stop 'systemd-nspawn@trap-*.service'")
        assert _snapshot(host.root / _TRAP) == before[version]
    assert not Path("/", _TRAP).exists(), "the machine that converts has it now"
