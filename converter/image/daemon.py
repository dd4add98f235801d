"""Images and containers of a Docker Engine, through Docker's own SDK; the daemon is only ever read from.

An image comes as `docker save` hands it out, not as the export of a container: an export replaces /etc/hosts,
/etc/hostname, /etc/resolv.conf and /etc/mtab by stubs, adds /.dockerenv and entries below /dev, stamps /, /etc
and /dev anew and drops user.* xattrs, while the saved layers are exact and each is verified by its diff id.
So no container has to be made for it.

A container is its image's layers and on top the paths that `docker diff` names, taken from its export. Only
where the image is gone from the daemon does the whole export have to do, without what the engine put in.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

import docker
import docker.context
import docker.errors
import requests

from converter.errors import ConversionError, PassingError
from converter.image.archive import open_archive
from converter.image.config import parse_container_config
from converter.image.model import Image, Layer, Platform, UnpackedLayer
from converter.image.overlay import stored_changes, stored_image
from converter.progress import Progress

_UCRED = struct.Struct("iii")  # struct ucred: pid, uid, gid; unix(7)
_TIMEOUT = 600  # seconds without a byte: an engine prepares `save` for minutes before it sends the first one

# moby daemon/initlayer: made in every container, whatever the image has there.
_STUB_DIRECTORIES = frozenset({"dev/pts", "dev/shm"})
_STUB_FILES = frozenset({".dockerenv", "dev/console", "etc/hosts", "etc/hostname", "etc/resolv.conf"})
_STUB_LINKS = {"etc/mtab": "/proc/mounts"}


def connect() -> docker.DockerClient:
    """The engine that `docker` itself would speak to: DOCKER_HOST, else DOCKER_CONTEXT, else the current context.

    Raises ConversionError when it cannot be reached.
    """
    try:
        if os.environ.get("DOCKER_HOST"):
            client = docker.from_env(timeout=_TIMEOUT)
        else:
            client = _connect_context(os.environ.get("DOCKER_CONTEXT"))
        client.ping()
    except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as error:
        raise PassingError(
            f"no Docker daemon: {_innermost(error)}; start it, set DOCKER_HOST, or use another source "
            "(docker://, docker-archive:, oci:)"
        ) from None
    return client


def _connect_context(name: str | None) -> docker.DockerClient:
    context = docker.context.ContextAPI.get_context(name) if name else None
    if name and context is None:
        raise ConversionError(f"no Docker context {name!r}; `docker context ls` lists them")
    if context is None:
        context = docker.context.ContextAPI.get_current_context()
    if context is None or context.Name == "default" or not context.Host:
        return docker.from_env(timeout=_TIMEOUT)
    tls = context.TLSConfig
    return docker.DockerClient(base_url=context.Host, tls=tls or False, timeout=_TIMEOUT, version="auto")


@dataclass(frozen=True)
class Listed:
    """A container or an image as the engine lists it, with its names in sorted order: of an image the tags, else the
    names by digest; none, if it has neither."""

    names: tuple[str, ...]
    labels: Mapping[str, str]


def list_containers() -> tuple[Listed, ...]:
    """All containers, running or not. Raises ConversionError when the daemon cannot be reached or fails."""
    client = connect()
    with _engine_errors("listing the Docker daemon's containers"):
        found = client.api.containers(all=True)
    # A name with a second slash is what another container calls it by a link.
    names = [sorted(name[1:] for name in entry["Names"] if name.count("/") == 1) for entry in found]
    return tuple(
        Listed(tuple(own or [entry["Id"]]), entry.get("Labels") or {})
        for own, entry in zip(names, found, strict=True)
    )


def list_images() -> tuple[Listed, ...]:
    """All images but those that are only layers of others. Raises ConversionError as list_containers does."""
    client = connect()
    with _engine_errors("listing the Docker daemon's images"):
        found = client.api.images()
    return tuple(
        Listed(
            _real_names(entry.get("RepoTags")) or _real_names(entry.get("RepoDigests")),
            entry.get("Labels") or {},
        )
        for entry in found
    )


def _real_names(names: Iterable[str] | None) -> tuple[str, ...]:
    return tuple(sorted(name for name in names or () if "<none>" not in name))


def has_image(reference: str) -> bool:
    """Does a daemon answer here, and does it have this image?"""
    return image_id(reference) is not None


def image_id(reference: str) -> str | None:
    """The ID of the image of that name; None when no daemon answers here, or it has none such."""
    try:
        return str(_inspect(connect().api.inspect_image, reference, f"image {reference!r}")["Id"])
    except ConversionError:
        return None


@dataclass(frozen=True)
class Seen:
    """What `docker inspect` says of an image, or of a container and its image: nothing of it is read."""

    digest: str
    diff_ids: tuple[str, ...]
    container: Mapping[str, Any] | None = None


def look(name: str, *, container: bool) -> Seen:
    """Look at an image or a container. Raises ConversionError when there is none such or the daemon fails."""
    client = connect()
    inspected = None
    if container:
        inspected = _inspect(client.api.inspect_container, name, f"container {name!r}")
        name = inspected["Image"]
    try:
        image = _inspect(client.api.inspect_image, name, f"image {name!r}")
    except ConversionError:
        if inspected is None:
            raise
        return Seen(name, (), inspected)
    return Seen(image["Id"], tuple((image.get("RootFS") or {}).get("Layers") or ()), inspected)


def open_image(reference: str, *, platform: Platform | None, spool: Path, progress: Progress) -> Image:
    """The daemon's image `reference` (a name, a tag, an ID), saved into the directory `spool`.

    Raises ConversionError when there is no such image or the daemon fails.
    """
    client = connect()
    inspected = _inspect(client.api.inspect_image, reference, f"image {reference!r}")
    image = _image(client, inspected, platform=platform, spool=spool, progress=progress)
    return replace(image, source=f"docker-daemon:{reference}")


def open_container(name: str, *, spool: Path, progress: Progress) -> Image:
    """The container `name`, running or not: its own file system and its effective config.

    Raises ConversionError when there is no such container or the daemon fails.
    """
    client = connect()
    inspected = _inspect(client.api.inspect_container, name, f"container {name!r}")
    config = parse_container_config(inspected.get("Config") or {})
    if config.hostname == inspected["Id"][:12]:
        config = replace(config, hostname="")  # Docker's default, not anybody's choice
    source = f"container:{inspected['Name'].lstrip('/')}"
    stem = {
        "source": source,
        "config": config,
        "container": inspected,
        "docker_root": _root_directory(client),
    }
    try:
        saved = _inspect(client.api.inspect_image, inspected["Image"], "the container's image")
    except ConversionError:
        layer = _export(client, inspected, spool, progress, _without_stubs)
        return Image(
            **stem,
            digest=inspected["Image"],
            platform=Platform("linux", _architecture(client)),
            layers=(layer,),
            losses=(
                "the container's image is gone from the daemon, so the tree is `docker export`'s: the image's own "
                "/etc/hosts, /etc/hostname, /etc/resolv.conf, /etc/mtab and user.* xattrs are not in it",
            ),
        )
    image = _image(client, saved, platform=None, spool=spool, progress=progress)
    layers = image.layers
    changed = stored_changes(inspected, spool / "changes.tar") if _is_here(layers) else None
    if changed is not None:
        layers += (changed,)
    elif changes := _inspect(client.api.diff, inspected["Id"], f"container {name!r}"):
        layers += (_export(client, inspected, spool, progress, _only(changes)),)
    return replace(image, **stem, digest=inspected["Image"], layers=layers)


def _root_directory(client: docker.DockerClient) -> Path | None:
    """The root directory of the daemon's host as this host sees it; None when the daemon is not on this one."""
    adapter = getattr(client.api, "_custom_adapter", None)
    path = getattr(adapter, "socket_path", None)
    if path is None:
        return None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.connect(path)
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        except OSError:
            return None
    # The daemon, or the init that listened for it, may be in a mount namespace of another system.
    pid, _, _ = _UCRED.unpack(credentials)
    root = Path(f"/proc/{pid}/root")
    return root if pid and root.is_dir() else Path("/")


def _is_here(layers: Iterable[Layer | UnpackedLayer]) -> bool:
    """Were the layers found on this host, so that it is the daemon's?"""
    return any(isinstance(layer, UnpackedLayer) for layer in layers)


def _image(
    client: docker.DockerClient,
    inspected: Mapping[str, Any],
    *,
    platform: Platform | None,
    spool: Path,
    progress: Progress,
) -> Image:
    """From the daemon's own directory where that can be read, else from what `docker save` gives."""
    try:
        info = client.api.info()
    except (docker.errors.DockerException, requests.exceptions.RequestException):
        info = {}
    image = stored_image(info, inspected["Id"])
    return image or _save(client, inspected, platform=platform, spool=spool, progress=progress)


def _save(
    client: docker.DockerClient,
    inspected: Mapping[str, Any],
    *,
    platform: Platform | None,
    spool: Path,
    progress: Progress,
) -> Image:
    if inspected.get("Os", "linux") != "linux":
        raise ConversionError(f"the image is for {inspected['Os']}; only Linux images can become machines")
    own = Platform("linux", inspected.get("Architecture") or "unknown", inspected.get("Variant") or None)
    path = spool / "save.tar"
    label = f"docker save {inspected['Id'].removeprefix('sha256:')[:12]}"
    with (
        _engine_errors("docker save"),
        progress.step(label, inspected.get("Size")) as step,
        path.open("wb") as f,
    ):
        for chunk in client.api.get_image(inspected["Id"], chunk_size=1 << 20):
            f.write(chunk)
            step.advance(len(chunk))
    image = open_archive(path, None, platform=platform or own, spool=spool, progress=progress, oci=False)
    return replace(image, digest=inspected["Id"])


def _export(
    client: docker.DockerClient,
    inspected: Mapping[str, Any],
    spool: Path,
    progress: Progress,
    chosen: Callable[[Iterable[tarfile.TarInfo]], Iterator[tarfile.TarInfo]],
) -> Layer:
    """A layer made of the chosen entries of a container's export."""
    path = spool / "export.tar"
    label = f"docker export {inspected['Name'].lstrip('/')}"
    with _engine_errors("docker export"), progress.step(label, None) as step:
        chunks = client.api.export(inspected["Id"], chunk_size=1 << 20)
        stream = cast(BinaryIO, _Chunks(chunks, step.advance))  # tarfile only ever calls read
        try:
            with (
                tarfile.open(fileobj=stream, mode="r|", bufsize=1 << 20) as source,
                tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as target,
            ):
                for entry in chosen(source):
                    # A whiteout of ours is not in the source; its size is 0.
                    data = source.extractfile(entry) if entry.isreg() and entry.size else None
                    target.addfile(entry, data)
                    source.members = target.members = []  # type: ignore[attr-defined] # tarfile keeps them all
        except tarfile.TarError as error:
            raise ConversionError(f"the engine's export of the container is damaged: {error}") from None
    return Layer(path=path, offset=0, size=path.stat().st_size)


def _only(changes: list[dict[str, Any]]) -> Callable[[Iterable[tarfile.TarInfo]], Iterator[tarfile.TarInfo]]:
    """Choose what `docker diff` calls changed (0) or added (1), and a whiteout for what it calls deleted (2)."""
    kept = {change["Path"].strip("/") for change in changes if change["Kind"] != 2}
    deleted = [change["Path"].strip("/") for change in changes if change["Kind"] == 2]

    def choose(entries: Iterable[tarfile.TarInfo]) -> Iterator[tarfile.TarInfo]:
        for path in deleted:
            directory, _, name = path.rpartition("/")
            yield tarfile.TarInfo(f"{directory}/.wh.{name}".lstrip("/"))
        for entry in entries:
            if entry.name.strip("/") in kept:
                yield entry

    return choose


def _without_stubs(entries: Iterable[tarfile.TarInfo]) -> Iterator[tarfile.TarInfo]:
    for entry in entries:
        name = entry.name.strip("/")
        stub = (
            (name in _STUB_FILES and entry.isreg() and entry.size == 0)
            or (name in _STUB_DIRECTORIES and entry.isdir())
            or (entry.issym() and _STUB_LINKS.get(name) == entry.linkname)
        )
        if not stub:
            yield entry


class _Chunks:
    """The file-like object that tarfile reads a stream of chunks through."""

    name = "export"

    def __init__(self, chunks: Iterator[bytes], seen: Callable[[int], None]) -> None:
        self._chunks = chunks
        self._seen = seen
        self._rest = b""

    def read(self, size: int) -> bytes:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._seen(len(chunk))
            self._rest = chunk
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


def _architecture(client: docker.DockerClient) -> str:
    return str(client.api.version().get("Arch", "unknown"))


def _inspect(call: Callable[[str], Any], name: str, what: str) -> Any:
    try:
        return call(name)
    except docker.errors.NotFound:
        raise ConversionError(f"the Docker daemon has no {what}") from None
    except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
        raise ConversionError(f"the Docker daemon cannot show {what}: {_innermost(error)}") from None


class _engine_errors:
    """Turns what the SDK raises in the middle of a transfer into one line."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, (docker.errors.DockerException, requests.exceptions.RequestException)):
            raise ConversionError(f"{self._what} failed: {_innermost(error)}") from None


def _innermost(error: BaseException) -> str:
    """The part of a nested SDK error that tells a person something."""
    if isinstance(error, docker.errors.APIError) and error.explanation:
        return str(error.explanation)
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    try:
        return str(json.loads(str(error)).get("message"))
    except (ValueError, AttributeError):
        return str(error)
