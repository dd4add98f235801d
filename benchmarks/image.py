"""Writes layers in the forms in which images come: an OCI layout, `docker save` output, one flattened tarball."""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TAG = "latest"
_GO_NAMES = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386", "armv7l": "arm"}
# What an image's config says of the program: Cmd, Env and so on.
Settings = Mapping[str, object]
_OCI = "application/vnd.oci.image"


@dataclass(frozen=True)
class Layer:
    """An uncompressed layer on disk and its digest."""

    path: Path
    diff_id: str


def pack(tree: Path, path: Path) -> Layer:
    """A directory's content as a layer, with names as Docker writes them (no ./ in front)."""
    command = ["tar", "-c", "--sort=name", "--numeric-owner", "--format=posix"]
    command += ["--pax-option=delete=atime,delete=ctime", "-f", str(path), "-C", str(tree), "--"]
    subprocess.run([*command, *sorted(path.name for path in tree.iterdir())], check=True)
    return layer(path)


def layer(path: Path) -> Layer:
    """An existing tarball as a layer."""
    with path.open("rb") as file:
        return Layer(path, f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}")


def apply(layer: Layer, content: Path, tree: Path) -> None:
    """Put a layer on top of a tree: first what its whiteouts hide goes, then its entries come.

    `content` is the directory that the layer was made of.
    """
    for directory, _, names in os.walk(content):
        below = tree / Path(directory).relative_to(content)
        for name in names:
            if name == ".wh..wh..opq":
                hidden = list(below.iterdir()) if below.is_dir() else []
            elif name.startswith(".wh."):
                hidden = [below / name.removeprefix(".wh.")]
            else:
                continue
            subprocess.run(["rm", "-rf", "--", *hidden], check=True)
    command: list[str | Path] = ["tar", "-x", "-p", "--numeric-owner", "--exclude=.wh.*"]
    subprocess.run([*command, "-f", layer.path, "-C", tree], check=True)


@dataclass(frozen=True)
class Blob:
    """A file of a registry or a layout: its digest, its bytes, what it is."""

    path: Path
    digest: str
    size: int
    media_type: str

    @property
    def descriptor(self) -> dict[str, object]:
        """As a manifest names it."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


def gzipped(one: Layer, blobs: Path) -> Blob:
    """A layer compressed into a directory of blobs, under its digest."""
    making = blobs / "making"
    with one.path.open("rb") as source, making.open("wb") as target:
        subprocess.run(["pigz", "-6", "-n", "-c"], stdin=source, stdout=target, check=True)
    digest = layer(making).diff_id
    size = making.stat().st_size
    return Blob(making.rename(blobs / _file_name(digest)), digest, size, f"{_OCI}.layer.v1.tar+gzip")


def config_and_manifest(
    layers: Sequence[Layer], compressed: Sequence[Blob], blobs: Path, settings: Settings | None = None
) -> tuple[Blob, Blob]:
    """Write the two of an image whose layers are blobs already."""

    def blob(data: bytes, kind: str) -> Blob:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        path = blobs / _file_name(digest)
        path.write_bytes(data)
        return Blob(path, digest, len(data), f"{_OCI}.{kind}.v1+json")

    config = blob(_config(layers, settings), "config")
    content = {
        "schemaVersion": 2,
        "mediaType": f"{_OCI}.manifest.v1+json",
        "config": config.descriptor,
        "layers": [one.descriptor for one in compressed],
    }
    return config, blob(_json(content), "manifest")


def write_oci(layers: Sequence[Layer], directory: Path) -> None:
    """An OCI layout with gzip layers."""
    blobs = layout_blobs(directory)
    _, manifest = config_and_manifest(layers, [gzipped(one, blobs) for one in layers], blobs)
    write_index(manifest, directory)


def layout_blobs(directory: Path) -> Path:
    """Make the place of a layout's blobs."""
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    return blobs


def write_index(manifest: Blob, directory: Path) -> None:
    """What makes a directory of blobs a layout with one image."""
    named = {**manifest.descriptor, "annotations": {"org.opencontainers.image.ref.name": TAG}}
    (directory / "index.json").write_bytes(_json({"schemaVersion": 2, "manifests": [named]}))
    (directory / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))


def _file_name(digest: str) -> str:
    return digest.removeprefix("sha256:")


def write_docker_archive(
    layers: Sequence[Layer], path: Path, reference: str, settings: Settings | None = None
) -> None:
    """An archive as `docker save` of the classic image store writes it: the layers are not compressed.

    What was there before manifest.json is there too, as in Docker's: undocker reads nothing else.
    """
    config = _config(layers, settings)
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    names: list[str] = []
    identity = ""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:

        def add(name: str, data: bytes) -> None:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))

        for one in layers:
            parent = {"parent": identity} if identity else {}
            identity = hashlib.sha256(f"{identity} {one.diff_id}".encode()).hexdigest()
            add(f"{identity}/VERSION", b"1.0")
            add(f"{identity}/json", _json({"id": identity, **parent, "os": "linux"}))
            names.append(f"{identity}/layer.tar")
            entry = tarfile.TarInfo(names[-1])
            entry.size = one.path.stat().st_size
            with one.path.open("rb") as file:
                archive.addfile(entry, file)
        add(config_name, config)
        add("manifest.json", _json([{"Config": config_name, "RepoTags": [reference], "Layers": names}]))
        repository, _, tag = reference.rpartition(":")
        add("repositories", _json({repository: {tag: identity}}))


def _config(layers: Sequence[Layer], settings: Settings | None) -> bytes:
    machine = platform.machine()
    return _json(
        {
            "architecture": _GO_NAMES.get(machine, machine),
            "os": "linux",
            "created": "2024-01-01T00:00:00Z",
            "config": settings or {"Cmd": ["/bin/sh"], "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [one.diff_id for one in layers]},
            "history": [{"created_by": f"layer {number}"} for number, _ in enumerate(layers)],
        }
    )


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def mirror_directories(source: Path, target: Path, relative: Path) -> None:
    """Make the directories of `relative` below `target` as they are below `source`."""
    for parent in reversed(relative.parents):
        made = target / parent
        if not made.exists():
            made.mkdir()
            copy_metadata(source / parent, made)


def copy_metadata(source: Path, target: Path) -> None:
    """Owner, mode and time of one entry for another."""
    status = source.stat()
    os.chown(target, status.st_uid, status.st_gid)
    shutil.copystat(source, target)
