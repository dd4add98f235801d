"""Where an image is: `docker-archive:FILE`, `docker://HOST/REPO:TAG`, and the machine name that it gives.

The transports are those of https://github.com/containers/image (containers-transports.5), and `container:`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Literal

from converter.errors import ConversionError
from converter.image.content import exists, transport_of
from converter.image.name import IMAGE_ID, is_image_name, parse_image_name

Transport = Literal[
    "docker-daemon", "container", "docker-archive", "oci", "oci-archive", "docker", "image", "dockerfile"
]

_CONTAINER = re.compile(r"/?[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_FILE_SUFFIX = re.compile(r"\.(?:tar|oci|docker|tgz|tbz2?|txz|tzst|gz|bz2|xz|zstd?)$", re.IGNORECASE)
_DOCKERFILE_AFFIX = re.compile(r"^(?:docker|container)file\.|\.(?:docker|container)file$", re.IGNORECASE)
_MACHINE = re.compile(r"[a-zA-Z0-9]+(?:(?:-+|\.)[a-zA-Z0-9]+)*")
_MACHINE_LENGTH = 64  # HOST_NAME_MAX: the machine's name is its host name too
# How systemd tells images and settings apart in /var/lib/machines: a directory NAME.v holds versions of NAME.
_MACHINE_SUFFIX = re.compile(r"\.(raw|v|mstack|nspawn)$", re.IGNORECASE)


@dataclass(frozen=True)
class Reference:
    """A transport; the name of the image, container, file or folder there; and the image's name within a file.

    The transport "image" is a bare image name: the daemon's if the daemon has it, else the registry's.
    """

    transport: Transport
    name: str
    tag: str | None = None

    def __str__(self) -> str:
        start = {"image": "", "docker": "docker://"}.get(self.transport, f"{self.transport}:")
        return f"{start}{self.name}" + (f":{self.tag}" if self.tag else "")

    def full(self) -> str:
        """The reference, the same from whatever directory it was written."""
        if self.transport in {"docker-archive", "oci-archive", "oci", "dockerfile"}:
            return str(replace(self, name=str(Path(self.name).absolute())))
        return str(self)


def parse_reference(text: str) -> Reference:
    """Read a SOURCE as it stands on the command line, with or without its transport.

    Only a path without a transport has to exist. Raises ConversionError when the text means nothing.
    """
    transport, _, rest = text.partition(":")
    match transport:
        case "docker" if rest.startswith("//"):
            parse_image_name(rest[2:])
            return Reference("docker", rest[2:])
        case "docker-daemon" if ":" in text:
            _check_daemon_name(rest)
            return Reference("docker-daemon", rest)
        case "container" if ":" in text:
            if not _CONTAINER.fullmatch(rest):
                raise ConversionError(f"'{rest}' is not a container's name or ID; docker ps -a lists them")
            return Reference("container", rest.removeprefix("/"))
        case "dockerfile" if ":" in text:
            if not rest:
                raise ConversionError(
                    "'dockerfile:' names no file; write dockerfile:PATH, of a file or its folder"
                )
            return Reference("dockerfile", rest)
        case "docker-archive" | "oci-archive" | "oci" if ":" in text:
            return _file_reference(transport, rest)
        case _:
            return recognise(text) or _image_reference(text)


def recognise(text: str) -> Reference | None:
    """Tell by its content what an existing `PATH` or `PATH:TAG` is; None: it can only be an image's name.

    The longest path that exists counts. Raises ConversionError, with what it is instead, when it is no image.
    """
    existing = next((split for split in _splits(text) if exists(Path(split[0]))), None)
    if existing is None:
        return None
    path, tag = existing
    try:
        transport = transport_of(Path(path))
        if transport == "dockerfile" and tag is not None:
            raise ConversionError(f"'{path}' is a Dockerfile, and there is no '{text}'")
        return Reference(transport, path, tag)
    except ConversionError as error:
        if not is_image_name(text):
            raise
        if tag is not None:  # a folder `debian` does not stand in the way of debian:12
            return None
        hint = f"for the image of that name write docker-daemon:{text} or docker://{text}"
        raise ConversionError(f"{error}; {hint}") from error


def _check_daemon_name(name: str) -> None:
    if not IMAGE_ID.fullmatch(name):
        parse_image_name(name)


def _image_reference(text: str) -> Reference:
    if text.startswith((".", "/", "~")) or _FILE_SUFFIX.search(text.partition(":")[0]):
        raise ConversionError(f"there is no file or folder '{text}'")
    _check_daemon_name(text)
    return Reference("image", text)


def _file_reference(transport: Literal["docker-archive", "oci-archive", "oci"], rest: str) -> Reference:
    first_colon = (rest.partition(":")[0], rest.partition(":")[2] or None)  # what containers/image does
    path, tag = next((split for split in _splits(rest) if exists(Path(split[0]))), first_colon)
    if not path:
        raise ConversionError(
            f"'{transport}:{rest}' names no file; write {transport}:PATH or {transport}:PATH:TAG"
        )
    return Reference(transport, path, tag)


def _splits(text: str) -> Iterator[tuple[str, str | None]]:
    """Every way to read PATH[:TAG], the longest path first."""
    if text:
        yield text, None
    for at in range(len(text) - 2, 0, -1):
        if text[at] == ":":
            yield text[:at], text[at + 1 :]


def machine_name(reference: Reference) -> str:
    """A valid machine name that a person would have chosen: `ghcr.io/acme/Web_App:1.2` -> `web-app-1.2`.

    The tag `latest` is left out; of a digest the first twelve digits stay. The same reference always gives
    the same name, but two references may give one name.
    """
    if reference.transport in ("docker-archive", "oci-archive", "oci"):
        tag = reference.tag or ""
        if (tag and reference.transport == "docker-archive") or set("/:@") & set(tag):
            words = _image_words(tag)
        else:
            words = [_file_stem(reference.name), "" if tag == "latest" else tag]
    elif reference.transport == "dockerfile":
        words = [_dockerfile_word(reference.name)]
    elif reference.transport == "container":
        words = [reference.name]
    else:
        words = _image_words(reference.name)
    return _made_valid("-".join(filter(None, words)), str(reference))


def check_machine_name(name: str) -> None:
    """Check a name that a user chose.

    Raises ConversionError, with a similar valid name, when systemd would not take it: machine_name_is_valid()
    is hostname_is_valid() in its src/basic/hostname-util.c.
    """
    if len(name) > _MACHINE_LENGTH:
        reason = f"it has more than {_MACHINE_LENGTH} characters"
    elif not _MACHINE.fullmatch(name):
        reason = "it takes letters, digits and, between them, '-' and '.'"
    elif suffix := _MACHINE_SUFFIX.search(name):
        reason = f"systemd gives the ending '{suffix[0]}' a meaning of its own"
    else:
        return
    raise ConversionError(f"'{name}' cannot be a machine's name: {reason}; try '{_made_valid(name, name)}'")


def _image_words(text: str) -> list[str]:
    if IMAGE_ID.fullmatch(text):
        return [text.removeprefix("sha256:")[:12]]
    name, _, digest = text.partition("@")
    repository, _, tag = name.rpartition("/")[2].partition(":")
    return [repository, "" if tag == "latest" else tag, digest.partition(":")[2][:12]]


def _dockerfile_word(path: str) -> str:
    """What tells this Dockerfile from others: web.Dockerfile and Dockerfile.web are `web`, else its folder's name."""
    name = Path(path).name
    if Path(path).is_dir() or name.lower() in {"dockerfile", "containerfile"}:
        return (Path(path) if Path(path).is_dir() else Path(path).parent).resolve().name
    return _DOCKERFILE_AFFIX.sub("", name) or name


def _file_stem(path: str) -> str:
    name = Path(path).name or Path(path).absolute().name
    if name == "..":
        name = Path(path).resolve().name
    while (shorter := _FILE_SUFFIX.sub("", name)) not in (name, ""):
        name = shorter
    return name


def _made_valid(wish: str, source: str) -> str:
    """`wish` without what systemd does not allow; `source` tells two names apart when too little is left."""
    ascii_only = unicodedata.normalize("NFKD", wish).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9.]+", "-", ascii_only)
    name = re.sub(r"[.-]{2,}", "-", name).strip(".-")
    name = _MACHINE_SUFFIX.sub(r"-\1", name)
    mark = sha256(source.encode(errors="surrogatepass")).hexdigest()[:8]
    if len(name) > _MACHINE_LENGTH:
        return f"{name[: _MACHINE_LENGTH - len(mark) - 1].rstrip('.-')}-{mark}"
    return name or f"machine-{mark}"
