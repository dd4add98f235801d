"""What the mapping has to know about an image's tree: looked up once, so that the mapping stays pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from converter.image.model import ImageConfig

# Docker's, for images that set none (moby: oci.DefaultPathEnv).
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

MOUNT_POINTS = ("/dev", "/proc", "/run", "/sys")
"""What nspawn mounts something on by its path, in 252 to 262: through a link it would write to the host."""

_SMALL_FILE = 16 * 1024 * 1024  # passwd and group files beyond this are an attack


class There(Protocol):
    """Where a path leads, links followed: the real path without a leading slash, and the kind as in Entry."""

    @property
    def path(self) -> bytes: ...

    @property
    def kind(self) -> str: ...


class Tree(Protocol):
    """A tree that is planned (rootfs.merge.Plan) or stands on the disk (rootfs.standing.StandingTree)."""

    def lookup(self, path: str) -> There | None: ...

    def children(self, path: str) -> list[bytes]: ...

    def read(self, path: str, limit: int) -> bytes | None: ...


@dataclass(frozen=True)
class Facts:
    """What the image has.

    `passwd` and `group`: those files' bytes, None when missing. `directories`: which of the paths that the config
    speaks of (WORKDIR, VOLUME) are there; `blocked`: which cannot be, because of a file in their way. `program`:
    where the command's first word really lies, links followed, None when it cannot be found. `run`: names in /run.
    `links`: where links lead that stand in for directories that nspawn mounts something on (MOUNT_POINTS), by path.
    """

    passwd: bytes | None = None
    group: bytes | None = None
    directories: frozenset[str] = frozenset()
    blocked: frozenset[str] = frozenset()
    program: str | None = None
    run: tuple[str, ...] = ()
    links: Mapping[str, str] = field(default_factory=dict)
    machine_id: bytes | None = None
    has_usr: bool = True
    has_os_release: bool = True


def observe(tree: Tree, config: ImageConfig) -> Facts:
    """Look up in the tree what the mapping of `config` needs."""
    mentioned = {path for path in (config.working_dir, *config.volumes) if path}
    return Facts(
        passwd=tree.read("etc/passwd", _SMALL_FILE),
        group=tree.read("etc/group", _SMALL_FILE),
        directories=frozenset(path for path in mentioned if _is_dir(tree, path)),
        blocked=frozenset(path for path in mentioned if _is_blocked(tree, path)),
        program=_find_program(tree, config),
        run=tuple(sorted(name.decode("utf-8", "surrogateescape") for name in tree.children("run"))),
        links={path: led for path in MOUNT_POINTS if (led := _led_to(tree, path)) is not None},
        machine_id=tree.read("etc/machine-id", _SMALL_FILE),
        has_usr=_is_dir(tree, "usr"),
        has_os_release=any(tree.lookup(path) for path in ("etc/os-release", "usr/lib/os-release")),
    )


def search_path(env: Sequence[str]) -> str:
    """The PATH that Docker gives a container with these ENV."""
    for assignment in reversed(env):
        name, equals, value = assignment.partition("=")
        if name == "PATH" and equals:
            return value
    return DEFAULT_PATH


def _led_to(tree: Tree, path: str) -> str | None:
    """The path at the end of the link `path`, "" for one that leads nowhere; None when it is no link."""
    found = tree.lookup(path)
    if found is None:
        return "" if path.strip("/").encode() in tree.children("") else None
    led = "/" + found.path.decode("utf-8", "surrogateescape")
    return led if led != path else None


def _is_dir(tree: Tree, path: str) -> bool:
    found = tree.lookup(path)
    return found is not None and found.kind == "dir"


def _is_blocked(tree: Tree, path: str) -> bool:
    parts = path.strip("/").split("/")
    found = (tree.lookup("/".join(parts[: n + 1])) for n in range(len(parts)))
    return any(there is not None and there.kind != "dir" for there in found)


def _find_program(tree: Tree, config: ImageConfig) -> str | None:
    command = (*config.entrypoint, *config.cmd)
    if not command:
        return None
    program = command[0]
    if "/" in program:
        candidates = [program if program.startswith("/") else f"{config.working_dir}/{program}"]
    else:
        candidates = [f"{directory or '.'}/{program}" for directory in search_path(config.env).split(":")]
    for candidate in candidates:
        found = tree.lookup(candidate)
        if found is not None and found.kind == "file":
            return "/" + found.path.decode("utf-8", "surrogateescape")
    return None
