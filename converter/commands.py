"""Asking the running host: short commands, whose failure is an answer too."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from converter import inside

_SECONDS = 10
_PROGRAM_DIRECTORIES = ("usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin")


def output(*command: str) -> str | None:
    """What a command of the host prints; None when it fails, is missing or takes too long."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def is_this_host(root: Path) -> bool:
    """Is `root` the root directory of the host that runs us, so that kernel and processes are its own?"""
    return root.resolve() == Path("/")


def systemd_runs(root: Path) -> bool:
    """Is systemd this running host's init (sd_booted(3))?"""
    return inside.status(root, "run/systemd/system") is not None


def unit_property(unit: str, name: str) -> str | None:
    """A property of a unit of the running host; None when systemd does not answer."""
    answer = output("systemctl", "show", "--property", name, "--value", unit)
    return None if answer is None else answer.strip()


def has_program(root: Path, name: str) -> bool:
    """Is the program installed on the host below `root`?"""
    if is_this_host(root) and shutil.which(name):
        return True
    return any(inside.status(root, f"{directory}/{name}") for directory in _PROGRAM_DIRECTORIES)
