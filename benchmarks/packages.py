"""Debian packages as material: downloaded, checked by apt, and unpacked without being installed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

_updated = False


def download(names: Iterable[str], into: Path) -> dict[str, Path]:
    """Fetch packages by name; those this release of Debian does not have are left out, with a line."""
    global _updated
    if not _updated:
        subprocess.run(["apt-get", "update", "-qq"], check=True, stdout=subprocess.DEVNULL)
        _updated = True
    wanted = sorted(set(names))
    known = _known(wanted)
    for name in wanted:
        if name not in known:
            print(f"benchmarks: this Debian has no package {name}; left out", file=sys.stderr)
    into.mkdir()
    # The sandbox user may not write to a directory of root's.
    command = ["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", *known]
    subprocess.run(command, check=True, cwd=into, stdout=subprocess.DEVNULL)
    return {path.name.partition("_")[0]: path for path in into.glob("*.deb")}


def _known(names: Sequence[str]) -> list[str]:
    """The packages that can be downloaded, in the same order."""
    shown = subprocess.run(
        ["apt-cache", "show", "--no-all-versions", *names], capture_output=True, text=True, check=False
    ).stdout
    found = {line.removeprefix("Package: ") for line in shown.splitlines() if line.startswith("Package: ")}
    return [name for name in names if name in found]


def unpack(package: Path, into: Path) -> None:
    """Write a package's files into a directory, with owners, modes and times; none of its scripts run."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as reading:
        subprocess.run(["tar", "-x", "-p", "--numeric-owner", "-C", into], stdin=reading.stdout, check=True)
    if reading.returncode != 0:
        raise RuntimeError(f"dpkg-deb could not read {package.name}")


def status_entry(package: Path) -> str:
    """The paragraph of a package in dpkg's status file."""
    control = subprocess.run(["dpkg-deb", "--field", package], capture_output=True, text=True, check=True)
    return f"{control.stdout.rstrip()}\nStatus: install ok installed\n\n"
