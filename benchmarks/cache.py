"""The inputs on disk: in a cache outside the repository, complete or not there, made by other processes than ours.

A list of packages was changed? Remove the input's directory, and it is made again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import image
from benchmarks.measure import count_entries, remove

CACHE = Path(os.environ.get("D2N_LAB_CACHE", "/var/cache/docker2nspawn-lab"), "bench")


@dataclass(frozen=True)
class Facts:
    """Numbers about an input: entries and bytes of the flattened tree, bytes of the gzip layers."""

    layers: int
    entries: int
    flat_bytes: int
    gzip_bytes: int


@dataclass(frozen=True)
class Input:
    """A finished input on disk."""

    name: str
    directory: Path

    @property
    def oci(self) -> Path:
        return self.directory / "oci"

    @property
    def docker_archive(self) -> Path:
        return self.directory / "docker.tar"

    @property
    def flat(self) -> Path:
        return self.directory / "flat.tar"

    @property
    def reference(self) -> str:
        """Its name in a Docker Engine."""
        return f"docker2nspawn-bench/{self.name}:{image.TAG}"

    @property
    def image_id(self) -> str:
        """What the classic image store calls it: the digest of its config, by which the archive names that."""
        with tarfile.open(self.docker_archive) as archive:
            name = next(name for name in archive.getnames() if "/" not in name and len(name) == 69)
        return f"sha256:{name.removesuffix('.json')}"

    @property
    def facts(self) -> Facts:
        return Facts(**json.loads((self.directory / "facts.json").read_text()))

    def write_facts(self, layers: int, entries: int, gzip_bytes: int) -> None:
        facts = Facts(layers, entries, self.flat.stat().st_size, gzip_bytes)
        (self.directory / "facts.json").write_text(json.dumps(asdict(facts)) + "\n")


def get(name: str, *, maker: str) -> Input:
    """An input from the cache; if it is not there, `python -m benchmarks.MAKER NAME` makes it now.

    By another process, because the memory of this one is what every measured child starts with.
    """
    made = Input(name, CACHE / name)
    if not made.directory.exists():
        command = ["nice", "-n", "19", sys.executable, "-m", f"benchmarks.{maker}", name]
        subprocess.run(command, check=True)
    return made


def make_missing(names: Sequence[str], make: Callable[[str, Path], None]) -> None:
    """Let `make` fill directories under temporary names; the cache never shows one that is half made."""
    with lock("making"):
        for old in CACHE.glob(".making-*"):  # of a run that was killed
            remove(old)
        for name in names:
            if (CACHE / name).exists():
                continue
            scratch = Path(tempfile.mkdtemp(dir=CACHE, prefix=f".making-{name}-"))
            try:
                directory = scratch / name
                directory.mkdir()
                print(f"benchmarks: making {name}", file=sys.stderr, flush=True)
                make(name, directory)
                directory.rename(CACHE / name)
            finally:
                remove(scratch)


@contextlib.contextmanager
def lock(name: str) -> Iterator[None]:
    """Hold a lock that other runs respect; waits for it."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"benchmarks: waiting for another run that is {name}", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_forms(one: Input, layers: Sequence[image.Layer], tree: Path) -> None:
    """All forms of one image, and its numbers."""
    image.write_oci(layers, one.oci)
    image.write_docker_archive(layers, one.docker_archive, one.reference)
    image.pack(tree, one.flat)
    gzip_bytes = sum(blob.stat().st_size for blob in (one.oci / "blobs" / "sha256").iterdir())
    one.write_facts(len(layers), count_entries(tree), gzip_bytes)
