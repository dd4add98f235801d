"""What a build can be told, as the command line has it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class BuildChoices:
    """What a build can be told; the names are the command line's, the texts as `docker build` takes them.

    `bases`: NAME=SOURCE for the image that the Dockerfile calls NAME, or "image" for all, from where they are; without
    it those of known distributions are made here, from `mirror`. `secrets`: id=ID[,src=FILE|,env=NAME]. `agents`:
    ID[=SOCKET], as --ssh.
    """

    file: Path | None = None
    target: str | None = None
    build_args: tuple[str, ...] = ()
    bases: tuple[str, ...] = ()
    mirror: str | None = None
    secrets: tuple[str, ...] = ()
    agents: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    no_cache: bool = False
    pull: bool = False
    chroot: bool = False
    debug_shell: bool = False
