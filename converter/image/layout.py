"""OCI image layouts: index, nested index, manifest, config and layers, in a folder or inside an archive.

https://github.com/opencontainers/image-spec: image-layout.md, image-index.md, manifest.md.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from converter.errors import ConversionError
from converter.image.config import parse_config
from converter.image.content import exists
from converter.image.manifest import (
    MAX_DOCUMENT,
    Descriptor,
    check_digest,
    choose,
    is_attestation,
    is_index,
    parse_index,
    parse_json,
    parse_manifest,
    verify,
)
from converter.image.model import Image, Layer, Platform
from converter.image.name import full_name

_MOST_NESTED = 8
_DIGITS = re.compile(r"[0-9a-f]{12,64}")
NAME = "org.opencontainers.image.ref.name"
_FULL_NAME = "io.containerd.image.name"  # Docker's and containerd's; the other one then holds the tag alone


class Extent(NamedTuple):
    """The `size` bytes at `offset` of the file `path`."""

    path: Path
    offset: int
    size: int


Files = Callable[[str], Extent | None]
"""Finds a file of a layout, by its path inside; None when there is none."""


def open_layout(directory: Path, tag: str | None, *, platform: Platform) -> Image:
    """Open the image `tag` of the OCI layout `directory`, or its only image.

    JSON is verified here; layers carry their digests and are verified when they are read. Raises
    ConversionError when the layout is damaged, or holds no such image or none for `platform`.
    """
    source = f"oci:{directory}" + (f":{tag}" if tag else "")
    if not exists(directory):
        raise ConversionError(f"there is no folder '{directory}'")
    if not directory.is_dir():
        raise ConversionError(f"'{directory}' is a file, not a folder; try oci-archive:{directory}")
    return image_in_layout(folder(directory), tag, platform=platform, source=source)


def folder(directory: Path) -> Files:
    """The files of an unpacked archive or layout, none of which may lead out of it."""

    def find(name: str) -> Extent | None:
        path = directory / name
        try:
            status = path.stat()
            inside = path.resolve().is_relative_to(directory.resolve())
        except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the name
            return None
        except (OSError, RuntimeError) as error:
            reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
            raise ConversionError(f"cannot read '{path}': {reason}") from error
        if not inside:
            raise ConversionError(
                f"'{path}' is a link that leads out of its folder; copy it with cp -rL first"
            )
        if not stat.S_ISREG(status.st_mode):
            raise ConversionError(f"'{path}' is not a file")
        return Extent(path, 0, status.st_size)

    return find


def image_in_layout(files: Files, tag: str | None, *, platform: Platform, source: str) -> Image:
    """Open the image `tag` of the layout in `files`, or its only image. Raises as open_layout does."""
    version = parse_json(read(files, "oci-layout", source), f"{source}: oci-layout")
    if not isinstance(version, dict) or not str(version.get("imageLayoutVersion", "")).startswith("1."):
        raise ConversionError(
            f"{source}: not an OCI layout of version 1: see imageLayoutVersion in oci-layout"
        )
    entries = parse_index(read(files, "index.json", source))
    descriptor = select(entries, tag, platform=platform, source=source)
    return image_of_manifest(files, descriptor, platform=platform, source=source)


def image_of_manifest(files: Files, descriptor: Descriptor, *, platform: Platform, source: str) -> Image:
    """Open the image whose manifest, or index with a manifest for `platform`, is the blob `descriptor`."""
    for _ in range(_MOST_NESTED):
        data = read_blob(files, descriptor, source)
        if not is_index(descriptor, data):
            break
        descriptor = choose(parse_index(data), platform)
    else:
        raise ConversionError(f"{source}: indexes are nested more than {_MOST_NESTED} deep")
    manifest = parse_manifest(data)
    config = read_blob(files, manifest.config, source)
    layers = [(blob(files, layer, source), layer.digest) for layer in manifest.layers]
    return assemble(config, layers, digest=descriptor.digest, source=source)


def find_manifest(
    files: Files, entries: Iterable[Descriptor], image_id: str, source: str
) -> Descriptor | None:
    """The manifest, among `entries` or below them, of the image whose config has the digest `image_id`."""
    waiting = list(entries)
    seen: set[str] = set()
    while waiting:
        descriptor = waiting.pop()
        # An archive may hold the images of some platforms only.
        if descriptor.digest in seen or files(blob_path(descriptor.digest)) is None:
            continue
        seen.add(descriptor.digest)
        data = read_blob(files, descriptor, source)
        if is_index(descriptor, data):
            waiting.extend(parse_index(data))
            continue
        try:
            if parse_manifest(data).config.digest == image_id:
                return descriptor
        except ConversionError:  # a signature or another artifact beside the images
            continue
    return None


def assemble(
    config_data: bytes, layers: Sequence[tuple[Extent, str | None]], *, digest: str, source: str
) -> Image:
    """Put an image together from its config and its layers with their digests, and check that they agree."""
    config, platform, diff_ids = parse_config(config_data)
    if platform.os != "linux":
        raise ConversionError(f"{source}: a {platform.os} image; systemd-nspawn runs only Linux")
    if not layers:
        raise ConversionError(f"{source}: the image has no layers, so there is nothing to run")
    if len(layers) != len(diff_ids):
        raise ConversionError(
            f"{source}: damaged: {len(layers)} layers, but the config has the diff ids of {len(diff_ids)}"
        )
    return Image(
        source=source,
        digest=digest,
        platform=platform,
        config=config,
        layers=tuple(
            Layer(*extent, digest=digest, diff_id=check_digest(diff_id))
            for (extent, digest), diff_id in zip(layers, diff_ids, strict=True)
        ),
    )


def read(files: Files, name: str, source: str) -> bytes:
    """The content of a small file. Raises ConversionError when it is missing or not small."""
    extent = files(name)
    if extent is None:
        raise ConversionError(f"{source}: {name} is missing; the image is incomplete")
    if extent.size > MAX_DOCUMENT:
        raise ConversionError(
            f"{source}: {name} has {extent.size} bytes, more than the {MAX_DOCUMENT} allowed"
        )
    try:
        with extent.path.open("rb") as file:
            file.seek(extent.offset)
            return file.read(extent.size)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise ConversionError(f"cannot read '{extent.path}': {reason}") from error


def blob(files: Files, descriptor: Descriptor, source: str) -> Extent:
    """Where a blob's bytes are. Raises ConversionError when they are missing or not as many as described."""
    extent = files(blob_path(descriptor.digest))
    if extent is None:
        raise ConversionError(f"{source}: blob {descriptor.digest} is missing; the image is incomplete")
    if extent.size != descriptor.size:
        raise ConversionError(
            f"{source}: blob {descriptor.digest} has {extent.size} bytes instead of {descriptor.size}"
        )
    return extent


def blob_path(digest: str) -> str:
    """A blob's path in a layout; the digest has been checked to be ALGORITHM:HEX."""
    algorithm, _, encoded = digest.partition(":")
    return f"blobs/{algorithm}/{encoded}"


def read_blob(files: Files, descriptor: Descriptor, source: str) -> bytes:
    """A small blob, verified."""
    blob(files, descriptor, source)
    data = read(files, blob_path(descriptor.digest), source)
    verify(data, descriptor)
    return data


def select(entries: Iterable[Descriptor], tag: str | None, *, platform: Platform, source: str) -> Descriptor:
    """The entry that is the image `tag`: by its name, as written or in full, or by its digest's first digits.

    Entries of one name that differ by platform are one image. Raises ConversionError, listing what there is,
    when `tag` means none of them or, being None, several.
    """
    images = [entry for entry in entries if not is_attestation(entry)]
    found = [entry for entry in images if tag is None or tag in _names(entry)]
    if tag and not found and (name := full_name(tag)):
        found = [entry for entry in images if name in map(full_name, _names(entry))]
    if tag and not found:
        found = [entry for entry in images if abbreviates(tag, entry.digest)]
    distinct = list({entry.digest: entry for entry in found}.values())
    if len(distinct) == 1:
        return distinct[0]
    if distinct and _are_one_image(distinct):
        return choose(distinct, platform)
    shown = ", ".join(dict.fromkeys(map(_shown, images)))
    if not images:
        raise ConversionError(f"{source}: there is no image in it")
    if not found:
        raise ConversionError(f"{source}: there is no image of that name in it; there is {shown}")
    raise ConversionError(f"{source}: it holds several images; add ':' and the name of one: {shown}")


def abbreviates(tag: str, digest: str) -> bool:
    """Whether `tag` is `digest`, or at least its first twelve digits, with or without `sha256:`."""
    short = tag.removeprefix("sha256:")
    return tag == digest or (bool(_DIGITS.fullmatch(short)) and digest.startswith(f"sha256:{short}"))


def _names(entry: Descriptor) -> list[str]:
    names = (entry.annotations.get(_FULL_NAME), entry.annotations.get(NAME))
    return [name for name in names if name]


def _shown(entry: Descriptor) -> str:
    """What a user types to get this entry."""
    return next(iter(_names(entry)), "") or entry.digest.partition(":")[2][:12]


def _are_one_image(entries: Sequence[Descriptor]) -> bool:
    """Whether they are one image for several platforms."""
    platforms = {entry.platform for entry in entries}
    names = {tuple(_names(entry)) for entry in entries}
    return None not in platforms and len(platforms) == len(entries) and len(names) == 1
