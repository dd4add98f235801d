"""What has been made already, kept by what it was made from: steps of Dockerfiles, and trees that images share.

Below the cache's directory:

    layers/KEY/tree       what one step has changed, as overlayfs keeps it: an upper directory; or a whole tree
    layers/KEY/meta.json  what it is; its modification time is that of its last use
    layers/KEY/synced     is there once the layer is known to be on the disk
    layers/.#KEY/         one that is being made: its maker holds the lock locks/KEY
    layers/.#*.gone/      what is being removed; removal.py
    names/KEY             a link to the layer (its KEY) that something is known to come to without making it
    mounts/ID/            the directories of RUN --mount=type=cache; run_mounts.py
    lock                  builds hold it shared; who removes layers that builds use must have it alone

Who uses a layer otherwise than in a build holds a shared lock on its directory KEY (`using`). A layer is complete
before it gets its name, by a rename. One whose maker was killed is told by its free lock, and removed by the next who
opens the cache. To wait for the disk after each step would take long, so that is done once, at the end (`close`): what
is not known to be on the disk counts only until the host is booted again. KEY is 128 bits of a SHA-256 in hex.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

from converter.cache.removal import PARTIAL, is_still, remove, remove_dead, size_of, try_lock
from converter.linux import make_subvolume, sync_file_system
from converter.rootfs.directories import DIRECTORY

_FORMAT = 1  # a cache of another format is another cache
_KEY = 32  # hex digits: short, because 100 of them must fit in one page of mount options
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_POLL = 0.1  # seconds between looks at a lock that another process holds


@dataclass(frozen=True)
class Layer:
    """A complete layer. `tree` None: the step has changed nothing. `whole`: nothing below it counts."""

    key: str
    tree: Path | None
    whole: bool
    config: dict[str, Any] | None = None


@dataclass(frozen=True)
class Making:
    """A layer that is being made: what its step changes goes to `tree`; `work` is for everything else."""

    key: str
    path: Path

    @property
    def tree(self) -> Path:
        return self.path / "tree"

    @property
    def work(self) -> Path:
        return self.path / "work"


def key_of(*parts: object) -> str:
    """The key of what is made from `parts`: anything that JSON can say."""
    text = json.dumps([_FORMAT, *parts], sort_keys=True, default=str)
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_KEY]


class Cache:
    """The cache below one directory, which is made when it is missing. Threads may share it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()
        self.layers = self.directory / "layers"
        self.mounts = self.directory / "mounts"
        self._names = self.directory / "names"
        self._locks = self.directory / "locks"
        for path in (self.directory, self.layers, self.mounts, self._names, self._locks):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._boot = _BOOT.read_text().strip()
        self._not_synced: set[str] = set()
        self._in_use: BinaryIO = (self.directory / "lock").open("ab")
        fcntl.flock(self._in_use, fcntl.LOCK_SH)
        remove_dead(self.directory)

    def close(self) -> None:
        """Wait until the layers that were made or used are on the disk. From now on layers may be removed."""
        with contextlib.suppress(OSError):  # then they count until the host is booted again
            if self._not_synced:
                sync_file_system(self.layers)
            for key in self._not_synced:
                with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                    (self.layers / key / "synced").touch()
        self._in_use.close()

    def find(self, key: str) -> Layer | None:
        """The layer of that key, which counts as used now; None when there is none."""
        path = self.layers / key
        try:
            meta = json.loads((path / "meta.json").read_bytes())
            if not (path / "synced").exists():
                if meta["boot"] != self._boot:
                    return None
                self._not_synced.add(key)
            os.utime(path / "meta.json")
            return Layer(key, None if meta["empty"] else path / "tree", meta["whole"], meta["config"])
        except (FileNotFoundError, ValueError, LookupError, TypeError):
            return None

    def named(self, key: str) -> Layer | None:
        """The layer that `key` is known to come to; None when none is known."""
        with contextlib.suppress(OSError):
            return self.find(str((self._names / key).readlink()))
        return None

    def name(self, key: str, layer: Layer) -> None:
        """Remember that `key` comes to this layer, from now on."""
        waiting = self._names / f"{PARTIAL}{key}-{os.getpid()}-{time.monotonic_ns()}"
        waiting.symlink_to(layer.key)
        waiting.replace(self._names / key)

    @contextlib.contextmanager
    def using(self, key: str) -> Iterator[Layer | None]:
        """The layer of that key, which nobody removes while this lasts; None when there is none."""
        path = self.layers / key
        try:
            fd = os.open(path, DIRECTORY)
        except FileNotFoundError:
            yield None
            return
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
            yield self.find(key) if is_still(fd, path) else None
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def making(
        self, key: str, stopped: Callable[[], None], *, subvolume: bool = False
    ) -> Iterator[Making | None]:
        """Make the layer of that key alone; None when another build has just made it, and `find` has it.

        `stopped` is called now and then while another build makes it, to raise when this one is to end. What is not
        completed with `complete` is removed at the end. `subvolume`: its tree is one where the file system has such.
        Raises OSError.
        """
        with self.locked(key, stopped):
            if self.find(key) is not None:
                yield None
                return
            path = self.layers / f"{PARTIAL}{key}"
            making = Making(key, path)
            try:
                remove(path)
                path.mkdir(mode=0o700)
                if not (subvolume and make_subvolume(making.tree)):
                    making.tree.mkdir(mode=0o755)
                making.tree.chmod(0o755)
                making.work.mkdir(mode=0o700)
                yield making
            finally:
                remove(path)

    def complete(
        self,
        making: Making,
        instruction: str,
        *,
        parent: str | None,
        whole: bool = False,
        config: dict[str, Any] | None = None,
    ) -> Layer:
        """Give a layer its name. `instruction` and `parent` tell people what it is. Raises OSError."""
        empty = not whole and not any(making.tree.iterdir()) and not _is_opaque(making.tree)
        remove(making.work)
        meta = {
            "key": making.key,
            "parent": parent,
            "instruction": instruction,
            "created": time.time(),
            "boot": self._boot,
            "size": size_of(making.tree),
            "empty": empty,
            "whole": whole,
            "config": config,
        }
        (making.path / "meta.json").write_text(json.dumps(meta))
        place = self.layers / making.key
        remove(place)  # one that does not count any more
        making.path.rename(place)
        self._not_synced.add(making.key)
        return Layer(making.key, None if empty else place / "tree", whole, config)

    @contextlib.contextmanager
    def locked(self, name: str, stopped: Callable[[], None]) -> Iterator[None]:
        """Hold the lock `name` alone, among all threads and processes."""
        fd = self._lock(self._locks / name, stopped)
        try:
            yield
        finally:
            (self._locks / name).unlink(missing_ok=True)
            os.close(fd)

    def _lock(self, path: Path, stopped: Callable[[], None]) -> int:
        while True:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                while not try_lock(fd):
                    stopped()
                    time.sleep(_POLL)
                if is_still(fd, path):  # else its last holder has taken it away
                    return fd
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)


def _is_opaque(tree: Path) -> bool:
    return "trusted.overlay.opaque" in os.listxattr(tree)
