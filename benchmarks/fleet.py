"""Makes the images of a batch: many that share a few bases, in a registry and in archives.

As a program: `python -m benchmarks.fleet NAME…` makes what is missing. `fleet-40` are 40 applications on three bases,
`small-1000` are 1,000 images of a few kB on one base.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from benchmarks import bases, cache, flattened, image, own_layers
from benchmarks.bases import Base
from benchmarks.registry import Pusher, serving

Form = Literal["docker", "docker-archive", "oci-archive"]


@dataclass(frozen=True)
class Member:
    """An image of a fleet: the machine's name, the form it comes in, its base; bytes of its own files."""

    name: str
    form: Form
    base: str
    own_bytes: int

    @property
    def repository(self) -> str:
        """Where it is in the registry, if it is there."""
        return f"fleet/{self.name}"


@dataclass(frozen=True)
class Fleet:
    """A finished fleet on disk."""

    directory: Path

    @property
    def storage(self) -> Path:
        """What the registry serves."""
        return self.directory / "registry"

    @cached_property
    def members(self) -> tuple[Member, ...]:
        return tuple(Member(**facts) for facts in self._facts["members"])

    @cached_property
    def base_bytes(self) -> dict[str, int]:
        """Bytes of the files of each base's tree, by its name."""
        return dict(self._facts["bases"])

    @property
    def own_bytes(self) -> int:
        """Bytes of what the images have of their own."""
        return sum(member.own_bytes for member in self.members)

    @property
    def distinct_bytes(self) -> int:
        """Bytes of the bases' trees, and of what the images have of their own."""
        return sum(self.base_bytes.values()) + self.own_bytes

    @property
    def common_bytes(self) -> int:
        """Of those, bytes that the trees of two bases have in common because they have a layer in common."""
        return int(self._facts["common"])

    @cached_property
    def _facts(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.directory / "facts.json").read_text())
        return found

    def source(self, member: Member, address: str) -> str:
        """What docker2nspawn is told; `address` is the registry's."""
        if member.form == "docker":
            return f"docker://{address}/{member.repository}:{image.TAG}"
        return f"{member.form}:{self.directory / f'{member.name}.tar'}"


def get(kind: str, count: int) -> Fleet:
    """A fleet from the cache; made now if it is not there."""
    if kind == "fleet":
        bases.debian()
    return Fleet(cache.get(f"{kind}-{count}", maker="fleet").directory)


def _make(name: str, directory: Path) -> None:
    kind, _, count = name.partition("-")
    scratch = directory.parent
    storage = directory / "registry"
    storage.mkdir()
    with serving(storage, scratch) as address:
        maker = _Maker(directory, scratch, kind, Pusher(address))
        members = [maker.make(number, int(count)) for number in range(int(count))]
    facts = {
        "bases": maker.base_bytes(),
        "common": maker.common_bytes(),
        "members": [asdict(member) for member in members],
    }
    (directory / "facts.json").write_text(json.dumps(facts) + "\n")


class _Maker:
    """Makes one image after the other; layers of bases are compressed once."""

    def __init__(self, directory: Path, scratch: Path, kind: str, pusher: Pusher) -> None:
        self._directory = directory
        self._scratch = scratch
        self._pusher = pusher
        self._small = kind == "small"
        self._bases = bases.tiny(scratch) if self._small else bases.debian()
        self._trees = {base.name: _tree(base) for base in self._bases}
        blobs = scratch / "base-blobs"
        blobs.mkdir()
        layers = {one for base in self._bases for one in base.layers}
        self._compressed = {one: image.gzipped(one, blobs) for one in layers}

    def base_bytes(self) -> dict[str, int]:
        return {
            base.name: flattened.content(self._trees[base.name], range(len(base.layers)))
            for base in self._bases
        }

    def common_bytes(self) -> int:
        seen: set[image.Layer] = set()
        common = 0
        for base in self._bases:
            again = [number for number, layer in enumerate(base.layers) if layer in seen]
            common += flattened.content(self._trees[base.name], again)
            seen.update(base.layers)
        return common

    def make(self, number: int, count: int) -> Member:
        """One of `count` images: every fourth is an archive, of each kind in turn, unless they are small."""
        form: Form = "docker"
        if not self._small and number % 4 == 3:
            form = "docker-archive" if number % 8 == 3 else "oci-archive"
        name = f"{'small' if self._small else 'app'}-{number:0{len(str(count))}}"
        base = self._bases[number % len(self._bases)]
        tree = dict(self._trees[base.name])
        place = self._scratch / name
        place.mkdir()
        size = own_layers.TINY if self._small else own_layers.APPLICATION
        own = own_layers.make(tree, 1 if self._small else 1 + number % 3, size, name, place)
        self._write(form, name, place, base, own, _settings(name, number))
        shutil.rmtree(place)
        numbers = range(len(base.layers), len(base.layers) + len(own))
        return Member(name, form, base.name, flattened.content(tree, numbers))

    def _write(
        self,
        form: Form,
        name: str,
        place: Path,
        base: Base,
        own: Sequence[image.Layer],
        settings: image.Settings,
    ) -> None:
        layers = [*base.layers, *own]
        archive = self._directory / f"{name}.tar"
        if form == "docker-archive":
            image.write_docker_archive(layers, archive, f"fleet/{name}:{image.TAG}", settings)
            return
        layout = place / "layout"
        blobs = image.layout_blobs(layout)
        shared = [self._compressed[one] for one in base.layers]
        compressed = [*shared, *(image.gzipped(one, blobs) for one in own)]
        config, manifest = image.config_and_manifest(layers, compressed, blobs, settings)
        if form == "docker":
            self._pusher.push(f"fleet/{name}", [config, *compressed], manifest)
            return
        for blob in shared:
            (blobs / blob.path.name).hardlink_to(blob.path)
        image.write_index(manifest, layout)
        subprocess.run(["tar", "-c", "--sort=name", "-f", archive, "-C", layout, "."], check=True)


def _tree(base: Base) -> flattened.Tree:
    tree: flattened.Tree = {}
    for number, layer in enumerate(base.layers):
        flattened.lay(tree, layer.path, number)
    return tree


def _settings(name: str, number: int) -> image.Settings:
    """Different for each image, so that each has other notes."""
    chance = random.Random(f"settings {name}")
    settings: dict[str, object] = {
        "Cmd": ["/bin/sh", "-c", f"exec sleep {number}"],
        "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", f"APP={name}", f"WORKERS={chance.randint(1, 9)}"],
        "User": chance.choice(["", "", "nobody", "65534:65534"]),
        "WorkingDir": chance.choice(["", "/srv/app"]),
        "ExposedPorts": {
            f"{8000 + number}/{chance.choice(['tcp', 'udp'])}": {} for _ in range(chance.randint(0, 2))
        },
        "Labels": {"org.opencontainers.image.title": name},
    }
    if chance.random() < 0.2:
        settings["StopSignal"] = "SIGQUIT"
    if chance.random() < 0.2:
        settings["Volumes"] = {"/srv/data": {}}
    return settings


if __name__ == "__main__":
    cache.make_missing(sys.argv[1:], _make)
