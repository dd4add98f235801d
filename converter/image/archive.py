"""Image archives: what `docker save` writes, old and new, and OCI layouts in a tar; compressed or not.

The old form is in https://github.com/moby/docker-image-spec (v1.2.md, "Combined Image JSON + Filesystem
Changeset Format"); since Docker 25 an OCI layout lies beside its manifest.json. Podman, skopeo, crane, kaniko
and Nix write the old form with other file names.
"""

from __future__ import annotations

import os
import posixpath
import re
import tempfile
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from converter.errors import ConversionError, error_of_host
from converter.image.config import parse_config
from converter.image.content import MOST_MEMBERS, exists, is_compressed_tar, transport_of_tar
from converter.image.layout import (
    NAME,
    Extent,
    Files,
    abbreviates,
    assemble,
    find_manifest,
    folder,
    image_in_layout,
    image_of_manifest,
    read,
    select,
)
from converter.image.manifest import Descriptor, parse_index, parse_json
from converter.image.model import Image, Platform
from converter.image.tarball import clean, is_tar, members
from converter.progress import Progress
from converter.rootfs.compression import decompress

_CHUNK = 1 << 20
_MOST_IMAGES = 1000
_MOST_LINKS = 40  # as many as the kernel follows
_HEX = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{64})")


class _Saved(NamedTuple):
    """One entry of a manifest.json."""

    config: bytes
    names: tuple[str, ...]
    layers: tuple[str, ...]


def open_archive(
    path: Path, ref: str | None, *, platform: Platform, spool: Path, progress: Progress, oci: bool
) -> Image:
    """Open the image `ref` of an archive, or its only image; `oci` tells an OCI archive from docker save's.

    Layers are byte ranges of the archive itself; a compressed one is decompressed once, into the folder
    `spool`, which has to outlive the image. A folder that holds an unpacked docker archive is read as well.
    Raises ConversionError when the archive is damaged, or holds no such image or none for `platform`.
    """
    source = f"{'oci' if oci else 'docker'}-archive:{path}" + (f":{ref}" if ref else "")
    if not exists(path):
        raise ConversionError(f"there is no file '{path}'")
    if path.is_dir():
        files = folder(path)
        if oci or files("manifest.json") is None:
            raise ConversionError(f"'{path}' is a folder, not an archive; try oci:{path}")
    else:
        files = _archive_files(path, spool, progress)
    if oci:
        return image_in_layout(files, ref, platform=platform, source=source)
    if files("manifest.json") is None and files("oci-layout") is not None:
        raise ConversionError(f"'{path}' has an OCI layout and no manifest.json; try oci-archive:{path}")
    return _docker_image(files, ref, platform=platform, source=source)


def _docker_image(files: Files, ref: str | None, *, platform: Platform, source: str) -> Image:
    saved = _saved_images(files, source)
    listed = parse_index(read(files, "index.json", source)) if files("index.json") else ()
    for descriptor in listed:
        # With containerd's image store, what Docker shows as the ID is the digest of the manifest or index.
        if ref and abbreviates(ref, descriptor.digest):
            return image_of_manifest(files, descriptor, platform=platform, source=source)
    entries = [
        Descriptor(
            media_type="",
            digest=digest,
            size=len(image.config),
            platform=parse_config(image.config)[1],
            annotations={NAME: name} if name else {},
        )
        for digest, image in saved.items()
        for name in image.names or ("",)
    ]
    digest = select(entries, ref, platform=platform, source=source).digest
    image = saved[digest]
    if manifest := find_manifest(files, listed, digest, source):
        return image_of_manifest(files, manifest, platform=platform, source=source)
    layers = [(_layer(files, name, source), _digest_in(name)) for name in image.layers]
    return assemble(image.config, layers, digest=digest, source=source)


def _saved_images(files: Files, source: str) -> dict[str, _Saved]:
    """What manifest.json lists, by image ID: the digest of the config, which its file name repeats."""
    entries = parse_json(read(files, "manifest.json", source), f"{source}: manifest.json")
    if not isinstance(entries, list):
        raise ConversionError(f"{source}: manifest.json must be a list")
    if len(entries) > _MOST_IMAGES:
        raise ConversionError(f"{source}: manifest.json lists more than {_MOST_IMAGES} images")
    saved: dict[str, _Saved] = {}
    for entry in entries:
        name, names, layers = _entry(entry, source)
        config = read(files, name, source)
        digest = sha256(config).hexdigest()
        if (written := _HEX.search(posixpath.basename(name))) and written[0] != digest:
            raise ConversionError(f"{source}: damaged: the digest of the config {name} is sha256:{digest}")
        # One image may be listed once for each of its names.
        earlier = saved.get(f"sha256:{digest}")
        saved[f"sha256:{digest}"] = _Saved(config, (*earlier.names, *names) if earlier else names, layers)
    return saved


def _entry(entry: Any, source: str) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """The config's name, the image's names and the layers' names of one entry of a manifest.json."""
    if isinstance(entry, dict):
        config, names, layers = entry.get("Config"), entry.get("RepoTags") or [], entry.get("Layers") or []
        if isinstance(config, str) and all(
            isinstance(value, list) and all(isinstance(item, str) for item in value)
            for value in (names, layers)
        ):
            return config, tuple(names), tuple(layers)
    raise ConversionError(
        f"{source}: damaged: in manifest.json, Config, RepoTags or Layers has the wrong type"
    )


def _layer(files: Files, name: str, source: str) -> Extent:
    extent = files(name)
    if extent is None:
        raise ConversionError(f"{source}: the layer {name} is missing; the image is incomplete")
    return extent


def _digest_in(name: str) -> str | None:
    """The digest that a layer's path states; elsewhere than among blobs, a digest in it may mean anything."""
    written = _BLOB.fullmatch(clean(name))
    return f"sha256:{written[1]}" if written else None


def _archive_files(path: Path, spool: Path, progress: Progress) -> Files:
    """The members of an archive as byte ranges; links between members are followed."""
    plain = _decompressed(path, spool, progress)
    with _opened(plain) as file:
        found = islice(members(file, f"'{path}'", seekable=True), MOST_MEMBERS)
        table = {member.name: member for member in found}
    transport_of_tar(table, path)

    def find(name: str) -> Extent | None:
        name = clean(name)
        for _ in range(_MOST_LINKS):
            member = table.get(name)
            if member is None:
                return None
            match member.kind:
                case "file":
                    return Extent(plain, member.offset, member.size)
                case "symlink":
                    name = clean(posixpath.join(posixpath.dirname(name), member.target))
                case "hardlink":
                    name = clean(member.target)
                case _:
                    raise ConversionError(f"'{path}' is damaged: {name} in it is not a file")
        raise ConversionError(f"'{path}' is damaged: the links in it lead in a circle at {name}")

    return find


def _decompressed(path: Path, spool: Path, progress: Progress) -> Path:
    """The archive itself when it is not compressed, else a decompressed copy in the folder `spool`."""
    with _opened(path) as packed:
        if not is_compressed_tar(packed.read(4096), path):
            return path
        packed.seek(0)
        plain = decompress(packed)
        try:
            with (
                tempfile.NamedTemporaryFile(
                    dir=spool, prefix="archive-", suffix=".tar", delete=False
                ) as copy,
                progress.step(f"Decompressing {path.name}", os.fstat(packed.fileno()).st_size) as step,
            ):
                done = 0
                while chunk := plain.read(_CHUNK):
                    if done == 0 and not is_tar(chunk):
                        raise ConversionError("it holds no tar, so it is not an image")
                    copy.write(chunk)
                    step.advance(packed.tell() - done)
                    done = packed.tell()
        except ConversionError as error:
            raise ConversionError(f"'{path}': {error}") from error
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise error_of_host(error, f"cannot decompress '{path}' into '{spool}': {reason}") from error
    return Path(copy.name)


def _opened(path: Path) -> BinaryIO:
    try:
        if not path.is_file():
            raise ConversionError(f"'{path}' is neither a file nor a folder; save the image to a file first")
        return path.open("rb")
    except OSError as error:
        raise ConversionError(f"cannot read '{path}': {error.strerror}") from error
