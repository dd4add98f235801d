"""`docker2nspawn check` against real hosts: what it says will go wrong does go wrong, and the rest does not."""

from __future__ import annotations

import os
import re
import shutil
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from converter import commands
from converter.check.versions import SETTINGS_SINCE
from converter.linux import has_mapped_mounts
from converter.systemd import installed_version
from tests import lab
from tests.checked import BrokenHost, convert

pytestmark = pytest.mark.lab

LAUNCHER = "usr/lib/docker2nspawn/launch"


def remove(host: BrokenHost) -> None:
    shutil.rmtree(host.tree, ignore_errors=True)
    shutil.rmtree(host.drop_in.parent, ignore_errors=True)
    for path in (host.settings, host.trusted, *host.state.glob(f"{host.name}.*")):
        path.unlink(missing_ok=True)
    for path in (host.root / "etc/systemd/system").glob(f"docker2nspawn-*@{host.name}.*"):
        path.unlink()


@pytest.fixture
def here() -> Iterator[BrokenHost]:
    """A machine on this very host, with systemd 252."""
    convert(Path("/"), "lab-check")
    host = BrokenHost(Path("/"), Path("/"), "lab-check")
    yield host
    remove(host)


@pytest.fixture
def there(systemd_host: lab.Host) -> Iterator[BrokenHost]:
    """A machine on the booted host with systemd 257."""
    convert(systemd_host.root, "lab-check")
    host = BrokenHost(systemd_host.root, systemd_host.root, "lab-check")
    yield host
    remove(host)


def problems(host: BrokenHost) -> list[str]:
    return [finding.subject for finding in host.findings() if finding.severity == "problem"]


def starts(host: BrokenHost) -> bool:
    """Does systemd-nspawn start the machine, and the program in it end well?"""
    command = ("systemd-nspawn", "--register=no", "--keep-unit", "--quiet", "-M", host.name)
    return lab.run(*command, check=False).returncode == 0


@pytest.mark.parametrize("root", ["here", "there"])
def test_the_keys_of_each_version(root: str, systemd_host: lab.Host) -> None:
    """The program itself has the names of all the keys it knows."""
    place = Path("/") if root == "here" else systemd_host.root
    version = installed_version(place)
    assert version is not None
    program = (place / "usr/bin/systemd-nspawn").read_bytes()
    known = {
        tuple(key.decode().split(".")) for key in re.findall(rb"(?:Exec|Files|Network)\.[A-Za-z]+", program)
    }
    assert known == {key for key, since in SETTINGS_SINCE.items() if since <= version}


def test_nothing_wrong_here(here: BrokenHost) -> None:
    assert problems(here) == []
    assert starts(here)


def no_usr(host: BrokenHost) -> None:
    host.replace(f"Parameters=/{LAUNCHER}", "Parameters=/launch")
    shutil.copy(host.tree / LAUNCHER, host.tree / "launch")
    (host.tree / "usr").rename(host.tree / "usr.away")
    host.replace("-- /usr/bin/hello", "-- /usr.away/bin/hello")


BREAKS: dict[str, Callable[[BrokenHost], object]] = {
    "/usr": no_usr,
    "launcher": lambda host: (host.tree / LAUNCHER).unlink(),
    "program": lambda host: (host.tree / "usr/bin/hello").unlink(),
    "os-release": lambda host: host.replace("Boot=no", "Boot=yes"),
    "User=": lambda host: host.setting("Exec", "User=app"),
    "/srv/g:one": lambda host: host.setting("Files", r"Bind=/srv/g\:one:/x"),
    "/x": lambda host: host.setting("Files", "Bind=+/gone:/x"),
    "/gone": lambda host: host.setting("Files", "Overlay=/gone::/x"),
    "Bind=": lambda host: host.setting("Files", "Bind=/etc:/x:owneridmap"),
    "network": lambda host: host.replace("VirtualEthernet=no", "Bridge=lab-none"),
}


@pytest.mark.parametrize("subject", BREAKS)
def test_what_is_said_not_to_start_does_not(subject: str, here: BrokenHost) -> None:
    BREAKS[subject](here)
    assert subject in problems(here)
    assert not starts(here)


def test_a_mount_nobody_misses(here: BrokenHost) -> None:
    here.setting("Files", "Bind=/etc:/x\\:y\nBind=:/scratch\nTemporaryFileSystem=/z:mode=755")
    assert problems(here) == []
    assert starts(here)


def test_a_port_that_is_taken_here(here: BrokenHost) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        here.network(ports=f"{taken.getsockname()[1]}:80/tcp")
        assert f"port *:{taken.getsockname()[1]}/tcp" in problems(here)
    assert not [subject for subject in problems(here) if subject.startswith("port")]


def test_shifted_owners_and_the_way_back(here: BrokenHost) -> None:
    for path in (here.tree, *here.tree.rglob("*")):
        found = path.lstat()
        os.lchown(path, found.st_uid + 0x20000, found.st_gid + 0x20000)
        if not path.is_symlink():
            path.chmod(stat.S_IMODE(found.st_mode))
    (finding,) = (finding for finding in here.findings() if finding.severity == "problem")
    assert (finding.subject, "shifted by 131072" in finding.text) == ("owners", True)
    lab.run("sh", "-c", finding.remedy.removeprefix("shift them back: ").partition(";")[0], check=False)
    assert problems(here) == []
    assert here.tree.stat().st_uid == 0
    assert starts(here)


def test_docker_would_start_the_container_too(here: BrokenHost, docker_host: str) -> None:
    loaded = lab.run("docker", "load", "--quiet", "--input", "fixtures/hello.tar", DOCKER_HOST=docker_host)
    image = loaded.stdout.rpartition(": ")[2].strip()
    command = ("docker", "create", "--restart=always", f"--name={here.name}", image)
    lab.run(*command, DOCKER_HOST=docker_host)
    try:
        texts = [finding.text for finding in here.findings() if finding.subject == "Docker"]
        assert texts == [f"Docker starts the container {here.name} again by itself (restart policy always)"]
    finally:
        lab.run("docker", "rm", "--force", here.name, DOCKER_HOST=docker_host)
        lab.run("docker", "rmi", image, DOCKER_HOST=docker_host, check=False)
    assert [finding for finding in here.findings() if finding.subject == "Docker"] == []


def test_mapped_mounts_are_really_tried() -> None:
    assert has_mapped_mounts(Path("/var/tmp")) is True
    assert has_mapped_mounts(Path("/proc")) is False


def test_the_command(here: BrokenHost) -> None:
    (here.tree / LAUNCHER).unlink()
    code = "import sys; from pathlib import Path; from converter.check.command import run;"
    code += f"sys.exit(run('{here.name}', Path('/'), as_json=False))"
    done = lab.run(".venv/bin/python", "-c", code, check=False)
    assert done.returncode == 1
    assert done.stdout.startswith("problem: launcher: ")


def test_another_root_is_only_read(there: BrokenHost) -> None:
    assert problems(there) == []
    (finding,) = there.findings()
    assert "firewall" in finding.text


def test_untrusted_settings_are_really_ignored(there: BrokenHost, systemd_host: lab.Host) -> None:
    there.trusted.unlink()
    finding = next(finding for finding in there.findings() if finding.subject == "trust")
    assert "nspawn ignores " in finding.text
    assert "PrivateUsers" in finding.text
    # What is ignored asks for a user namespace, which the drop-in forbids.
    drop_in = there.drop_in.read_text()
    there.drop_in.write_text(drop_in.replace("RestrictNamespaces=cgroup ipc net mnt pid uts\n", ""))
    output = systemd_host.run_machine(there.name)
    assert "is not trusted" in output
    there.drop_in.write_text(drop_in)
    systemd_host.run("sh", "-c", finding.remedy)
    assert problems(there) == []
    assert "is not trusted" not in systemd_host.run_machine(there.name)


def test_keys_that_257_really_does_not_know(there: BrokenHost, systemd_host: lab.Host) -> None:
    there.setting("Network", "NamespacePath=/run/netns/x")
    there.setting("Exec", "Memory=1G")
    subjects = {finding.subject for finding in there.findings()}
    assert {"NamespacePath=", "Memory="} <= subjects
    output = systemd_host.run_machine(there.name)
    for key in ("NamespacePath", "Memory"):
        assert re.search(rf"Unknown key.*{key}", output), output


def test_units_that_systemd_has_not_read_again(
    there: BrokenHost, systemd_host: lab.Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real systemd answers, as if we ran on its host."""
    there.setting("Files", "Bind=/gone:/x")  # a unit that failed stays in systemd's memory
    systemd_host.run("systemctl", "daemon-reload")
    systemd_host.run("systemctl", "start", f"systemd-nspawn@{there.name}.service", check=False)
    there.unit_line("Service", "TimeoutStartSec=77")
    asks = BrokenHost(there.root, tmp_path, there.name)
    asks.program("systemctl", f'exec nsenter -t {systemd_host.leader} -a systemctl "$@"')
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(commands, "is_this_host", lambda root: root == there.root)
    (there.root / "run/systemd/system").mkdir(parents=True, exist_ok=True)  # its own is in its tmpfs
    try:
        assert "units" in problems(there)
        systemd_host.run("systemctl", "daemon-reload")
        assert "units" not in problems(there)
    finally:
        shutil.rmtree(there.root / "run/systemd")
