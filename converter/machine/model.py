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
class Machine:
    """A machine's settings. None means: do not write the key, nspawn's own default is right.

    `environment` holds NAME=VALUE assignments, `parameters` the command line; both hold only what a
    settings file can express (see settings.py), the rest is in the launcher's arguments by then.
    `unit_environment` are nspawn's own switches (SYSTEMD_NSPAWN_*), for the unit's drop-in.
    `timeout_stop` is in seconds.
    """

    name: str
    boot: bool = False
    parameters: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    working_directory: str | None = None
    kill_signal: str | None = None
    hostname: str | None = None
    drop_capability: tuple[str, ...] = ()
    no_new_privileges: bool | None = None
    private_users: str | None = None
    resolv_conf: str | None = None
    timezone: str | None = None
    link_journal: str | None = None
    binds: tuple[Bind, ...] = ()
    virtual_ethernet: bool | None = None
    timeout_stop: int | None = None
    unit_environment: Mapping[str, str] = field(default_factory=dict)


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

    `kind` is "dir", "file" or "copy" (of the tree's own `content` path, made absolute).
    """

    path: str
    kind: str
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    content: bytes = b""
