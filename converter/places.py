"""Where things lie on a host, and what its other machines have taken."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path


@dataclass(frozen=True)
class Places:
    """Where things lie below `root` (the host's "/" or another directory)."""

    root: Path

    @property
    def machines(self) -> Path:
        return self.root / "var/lib/machines"

    @property
    def state(self) -> Path:
        return self.root / "var/lib/docker2nspawn"

    def tree(self, name: str) -> Path:
        return self.machines / name

    def settings(self, name: str) -> Path:
        return self.machines / f"{name}.nspawn"

    def trusted_settings(self, name: str) -> Path:
        return self.root / f"etc/systemd/nspawn/{name}.nspawn"

    def drop_in(self, name: str) -> Path:
        return self.root / f"etc/systemd/system/systemd-nspawn@{name}.service.d/docker2nspawn.conf"

    def record(self, name: str) -> Path:
        return self.state / "machines" / f"{name}.json"

    @property
    def volumes(self) -> Path:
        return self.state / "volumes"

    @property
    def cache(self) -> Path:
        """The cache of builds: steps of Dockerfiles."""
        return self.state / "cache"

    @property
    def trees(self) -> Path:
        """The cache of what images share: where the machines lie, because only on one file system can it be cloned."""
        return self.machines / ".docker2nspawn-cache"

    def generated(self, name: str) -> tuple[Path, ...]:
        """Every further file that a machine may have, and that one made anew may have no more."""
        system = self.root / "etc/systemd/system"
        return (
            system / f"docker2nspawn-network@{name}.service",
            system / f"docker2nspawn-health@{name}.service",
            system / f"docker2nspawn-health@{name}.timer",
            self.record(name).with_name(f"{name}.network"),
            self.record(name).with_name(f"{name}.health"),
            self.record(name).with_name(f"{name}.launch"),
        )


def used_addresses(places: Places, but: str) -> dict[str, str]:
    """The addresses of all machines here with a private network, but of one, and the machines' names."""
    used = {}
    directory = places.record(but).parent
    with suppress(FileNotFoundError), os.scandir(directory) as entries:
        for entry in entries:
            name = entry.name.removesuffix(".json")
            if name not in {entry.name, but} and (address := _recorded(entry)) is not None:
                used[address] = name
    return used


def recorded_address(places: Places, name: str) -> str | None:
    """The address that machine `name` has in its private network, by its record; None without."""
    return _recorded(places.record(name))


def _recorded(record: Path | os.DirEntry[str]) -> str | None:
    try:
        status = record.stat()
        return _address(os.fspath(record), status.st_ino, status.st_mtime_ns, status.st_size)
    except (OSError, ValueError, LookupError, TypeError):
        return None


@lru_cache(1 << 16)  # more than there are addresses
def _address(path: str, inode: int, time: int, size: int) -> str | None:
    """What a record says, read once while it is the same file: each of many conversions looks at all of them."""
    address = json.loads(Path(path).read_bytes())["address"]
    return address if isinstance(address, str) else None
