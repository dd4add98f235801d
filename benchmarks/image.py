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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TAG = "latest"
_GO_NAMES = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386", "armv7l": "arm"}
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


def write_oci(layers: Sequence[Layer], directory: Path) -> None:
    """An OCI layout with gzip layers."""
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    descriptors = []
    for one in layers:
        making = blobs / "making"
        with one.path.open("rb") as source, making.open("wb") as target:
            subprocess.run(["pigz", "-6", "-n", "-c"], stdin=source, stdout=target, check=True)
        digest = layer(making).diff_id
        size = making.stat().st_size
        making.rename(blobs / digest.removeprefix("sha256:"))
        descriptors.append({"mediaType": f"{_OCI}.layer.v1.tar+gzip", "digest": digest, "size": size})

    def blob(data: bytes, kind: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": f"{_OCI}.{kind}.v1+json", "digest": f"sha256:{digest}", "size": len(data)}

    config = blob(_config(layers), "config")
    manifest = blob(
        _json(
            {
                "schemaVersion": 2,
                "mediaType": f"{_OCI}.manifest.v1+json",
                "config": config,
                "layers": descriptors,
            }
        ),
        "manifest",
    )
    manifest["annotations"] = {"org.opencontainers.image.ref.name": TAG}
    (directory / "index.json").write_bytes(_json({"schemaVersion": 2, "manifests": [manifest]}))
    (directory / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))


def write_docker_archive(layers: Sequence[Layer], path: Path, reference: str) -> None:
    """An archive as `docker save` of the classic image store writes it: the layers are not compressed.

    What was there before manifest.json is there too, as in Docker's: undocker reads nothing else.
    """
    config = _config(layers)
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


def _config(layers: Sequence[Layer]) -> bytes:
    machine = platform.machine()
    return _json(
        {
            "architecture": _GO_NAMES.get(machine, machine),
            "os": "linux",
            "created": "2024-01-01T00:00:00Z",
            "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]},
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
