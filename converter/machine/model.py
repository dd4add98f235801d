"""What systemd-nspawn has to know, in its own words (systemd.nspawn(5)); no Docker words here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Bind:
    """One Bind=/BindReadOnly= line. `source` starting with "+" is a path inside the machine's own tree."""

    source: str
    destination: str
    read_only: bool = False
    options: str = ""


@dataclass(frozen=True)
class TemporaryFileSystem:
    """One TemporaryFileSystem= line: a tmpfs at `path` with mount options ("size=64m,mode=1777")."""

    path: str
    options: str = ""


@dataclass(frozen=True)
class Port:
    """A port of the host that leads to one of the machine. `host_address` "" is every address; ports 1 to 65535."""

    port: int
    host_port: int
    protocol: str = "tcp"
    host_address: str = ""


@dataclass(frozen=True)
class Network:
    """A network of the machine's own: one IPv4 `address` behind the host, and the ports that lead to it.

    Without an address ("") there is nothing but loopback.
    """

    address: str
    ports: tuple[Port, ...] = ()


@dataclass(frozen=True)
class Volume:
    """Data that outlives the machine: directory `name` below /var/lib/docker2nspawn/volumes, bound to `destination`.

    `source` is what it is filled with when it is not there yet: a directory of the host, or with None what the
    machine's own tree has at `destination`.
    """

    name: str
    destination: str
    source: str | None = None
    read_only: bool = False


@dataclass(frozen=True)
class Healthcheck:
    """A command that is run in the machine from time to time. All times are in seconds.

    After `retries` failures in a row the machine is unhealthy; failures in the first `start_period` do not count, and
    until the first success in it the interval is `start_interval`. `restart`: then restart the machine.
    """

    command: tuple[str, ...]
    interval: float = 30
    timeout: float = 30
    start_period: float = 0
    start_interval: float = 5
    retries: int = 3
    restart: bool = False


@dataclass(frozen=True)
class UnitSetting:
    """A line of the unit's drop-in: `key`=`value` in [`section`] (Unit, Service)."""

    section: str
    key: str
    value: str


@dataclass(frozen=True)
class File:
    """A file that belongs to a machine: `path` on the host, without the leading slash."""

    path: str
    content: bytes
    mode: int = 0o644


@dataclass(frozen=True)
class Machine:
    """A machine's settings. None means: do not write the key, nspawn's own default is right.

    `environment` holds NAME=VALUE assignments, `parameters` the command line; both hold only what a
    settings file can express (see settings.py), the rest is in the launcher's arguments by then.
    `unit_environment` are nspawn's own switches (SYSTEMD_NSPAWN_*), for the unit's drop-in.
    `timeout_stop` is in seconds. `limits` are Limit*= by key ("LimitNOFILE": "1024:4096").
    `network` is made before the machine starts; without one the machine is in the host's network.
    """

    name: str
    boot: bool = False
    process_two: bool = False
    parameters: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    working_directory: str | None = None
    kill_signal: str | None = None
    hostname: str | None = None
    capability: tuple[str, ...] = ()
    drop_capability: tuple[str, ...] = ()
    no_new_privileges: bool | None = None
    system_call_filter: tuple[str, ...] = ()
    restrict_address_families: str | None = None
    limits: Mapping[str, str] = field(default_factory=dict)
    cpu_affinity: str | None = None
    oom_score_adjust: int | None = None
    private_users: str | None = None
    private_users_ownership: str | None = None
    resolv_conf: str | None = None
    timezone: str | None = None
    link_journal: str | None = None
    read_only: bool | None = None
    binds: tuple[Bind, ...] = ()
    temporary_file_systems: tuple[TemporaryFileSystem, ...] = ()
    volumes: tuple[Volume, ...] = ()
    virtual_ethernet: bool | None = None
    network: Network | None = None
    timeout_stop: int | None = None
    unit_environment: Mapping[str, str] = field(default_factory=dict)
    unit: tuple[UnitSetting, ...] = ()
    healthcheck: Healthcheck | None = None
    secret: bool = False

    @property
    def address(self) -> str | None:
        """Its address in a network of its own; None without one."""
        return (self.network.address or None) if self.network is not None else None


@dataclass(frozen=True)
class Account:
    """Who the program runs as: numbers only, with the supplementary groups and home that Docker gives it."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


@dataclass(frozen=True)
class TreeChange:
    """Something the image's tree lacks and Docker, or nspawn, needs: made after the layers are written.

    `kind` is "dir" or "file"; "copy", of the tree's own `content` path, made absolute; "link", to `content`; or
    "mount point", a directory even where there is a link.
    """

    path: str
    kind: str
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    content: bytes = b""
