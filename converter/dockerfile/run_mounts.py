"""What is mounted for one RUN: name servers, hosts and its --mount options. Nothing of it stays in the layer."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import posixpath
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from converter.cache.removal import remove
from converter.cache.store import Cache, key_of
from converter.dockerfile.forward import forwarded
from converter.dockerfile.model import Mount, Run
from converter.dockerfile.namespace import NODEV, NOEXEC, NOSUID, bind, mount, unmount
from converter.dockerfile.overlay import copy
from converter.dockerfile.points import make_mount_point, remove_mount_points

HOSTNAME = "buildkitsandbox"  # what BuildKit calls every container
_HOSTS = f"127.0.0.1\tlocalhost {HOSTNAME}\n::1\tlocalhost ip6-localhost ip6-loopback\n"
_OWN = ("dev", "proc", "sys")  # where who starts the program mounts something itself
_POLL = 0.1  # seconds


@dataclass(frozen=True)
class Bind:
    """`source` is to be seen at `target`, an absolute path."""

    source: Path
    target: str
    read_only: bool = False
    flags: int = 0

    @property
    def in_own(self) -> bool:
        """Does it belong into /dev, /proc or /sys?"""
        return posixpath.normpath(self.target).split("/")[1] in _OWN


@dataclass(frozen=True)
class Given:
    """What --mount can be given: secrets and ssh agents' sockets by id, and the trees of other stages and images.

    `tree` makes the tree that a mount shows below a new directory, writable or not, and keeps it until the stack
    that it is given is closed. `key` tells that tree from others. `stopped` raises when the build is to end.
    """

    secrets: Mapping[str, bytes]
    agents: Mapping[str, Path]
    tree: Callable[[Mount, Path, bool, contextlib.ExitStack], Path]
    key: Callable[[Mount], str]
    stopped: Callable[[], None]


@dataclass(frozen=True)
class Prepared:
    """What a RUN needs: mounts, and assignments for its environment."""

    binds: tuple[Bind, ...]
    environment: tuple[str, ...]


@contextlib.contextmanager
def prepared(step: Run, cache: Cache, scratch: Path, given: Given) -> Iterator[Prepared]:
    """Everything that `step` mounts, ready below the new directory `scratch`.

    Raises DockerfileError when a source is missing.
    """
    scratch.mkdir(mode=0o700)
    binds: list[Bind] = []
    environment: list[str] = []
    agents = itertools.count()
    with contextlib.ExitStack() as stack:
        own = scratch / "own"
        own.mkdir(mode=0o755)
        mount("tmpfs", own, "mode=0755", NOSUID | NODEV)  # secrets are never on a disk
        stack.callback(unmount, own)
        always = [*_name_service(own), *([_script(step, own)] if step.script is not None else [])]
        for number, option in enumerate(step.mounts):
            place = scratch / str(number)
            place.mkdir(mode=0o755)
            match option.kind:
                case "bind":
                    binds.append(_bound(step, option, place, given, stack))
                case "cache":
                    binds.append(_cached(step, option, cache, place, given, stack))
                case "tmpfs":
                    size = f",size={option.size}" if option.size else ""
                    mount("tmpfs", place, f"mode=01777{size}", NOSUID)
                    stack.callback(unmount, place)
                    binds.append(Bind(place, _target(step, option)))
                case "secret":
                    _secret(step, option, own / f"secret-{number}", given, binds, environment)
                case "ssh":
                    _agent(step, option, place, next(agents), given, stack, binds, environment)
        # As BuildKit sorts them: its own first, which others may hide, and what is mounted deeper later.
        binds.sort(key=lambda each: len(each.target))
        yield Prepared((*always, *binds), tuple(environment))


@contextlib.contextmanager
def applied(binds: Sequence[Bind], root: Path) -> Iterator[None]:
    """Mount them in the tree `root` meanwhile; mount points that had to be made are taken out again.

    Raises ConversionError when one cannot be made.
    """
    made: list[str] = []
    root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    places: list[Path] = []
    try:
        for each in binds:
            real = make_mount_point(root_fd, each.target, directory=each.source.is_dir(), made=made)
            bind(each.source, root / real, read_only=each.read_only, flags=each.flags)
            places.append(root / real)
        yield
    finally:
        for place in reversed(places):
            unmount(place)
        remove_mount_points(root_fd, made)
        os.close(root_fd)


def _name_service(own: Path) -> Iterator[Bind]:
    resolv, hosts = own / "resolv.conf", own / "hosts"
    with contextlib.suppress(OSError):  # a host without is one without network
        resolv.write_bytes(Path("/etc/resolv.conf").read_bytes())
    resolv.touch()
    hosts.write_text(_HOSTS)
    for path in (resolv, hosts):
        path.chmod(0o644)
        yield Bind(path, f"/etc/{path.name}", read_only=True, flags=NOSUID | NODEV | NOEXEC)


def _script(step: Run, own: Path) -> Bind:
    """A here-document that is a program of its own: below /dev/pipes, where nothing else is."""
    place = own / "pipes"
    place.mkdir(mode=0o755)
    script = place / posixpath.basename(step.argv[0])
    script.write_bytes(step.script or b"")
    script.chmod(0o755)
    return Bind(place, posixpath.dirname(step.argv[0]), read_only=True)


def _target(step: Run, option: Mount) -> str:
    if not option.target:
        raise step.instruction.error(f"--mount=type={option.kind} has no target", "add target=PATH")
    target = posixpath.normpath(posixpath.join(step.state.working_directory, option.target))
    if target.strip("/") == "":
        raise step.instruction.error("nothing can be mounted on /", "choose another target=PATH")
    return "/" + target.lstrip("/")


def _bound(step: Run, option: Mount, place: Path, given: Given, stack: contextlib.ExitStack) -> Bind:
    tree = given.tree(option, place / "tree", not option.read_only, stack)
    return Bind(_inside(step, option, tree), _target(step, option), read_only=option.read_only)


def _inside(step: Run, option: Mount, tree: Path) -> Path:
    """What `source` is in its tree, links resolved there."""
    parts = [part for part in option.source.split("/") if part not in {"", "."}]
    real: list[str] = []
    links = 0
    waiting = parts[::-1]
    while waiting:
        part = waiting.pop()
        if part == "..":
            del real[-1:]
            continue
        here = tree.joinpath(*real, part)
        if here.is_symlink():
            links += 1
            target = os.readlink(here)  # noqa: PTH115 (a Path would lose what is at its end)
            if links <= 40:
                if target.startswith("/"):
                    real.clear()
                waiting += [piece for piece in reversed(target.split("/")) if piece not in {"", "."}]
                continue
        if links > 40 or not os.path.lexists(here):
            raise step.instruction.error(f"--mount: {option.source!r} is not there", "see its source=")
        real.append(part)
    return tree.joinpath(*real)


def _secret(
    step: Run, option: Mount, path: Path, given: Given, binds: list[Bind], environment: list[str]
) -> None:
    if (value := given.secrets.get(option.id)) is None:
        if option.required:
            raise step.instruction.error(
                f"the secret {option.id!r} is not given", f"give it with --secret id={option.id},src=FILE"
            )
        return
    if option.env is not None:
        environment.append(f"{option.env}={value.decode('utf-8', 'surrogateescape')}")
    if option.target is not None or option.env is None:
        mode = 0o400 if option.mode is None else option.mode
        with path.open("xb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(value)
            os.fchown(file.fileno(), option.uid or 0, option.gid or 0)
            os.fchmod(file.fileno(), mode & 0o777)
        target = option.target or f"/run/secrets/{posixpath.basename(option.id)}"
        target = posixpath.normpath(posixpath.join(step.state.working_directory, target))
        flags = NOSUID | NODEV | (0 if mode & 0o111 else NOEXEC)
        binds.append(Bind(path, target, read_only=True, flags=flags))


def _agent(
    step: Run,
    option: Mount,
    place: Path,
    number: int,
    given: Given,
    stack: contextlib.ExitStack,
    binds: list[Bind],
    environment: list[str],
) -> None:
    target = option.target or f"/run/buildkit/ssh_agent.{number}"
    if number == 0:  # also when there is no agent
        environment.append(f"SSH_AUTH_SOCK={target}")
    name = option.id or "default"
    if (agent := given.agents.get(name)) is not None:
        mode = 0o600 if option.mode is None else option.mode
        owner = (option.uid or 0, option.gid or 0)
        socket = stack.enter_context(forwarded(agent, place, owner=owner, mode=mode))
        binds.append(Bind(socket, posixpath.join(step.state.working_directory, target)))
    elif option.required:
        raise step.instruction.error(f"no ssh agent {name!r} is forwarded", "give one with --ssh")


def _cached(
    step: Run, option: Mount, cache: Cache, place: Path, given: Given, stack: contextlib.ExitStack
) -> Bind:
    seed = None
    origin = ""
    if option.origin is not None:
        seed = _inside(step, option, given.tree(option, place / "seed", False, stack))
        origin = f"{given.key(option)} {option.source}"
    target = _target(step, option)
    identity = key_of("cache mount", option.id or target, origin)
    directory = stack.enter_context(_locked(cache, identity, option.sharing, given.stopped))
    with cache.locked(f"mount-{directory.name}", given.stopped):
        if not (directory / "tree").is_dir():
            _make_cache(directory, option, seed)
    with contextlib.suppress(OSError):
        os.utime(directory)
    return Bind(directory / "tree", target, read_only=option.read_only)


@contextlib.contextmanager
def _locked(cache: Cache, identity: str, sharing: str, stopped: Callable[[], None]) -> Iterator[Path]:
    """A cache's directory, held as `sharing` says: "private" takes the first that nobody else uses."""
    number = 0
    while True:
        directory = cache.mounts / (f"{identity}-{number}" if number else identity)
        directory.mkdir(mode=0o700, exist_ok=True)
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if sharing == "shared" else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            if sharing == "private":
                number += 1
                continue
            stopped()
            time.sleep(_POLL)
            continue
        try:
            yield directory
        finally:
            os.close(fd)
        return


def _make_cache(directory: Path, option: Mount, seed: Path | None) -> None:
    making = directory / ".#tree"
    remove(making)
    making.mkdir(mode=0o700)
    of_its_own = option.source.strip("/") == "" and (option.mode, option.uid, option.gid) != (None,) * 3
    if seed is not None and seed.is_dir() and not of_its_own:
        copy([seed], making)
        status = seed.stat()
        os.chown(making, status.st_uid, status.st_gid)
        making.chmod(status.st_mode & 0o7777)
    else:
        os.chown(making, option.uid or 0, option.gid or 0)
        making.chmod(0o755 if option.mode is None else option.mode & 0o7777)
    about = f"RUN --mount=type=cache,{f'id={option.id},' if option.id else ''}target={option.target}"
    (directory / "about").write_bytes(os.fsencode(about))  # for `cache ls`
    making.rename(directory / "tree")
