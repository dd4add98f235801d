"""What `convert` and `plan` can be told."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path

from converter.dockerfile.choices import BuildChoices
from converter.image.model import Platform
from converter.machine.mapping import Hardening
from converter.machine.model import Port
from converter.machine.mounts import Volumes
from converter.machine.ports import NetworkKind
from converter.rootfs.merge import Limits

OLDEST_SYSTEMD = 252


@dataclass(frozen=True)
class Options:
    """What `convert` and `plan` can be told; the names are those of the command line."""

    name: str | None = None
    root: Path = Path("/")
    force: bool = False
    strict: bool = False
    trust: bool = True
    platform: Platform | None = None
    plain_http: bool = False
    max_entries: int = Limits.entries
    max_size: int | None = None  # bytes; None: what is free
    network: NetworkKind | None = None  # None: as in Docker
    ports: tuple[Port, ...] = ()
    publish_all: bool = False
    volumes: Volumes = "copy"
    hardening: Hardening = "default"
    systemd: int | None = None  # None: what is installed below root
    restart_unhealthy: bool = False
    build: BuildChoices = field(default_factory=BuildChoices)
    batch: str | None = None  # what marks the records of all machines of a batch
    output: Callable[[str, bytes], None] | None = None  # what a RUN prints, with its stage

    def shape(self) -> str:
        """A digest of all that shapes the machine: two conversions of one image with the same shape are the same."""
        build = replace(self.build, no_cache=False, pull=False, debug_shell=False)
        shaping = {
            key: value for key, value in asdict(replace(self, build=build)).items() if key not in _OTHER
        }
        return sha256(
            json.dumps(shaping, sort_keys=True, default=str).encode("utf-8", "surrogatepass")
        ).hexdigest()


# What says where the machine is, whether it may be made, or how; not what it becomes.
_OTHER = frozenset(
    {"name", "root", "force", "strict", "plain_http", "max_entries", "max_size", "batch", "output"}
)
