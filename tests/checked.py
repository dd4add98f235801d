"""A host's root directory with one converted machine on it, to break."""

from __future__ import annotations

import json
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter import conversion
from converter.check import Finding, check
from converter.options import Options
from converter.progress import Silent

NAME = "hello"


@dataclass(frozen=True)
class BrokenHost:
    """The root of a host; `bin` has the programs that commands are looked up in, when it plays the running host."""

    root: Path
    bin: Path
    name: str = NAME

    @property
    def tree(self) -> Path:
        return self.root / f"var/lib/machines/{self.name}"

    @property
    def settings(self) -> Path:
        return self.root / f"var/lib/machines/{self.name}.nspawn"

    @property
    def trusted(self) -> Path:
        return self.root / f"etc/systemd/nspawn/{self.name}.nspawn"

    @property
    def drop_in(self) -> Path:
        return self.root / f"etc/systemd/system/systemd-nspawn@{self.name}.service.d/docker2nspawn.conf"

    @property
    def state(self) -> Path:
        return self.root / "var/lib/docker2nspawn/machines"

    def findings(self) -> tuple[Finding, ...]:
        return check(self.name, self.root)

    def write(self, path: str, text: str = "", *, mode: int = 0o644) -> None:
        """A file of the host."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def replace(self, old: str, new: str) -> None:
        """Edit the settings file."""
        text = self.settings.read_text()
        assert old in text, text
        self.settings.write_text(text.replace(old, new))

    def setting(self, section: str, line: str) -> None:
        """One more line in the settings file."""
        self.settings.write_text(f"{self.settings.read_text()}\n[{section}]\n{line}\n")

    def unit_line(self, section: str, line: str) -> None:
        """One more line in the drop-in."""
        self.drop_in.write_text(f"{self.drop_in.read_text()}\n[{section}]\n{line}\n")

    def record(self, **changes: Any) -> None:
        """Change the record."""
        path = self.state / f"{self.name}.json"
        record = json.loads(path.read_text())
        path.write_text(json.dumps({**record, **changes}))

    def config(self, **changes: Any) -> None:
        """Change the image's config in the record."""
        record = json.loads((self.state / f"{self.name}.json").read_text())
        self.record(config={**record["config"], **changes})

    def program(self, name: str, script: str) -> None:
        """A program that the running host answers with."""
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def network(self, other: str = "", *, ports: str = "", address: str = "10.213.0.2") -> None:
        """A network of the machine's own, as a conversion installs it; for another machine only its script."""
        name = other or self.name
        script = f"#!/bin/sh\nNAME={name}\nADDRESS={address}\nPORTS='\n{ports}\n'\niptables -A FORWARD\n"
        self.write(f"var/lib/docker2nspawn/machines/{name}.network", script)
        if not other:
            unit = f"docker2nspawn-network@{name}.service"
            exec_start = f"ExecStart=/bin/sh /var/lib/docker2nspawn/machines/{name}.network up"
            self.write(f"etc/systemd/system/{unit}", f"[Service]\n{exec_start}\n")
            self.unit_line("Unit", f"BindsTo={unit}")
            self.unit_line("Service", f"NetworkNamespacePath=/run/netns/d2n-{name}")


def elf(machine: int, interpreter: str = "") -> bytes:
    """The smallest 64-bit ELF header there is, with one program header."""
    name = interpreter.encode() + b"\0"
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    kind = 3 if interpreter else 1
    return header + struct.pack("<IIQQQQQQ", kind, 4, 120, 0, 0, len(name), len(name), 1) + name


def convert(root: Path, name: str = NAME) -> None:
    """Make the machine, in the host's network: tests give it one of its own."""
    conversion.convert("fixtures/hello.tar", Options(name=name, root=root, network="host"), Silent())


def make_host(converted: Path, place: Path) -> BrokenHost:
    """A copy of a root with the machine, and around it a Debian 13 that has all it needs."""
    root = place / "host"
    shutil.copytree(converted, root, symlinks=True)
    host = BrokenHost(root, place / "bin")
    host.bin.mkdir()
    host.write("etc/debian_version", "13.1\n")
    host.write("etc/resolv.conf", "nameserver 192.0.2.1\n")
    for program in ("usr/bin/systemd-nspawn", "usr/bin/ip", "usr/sbin/nft", "bin/sh"):
        host.write(program, mode=0o755)
    host.write("usr/lib/x86_64-linux-gnu/systemd/libsystemd-shared-257.so")
    host.write("sys/fs/cgroup/cgroup.controllers", "cpu memory\n")
    host.write("run/dbus/system_bus_socket")
    (root / "run/systemd/system").mkdir(parents=True)
    host.program("systemctl", "echo no")
    return host


def health(host: BrokenHost, *files: str) -> None:
    """Give the machine a health check, without those of its files."""
    host.config(healthcheck={"test": ["CMD", "/check"]})
    host.record(notes=[])
    host.write(f"etc/systemd/system/docker2nspawn-health@{NAME}.timer", "[Timer]\nOnActiveSec=1\n")
    service = f"[Service]\nExecStart=-/bin/sh '/var/lib/docker2nspawn/machines/{NAME}.health' run\n"
    host.write(f"etc/systemd/system/docker2nspawn-health@{NAME}.service", service)
    host.write(f"var/lib/docker2nspawn/machines/{NAME}.health")
    for file in files:
        (host.root / file).unlink()
