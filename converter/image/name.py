"""Image names as Docker reads them: `busybox` is docker.io/library/busybox:latest.

The grammar is https://github.com/distribution/reference (reference.go, normalize.go).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from converter.errors import ConversionError

DIGEST = re.compile(r"[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[0-9a-fA-F]{32,}")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_DOMAIN = re.compile(
    r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*"
    r"|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
)
_PATH = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*")
_MAX_LENGTH = 255 + 1 + 128 + 1 + 200  # name, tag, digest
IMAGE_ID = re.compile(r"(?:sha256:)?[0-9a-f]{64}")


@dataclass(frozen=True)
class ImageName:
    """A name in full. Where neither tag nor digest was given, the tag is `latest`."""

    domain: str
    path: str
    tag: str | None
    digest: str | None

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.domain}/{self.path}{tag}{digest}"


def parse_image_name(text: str) -> ImageName:
    """Read `[registry[:port]/]repository[:tag][@digest]`.

    Raises ConversionError when Docker would not take it as the name of an image either.
    """
    if len(text) > _MAX_LENGTH:
        raise ConversionError(
            f"'{text[:40]}…' is not an image name: it has more than {_MAX_LENGTH} characters"
        )
    rest, at, digest = text.partition("@")
    if at and not DIGEST.fullmatch(digest):
        raise ConversionError(f"'{text}' is not an image name: '{digest}' is not a digest like sha256:4f53…")
    domain, slash, path = rest.partition("/")
    if not slash or not (set(".:[") & set(domain) or domain == "localhost" or domain != domain.lower()):
        domain, path = "docker.io", rest
    path, colon, tag = path.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise ConversionError(
            f"'{text}' is not an image name: the tag '{tag}' may hold only letters, digits, '_', '.' and '-'"
        )
    if domain == "index.docker.io":
        domain = "docker.io"
    if domain == "docker.io" and "/" not in path:
        path = f"library/{path}"
    if not _DOMAIN.fullmatch(domain):
        raise ConversionError(f"'{text}' is not an image name: '{domain}' is not a registry's host name")
    if path != path.lower():
        raise ConversionError(f"'{text}' is not an image name: repository names are lower case")
    if (
        len(domain) + 1 + len(path) > 255
        or IMAGE_ID.fullmatch(path.removeprefix("library/"))
        or not all(_PATH.fullmatch(part) for part in path.split("/"))
    ):
        raise ConversionError(
            f"'{text}' is not an image name; write it like debian:12 or ghcr.io/acme/web:1.2"
        )
    return ImageName(domain, path, tag or ("latest" if not at else None), digest or None)


def is_image_name(text: str) -> bool:
    """Whether Docker would take `text` as the name of an image."""
    return full_name(text) is not None


def full_name(text: str) -> str | None:
    """The name in full, so that two spellings of one name compare equal; None when it is not a name."""
    try:
        return str(parse_image_name(text))
    except ConversionError:
        return None
