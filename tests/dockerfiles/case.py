"""What a case is: a Dockerfile with its context. It is built by Docker and by us, and the two must be equal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

BUSYBOX = "FROM busybox:lab\n"
DEBIAN = "FROM debian:bookworm\n"

PORT = 18765
URL = f"http://127.0.0.1:{PORT}"
"""A web server with SERVED and a git repository /repo.git, for Docker and for us the same."""


@dataclass(frozen=True)
class File:
    """A regular file of a context."""

    content: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True)
class Folder:
    """A directory of a context; those on the way to a file need none."""

    mode: int = 0o755


@dataclass(frozen=True)
class Link:
    """A symbolic link of a context."""

    target: str


@dataclass(frozen=True)
class Hard:
    """Another name of a file of the context."""

    target: str


Entry = str | bytes | File | Folder | Link | Hard
"""Text or bytes: a file, mode 0644."""

Context = Mapping[str, Entry]


@dataclass(frozen=True)
class Case:
    """A Dockerfile; `files` are its context by path, `name` also that of the image that Docker makes of it.

    `fails`: Docker refuses it, and so must we; a part of what both say. `after` are cases whose images it is made
    from. `documented`: path -> content or "dir" or "-> TARGET" of all that it makes, where the Docker of the lab is
    too old and its documentation decides. `allow` are entitlements, `ssh` gives it an agent.
    """

    name: str
    what: str
    dockerfile: str | bytes
    files: Context = field(default_factory=dict)
    build_args: Mapping[str, str] = field(default_factory=dict)
    target: str | None = None
    secrets: Mapping[str, bytes] = field(default_factory=dict)
    fails: str | None = None
    after: tuple[str, ...] = ()
    documented: Mapping[str, str] | None = None
    allow: tuple[str, ...] = ()
    ssh: bool = False
    file: str = "Dockerfile"
