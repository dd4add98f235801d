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

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

# Where Docker, nspawn, the conversion or the launcher make, write or mount something.
_PLACES = [
    *("etc", "etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/localtime", "etc/machine-id", "etc/mtab"),
    *("etc/passwd", "usr", "usr/lib", "usr/lib/docker2nspawn", "usr/lib/docker2nspawn/launch"),
    *("run", "run/host", "run/app", "tmp"),
    *("var", "var/log", "dev", "dev/shm", "proc", "sys", "root", "volume", "work", "bin/program"),
]  # fmt: skip
_TRAP = "host-trap"
_DIRECTORIES = ("run/lock", "bin", "usr", "etc", "var/run")
_CHANGES = (
    "VOLUME /volume/data",
    "VOLUME /volume",
    "WORKDIR /work/made/here",
    'CMD ["/bin/program"]',
    "USER 4000",
)


def _image(path: Path, place: str, target: str, program: Path) -> None:
    """A root file system with a program, content in /run, and a link to `target` at `place`."""

    def in_the_way(name: str) -> bool:
        return name == place or place in {parent.as_posix() for parent in Path(name).parents}

    with tarfile.open(path, "w") as tar:
        for name in (name for name in _DIRECTORIES if not in_the_way(name)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        if not in_the_way("bin/program"):
            entry = tarfile.TarInfo("bin/program")
            entry.mode, entry.size = 0o755, program.stat().st_size
            tar.addfile(entry, io.BytesIO(program.read_bytes()))
        link = tarfile.TarInfo(place)
        link.type, link.linkname = tarfile.SYMTYPE, target
        tar.addfile(link)


def _snapshot(directory: Path) -> dict[str, tuple[object, ...]]:
    """Everything in a directory of the host that a write, a change of owner or a new entry would show."""
    seen: dict[str, tuple[object, ...]] = {}
    for path in (directory, *sorted(directory.rglob("*"))):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        name = path.relative_to(directory).as_posix()
        seen[name] = (oct(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns, content)
    return seen


def _name(place: str, form: str, target: str) -> str:
    return f"trap-{form}-{target}-{place.replace('/', '-')}"


def _lay_traps(root: Path, form: str) -> Path:
    """A directory of the host with something to write to, for each image its own."""
    trap = root / _TRAP
    for place in _PLACES:
        for name in ("data", "made", "docker2nspawn", "host"):
            (trap / _name(place, form, "directory") / name).mkdir(parents=True)
        (trap / _name(place, form, "file")).write_text("the host's\n")
    return trap


@pytest.mark.parametrize(
    ("form", "way"), [("absolute", "/"), ("relative", "../../../../../../../../../../../../")]
)
def test_no_link_of_an_image_leads_to_the_host(
    form: str, way: str, work: Path, systemd_hosts: dict[str, lab.Host]
) -> None:
    engine = systemd_hosts["257"].docker
    lab.wait_until("Docker", lambda: harness.docker(engine, "info", check=False).returncode == 0)
    program, source = work / f"trap-{form}", work / f"trap-{form}.c"
    source.write_text("int main(void) { return 0; }\n")
    lab.run("gcc", "-static", "-Os", "-s", "-o", program, source)
    before = {version: _snapshot(_lay_traps(host.root, form)) for version, host in systemd_hosts.items()}

    def spring(place: str) -> None:
        for target in ("file", "directory"):
            name = _name(place, form, target)
            _image(work / f"{name}.tar", place, f"{way}{_TRAP}/{name}", program)
            changes = [word for change in _CHANGES for word in ("--change", change)]
            harness.docker(engine, "import", *changes, str(work / f"{name}.tar"), f"parity/{name}")
            for host in systemd_hosts.values():
                command = [".venv/bin/docker2nspawn", "convert", f"docker-daemon:parity/{name}", "--root"]
                done = lab.run(*command, host.root, check=False, DOCKER_HOST=engine)
                assert done.returncode in {0, 1}, done.stderr
                if done.returncode == 0:
                    host.run("machinectl", "start", name, check=False)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(spring, _PLACES))
    changed = []
    for version, host in systemd_hosts.items():
        host.run("sh", "-c", "systemctl stop 'systemd-nspawn@trap-*.service'")
        after, old = _snapshot(host.root / _TRAP), before[version]
        changed += [f"{version}: {path}" for path in old | after if after.get(path) != old.get(path)]
    assert not changed, "\n".join(changed)
    assert not Path("/", _TRAP).exists(), "the machine that converts has it now"
