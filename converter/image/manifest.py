"""Indexes and manifests: OCI image-spec (image-index.md, manifest.md, descriptor.md) and Docker's schema 2.

Everything here comes from strangers: types, sizes, depth and digests are checked before anything is used.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from converter.errors import ConversionError
from converter.image.model import Platform

MAX_DOCUMENT = 4 * 1024 * 1024  # bytes; the distribution spec lets registries refuse larger manifests
_MAX_DEPTH = 100
_MAX_LAYERS = 1024
_MAX_SIZE = 1 << 50
_MOST_SHOWN = 80  # characters of a stranger's text in a message

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
ACCEPTED = (OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST)

_INDEXES = frozenset({OCI_INDEX, DOCKER_LIST})
_CONFIGS = frozenset(
    {
        "application/vnd.oci.image.config.v1+json",
        "application/vnd.docker.container.image.v1+json",
        "application/octet-stream",  # this and the next two: what old registries made of it (moby issue 22378)
        "application/json",
        "text/html",
        "",
    }
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_SURROGATE = re.compile("[\ud800-\udfff]")

# containerd's platforms package (database.go, compare.go): the spellings that are one processor.
_SAME_ARCHITECTURE = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "aarch64": "arm64",
    "armhf": "arm",
    "armel": "arm",
    "i386": "386",
}
_SAME_VARIANT: Mapping[tuple[str, str | None], str | None] = {
    ("arm64", "v8"): None,
    ("arm64", "8"): None,
    ("amd64", "v1"): None,
    ("arm", None): "v7",
    ("arm", "5"): "v5",
    ("arm", "6"): "v6",
    ("arm", "7"): "v7",
    ("arm", "8"): "v8",
}


@dataclass(frozen=True)
class Descriptor:
    """Points at a blob: `size` in bytes, `digest` as ALGORITHM:HEX, checked to be well formed."""

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    urls: tuple[str, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """One image for one platform; layers base first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]


def parse_json(data: bytes, what: str) -> Any:
    """Read JSON as Go does: text that is not UTF-8, and lone surrogates, become U+FFFD.

    Raises ConversionError, naming `what`, when it is not JSON, too large or too deep.
    """
    if len(data) > MAX_DOCUMENT:
        raise ConversionError(f"{what} has {len(data)} bytes, more than the {MAX_DOCUMENT} that are sensible")
    try:
        document = json.loads(data.decode("utf-8-sig", "replace"), parse_constant=_no_constant)
        return _clean(document, 0)
    except (ValueError, RecursionError):
        raise ConversionError(f"{what} is not valid JSON") from None


def _no_constant(text: str) -> None:
    raise ValueError(text)  # NaN and Infinity are Python's own addition


def _clean(value: Any, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise ValueError("too deep")
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_clean(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {_SURROGATE.sub("\ufffd", key): _clean(item, depth + 1) for key, item in value.items()}
    return value


def check_digest(text: object) -> str:
    """Return `text` when it is a digest that can be verified; raises ConversionError otherwise."""
    if not isinstance(text, str) or not _DIGEST.fullmatch(text):
        raise ConversionError(f"{_short(text)} is not a sha256 or sha512 digest")
    return text


def verify(data: bytes, descriptor: Descriptor) -> None:
    """Raise ConversionError unless `data` is what `descriptor` describes, in size and digest."""
    if len(data) != descriptor.size:
        raise ConversionError(f"{descriptor.digest} has {len(data)} bytes instead of {descriptor.size}")
    verify_digest(data, descriptor.digest)


def verify_digest(data: bytes, digest: str) -> None:
    """Raise ConversionError unless `digest` is that of `data`."""
    algorithm, _, expected = check_digest(digest).partition(":")
    found = hashlib.new(algorithm, data).hexdigest()
    if found != expected:
        raise ConversionError(f"{digest} is corrupt: its content has the digest {algorithm}:{found}")


def is_index(descriptor: Descriptor, data: bytes) -> bool:
    """Is the document an index or a manifest list: by its own word, else by the descriptor's, else by its form."""
    document = _object(parse_json(data, "the manifest"), "the manifest")
    media_type = document.get("mediaType") or descriptor.media_type
    if not isinstance(media_type, str):
        raise ConversionError("the manifest is not valid: mediaType must be a string")
    if "manifests" in document and ("layers" in document or "config" in document):
        # What one program verifies another would not run (CVE-2021-41190).
        raise ConversionError("the manifest is not valid: it is both an index and an image")
    if media_type in _INDEXES:
        return True
    return media_type not in ACCEPTED and "manifests" in document


def parse_index(data: bytes) -> tuple[Descriptor, ...]:
    """The manifests that an index or manifest list names. Raises ConversionError when it is not valid."""
    document = _object(parse_json(data, "the image index"), "the image index")
    entries = document.get("manifests")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ConversionError("the image index is not valid: manifests must be a list of objects")
    return tuple(_descriptor(entry, "manifests") for entry in entries)


def parse_manifest(data: bytes) -> Manifest:
    """Read an image manifest. Raises ConversionError for anything else, saying what it is."""
    document = _object(parse_json(data, "the manifest"), "the manifest")
    if document.get("schemaVersion") == 1 or "fsLayers" in document:
        raise ConversionError(
            "the manifest is of Docker's schema 1, which registries gave up in 2017; push the image again"
        )
    if document.get("schemaVersion") != 2:
        kind = document.get("mediaType")
        what = f"its type is {_short(kind)}" if isinstance(kind, str) and kind not in ACCEPTED else ""
        raise ConversionError(f"this is not an image: {what or 'its manifest lacks schemaVersion 2'}")
    config = _descriptor(_object(document.get("config"), "the manifest's config"), "config")
    artifact = document.get("artifactType")
    if config.media_type not in _CONFIGS or artifact:
        raise ConversionError(
            f"this is not an image but an artifact of type {_short(artifact or config.media_type)}"
        )
    layers = document.get("layers")
    if not isinstance(layers, list) or not all(isinstance(layer, dict) for layer in layers):
        raise ConversionError("the manifest is not valid: layers must be a list of objects")
    if not layers:
        raise ConversionError("the image has no layers: there is nothing to make a machine of")
    if len(layers) > _MAX_LAYERS:
        raise ConversionError(f"the image has {len(layers)} layers, more than {_MAX_LAYERS}")
    read = tuple(_descriptor(layer, "layers") for layer in layers)
    for layer in read:
        _refuse_other_than_tar(layer)
    sizes = {config.digest: config.size}
    for layer in read:
        if sizes.setdefault(layer.digest, layer.size) != layer.size:
            raise ConversionError(f"the manifest is not valid: {layer.digest} has two sizes")
    return Manifest(config, read)


def _refuse_other_than_tar(layer: Descriptor) -> None:
    """What surely cannot become files; how a tar is compressed is told by its bytes, not by its type."""
    if "+encrypted" in layer.media_type:
        raise ConversionError("the image is encrypted; decrypt it with skopeo copy --decryption-key first")
    if layer.media_type.endswith("json"):
        raise ConversionError(
            f"this is not an image: it holds {_short(layer.media_type)}, perhaps an attestation"
        )


def choose(descriptors: Sequence[Descriptor], platform: Platform) -> Descriptor:
    """The manifest for `platform`, or the best older variant that runs on it, as containerd chooses.

    Raises ConversionError listing what there is. An only manifest that names no platform is taken.
    """
    images = [descriptor for descriptor in descriptors if not is_attestation(descriptor)]
    if len(images) == 1 and images[0].platform is None:
        return images[0]
    offered = [(_normal(image.platform), image) for image in images if image.platform]
    for wanted in _runs_on(_normal(platform)):
        for offer, image in offered:
            if offer == wanted:
                return image
    names = list(
        dict.fromkeys(_short(str(image.platform), quote=False) for image in images if image.platform)
    )
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    there = ", ".join(names[:20]) + more if names else "nothing for any platform"
    raise ConversionError(f"there is no image for {platform}; there is {there}; choose with --platform")


def is_attestation(descriptor: Descriptor) -> bool:
    """Whether it is BuildKit's statement about the images beside it, not an image."""
    kind = descriptor.annotations.get("vnd.docker.reference.type")
    unknown = descriptor.platform is not None and descriptor.platform.os == "unknown"
    return unknown or kind == "attestation-manifest"


def _normal(platform: Platform) -> Platform:
    spelling = platform.architecture.lower()
    architecture = _SAME_ARCHITECTURE.get(spelling, spelling)
    variant = "v6" if spelling == "armel" else (platform.variant or "").lower() or None
    return Platform(platform.os.lower(), architecture, _SAME_VARIANT.get((architecture, variant), variant))


def _runs_on(platform: Platform) -> Iterator[Platform]:
    """The platforms whose programs run on `platform`, itself first (containerd compare.go, platformVector).

    A version of arm64 beyond v8 runs plain arm64; the minor versions in between are not published.
    """
    yield platform
    match platform.architecture, platform.variant:
        case "amd64", variant:
            if variant in {"v2", "v3", "v4"}:
                yield from (
                    Platform(platform.os, "amd64", f"v{n}") for n in range(int(variant[1]) - 1, 1, -1)
                )
                yield Platform(platform.os, "amd64")
            yield Platform(platform.os, "386")
        case "arm64", variant:
            if variant is not None:
                yield Platform(platform.os, "arm64")
            yield from (Platform(platform.os, "arm", f"v{n}") for n in range(8, 4, -1))
        case "arm", ("v6" | "v7" | "v8") as variant:
            yield from (Platform(platform.os, "arm", f"v{n}") for n in range(int(variant[1]) - 1, 4, -1))


def _short(value: object, *, quote: bool = True) -> str:
    """A stranger's value for a message: it may be megabytes long."""
    text = repr(value) if quote else str(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConversionError(f"{what} is not valid: it must be an object")
    return value


def _descriptor(value: dict[str, Any], where: str) -> Descriptor:
    size = value.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _MAX_SIZE:
        raise ConversionError(f"the manifest is not valid: a size in {where} is {_short(size)}")
    media_type = value.get("mediaType") or ""
    annotations = value.get("annotations") or {}
    urls = value.get("urls") or []
    if not isinstance(media_type, str) or not isinstance(annotations, dict) or not isinstance(urls, list):
        raise ConversionError(f"the manifest is not valid: a descriptor in {where} has fields of wrong types")
    return Descriptor(
        media_type=media_type,
        digest=check_digest(value.get("digest")),
        size=size,
        platform=_platform(value.get("platform")),
        annotations={k: v for k, v in annotations.items() if isinstance(v, str)},
        urls=tuple(url for url in urls if isinstance(url, str)),
    )


def _platform(value: Any) -> Platform | None:
    if not isinstance(value, dict):
        return None
    parts = [value.get(key) or "" for key in ("os", "architecture", "variant")]
    if not all(isinstance(part, str) for part in parts):
        raise ConversionError("the manifest is not valid: a platform has fields of wrong types")
    return Platform(parts[0], parts[1], parts[2] or None)
